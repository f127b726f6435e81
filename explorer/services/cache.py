"""Caches that all visitors share, bounded by bytes and not by entries.

Forty images seen by a network with an input of 224 pixels take 0.6 GB, by one with 1,024 pixels 12 GB; so a cache that
counts entries promises nothing. The eviction and the waiting are cachetools'; nothing in here knows Streamlit.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
import threading
from collections.abc import Callable, Hashable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Generic, ParamSpec, TypeVar
from weakref import WeakValueDictionary

import cachetools
import numpy as np
import torch
from PIL import Image
from torch import nn

MB = 2**20
T = TypeVar("T")
P = ParamSpec("P")
R = TypeVar("R")

CACHES: WeakValueDictionary[str, WeightedLRUCache[Any]] = WeakValueDictionary()  # by name, for those who measure the server


class WeightedLRUCache(Generic[T]):
    """The values that were asked for last, at most ``megabytes`` of them; the newest stays, whatever its size.

    Safe to use from any thread. One with a ``name`` is listed in ``CACHES``.
    """

    def __init__(self, megabytes: float, size: Callable[[T], int] | None = None, name: str = "") -> None:
        if name:
            CACHES[name] = self
        self.maximum = int(megabytes * MB)
        measure: Callable[[Any], int] = size or size_of
        # cachetools refuses a value that is larger than the cache; counted as all of it, it drives everything else out.
        self.entries: Any = cachetools.LRUCache(self.maximum, lambda value: min(measure(value), self.maximum))
        self.changed = threading.Condition()  # held around every access of the entries

    @property
    def size(self) -> int:
        """Bytes of all values."""
        return int(self.entries.currsize)

    def __len__(self) -> int:
        return len(self.entries)

    def get(self, key: Hashable) -> T | None:
        """The value of a key, None where there is none."""
        with self.changed:
            found: T | None = self.entries.get(key)
        return found

    def put(self, key: Hashable, value: T) -> None:
        """Keep a value, in the place of an older one of this key; what was not asked for longest goes."""
        with self.changed:
            self.entries[key] = value

    def clear(self) -> None:
        with self.changed:
            self.entries.clear()


class CachedFunction(Generic[P, R]):
    """A function whose results are cached; see :func:`cached_by_size`."""

    def __init__(self, make: Callable[P, R], cache: WeightedLRUCache[R], meanwhile: Callable[[], AbstractContextManager[Any]]) -> None:
        functools.update_wrapper(self, make)
        self.cache = cache
        self._names = list(inspect.signature(make).parameters)
        self._meanwhile = meanwhile
        self._get_or_make = cachetools.cached(cache.entries, key=self._key, condition=cache.changed)(make)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        found = self.cache.get(self._key(*args, **kwargs))
        if found is not None:
            return found
        # Entered before the wait for another visitor who makes the same value: the one who makes it waits for nobody.
        with self._meanwhile():
            return self._get_or_make(*args, **kwargs)

    def _key(self, *args: Any, **kwargs: Any) -> Hashable:
        named = {**dict(zip(self._names, args, strict=False)), **kwargs}
        return tuple((name, value) for name, value in sorted(named.items()) if not name.startswith("_"))

    def clear(self) -> None:
        self.cache.clear()


def cached_by_size(
    megabytes: float, size: Callable[[Any], int] | None = None, meanwhile: Callable[[], AbstractContextManager[Any]] = nullcontext
) -> Callable[[Callable[P, R]], CachedFunction[P, R]]:
    """Share a function's results between visitors, like ``st.cache_resource``: arguments called ``_like_this`` take no part in the key.

    A value that two ask for at once is made once; an error is not kept.

    Args:
        megabytes: of all results together.
        size: gives the bytes of one; :func:`size_of` by default.
        meanwhile: entered while a result is made or waited for.
    """
    return lambda make: CachedFunction(make, WeightedLRUCache(megabytes, size, f"{make.__module__}.{make.__name__}"), meanwhile)


def size_of(value: Any) -> int:
    """Bytes of what a value holds: tensors, arrays, pictures, weights of a network, and what contains them."""
    if isinstance(value, torch.Tensor):
        return value.untyped_storage().nbytes()  # a view keeps all of it
    if isinstance(value, np.ndarray):
        return int(value.nbytes)
    if isinstance(value, Image.Image):
        return value.width * value.height * len(value.getbands())
    if isinstance(value, nn.Module):
        return sum(size_of(part) for part in (*value.parameters(), *value.buffers()))
    if isinstance(value, Mapping):
        return sum(size_of(part) for part in value.values())
    if isinstance(value, (tuple, list)):
        return sum(size_of(part) for part in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return sum(size_of(getattr(value, field.name)) for field in dataclasses.fields(value))
    return sys.getsizeof(value)
