"""The methods, by name: CHIP and its rivals, one call and one geometry for all."""

# isort: off  (the order of registration is the order in which people are offered the methods)
from chipcore.methods import chip, local_chip, gradcam, backpropagation, lime, cmwp, cam, occlusion, deepdraw  # noqa: F401, I001
from chipcore.methods.base import METHODS, Explanation, Method, Properties, Request, Saliency, explain, register

# isort: on
__all__ = ["METHODS", "Explanation", "Method", "Properties", "Request", "Saliency", "explain", "register"]
