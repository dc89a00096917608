"""Frames on their way to a device: through page-locked memory, so that copying one overlaps work on another."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from . import _C
from .arrays import AnyArray, DeviceArrays
from .burst import Array, Frame, Meta
from .colour import srgb_to_linear
from .errors import ResourceError


@dataclass
class Slot:
    """Room for one frame on both sides, and the two points in time that its next use waits for."""

    pinned: Any
    host: npt.NDArray[Any]
    device: AnyArray
    copied: Any  # the copy has read ``host``
    used: Any  # the work has read ``device``
    free: bool = False


class Staging:
    """Brings frames to a device over a stream of its own; at most ``slots`` frames are on their way or in use.

    All slots are made with the first frame, so that memory for them does not run out later.

    ``put`` may run in another thread than the work: it copies the frame into page-locked memory, enqueues the copy and
    returns. ``arrays`` has the copies' stream: what must follow a copy may run there, beside the work. Between
    ``ready`` and ``done`` the work's own stream reads the frame.
    """

    def __init__(self, work: DeviceArrays, slots: int = 2) -> None:
        self._work, self._most = work, slots
        self.arrays = DeviceArrays(work.device, work.limit)
        self._slots: list[Slot] = []
        self._lock = Lock()

    def put(self, frame: Frame) -> tuple[Frame, Slot]:
        """The same frame with its pixels on the device, and the slot to say ``ready`` and ``done`` with."""
        data, meta = _plain(frame)
        slot = self._slot(data)
        slot.copied.synchronize()
        slot.host[...] = data
        self.arrays.queue.wait(slot.used)
        _C.device_copy(slot.device, slot.host, stream=self.arrays.stream)
        self.arrays.queue.record(slot.copied)
        return Frame(cast(Array, slot.device), meta), slot

    def ready(self, slot: Slot) -> None:
        """Let the work wait until the frame is there."""
        self._work.queue.wait(slot.copied)

    def done(self, slot: Slot) -> None:
        """Give the slot back: all work that reads the frame was enqueued."""
        self._work.queue.record(slot.used)
        slot.free = True

    def _slot(self, data: Array) -> Slot:
        with self._lock:
            for slot in self._slots:
                if slot.free and slot.host.shape == data.shape and slot.host.dtype == data.dtype:
                    slot.free = False
                    return slot
            if len(self._slots) >= self._most:
                free = next((i for i, slot in enumerate(self._slots) if slot.free), None)
                if free is None:
                    raise ResourceError(
                        f"Staging.put: all {self._most} frames that fit are in use; give one back first"
                    )
                del self._slots[free]  # of another size; its memory goes before the new one's comes
            while len(self._slots) < self._most:
                self._slots.append(self._make(data))
            slot = self._slots[-1]
            slot.free = False
            return slot

    def _make(self, data: Array) -> Slot:
        pinned = _C.PinnedArray(list(data.shape), str(data.dtype))
        copied, used = _C.Event(self._work.device), _C.Event(self._work.device)
        there = self.arrays.empty(data.shape, data.dtype)
        return Slot(pinned, np.asarray(pinned), there, copied, used, free=True)


def _plain(frame: Frame) -> tuple[Array, Meta]:
    """Pixels that a kernel reads as they are: mosaics of even size, float pixels as linear light."""
    data, meta = frame.data, frame.meta
    if frame.is_mosaic:
        return data[: data.shape[0] // 2 * 2, : data.shape[1] // 2 * 2], meta
    if data.dtype == np.float32 and meta.encoding == "srgb":
        return np.asarray(srgb_to_linear(data), np.float32), Meta(**{**meta.__dict__, "encoding": "linear"})
    return data, meta
