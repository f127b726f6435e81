"""Garbage is still collected, but what stays for good is not looked through after every run."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from explorer.services import memory


@pytest.fixture(autouse=True)
def thaw() -> Iterator[None]:
    yield
    gc.unfreeze()


class Knot:
    """Refers to itself, so that only the collector can let it go."""

    def __init__(self) -> None:
        self.itself = self


def test_what_is_loaded_is_frozen_and_new_garbage_is_collected() -> None:
    memory.settle()
    assert gc.get_freeze_count() > 10_000
    assert len(gc.get_objects()) < 10_000, "what a collection has to look through"
    gone = weakref.ref(Knot())
    gc.collect()
    assert gone() is None


def test_what_was_frozen_and_let_go_is_collected_at_the_next_settling() -> None:
    knot = Knot()
    gone = weakref.ref(knot)
    memory.settle()
    del knot
    gc.collect()
    assert gone() is not None, "frozen"
    memory.settle()
    assert gone() is None
