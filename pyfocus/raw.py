"""A Bayer mosaic as four planes of linear light, and back. NumPy only, no files.

Planes are always R, G1, G2, B: G1 is the green that shares its rows with red, G2 the one that shares them
with blue, whatever the camera's order. ``plane_offsets`` says where in the 2x2 block each of them lies.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from .burst import Meta
from .errors import ArgumentError

Array = npt.NDArray[Any]
Offset = tuple[int, int]

CFA_ORDERS = ("RGGB", "BGGR", "GRBG", "GBRG")

# ``unpack`` leaves room below black so that noise there survives rounding and averages to zero when
# developed.
UNPACK_BLACK_DN = 1024
UNPACK_WHITE_DN = 65535


def plane_offsets(cfa: str) -> tuple[Offset, Offset, Offset, Offset]:
    """(y, x) in {0, 1}² of R, G1, G2, B within the top-left 2x2 block of a mosaic with this order."""
    if cfa not in CFA_ORDERS:
        raise ArgumentError(f"plane_offsets: cfa must be one of {', '.join(CFA_ORDERS)}, got {cfa!r}")
    red, blue = cfa.index("R"), cfa.index("B")
    (ry, rx), (by, bx) = divmod(red, 2), divmod(blue, 2)
    return (ry, rx), (ry, 1 - rx), (by, 1 - bx), (by, bx)


def pack(mosaic: Array, meta: Meta) -> Array:
    """Planes (4, H/2, W/2) float32, R G1 G2 B, linear: 0 = black level, 1 = white level.

    mosaic: (H, W) uint16 counts (DN) with ``meta.cfa``, ``meta.black`` and ``meta.white``. An odd last row or
    column is dropped. Nothing is clipped: noise below black stays negative. Raises ArgumentError.
    """
    _check_levels("pack", meta)
    if mosaic.ndim != 2 or mosaic.dtype != np.uint16 or min(mosaic.shape) < 2:
        raise ArgumentError(f"pack: mosaic must be (H, W) uint16 of 2x2 or more, got {mosaic.shape} {mosaic.dtype}")
    h, w = mosaic.shape[0] // 2, mosaic.shape[1] // 2
    planes = np.empty((4, h, w), np.float32)
    for plane, (y, x) in zip(planes, plane_offsets(str(meta.cfa)), strict=True):
        black = np.float32(meta.black[2 * y + x])
        np.subtract(mosaic[y : 2 * h : 2, x : 2 * w : 2], black, out=plane, dtype=np.float32, casting="unsafe")
        plane /= np.float32(meta.white) - black
    return planes


def unpack(planes: Array, meta: Meta) -> tuple[Array, Meta]:
    """Mosaic (2h, 2w) uint16 and its meta, from planes (4, h, w) in the order of ``pack``.

    The counts are 1024 + 64511 * plane, rounded: black level 1024, white level 65535, so values down to
    -0.0159 survive and values above 1 clip. NaN becomes black. The CFA order is ``meta.cfa``.
    """
    if planes.ndim != 3 or planes.shape[0] != 4 or planes.dtype.kind != "f":
        raise ArgumentError(f"unpack: planes must be (4, h, w) float32, got {planes.shape} {planes.dtype}")
    if meta.cfa is None:
        raise ArgumentError("unpack: meta must have a cfa such as 'RGGB', got None; is this an image already?")
    _, h, w = planes.shape
    mosaic = np.empty((2 * h, 2 * w), np.uint16)
    for plane, (y, x) in zip(planes, plane_offsets(meta.cfa), strict=True):
        counts = plane * np.float32(UNPACK_WHITE_DN - UNPACK_BLACK_DN)
        counts += np.float32(UNPACK_BLACK_DN)
        np.nan_to_num(counts, copy=False, nan=UNPACK_BLACK_DN)
        np.clip(np.rint(counts, out=counts), 0, UNPACK_WHITE_DN, out=counts)
        mosaic[y::2, x::2] = counts
    black = float(UNPACK_BLACK_DN)
    return mosaic, replace(meta, black=(black,) * 4, white=float(UNPACK_WHITE_DN))


def _check_levels(function: str, meta: Meta) -> None:
    if meta.cfa is None:
        raise ArgumentError(f"{function}: meta must have a cfa such as 'RGGB', got None; is this an image already?")
    if not meta.white > max(meta.black):
        raise ArgumentError(f"{function}: meta.white must be above meta.black, got {meta.white} and {meta.black}")
