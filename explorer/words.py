"""Numbers and names as text."""

from __future__ import annotations

import math


def readable(value: float) -> str:
    """A number with three significant digits, and no exponent where it can be helped."""
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e5:
        return f"{value:.1e}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def percent(share: float) -> str:
    """A probability as people say it."""
    return "under 1%" if share < 0.01 else f"{share:.0%}"


def plain(text: str) -> str:
    """Text that Markdown must not read, on one line: a file may be called ``*_*.jpg``, a class ``a`` and then ``# b``."""
    return "".join("\\" + letter if letter in "\\`*_{}[]<>()#+!|$~:&" else letter for letter in " ".join(text.splitlines()))


def duration(seconds: float) -> str:
    """A time to wait, no more exact than it is known."""
    if seconds < 100:
        return f"{max(1, seconds):.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days"
