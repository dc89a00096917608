"""Fusers: frames in, one image out. Each folds a frame at a time, in memory that does not grow with their number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from . import _C
from .arrays import HOST, AnyArray, Arrays
from .errors import ArgumentError, BurstError, ResourceError

Planes = npt.NDArray[np.float32]
Mask = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Fused:
    """What a fuser makes of a burst.

    ``image``: planes (C, H, W) float32, linear light, where the fuser works (a device array for a fuser on a device);
    the maps are on the host. ``depth``: (H, W) float32, the index of the sharpest frame, 0 = first, between frames
    where the burst shows it, or None. ``confidence``: (H, W) float32 in [0, 1], how much the sharpest frame stands
    out, or None.
    """

    image: Planes
    depth: Planes | None = None
    confidence: Planes | None = None


class Fuser(Protocol):
    """The seam: anything with these three methods fuses.

    Planes are (C, H, W) float32 in linear light, all frames of one size, in the reference geometry; ``valid`` is
    (H, W) uint8, 1 where the frame saw the scene, or None for everywhere.

    Optional: a method ``begin(frame)``, which is called with the burst's first :class:`Frame`, as the camera gave it,
    before anything is pushed (again, when the work starts anew on the CPU); an attribute ``domain``, "rgb" or "raw",
    when only that domain will do; ``gives_depth``, False when there is never a depth map; ``memory``, the bytes that it
    may keep here of frames or state, and ``tell(what, done, total)``, what it calls between parts of a "push" and of
    the "finish", both of which the pipeline sets where they are None.
    """

    def push(self, planes: Planes, valid: Mask | None = None, *, index: float | None = None) -> None:
        """Fold one frame in; ``index`` is its place in focus order (default: the order of the calls)."""

    def preview(self) -> Planes:
        """What finish would give now, as planes (C, H, W), without ending anything."""

    def finish(self) -> Fused:
        """The result; the fuser gives its memory away and takes no further frame."""


class _Folding:
    """What folding fusers share: where they work, shape checks and the frame count."""

    def __init__(self, threads: int = 0, arrays: Arrays = HOST) -> None:
        self.threads = threads
        self._work_in(arrays)
        self.frames = 0
        self._shape: tuple[int, ...] | None = None
        self._finished = False

    def _work_in(self, arrays: Arrays) -> None:
        self.arrays, self._how = arrays, {"threads": self.threads, "stream": arrays.stream}

    def _check_place(self, planes: AnyArray, valid: AnyArray | None) -> None:
        """On the host NumPy arrays are taken; on a device NumPy arrays, and device arrays that lie there."""
        for name, array in (("planes", planes), ("valid", valid)):
            if array is None or isinstance(array, np.ndarray):
                continue
            if not self.arrays.is_device or not isinstance(array, _C.DeviceArray):
                where = "on the device" if self.arrays.is_device else "a NumPy array"
                text = f"{name} must be {where}, got {type(array).__name__}"
                raise ArgumentError(f"{type(self).__name__}.push: {text}")

    def _brought(self, array: AnyArray) -> AnyArray:
        """The array where the accumulators lie, in C order."""
        return self.arrays.upload(np.ascontiguousarray(array)) if isinstance(array, np.ndarray) else array

    def _accept(self, planes: Planes, valid: Mask | None) -> bool:
        """Check a frame; True when it is the first one."""
        name = type(self).__name__
        if self._finished:
            raise ArgumentError(f"{name}.push: the result was already taken with finish(); make a new {name}")
        if planes.ndim != 3 or np.dtype(planes.dtype) != np.float32 or not 1 <= planes.shape[0] <= 4:
            raise ArgumentError(f"{name}.push: planes must be (1..4, H, W) float32, got {planes.shape} {planes.dtype}")
        first = self._shape is None
        if not first and planes.shape != self._shape:
            raise BurstError(f"{name}.push: frame {self.frames} is {planes.shape}, the first was {self._shape}")
        if valid is not None and (valid.shape != planes.shape[1:] or np.dtype(valid.dtype) != np.uint8):
            raise ArgumentError(f"{name}.push: valid must be {planes.shape[1:]} uint8, got {valid.shape} {valid.dtype}")
        self._shape = planes.shape
        self.frames += 1
        return first

    def _need_frames(self, method: str) -> None:
        if self.frames == 0 or self._finished:
            raise BurstError(f"{type(self).__name__}.{method}: no frames were pushed")


class Average(_Folding):
    """The mean of all frames where they are valid: no sharper than the burst, but a good preview and a baseline.

    Where no frame is valid it is 0. ``arrays`` and ``spill`` as for :class:`pyfocus.Laplacian`: 20 bytes per pixel of
    three planes, 12 of them mapped.
    Deterministic. A frame for which there is no memory (ResourceError) leaves everything as it was.
    """

    def __init__(self, threads: int = 0, *, arrays: Arrays = HOST, spill: bool = False) -> None:
        super().__init__(threads, arrays)
        self.spilled = spill
        self._sum: AnyArray = None
        self._weight: AnyArray = None
        self._seen: AnyArray = None  # on a device, a frame's mask as a window
        self._everywhere: AnyArray = None  # the window of frames that have no mask

    def push(self, planes: AnyArray, valid: AnyArray | None = None, *, index: float | None = None) -> None:
        """Add a frame; see :class:`Fuser`."""
        self._check_place(planes, valid)
        first = self._accept(planes, valid)
        try:
            if first:
                self._begin(tuple(planes.shape))
            planes, window = self._brought(planes), self._window(valid)
        except ResourceError:
            self.frames -= 1
            if first:
                self._shape = None
            raise
        tile = planes.reshape((1, *planes.shape))
        _C.tile_scatter(tile, self._origin, window, self._sum, self._weight, **self._how)

    def preview(self) -> AnyArray:
        """Mean of the frames so far, where the sums lie."""
        self._need_frames("preview")
        image = self.arrays.empty(self._sum.shape, mapped=self.spilled)
        if isinstance(image, np.ndarray):
            np.copyto(image, self._sum)
        else:
            _C.device_copy(image, self._sum, stream=self.arrays.stream)
        _C.tile_divide(image, self._weight, **self._how)
        return image

    def finish(self) -> Fused:
        """Mean of all frames, where the sums lie, which are given away; no depth."""
        self._need_frames("finish")
        self._finished = True
        image = self._sum
        _C.tile_divide(image, self._weight, **self._how)
        self._sum = self._weight = self._seen = self._everywhere = None
        return Fused(image)

    def spill(self) -> None:
        """From here on as with ``spill=True``: the sums go to mapped memory, for a device that ran short."""
        if self.frames:
            mapped = self.arrays.empty(self._sum.shape, mapped=True)
            _C.device_copy(mapped, self._sum, stream=self.arrays.stream)
            self._sum = mapped
        self.spilled = True

    def move_to_host(self) -> None:
        """From here on as with ``arrays=HOST``; what was added stays, and no device memory is needed to bring it."""
        if self.frames:
            self._sum, self._weight = self.arrays.to_host(self._sum), self.arrays.to_host(self._weight)
            self._origin = HOST.zeros((1, 2), np.int32)
        self._seen = self._everywhere = None
        self._work_in(HOST)

    def _begin(self, shape: tuple[int, ...]) -> None:
        new = self.arrays
        self._sum, self._weight = new.zeros(shape, mapped=self.spilled), new.zeros(shape[1:])
        self._seen = new.empty(shape[1:]) if new.is_device else None
        self._origin = new.zeros((1, 2), np.int32)

    def _window(self, valid: AnyArray | None) -> AnyArray:
        """The weight of each pixel, (H, W) float32: 1 or 0."""
        if valid is None:
            if self._everywhere is None:
                self._everywhere = self.arrays.upload(np.ones(self._weight.shape, np.float32))
            return self._everywhere
        mask = self._brought(valid)
        if isinstance(mask, np.ndarray):
            return mask.astype(np.float32)
        _C.luminance(mask.reshape((1, *mask.shape)), [1.0], self._seen, stream=self.arrays.stream)
        return self._seen
