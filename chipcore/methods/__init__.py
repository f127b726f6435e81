"""The methods, by name: CHIP and its rivals, one call and one geometry for all."""

# Each registers itself.
from chipcore.methods import backpropagation, cam, chip, deepdraw, excitation_backprop, gradcam, lime, local_chip, occlusion  # noqa: F401
from chipcore.methods.base import METHODS, Explanation, Method, MethodInputs, Properties, Saliency, explain, explain_view, register

# The order in which people are offered the methods.
for _name in (
    "chip", "refined_chip", "guided_chip", "local_chip", "gradcam", "guided_gradcam", "guided_backprop",
    "backprop", "lime", "cmwp", "cam", "deconvolution", "occlusion", "deepdraw",
):  # fmt: skip
    METHODS[_name] = METHODS.pop(_name)

__all__ = ["METHODS", "Explanation", "Method", "MethodInputs", "Properties", "Saliency", "explain", "explain_view", "register"]
