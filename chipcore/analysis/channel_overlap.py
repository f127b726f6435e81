"""What rows of W have in common: shared important channels (Fig. 11 of the paper) and cosines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from chipcore.errors import SettingsError
from chipcore.importance import Importance, Ranking

TOP = 10  # Fig. 11, left: a class's ten most important channels
SHARE = 1e-3  # Fig. 11, right: channels above one thousandth of the class's largest weight


def top_sets(W: np.ndarray, count: int) -> np.ndarray:
    """Per row its ``count`` channels of largest positive importance (Fig. 11, left), bool (n, K).

    Example:
        >>> top_sets(np.array([[3.0, -9.0, 1.0, 2.0]]), 2).astype(int).tolist()
        [[1, 0, 0, 1]]
    """
    count = min(count, W.shape[1])
    # By the smallest weight that is still among them: sorting a thousand rows took a tenth of a second.
    least = torch.topk(torch.from_numpy(W), count, dim=1).values[:, -1:].numpy()
    sets = least < W
    equal = least == W  # of those the first channels, as many as there is room for
    sets |= equal & (equal.cumsum(1) <= count - sets.sum(1, keepdims=True))
    sets &= W > 0
    return sets


def above_sets(W: np.ndarray, share: float = SHARE) -> np.ndarray:
    """Per row its channels above ``share`` of the largest (Fig. 11, right), bool (n, K).

    Example:
        >>> above_sets(np.array([[1000.0, 2.0, 0.5, -5.0]])).astype(int).tolist()
        [[1, 1, 0, 0]]
    """
    return (share * W.max(1, keepdims=True) < W) & (W > 0)


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Cosines between the rows of (n, K) and of (m, K), shape (n, m); 0 for a row of zeros.

    Example:
        >>> cosines(np.array([[1.0, 0.0], [0.0, 0.0]]), np.array([[2.0, 0.0], [0.0, 3.0]])).tolist()
        [[1.0, 0.0], [0.0, 0.0]]
    """
    lengths = [np.linalg.norm(rows, axis=1, keepdims=True) for rows in (one, other)]
    units = [rows / np.where(length > 0, length, 1) for rows, length in zip((one, other), lengths, strict=True)]
    return units[0] @ units[1].T


def arrays(
    importance: Importance, classes: Sequence[int], top: int = TOP, share: float = SHARE, by: Ranking = "weight"
) -> dict[str, np.ndarray]:  # fmt: skip
    """Rows of W and what they share, by name.

    ``by`` is what channels are ranked and rows compared by: the paper's weight, or the contribution to the class's score.

    Returns:
        ``classes`` (n,); ``W`` (n, K); ``r2``, ``support``, ``images`` and ``evidence_mass`` (n,) as in a file of W; ``top`` and
        ``above`` (n, K), bool: the important channels of each class in both senses of Fig. 11; ``shared`` (n, n), how many
        of the top ones two classes share, ``jaccard`` that as a share of those in either; ``cosine`` (n, n) of the rows.

    Raises:
        SettingsError: ``top`` or ``share`` out of range.
    """
    if top < 1 or not 0 <= share < 1:
        raise SettingsError(f"top is {top} and above {share}; give a whole number from 1 on and a share below 1.")
    rows = list(classes)
    W, ranked = importance.W[rows].numpy(), importance.ranking(by)[rows].numpy()
    sets = top_sets(ranked, top)
    counted = sets.astype(np.float32)
    shared = (counted @ counted.T).astype(np.int64)
    own = sets.sum(1)
    either = own[:, None] + own[None] - shared
    told = {name: getattr(importance, name)[rows].numpy() for name in ("r2", "support", "images", "evidence_mass")}
    return {
        "classes": np.array(rows, dtype=np.int64), "W": W, **told, "top": sets, "above": above_sets(ranked, share), "shared": shared,
        "jaccard": shared / np.maximum(either, 1), "cosine": cosines(ranked, ranked),
    }  # fmt: skip
