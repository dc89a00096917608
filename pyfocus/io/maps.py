"""Maps beside the picture: which frame each pixel came from, and heights in micrometres."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import ArgumentError
from .atomic import PathLike, check_target
from .ifd import ASCII, LONG, RATIONAL, SHORT, STRIP_COUNTS, STRIP_OFFSETS, Tag, write_block
from .write import DEPTH_TARGETS, Array, _encode, _save

HEIGHT_TARGETS = (".tif", ".tiff")
_DESCRIPTION, _SAMPLE_FORMAT, _IEEE_FLOAT = 270, 339, 3
_CENTIMETRE = 3


def write_provenance(path: PathLike, frames: npt.NDArray[np.uint16], *, overwrite: bool = False) -> Path:
    """Write which frame each pixel came from, (H, W) uint16, as 16-bit grey TIFF or PNG: the number itself, 0 = first.

    Raises ArgumentError or WriteError.
    """
    target = check_target(path, overwrite, suffixes=DEPTH_TARGETS)
    if frames.ndim != 2 or frames.size == 0 or frames.dtype != np.uint16:
        raise ArgumentError(f"write_provenance: frames must be (H, W) uint16, got {frames.shape} {frames.dtype}")
    text = "number of the frame each pixel came from: 0 = first"
    pixels = np.ascontiguousarray(frames)
    return _save(target, _encode(target, pixels, None, None, text, 0, srgb=False), overwrite)


def write_height(path: PathLike, height_um: Array, *, pixel_um: float | None = None, overwrite: bool = False) -> Path:
    """Write heights (H, W) in micrometres as a float32 grey TIFF; NaN stays NaN.

    ``pixel_um``: size of a pixel in the scene, which becomes the file's resolution. Raises ArgumentError or WriteError.
    """
    target = check_target(path, overwrite, suffixes=HEIGHT_TARGETS)
    if height_um.ndim != 2 or height_um.size == 0 or height_um.dtype.kind != "f":
        raise ArgumentError(f"write_height: height_um must be (H, W) float, got {height_um.shape} {height_um.dtype}")
    if pixel_um is not None and not 0 < pixel_um < np.inf:
        raise ArgumentError(f"write_height: pixel_um must be above 0, got {pixel_um}")
    pixels = np.ascontiguousarray(height_um, "<f4")
    if pixels.nbytes + (1 << 20) > 0xFFFFFFFF:
        raise ArgumentError(f"write_height: {pixels.nbytes} bytes of heights are more than a TIFF's 4 GB")
    h, w = pixels.shape
    tags = [
        Tag(256, LONG, w),
        Tag(257, LONG, h),
        Tag(258, SHORT, 32),
        Tag(259, SHORT, 1),  # Compression: none
        Tag(262, SHORT, 1),  # PhotometricInterpretation: black is zero
        Tag(_DESCRIPTION, ASCII, "height in micrometres above the farthest plane of focus"),
        Tag(STRIP_OFFSETS, LONG, 0),
        Tag(277, SHORT, 1),
        Tag(278, LONG, h),  # RowsPerStrip: one strip
        Tag(STRIP_COUNTS, LONG, pixels.nbytes),
        Tag(_SAMPLE_FORMAT, SHORT, _IEEE_FLOAT),
    ]
    if pixel_um is not None:
        tags += [Tag(code, RATIONAL, 1e4 / pixel_um) for code in (282, 283)]  # pixels per centimetre
        tags.append(Tag(296, SHORT, _CENTIMETRE))
    return _save(target, [write_block(tags), pixels.data], overwrite)
