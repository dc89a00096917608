"""Fusers: frames in, one image out. Each folds a frame at a time, in memory that does not grow with their number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from .errors import ArgumentError, BurstError

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
    """What folding fusers share: shape checks and the frame count."""

    def __init__(self, threads: int = 0) -> None:
        self.threads = threads
        self.frames = 0
        self._shape: tuple[int, ...] | None = None
        self._finished = False

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

    On the host only: frames are NumPy arrays.
    """

    def push(self, planes: Planes, valid: Mask | None = None, *, index: float | None = None) -> None:
        """Add a frame; see :class:`Fuser`."""
        if self._accept(planes, valid):
            self._sum = np.zeros_like(planes)
            self._weight = np.zeros(planes.shape[1:], np.float32)
        if valid is None:
            self._sum += planes
            self._weight += 1
        else:
            self._sum += planes * valid
            self._weight += valid

    def preview(self) -> Planes:
        """Mean of the frames so far."""
        self._need_frames("preview")
        return np.asarray(self._sum / np.maximum(self._weight, 1), np.float32)

    def finish(self) -> Fused:
        """Mean of all frames; no depth."""
        image = self.preview()
        self._finished = True
        return Fused(image)
