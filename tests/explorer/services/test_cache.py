"""What is kept for all visitors is bounded by its bytes."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image

from chipcore import Network
from explorer.services.cache import MB, WeightedLRUCache, cached_by_size, size_of


def test_the_size_of_what_is_kept(tiny: Network) -> None:
    @dataclass
    class Both:
        one: torch.Tensor
        other: dict[str, np.ndarray]

    assert size_of(torch.zeros(10, 10)[0]) == 400, "a view keeps all of its storage"
    assert size_of(Image.new("RGB", (4, 5))) == 60
    assert size_of(Both(torch.zeros(3), {"a": np.zeros(2)})) == 12 + 16
    assert size_of(tiny) > sum(4 * one.numel() for one in tiny.model.parameters())


def test_what_was_not_asked_for_longest_goes_when_it_is_too_large() -> None:
    cache: WeightedLRUCache[np.ndarray] = WeightedLRUCache(1)
    small, half, whole = np.zeros(1000, np.uint8), np.zeros(MB // 2, np.uint8), np.zeros(3 * MB, np.uint8)
    cache.put("a", half)
    cache.put("b", small)
    assert cache.get("a") is half
    cache.put("c", half)
    assert cache.get("b") is None and cache.get("a") is half and cache.size == MB
    cache.put("a", small)
    assert cache.size == MB // 2 + 1000, "a new value takes the place of the old one"
    cache.put("d", whole)
    assert cache.get("d") is whole and len(cache) == 1, "the newest stays, whatever its size"
    cache.clear()
    assert len(cache) == 0 and cache.size == 0


def test_only_the_names_without_an_underscore_make_the_key() -> None:
    calls = []

    @cached_by_size(1)
    def double(number: int, _beside: object) -> int:
        calls.append(number)
        return 2 * number

    assert double(1, object()) == double(1, _beside=object()) == double(number=1, _beside=None) == 2 and calls == [1]
    assert double(2, None) == 4 and calls == [1, 2]
    double.clear()
    assert double(1, None) == 2 and calls == [1, 2, 1]


def test_two_at_once_make_a_value_once_and_an_error_is_not_kept() -> None:
    made = []

    @cached_by_size(1)
    def slow(name: str) -> str:
        made.append(name)
        time.sleep(0.05)
        if len(made) == 1:
            raise ValueError("at first")
        return name

    with pytest.raises(ValueError, match="at first"):
        slow("a")
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(slow("a"))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["a"] * 6 and made == ["a", "a"]
