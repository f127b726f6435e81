"""Numbers and names as text."""

from __future__ import annotations

import math


def readable(value: float) -> str:
    """A number with three significant digits, a true minus sign, and no exponent where it can be helped."""
    if math.isnan(value):
        return "not defined"
    if value == 0:
        return "0"
    digits = max(0, 2 - int(f"{value:.2e}"[-3:]))  # of the rounded number: 0.9997 is 1.00
    text = f"{value:,.{digits}f}" if 1e-4 <= abs(value) < 1e5 else f"{value:.1e}"
    return text.replace("-", "\N{MINUS SIGN}")


def decimal(value: float, digits: int = 2) -> str:
    """A number with so many digits after the point, a true minus sign, and no minus before a zero."""
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if not float(text) else text.replace("-", "\N{MINUS SIGN}")


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
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} hours" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days"
