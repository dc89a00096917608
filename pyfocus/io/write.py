"""Pictures and depth maps to TIFF, PNG and JPEG, with colour profile and EXIF, whole or not at all.

TIFF is written uncompressed: deflate takes seven times as long for a fifth less of a 16-bit photograph. PNG
is put together here because libpng's 16-bit encoder takes 2.4 s for 12 MP; one filter and libdeflate take 0.7
s.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..burst import Meta
from ..errors import ArgumentError, WriteError
from .atomic import PathLike, atomic, check_target
from .icc import profile_channels, srgb_profile
from .ifd import LONG, RATIONAL, SHORT, STRIP_COUNTS, STRIP_OFFSETS, UNDEFINED, Tag, write_block
from .metadata import ICC_PROFILE, exif_block, exif_tags, ifd0_tags

Array = npt.NDArray[Any]
Buffers = Sequence[Any]

IMAGE_TARGETS = (".tif", ".tiff", ".png", ".jpg", ".jpeg")
DEPTH_TARGETS = (".tif", ".tiff", ".png")
_ROWS = 256
_CHUNK_BYTES = 1 << 30
_SEGMENT_BYTES = 65533


def write_image(
    path: PathLike,
    image: Array,
    *,
    meta: Meta | None = None,
    bits: Literal[8, 16] | None = None,
    quality: int = 95,
    overwrite: bool = False,
    description: str | None = None,
) -> Path:
    """Write a picture as its name's suffix says (.tif, .png, .jpg) and return its path.

    image: (H, W, 3) or (H, W), sRGB-encoded: float in [0, 1] (clipped), uint8 or uint16. ``bits`` defaults to
    16 for TIFF and PNG, to 8 for JPEG and for uint8 images. ``meta`` gives the EXIF to keep and the ICC
    profile of the numbers; without one, or when ``meta.encoding`` is linear, sRGB's is embedded. The picture
    is taken as upright. Raises ArgumentError or WriteError.
    """
    target = check_target(path, overwrite, suffixes=IMAGE_TARGETS)
    pixels = _quantise(image, _bits_for(target, image, bits))
    channels = 3 if pixels.ndim == 3 else 1
    kept = _profile(meta, channels)
    icc = kept or srgb_profile(channels)
    parts = _encode(target, pixels, meta, icc, description, quality, srgb=kept is None)
    return _save(target, parts, overwrite)


def write_depth(path: PathLike, depth: Array, *, frames: int, overwrite: bool = False) -> Path:
    """Write a depth index (H, W), 0 = first frame, as 16-bit grey TIFF or PNG, 65535 = last of ``frames``.

    NaN is written as 0. Raises ArgumentError or WriteError.
    """
    target = check_target(path, overwrite, suffixes=DEPTH_TARGETS)
    if depth.ndim != 2 or depth.size == 0 or frames < 1:
        raise ArgumentError(f"write_depth: depth must be (H, W) and frames >= 1, got {depth.shape} and {frames}")
    scaled = np.asarray(depth, np.float32) / np.float32(max(frames - 1, 1))
    text = f"depth index: 0 = first frame, 65535 = last of {frames}"
    return _save(target, _encode(target, _quantise(scaled, 16), None, None, text, 0, srgb=False), overwrite)


def _bits_for(target: Path, image: Array, bits: int | None) -> int:
    jpeg = target.suffix.lower() in (".jpg", ".jpeg")
    if bits is None:
        return 8 if jpeg or image.dtype == np.uint8 else 16
    if bits not in (8, 16) or (jpeg and bits == 16):
        raise ArgumentError(f"write_image: bits must be 8{'' if jpeg else ' or 16'} for {target.suffix}, got {bits}")
    return bits


def _profile(meta: Meta | None, channels: int) -> bytes | None:
    """The source's profile if it fits these pixels: a linear source's does not, they are encoded by now."""
    if meta is None or meta.icc is None or meta.encoding == "linear":
        return None
    return meta.icc if profile_channels(meta.icc) == channels else None


def _quantise(image: Array, bits: int) -> Array:
    """uint8 or uint16 (H, W) or (H, W, 3) of floats or of either integer kind; rounds to nearest."""
    if image.ndim not in (2, 3) or image.size == 0 or (image.ndim == 3 and image.shape[2] not in (1, 3)):
        raise ArgumentError(f"write_image: image must be (H, W) or (H, W, 3), got {image.shape}")
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    wanted = np.dtype(np.uint8 if bits == 8 else np.uint16)
    if image.dtype == wanted:
        return np.ascontiguousarray(image)
    if image.dtype == np.uint8:
        return image.astype(np.uint16) * np.uint16(257)
    if image.dtype == np.uint16:
        return ((image.astype(np.uint32) * 255 + 32895) >> 16).astype(np.uint8)
    if image.dtype.kind != "f":
        raise ArgumentError(f"write_image: image must be float, uint8 or uint16, got {image.dtype}")
    out = np.empty(image.shape, wanted)
    top = np.float32(2**bits - 1)
    for row in range(0, image.shape[0], _ROWS):  # in pieces, so that no second float picture is needed
        part = np.fmin(np.fmax(image[row : row + _ROWS], 0.0), 1.0).astype(np.float32, copy=False)
        out[row : row + _ROWS] = part * top + np.float32(0.5)
    return out


def _encode(
    target: Path,
    pixels: Array,
    meta: Meta | None,
    icc: bytes | None,
    description: str | None,
    quality: int,
    *,
    srgb: bool,
) -> Buffers:
    suffix = target.suffix.lower()
    if suffix in (".tif", ".tiff"):
        return _tiff(target, pixels, meta, icc, description, srgb=srgb)
    size = (pixels.shape[0], pixels.shape[1])
    exif = exif_block(meta, size, description, srgb=srgb)
    if suffix == ".png":
        return _png(pixels, icc, exif)
    if len(exif) + 6 > _SEGMENT_BYTES:
        raise ArgumentError(f"write_image: a JPEG holds 65 kB of EXIF, got {len(exif)} bytes; shorten the description")
    return _jpeg(pixels, icc, exif, quality)


def _save(target: Path, parts: Buffers, overwrite: bool) -> Path:
    size = sum(memoryview(p).nbytes for p in parts)
    with atomic(target, overwrite, size=size) as file:
        for part in parts:
            file.write(part)
    return target


def _tiff(
    target: Path, pixels: Array, meta: Meta | None, icc: bytes | None, description: str | None, *, srgb: bool
) -> Buffers:
    h, w = pixels.shape[:2]
    channels = 3 if pixels.ndim == 3 else 1
    if pixels.nbytes + (1 << 20) > 0xFFFFFFFF:
        raise WriteError(f"{target}: {pixels.nbytes} bytes of pixels are more than a TIFF's 4 GB; write PNG or 8 bits")
    tags = [
        *ifd0_tags(meta, description),
        Tag(256, LONG, w),
        Tag(257, LONG, h),
        Tag(258, SHORT, (8 * pixels.itemsize,) * channels),
        Tag(259, SHORT, 1),  # Compression: none
        Tag(262, SHORT, 2 if channels == 3 else 1),  # PhotometricInterpretation: RGB or black is zero
        Tag(STRIP_OFFSETS, LONG, 0),
        Tag(277, SHORT, channels),
        Tag(278, LONG, h),  # RowsPerStrip: one strip
        Tag(STRIP_COUNTS, LONG, pixels.nbytes),
        Tag(282, RATIONAL, 300),
        Tag(283, RATIONAL, 300),
        Tag(284, SHORT, 1),
        Tag(296, SHORT, 2),
    ]
    if icc:
        tags.append(Tag(ICC_PROFILE, UNDEFINED, icc))
    little = pixels.astype(pixels.dtype.newbyteorder("<"), copy=False)
    return [write_block(tags, exif_tags(meta, (h, w), srgb=srgb)), little.data]


def _png(pixels: Array, icc: bytes | None, exif: bytes) -> Buffers:
    import imagecodecs

    h, w = pixels.shape[:2]
    rows = pixels.astype(pixels.dtype.newbyteorder(">"), copy=False).view(np.uint8).reshape(h, -1)
    filtered = np.empty((h, rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = 2  # filter "Up": each byte minus the one above
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    flat: Any = filtered  # imagecodecs' annotations know bytes only
    packed = memoryview(imagecodecs.deflate_encode(flat, level=1))
    kind = 2 if pixels.ndim == 3 else 0
    parts: list[Any] = [b"\x89PNG\r\n\x1a\n"]
    parts += _chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 8 * pixels.itemsize, kind, 0, 0, 0))
    if icc:
        parts += _chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(icc))
    parts += _chunk(b"eXIf", exif)
    for start in range(0, len(packed), _CHUNK_BYTES):
        parts += _chunk(b"IDAT", packed[start : start + _CHUNK_BYTES])
    return [*parts, *_chunk(b"IEND", b"")]


def _chunk(kind: bytes, body: Any) -> Buffers:
    return [struct.pack(">I", len(body)) + kind, body, struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))]


def _jpeg(pixels: Array, icc: bytes | None, exif: bytes, quality: int) -> Buffers:
    import imagecodecs

    if not 1 <= quality <= 100:
        raise ArgumentError(f"write_image: quality must be 1 to 100, got {quality}")
    if max(pixels.shape[:2]) > 65500:
        raise ArgumentError(f"write_image: a JPEG's sides are at most 65500 px, got {pixels.shape[:2]}; write TIFF")
    coded = memoryview(imagecodecs.jpeg8_encode(pixels, level=quality, subsampling="444"))
    head = 4 + int.from_bytes(coded[4:6], "big") if bytes(coded[2:4]) == b"\xff\xe0" else 2  # behind JFIF's own segment
    segments = [_segment(0xE1, b"Exif\0\0" + exif)]
    step = _SEGMENT_BYTES - 14
    pieces = [icc[i : i + step] for i in range(0, len(icc), step)] if icc else []
    for i, piece in enumerate(pieces):
        segments.append(_segment(0xE2, b"ICC_PROFILE\0" + bytes((i + 1, len(pieces))) + piece))
    return [coded[:head], *segments, coded[head:]]


def _segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body
