"""Memory for decoded frames, used again: fresh pages cost more than reading an uncompressed file into them."""

from __future__ import annotations

import math
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

_MOST = 4  # frames in flight: one being worked on, one being read, and a caller's or two


class Recycled:
    """Hands out arrays whose memory no earlier array uses any more. Belongs to one burst and goes with it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: list[bytearray] = []  # each a byte longer than its arrays

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """An uninitialised array; its memory comes back by itself when the array and all its views are gone."""
        kind = np.dtype(dtype)
        size = math.prod(shape) * kind.itemsize
        with self._lock:
            # An array over a memoryview keeps the store exported for as long as it or a view of it lives.
            return np.asarray(memoryview(self._idle(size + 1))[:size]).view(kind).reshape(shape)

    def _idle(self, size: int) -> bytearray:
        for store in self._kept:
            if len(store) == size and _is_idle(store):
                return store
        store = bytearray(size)
        if len(self._kept) < _MOST:
            self._kept.append(store)
        return store


def _is_idle(store: bytearray) -> bool:
    """A bytearray refuses to change its length while anything looks at its memory."""
    try:
        store.pop()
    except BufferError:
        return False
    store.append(0)
    return True
