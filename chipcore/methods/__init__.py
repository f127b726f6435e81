"""The methods, by name: CHIP and its rivals, one call and one geometry for all."""

import importlib
import pkgutil

from chipcore.methods.base import METHODS, Explanation, Method, MethodInputs, Properties, explain, explain_view, register
from chipcore.methods.many import explain_many
from chipcore.methods.saliency import Saliency

# Every module of this package registers its methods when it is imported: a new method is a new file, and no list of them is kept.
for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = [
    "METHODS",
    "Explanation",
    "Method",
    "MethodInputs",
    "Properties",
    "Saliency",
    "explain",
    "explain_many",
    "explain_view",
    "register",
]
