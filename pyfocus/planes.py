"""What the native core sees of a frame: where its planes lie, and what their counts mean in linear light.

A mosaic gives four planes R, G1, G2, B of half the size, white-balanced (so that no colour dominates a decision);
an image gives its channels. Nothing is copied: the kernels read the frame's own array.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _C
from .affine import Matrix
from .arrays import HOST, AnyArray, Arrays
from .burst import Frame, Meta
from .colour import decode_lut, srgb_to_linear
from .errors import ArgumentError
from .raw import plane_offsets

_LUMA = (0.25, 0.65, 0.10)  # R, G, B: near Rec. 709, with blue kept audible


@dataclass(frozen=True)
class Planes:
    """The arguments by which a kernel reads a frame."""

    source: AnyArray
    count: int
    arguments: dict[str, Any]
    balance: tuple[float, ...]

    @property
    def is_mosaic(self) -> bool:
        """True when a plane has half the frame's size."""
        return self.arguments.get("mosaic") is not None

    @property
    def step(self) -> int:
        """Frame pixels per plane pixel, in each direction."""
        return 2 if self.is_mosaic else 1

    def size(self, frame_size: tuple[int, int]) -> tuple[int, int]:
        """Size of a plane for a frame of ``frame_size`` (h, w)."""
        return frame_size[0] // self.step, frame_size[1] // self.step

    def matrices(self, transform: Matrix) -> Matrix:
        """(C, 3, 3): the frame's map, destination to source pixels, as each plane sees it by its own phase.

        Plane pixel X lies at frame pixel ``step * X + offset``, so each plane's map is S^-1 M S.
        """
        out = np.empty((self.count, 3, 3))
        for plane, (dy, dx) in enumerate(self.arguments.get("mosaic") or [(0, 0)] * self.count):
            scale = np.array([[self.step, 0, dx], [0, self.step, dy], [0, 0, 1.0]])
            out[plane] = np.linalg.inv(scale) @ transform @ scale
            out[plane] /= out[plane, 2, 2]
        return out


def planes_of(frame: Frame, levels: Meta | None = None, gain: npt.ArrayLike = 1.0, *, arrays: Arrays = HOST) -> Planes:
    """Where the frame's planes lie. ``levels``: black, white and white balance to use (default: its own).

    ``gain``: one factor, or one per plane, on the linear values. ``arrays``: where the frame's pixels are; float32
    pixels on a device must be linear light already.
    """
    facts = levels or frame.meta
    if frame.is_mosaic:
        return _mosaic(frame, facts, gain)
    data: AnyArray = frame.data
    kind = np.dtype(data.dtype)
    source = data.reshape((1, *frame.size)) if data.ndim == 2 else data.transpose((2, 0, 1))
    count = source.shape[0]
    scale = np.broadcast_to(np.asarray(gain, float), count)
    arguments: dict[str, Any] = {}
    if kind == np.float32:
        if frame.meta.encoding == "srgb" and not arrays.is_device:
            source = np.asarray(srgb_to_linear(source), np.float32)
    elif facts.encoding == "srgb":
        arguments["table"] = arrays.constant(decode_lut(kind))
    else:
        scale = scale / np.iinfo(kind).max
    arguments["scale"] = scale.tolist()
    return Planes(source, count, arguments, (1.0,) * count)


def _mosaic(frame: Frame, facts: Meta, gain: npt.ArrayLike) -> Planes:
    cfa = frame.meta.cfa or ""
    offsets = plane_offsets(cfa)
    r, g, b = facts.white_balance
    balance = np.array([r, g, g, b])
    black = np.array([facts.black[2 * y + x] for y, x in offsets])
    if not np.all(facts.white > black):
        raise ArgumentError(f"planes_of: white must be above black, got {facts.white} and {facts.black}")
    scale = np.broadcast_to(np.asarray(gain, float), 4) * balance / (facts.white - black)
    arguments = {"mosaic": list(offsets), "scale": scale.tolist(), "offset": (-black * scale).tolist()}
    data: AnyArray = frame.data
    if data.shape[0] % 2 or data.shape[1] % 2:
        data = data[: data.shape[0] // 2 * 2, : data.shape[1] // 2 * 2]
    return Planes(data, 4, arguments, tuple(balance.tolist()))


def luminance(
    frame: Frame, factor: int = 1, *, levels: Meta | None = None, threads: int = 0, arrays: Arrays = HOST
) -> AnyArray:
    """Square root of the luminance, (h // factor, w // factor) float32 with (h, w) the size of a plane.

    The square root makes shot noise even and keeps highlights from ruling a correlation. Pixel X of the result is
    centred on frame pixel ``s X + (s - 1) / 2`` with ``s = factor`` for images, ``2 factor`` for mosaics.
    """
    planes = planes_of(frame, levels, arrays=arrays)
    height, width = planes.size(frame.size)
    out = arrays.empty((height // factor, width // factor))
    weights = {1: [1.0], 3: list(_LUMA), 4: [_LUMA[0], _LUMA[1] / 2, _LUMA[1] / 2, _LUMA[2]]}[planes.count]
    rows = 2 if factor >= 3 else 1  # half of a large block's pixels say enough
    _C.luminance(
        planes.source, weights, out, factor=factor, row_step=rows, square_root=True, threads=threads,
        stream=arrays.stream, **planes.arguments,
    )  # fmt: skip
    return out
