"""How long the property-based tests go on, and how a valid file is spoilt.

``CHIP_FUZZ=N pytest tests/robustness/test_properties_*.py`` tries N cases of every property in place of a few.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

CASES = int(os.environ.get("CHIP_FUZZ") or 0)


def cases(quick: int) -> settings:
    """So many cases of a property in CI, CHIP_FUZZ where that is set. CI tries the same ones every time."""
    return settings(
        max_examples=CASES or quick, deadline=None, derandomize=not CASES, database=None, suppress_health_check=list(HealthCheck)
    )


@st.composite
def spoilt(draw: Callable[..., Any], valid: Sequence[bytes]) -> bytes:
    """One of some valid files after a few changes, or bytes that are no file at all."""
    content = bytearray(draw(st.sampled_from([*valid, b""])))
    if not content:
        return bytes(draw(st.binary(max_size=300)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, max(0, len(content) - 1)))
        length = draw(st.integers(1, 40))
        kind = draw(st.sampled_from(("flip", "set", "cut", "insert", "repeat", "end", "swap")))
        if kind == "flip" and content:
            content[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "set" and content:
            content[at : at + 4] = draw(
                st.sampled_from((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"9999", b"-1e9"))
            )
        elif kind == "cut":
            del content[at : at + length]
        elif kind == "insert":
            content[at:at] = draw(st.binary(max_size=12))
        elif kind == "repeat":
            content[at:at] = content[at : at + length] * draw(st.integers(1, 3))
        elif kind == "end":
            del content[at:]
        elif kind == "swap":
            other = draw(st.integers(0, max(0, len(content) - 1)))
            one, two = bytes(content[at : at + 8]), bytes(content[other : other + 8])
            content[at : at + 8], content[other : other + 8] = two, one
    return bytes(content)


# Anything that may stand in a JSON or TOML file.
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8) | st.just("²"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)
