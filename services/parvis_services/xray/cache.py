"""A small cache for what is the same for every image of a detector."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Cache(Generic[T]):
    """The most recently used things, made when first asked for. Safe to share between threads."""

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._lock = threading.Lock()
        self._things: OrderedDict[Hashable, T] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """What is kept under `key`, made by `make` if nothing is."""
        with self._lock:
            if key not in self._things:
                self._things[key] = make()
                if len(self._things) > self._max_size:
                    self._things.popitem(last=False)
            self._things.move_to_end(key)
            return self._things[key]
