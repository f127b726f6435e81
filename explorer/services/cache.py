"""What is kept for all visitors, bounded by what it weighs and not by how many there are.

Forty images seen by a network with an input of 224 pixels take 0.6 GB, by one with 1,024 pixels 12 GB; so a cache that
counts entries promises nothing. Nothing in here knows Streamlit.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Generic, ParamSpec, TypeVar
from weakref import WeakValueDictionary

import numpy as np
import torch
from PIL import Image
from torch import nn

MB = 2**20
T = TypeVar("T")
P = ParamSpec("P")
R = TypeVar("R")


SHELVES: WeakValueDictionary[str, Shelf[Any]] = WeakValueDictionary()  # by name, for whoever wants to know what is kept


class Shelf(Generic[T]):
    """The values that were asked for last, at most ``megabytes`` of them; the newest stays, whatever it weighs.

    Safe to use from any thread. A value that two ask for at once is made once; an error is not kept. One with a ``name``
    is listed in ``SHELVES``.
    """

    def __init__(self, megabytes: float, weigh: Callable[[T], int] | None = None, name: str = "") -> None:
        if name:
            SHELVES[name] = self
        self._most = int(megabytes * MB)
        self._weigh: Callable[[Any], int] = weigh or weight
        self._kept: OrderedDict[Hashable, tuple[T, int]] = OrderedDict()
        self._makers: dict[Hashable, threading.Lock] = {}
        self._lock = threading.Lock()
        self._weight = 0

    @property
    def most(self) -> int:
        """Bytes that may be kept."""
        return self._most

    @property
    def weight(self) -> int:
        """Bytes of all that is kept."""
        return self._weight

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Hashable) -> T | None:
        """What is kept under a key, None where nothing is."""
        with self._lock:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key][0]

    def put(self, key: Hashable, value: T) -> None:
        """Keep a value, in the place of an older one of this key; what was not asked for longest goes."""
        heavy = self._weigh(value)
        with self._lock:
            _old, before = self._kept.pop(key, (None, 0))
            self._kept[key] = value, heavy
            self._weight += heavy - before
            while self._weight > self._most and len(self._kept) > 1:
                _key, (_value, light) = self._kept.popitem(last=False)
                self._weight -= light

    def get_or_make(self, key: Hashable, make: Callable[[], T]) -> T:
        """What is kept under a key; made where nothing is."""
        found = self.get(key)
        if found is not None:
            return found
        with self._lock:
            maker = self._makers.setdefault(key, threading.Lock())
        with maker:
            found = self.get(key)
            if found is None:
                try:
                    found = make()
                    self.put(key, found)
                finally:
                    with self._lock:
                        self._makers.pop(key, None)
            return found

    def clear(self) -> None:
        with self._lock:
            self._kept.clear()
            self._weight = 0


class Kept(Generic[P, R]):
    """A function whose results stand on a shelf; see :func:`kept`."""

    def __init__(self, make: Callable[P, R], shelf: Shelf[R], meanwhile: Callable[[], AbstractContextManager[Any]]) -> None:
        functools.update_wrapper(self, make)
        self.shelf = shelf
        self._make, self._meanwhile = make, meanwhile
        self._names = list(inspect.signature(make).parameters)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        named: dict[str, Any] = {**dict(zip(self._names, args, strict=False)), **kwargs}
        key = tuple((name, value) for name, value in sorted(named.items()) if not name.startswith("_"))

        found = self.shelf.get(key)
        if found is not None:
            return found
        # Outside the shelf's own lock for the key: whoever makes a value waits for nobody.
        with self._meanwhile():
            return self.shelf.get_or_make(key, lambda: self._make(*args, **kwargs))

    def clear(self) -> None:
        self.shelf.clear()


def kept(
    megabytes: float, weigh: Callable[[Any], int] | None = None, meanwhile: Callable[[], AbstractContextManager[Any]] = nullcontext
) -> Callable[[Callable[P, R]], Kept[P, R]]:
    """Share a function's results between visitors, like ``st.cache_resource``: arguments called ``_like_this`` take no part in the key.

    Args:
        megabytes: of all results together.
        weigh: gives the bytes of one; :func:`weight` by default.
        meanwhile: entered while a result is made or waited for.
    """
    return lambda make: Kept(make, Shelf(megabytes, weigh, f"{make.__module__}.{make.__name__}"), meanwhile)


def weight(value: Any) -> int:
    """Bytes of what a value holds: tensors, arrays, pictures, weights of a network, and what contains them."""
    if isinstance(value, torch.Tensor):
        return value.untyped_storage().nbytes()  # a view keeps all of it
    if isinstance(value, np.ndarray):
        return int(value.nbytes)
    if isinstance(value, Image.Image):
        return value.width * value.height * len(value.getbands())
    if isinstance(value, nn.Module):
        return sum(weight(one) for one in (*value.parameters(), *value.buffers()))
    if isinstance(value, Mapping):
        return sum(weight(one) for one in value.values())
    if isinstance(value, (tuple, list)):
        return sum(weight(one) for one in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return sum(weight(getattr(value, field.name)) for field in dataclasses.fields(value))
    return sys.getsizeof(value)
