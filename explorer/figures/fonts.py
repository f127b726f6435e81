"""A font that has the letters of a class name: Matplotlib's own where it does, else one that is installed on this machine."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import matplotlib
from PIL import ImageFont

OWN = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"  # Pillow's own has no superscript for R²


def font(text: str, pixels: int) -> ImageFont.FreeTypeFont:
    """The font for a line of text, ``pixels`` high: the one that lacks the fewest of its letters."""
    return ImageFont.truetype(best_file(text), pixels)


def best_file(text: str) -> Path:
    """The file of that font; Matplotlib's own for all that it has, which is Latin, Greek, Cyrillic, Arabic and more."""
    wanted = _letters(text)
    lacking = wanted - _has(OWN)
    if not lacking:
        return OWN
    return min((OWN, *_installed()), key=lambda file: len(wanted - _has(file)))


def missing_letters(texts: Iterable[str]) -> str:
    """Letters of these lines that no font on this machine has, each once: they would be drawn as boxes."""
    return "".join(sorted({letter for text in texts for letter in map(chr, _letters(text) - _has(best_file(text)))}))


def families(text: str) -> list[str]:
    """What Matplotlib takes as ``family`` for a text: its own font, and behind it the one for what that lacks."""
    from matplotlib.font_manager import FontProperties

    return ["DejaVu Sans", *([FontProperties(fname=file).get_name()] if (file := best_file(text)) != OWN else [])]


def _letters(text: str) -> set[int]:
    return {ord(letter) for letter in text if not letter.isspace() and unicodedata.category(letter) not in ("Cc", "Cf")}


@cache
def _installed() -> tuple[Path, ...]:
    from matplotlib.font_manager import fontManager  # reads the system's fonts: only for letters that our own lacks

    # "Last Resort" has every letter, as a box with the name of its script.
    found = {Path(entry.fname) for entry in fontManager.ttflist if entry.style == "normal" and "lastresort" not in entry.fname.lower()}
    return tuple(sorted(found - {OWN}))


@cache
def _has(file: Path) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(str(file)).get_charmap())
    except (OSError, RuntimeError):  # removed since, or broken
        return frozenset()
