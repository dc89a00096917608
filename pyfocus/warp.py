"""Frames to planes in the reference geometry: one resampling each, in square-root encoding.

A sharp kernel rings around bright lights; in linear light that ringing is larger than the dark detail beside it. The
root of the values rings as evenly as what the eye sees, so values are resampled as roots and squared again.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from . import _C
from .affine import Matrix, as_matrix
from .arrays import HOST, AnyArray, Arrays
from .burst import Array, Frame, Meta
from .colour import root_lut
from .errors import ArgumentError
from .fuse import Mask, Planes
from .planes import planes_of

Interpolation = Literal["bilinear", "bicubic", "lanczos3"]
Domain = Literal["raw", "rgb"]
INTERPOLATIONS: tuple[Interpolation, ...] = ("bilinear", "bicubic", "lanczos3")


class Warper:
    """Warps frame after frame into the same arrays: what a pipeline calls, where :func:`warp` is for one frame.

    ``domain`` matters for mosaics: "rgb" gives three planes at full size (each frame is demosaiced by
    :func:`pyfocus._C.demosaic`, a few ns per pixel), "raw" gives R, G1, G2, B at half size, each sampled where that
    plane's pixels lie. Both are white-balanced camera RGB.
    """

    def __init__(
        self,
        domain: Domain = "rgb",
        interpolation: Interpolation = "lanczos3",
        *,
        levels: Meta | None = None,
        threads: int = 0,
        arrays: Arrays = HOST,
    ) -> None:
        if interpolation not in INTERPOLATIONS:
            raise ArgumentError(
                f"warp: interpolation must be one of {', '.join(INTERPOLATIONS)}, got {interpolation!r}"
            )
        if domain not in ("raw", "rgb"):
            raise ArgumentError(f"warp: domain must be 'raw' or 'rgb', got {domain!r}")
        self._domain, self._kernel = domain, INTERPOLATIONS.index(interpolation)
        self._levels, self._threads, self._arrays = levels, threads, arrays
        self._kept: dict[str, AnyArray] = {}

    def warp(
        self, frame: Frame, transform: Matrix, size: tuple[int, int], gain: npt.ArrayLike = 1.0
    ) -> tuple[Planes, Mask]:
        """Planes (C, h, w) and valid (h, w), where the frame lies; both are overwritten by the next call."""
        if frame.is_mosaic:
            return self._warp_mosaic(frame, transform, size, np.asarray(gain, float))
        planes = planes_of(frame, self._levels, gain, arrays=self._arrays)
        out, valid = self._array("out", (planes.count, *size)), self._array("valid", size, np.uint8)
        arguments = dict(planes.arguments)
        if "table" in arguments:  # a table of roots saves taking them
            arguments["table"] = self._arrays.constant(root_lut(np.dtype(planes.source.dtype)))
            arguments["scale"] = np.sqrt(arguments["scale"]).tolist()
        root = "table" not in arguments
        self._call(planes.source, planes.matrices(transform), out, valid, root=root, **arguments)
        return out, valid

    def forget(self) -> None:
        """Give the arrays away; what was warped last stays with whoever holds it."""
        self._kept.clear()

    def _warp_mosaic(
        self, frame: Frame, transform: Matrix, size: tuple[int, int], gain: npt.NDArray[np.float64]
    ) -> tuple[Planes, Mask]:
        gains = np.broadcast_to(gain, 4)
        planes = planes_of(frame, self._levels, gains)
        offsets = planes.arguments["mosaic"]
        scale, offset = [0.0] * 4, [0.0] * 4
        for plane, (y, x) in enumerate(offsets):
            scale[2 * y + x], offset[2 * y + x] = (
                planes.arguments["scale"][plane],
                planes.arguments["offset"][plane],
            )
        roots = self._array("roots", (3, *planes.source.shape))
        _C.demosaic(
            planes.source, list(offsets[0]), scale, offset, roots, threads=self._threads, stream=self._arrays.stream
        )
        if self._domain == "rgb":
            size = (size[0] // 2 * 2, size[1] // 2 * 2)
            out, valid = self._array("out", (3, *size)), self._array("valid", size, np.uint8)
            self._call(roots, np.stack([transform] * 3), out, valid)
            return out, valid
        half = (size[0] // 2, size[1] // 2)
        return self._sample_sites(roots, transform, offsets, half)

    def _sample_sites(
        self, roots: AnyArray, transform: Matrix, offsets: list[tuple[int, int]], half: tuple[int, int]
    ) -> tuple[Planes, Mask]:
        """R, G1, G2, B of the demosaiced frame, each where that plane's pixels lie; valid where all four are."""
        out, valid = self._array("out", (4, *half)), self._array("valid", half, np.uint8)
        maps = np.stack([transform @ np.array([[2, 0, dx], [0, 2, dy], [0, 0, 1.0]]) for dy, dx in offsets])
        for plane, channel in enumerate((0, 1, 1, 2)):
            self._call(
                _rows(roots, channel, channel + 1), maps[plane : plane + 1], _rows(out, plane, plane + 1), valid,
                narrow=plane > 0,
            )  # fmt: skip
        return out, valid

    def _call(self, source: AnyArray, maps: Matrix, out: Planes, valid: Mask, root: bool = False, **how: Any) -> None:
        _C.warp(
            source, np.ascontiguousarray(maps), out, valid, interpolation=self._kernel, root=root, square=True,
            threads=self._threads, stream=self._arrays.stream, **how,
        )  # fmt: skip

    def _array(self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike = np.float32) -> AnyArray:
        kept = self._kept.get(name)
        if kept is None or kept.shape != shape:
            kept = self._kept[name] = self._arrays.empty(shape, dtype)
        return kept


def _rows(array: AnyArray, start: int, stop: int) -> AnyArray:
    """A part of the first axis, as a view."""
    return array[start:stop] if isinstance(array, np.ndarray) else array.part(start, stop)


def warp(
    frame: Frame | Array,
    transform: npt.ArrayLike | None = None,
    *,
    size: tuple[int, int] | None = None,
    domain: Domain = "rgb",
    interpolation: Interpolation = "lanczos3",
    gain: npt.ArrayLike = 1.0,
    threads: int = 0,
) -> tuple[Planes, Mask]:
    """Planes (C, h, w) float32 of linear light in the reference geometry, and where the frame saw it, (h, w) uint8.

    Convention: ``transform`` (2, 3) or (3, 3) maps destination (reference) pixels (x, y) to this frame's pixels;
    pixel centres at integers; in full-resolution pixels also for mosaics, whose plane at offset o in {0, 1}² sees
    x' = A x + (t + (A - I) o) / 2. None: the frame as it lies. ``size`` (h, w) of the reference frame, default this
    frame's. Outside the frame its edge is repeated and valid is 0. ``gain``: one factor, or one per plane (four for
    mosaics), on linear values. Mosaics: see :class:`Warper`. Raises ArgumentError.
    """
    if isinstance(frame, np.ndarray):
        frame = Frame(frame)
    matrix = np.eye(3) if transform is None else as_matrix("warp", transform)
    return Warper(domain, interpolation, threads=threads).warp(frame, matrix, size or frame.size, gain)
