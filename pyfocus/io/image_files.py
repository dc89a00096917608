"""JPEG, PNG and WebP files to upright arrays. Decoding by imagecodecs; completeness is checked here first.

libjpeg fills the missing part of a truncated file with grey and calls that a warning, so the end marker is
looked for before a decoder sees the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..burst import Frame, Meta
from ..errors import ReadError
from .metadata import Facts, jpeg_segments, png_chunks, read_facts
from .order import image_kind

Array = npt.NDArray[Any]

MIN_SIZE_PX = 16
"""Smallest side of a frame that is read: below this there is nothing to register or to judge sharpness by."""


def read_coded(path: Path) -> Frame:
    """Frame (H, W) or (H, W, 3), uint8 or uint16, of a JPEG, PNG or WebP file; alpha is dropped, EXIF
    orientation applied. Raises ReadError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ReadError(f"{path}: cannot be read: {error.strerror}") from error
    kind = image_kind(data[:16])
    if kind is None:
        raise ReadError(f"{path}: not an image, or of a kind that is not read (expected TIFF, PNG, JPEG, WebP, raw)")
    if not _is_complete(kind, data):
        raise ReadError(f"{path}: the {kind.upper()} data ends early (truncated file); copy it again from the card")
    try:
        pixels = _decode(kind, data)
    except Exception as error:  # each codec of imagecodecs raises its own kind
        raise ReadError(f"{path}: the {kind.upper()} data cannot be decoded: {one_line(error)}") from error
    if kind == "jpeg" and pixels.ndim == 3 and pixels.shape[2] == 4:
        raise ReadError(f"{path}: a CMYK picture; convert it to RGB first")
    return finish(path.name, pixels, read_facts(data), path)


def _decode(kind: str, data: bytes) -> Array:
    import imagecodecs

    if kind == "jpeg":
        return np.asarray(imagecodecs.jpeg8_decode(data))
    if kind == "png":
        return np.asarray(imagecodecs.png_decode(data))
    return np.asarray(imagecodecs.webp_decode(data, hasalpha=False))


def _is_complete(kind: str, data: bytes) -> bool:
    if kind == "jpeg":
        scans = [end for marker, _, end in jpeg_segments(data) if marker == 0xDA]
        # inside a scan 0xFF is always followed by 0 or a restart marker, so this can only be the end marker
        return bool(scans) and data.find(b"\xff\xd9", scans[0]) > 0
    if kind == "png":
        return any(name == b"IEND" and end + 4 <= len(data) for name, _, end in png_chunks(data))
    return int.from_bytes(data[4:8], "little") + 8 <= len(data)


def finish(name: str, pixels: Array, facts: Facts, path: Path) -> Frame:
    """Frame of decoded pixels: alpha dropped, turned upright, size checked, EXIF and ICC in its meta."""
    if pixels.ndim == 3:
        pixels = pixels[:, :, :3] if pixels.shape[2] >= 3 else pixels[:, :, 0]
    check_size(path, pixels.shape[:2])
    meta = Meta(
        name=name,
        make=str(facts.exif.get("Make", "")),
        model=str(facts.exif.get("Model", "")),
        encoding="linear" if pixels.dtype == np.float32 else "srgb",
        icc=facts.icc,
        exif=facts.exif,
    )
    return Frame(upright(pixels, facts.orientation), meta)


def check_size(path: Path, size: tuple[int, ...]) -> None:
    """Raise ReadError for pictures too small to work with."""
    if len(size) < 2 or min(size[:2]) < MIN_SIZE_PX:
        found = f"{size[1]} x {size[0]} px" if len(size) > 1 else "without pixels"
        raise ReadError(f"{path}: the picture is {found}; each side must be at least {MIN_SIZE_PX} px")


def upright(pixels: Array, orientation: int) -> Array:
    """Pixels (H, W, ...) turned and mirrored as EXIF orientation 1..8 asks for, C-contiguous."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def one_line(error: BaseException) -> str:
    """An error's text on one line, or its kind when it has none."""
    return " ".join(str(error).split()) or type(error).__name__
