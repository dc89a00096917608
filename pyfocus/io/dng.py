"""A Bayer mosaic as a DNG 1.4 file (Adobe, Digital Negative Specification 1.4.0.0, 2012)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..burst import Meta
from ..errors import ArgumentError
from ..raw import CFA_ORDERS
from .atomic import PathLike, atomic, check_target
from .ifd import ASCII, BYTE, LONG, RATIONAL, SHORT, SRATIONAL, STRIP_COUNTS, STRIP_OFFSETS, Tag, write_block
from .metadata import exif_tags, ifd0_tags

Array = npt.NDArray[Any]

SRGB_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
"""Linear sRGB (D65) to CIE XYZ, IEC 61966-2-1."""

_CFA, _D65 = 32803, 21


def write_dng(
    path: PathLike, mosaic: Array, meta: Meta, *, overwrite: bool = False, description: str | None = None
) -> Path:
    """Write a mosaic (H, W) uint16 as an uncompressed Bayer DNG and return its path.

    CFA order, levels, white balance, colour matrix, orientation and EXIF come from ``meta``. Without a colour
    matrix the camera's colours are taken as sRGB's. Raises ArgumentError or WriteError.
    """
    target = check_target(path, overwrite, suffixes=(".dng",))
    pixels = _check(mosaic, meta)
    header = _header(pixels.shape, meta, description)
    with atomic(target, overwrite, size=len(header) + pixels.nbytes) as file:
        file.write(header)
        file.write(pixels.data)
    return target


def dng_bytes(mosaic: Array, meta: Meta) -> bytes:
    """The DNG that ``write_dng`` would write, as bytes."""
    pixels = _check(mosaic, meta)
    return b"".join((_header(pixels.shape, meta, None), pixels.data))


def _check(mosaic: Array, meta: Meta) -> Array:
    if mosaic.ndim != 2 or mosaic.dtype != np.uint16 or min(mosaic.shape) < 2:
        raise ArgumentError(
            f"write_dng: mosaic must be (H, W) uint16 of 2x2 or more, got {mosaic.shape} {mosaic.dtype}"
        )
    if meta.cfa not in CFA_ORDERS:
        raise ArgumentError(f"write_dng: meta.cfa must be one of {', '.join(CFA_ORDERS)}, got {meta.cfa!r}")
    if not meta.white > max(meta.black):
        raise ArgumentError(f"write_dng: meta.white must be above meta.black, got {meta.white} and {meta.black}")
    if min(meta.white_balance) <= 0:
        raise ArgumentError(f"write_dng: meta.white_balance must be positive, got {meta.white_balance}")
    return np.ascontiguousarray(mosaic, "<u2")


def _header(size: tuple[int, ...], meta: Meta, description: str | None) -> bytes:
    h, w = size
    cfa = bytes("RGB".index(c) for c in str(meta.cfa))
    matrix = meta.xyz_to_camera or tuple(np.linalg.inv(SRGB_TO_XYZ).reshape(-1))
    tags = [
        *ifd0_tags(meta, description, orientation=meta.orientation),
        Tag(254, LONG, 0),  # NewSubfileType: the full picture
        Tag(256, LONG, w),
        Tag(257, LONG, h),
        Tag(258, SHORT, 16),
        Tag(259, SHORT, 1),  # Compression: none
        Tag(262, SHORT, _CFA),
        Tag(STRIP_OFFSETS, LONG, 0),
        Tag(277, SHORT, 1),
        Tag(278, LONG, h),  # RowsPerStrip: one strip
        Tag(STRIP_COUNTS, LONG, 2 * h * w),
        Tag(284, SHORT, 1),
        Tag(33421, SHORT, (2, 2)),  # CFARepeatPatternDim
        Tag(33422, BYTE, cfa),
        Tag(50706, BYTE, bytes((1, 4, 0, 0))),  # DNGVersion
        Tag(50707, BYTE, bytes((1, 1, 0, 0))),  # DNGBackwardVersion: nothing newer is used
        Tag(50708, ASCII, meta.camera or "pyfocus burst"),  # UniqueCameraModel
        Tag(50710, BYTE, bytes((0, 1, 2))),  # CFAPlaneColor
        Tag(50711, SHORT, 1),  # CFALayout: rectangular
        Tag(50713, SHORT, (2, 2)),  # BlackLevelRepeatDim
        Tag(50714, RATIONAL, tuple(meta.black)),
        Tag(50717, LONG, round(meta.white)),
        Tag(50718, RATIONAL, (1, 1)),  # DefaultScale
        Tag(50719, LONG, (0, 0)),  # DefaultCropOrigin
        Tag(50720, LONG, (w, h)),  # DefaultCropSize
        Tag(50721, SRATIONAL, tuple(round(v, 6) for v in matrix)),  # ColorMatrix1
        Tag(50727, RATIONAL, (1, 1, 1)),  # AnalogBalance
        Tag(50728, RATIONAL, tuple(round(1 / v, 7) for v in meta.white_balance)),  # AsShotNeutral
        Tag(50778, SHORT, _D65),  # CalibrationIlluminant1
        Tag(50829, LONG, (0, 0, h, w)),  # ActiveArea
    ]
    return write_block(tags, exif_tags(meta, (h, w), srgb=False))
