"""LayerCAM (Jiang et al. 2021): each place of a channel weighed by its own gradient, so that shallow layers have fine maps."""

from __future__ import annotations

from chipcore.methods.base import Explanation, MethodInputs, Properties, register
from chipcore.methods.gradcam import cut, feature_gradient


@register(
    "layercam", "LayerCAM", "Jiang et al. 2021, https://doi.org/10.1109/TIP.2021.3089943",
    Properties(instance=("gradient",), class_discriminative=True, multi_layer=True), order=54, uses_layer=True, from_features=True, prepare=cut,
)  # fmt: skip
def layercam(request: MethodInputs) -> Explanation:
    """L = sum_k relu(g_k) A_k, point by point, with g_k the class score's gradient at channel k, shape (u, v).

    One pass for the features, one forward and one backward through what follows the layer.
    """
    features, gradient = feature_gradient(request)
    return Explanation((gradient.clamp(min=0) * features).sum(0), passes=3)
