"""Exposure and colour drift between frames, measured on small pictures in linear light.

Lamps flicker, shutters and apertures repeat within a few per cent, and focus breathing changes the effective
f-number. Without correction a picked detail brings its frame's brightness along, and the result shows patches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from . import _C
from .affine import Matrix, at_pitch
from .arrays import HOST, AnyArray, Arrays
from .burst import Frame, Meta
from .planes import planes_of

Gains = npt.NDArray[np.float64]
_THUMB_PX = 256
_DARK, _BRIGHT = 0.002, 0.9  # linear light that is neither noise nor clipped
_MOST = 2.0  # a larger change is another scene, not drift


@dataclass(frozen=True)
class Thumb:
    """A frame's planes, averaged over blocks: (C, h, w) float32 of linear light, ``pitch`` frame pixels apart."""

    planes: npt.NDArray[np.float32]
    pitch: int


class Equaliser:
    """Gains per plane that bring each frame to the brightness of the first one given.

    The gain is the ratio of the light both frames have where they see the same and neither is clipped: going out of
    focus moves light about, but keeps its sum.
    """

    def __init__(self, levels: Meta | None = None, threads: int = 0) -> None:
        self._levels, self._threads = levels, threads
        self._reference: npt.NDArray[np.float32] | None = None

    def gain(self, frame: Frame | Thumb, transform: Matrix) -> Gains:
        """Factors (C,) for the frame's linear values; ``transform`` (3, 3): reference to frame pixels."""
        seen = frame if isinstance(frame, Thumb) else thumb_of(frame, self._levels, threads=self._threads)
        thumb, count = seen.planes, len(seen.planes)
        maps = np.stack([at_pitch(transform, seen.pitch)] * count)
        moved, valid = np.empty_like(thumb), np.empty(thumb.shape[1:], np.uint8)
        _C.warp(thumb, maps, moved, valid, interpolation=0, threads=self._threads)
        if self._reference is None or self._reference.shape != moved.shape:
            self._reference = moved
            return np.ones(count)
        return np.array([_ratio(r, m, valid) for r, m in zip(self._reference, moved, strict=True)])


def thumb_of(frame: Frame, levels: Meta | None = None, *, threads: int = 0, arrays: Arrays = HOST) -> Thumb:
    """A frame as the equaliser sees it; ``levels`` as for :func:`pyfocus.planes.planes_of`.

    On a device one thread at a time: every frame's small picture is made in the same array.
    """
    planes = planes_of(frame, levels, arrays=arrays)
    height, width = planes.size(frame.size)
    factor = min(64, max(1, -(-max(height, width) // _THUMB_PX)))
    thumb = arrays.kept("thumb", (planes.count, height // factor, width // factor))
    # every skip-th pixel is enough for a mean; a device reads them all in less time than it takes to say so
    skip = 1 if planes.is_mosaic or arrays.is_device else _stride(factor)
    source = planes.source
    if skip > 1:
        rows, columns = thumb.shape[1] * factor, thumb.shape[2] * factor
        source = source[:, skip // 2 : rows : skip, skip // 2 : columns : skip]
    for plane in range(planes.count):
        weights = [float(i == plane) for i in range(planes.count)]
        _C.luminance(
            source, weights, _plane(thumb, plane), factor=factor // skip, threads=threads, stream=arrays.stream,
            **planes.arguments,
        )  # fmt: skip
    return Thumb(arrays.to_host(thumb), factor * planes.step)


def _plane(array: AnyArray, plane: int) -> AnyArray:
    return array[plane] if isinstance(array, np.ndarray) else array.part(plane, plane + 1).reshape(array.shape[1:])


def _stride(factor: int) -> int:
    """The largest of 8, 6, 4, 3, 2, 1 that divides the block, leaving it 2 pixels or more."""
    return next((s for s in (8, 6, 4, 3, 2) if factor % s == 0 and factor // s >= 2), 1)


def _ratio(reference: npt.NDArray[np.float32], moved: npt.NDArray[np.float32], valid: npt.NDArray[np.uint8]) -> float:
    use = (valid > 0) & (reference > _DARK) & (reference < _BRIGHT) & (moved > _DARK) & (moved < _BRIGHT)
    if use.sum() < 100:
        return 1.0
    ratio = float(reference[use].sum(dtype=float) / moved[use].sum(dtype=float))
    return ratio if 1 / _MOST < ratio < _MOST else 1.0
