"""Exposure and colour drift between frames, measured on small pictures in linear light.

Lamps flicker, shutters and apertures repeat within a few per cent, and focus breathing changes the effective
f-number. Without correction a picked detail brings its frame's brightness along, and the result shows patches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
_SPILL = 5  # pixels of the small picture: as far from clipped light, what was cut off reaches when it is blurred
_BLOCK = 16  # pixels of the small picture, a side: wide enough that defocus moves little light across its border
_FEWEST = 100  # pixels of the small picture that both frames must have in common
_STRANGE, _ROUNDS = 6.0, 10  # deviations from which a block counts nothing; how often that is judged anew
_STEADY = 5e-4  # relative: blocks are not asked to agree better
_MOST = 2.0  # a larger change is another scene, not drift


@dataclass(frozen=True)
class Thumb:
    """A frame's planes, averaged over blocks: (C, h, w) float32 of linear light, ``pitch`` frame pixels apart."""

    planes: npt.NDArray[np.float32]
    pitch: int


class Equaliser:
    """Gains per plane that bring each frame to the brightness of the first one given.

    The gain is the ratio of the light both frames have where they see the same and neither is clipped: going out of
    focus moves light about, but keeps its sum. Blocks whose ratio is far from that of most, because something moved
    there or light was cut off, have no say.
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
        return gain_between(self._reference, moved, valid > 0)


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


def gain_between(
    reference: npt.NDArray[np.float32], moved: npt.NDArray[np.float32], valid: npt.NDArray[np.bool_]
) -> Gains:
    """Factors (C,) that bring the light ``moved`` (C, h, w) to that of the reference, where both are ``valid`` (h, w).

    Both are means over blocks, registered. A factor is 1 where the two have too little in common to tell.
    """
    use = valid & ~_near_clipped(reference, moved)
    return np.array([_ratio(r, m, use) for r, m in zip(reference, moved, strict=True)])


def _near_clipped(*frames: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Where light that any plane of a frame (C, h, w) has lost may be missing, (h, w)."""
    found: npt.NDArray[np.bool_] = np.any([(frame > _BRIGHT).any(axis=0) for frame in frames], axis=0)
    if not found.any():
        return found
    for axis in (0, 1):  # a square about each: its sides one after the other
        sums = np.cumsum(np.pad(found, [(_SPILL + 1, _SPILL) if a == axis else (0, 0) for a in (0, 1)]), axis, int)
        first = np.arange(found.shape[axis])
        found = np.take(sums, first + 2 * _SPILL + 1, axis) > np.take(sums, first, axis)
    return found


def _ratio(reference: npt.NDArray[np.float32], moved: npt.NDArray[np.float32], use: npt.NDArray[np.bool_]) -> float:
    """Light of the reference over the frame's, in what most blocks agree on (Tukey's biweight of their logarithms)."""
    if use.sum() < _FEWEST:
        return 1.0
    side = max(1, min(_BLOCK, min(use.shape) // 8))
    area, ours, theirs = (_block_sums(plane, side) for plane in (use, reference * use, moved * use))
    counts = (area > side * side / 4) & (ours > _DARK * area) & (theirs > _DARK * area)
    if not counts.any():
        return 1.0
    ours, theirs = ours[counts], theirs[counts]
    logs, weights = np.log(ours / theirs), np.minimum(ours, theirs)
    middle = _median(logs, weights)
    for _ in range(_ROUNDS):
        off = logs - middle
        spread = max(1.48 * _median(np.abs(off), weights), _STEADY)
        share = np.square(np.clip(1 - np.square(off / (_STRANGE * spread)), 0, 1))
        middle = float(np.log((share * ours).sum() / (share * theirs).sum()))
    ratio = float(np.exp(middle))
    return ratio if 1 / _MOST < ratio < _MOST else 1.0


def _block_sums(plane: npt.NDArray[Any], side: int) -> Gains:
    """Sums over blocks of ``side`` pixels, those at the end smaller, as they come, float64."""
    rows, columns = (np.arange(0, size, side) for size in plane.shape)
    return np.add.reduceat(np.add.reduceat(plane, rows, axis=0, dtype=float), columns, axis=1).ravel()


def _median(values: Gains, weights: Gains) -> float:
    """The value that half of the weight lies below."""
    order = np.argsort(values)
    sums = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(sums, sums[-1] / 2)])
