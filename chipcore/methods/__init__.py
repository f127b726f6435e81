"""The methods, by name: CHIP and its rivals, one call and one geometry for all."""

from chipcore.methods import chip  # noqa: F401 (registers itself)
from chipcore.methods.base import METHODS, Explanation, Request, Saliency, explain, register

__all__ = ["METHODS", "Explanation", "Request", "Saliency", "explain", "register"]
