"""Philox4x32-10, a counter-based generator (Salmon, Moraes, Dror and Shaw 2011), by torch's integer operations.

Random numbers are a function of a key and a counter, so any of them can be computed anywhere, in any order: the same bits on a
CPU and a GPU. Words of 32 bits are kept in int64, and products are put together from halves, so nothing overflows.
"""

from __future__ import annotations

from torch import Tensor

ROUNDS = 10
_WORD, _HALF = 0xFFFFFFFF, 0xFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four random words of 32 bits for every counter.

    Parameters
    ----------
    counter
        Its four words, int64 in 0..2^32 - 1, of shapes that broadcast.
    key
        Its two words, likewise.

    Returns
    -------
    tuple of Tensor
        Four words, int64 in 0..2^32 - 1, of the broadcast shape.

    Examples
    --------
    The first known answer of Random123:

    >>> import torch
    >>> zero = torch.tensor(0)
    >>> [f"{int(word):08x}" for word in philox((zero, zero, zero, zero), (zero, zero))]
    ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    a, b, c, d = counter
    left, right = key
    for _round in range(ROUNDS):
        high_a, low_a = _product(_MULTIPLIERS[0], a)
        high_c, low_c = _product(_MULTIPLIERS[1], c)
        a, b, c, d = high_c ^ b ^ left, low_c, high_a ^ d ^ right, low_a
        left, right = (left + _WEYL[0]) & _WORD, (right + _WEYL[1]) & _WORD
    return a, b, c, d


def _product(multiplier: int, word: Tensor) -> tuple[Tensor, Tensor]:
    """The high and the low word of a product of two words of 32 bits."""
    low = (word & _HALF) * multiplier  # below 2^48
    high = (word >> 16) * multiplier + (low >> 16)  # below 2^49
    return high >> 16, ((high & _HALF) << 16) | (low & _HALF)
