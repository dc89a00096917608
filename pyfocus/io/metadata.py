"""EXIF and ICC of image files: found in any container, kept as names and values, written back as one block.

The block's structure is in ``ifd``; the tag numbers are those of Exif 2.32 (CIPA DC-008) and TIFF 6.0.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from math import isfinite
from typing import Any

from ..burst import Meta
from .ifd import (
    ASCII,
    EXIF_IFD,
    LONG,
    RATIONAL,
    SHORT,
    SRATIONAL,
    UNDEFINED,
    BadBlock,
    Tag,
    TagBlock,
    as_tuple,
    write_block,
)

SOFTWARE = "pyfocus"
ORIENTATION, ICC_PROFILE = 274, 34675

_IFD0 = {
    "ImageDescription": (270, ASCII),
    "Make": (271, ASCII),
    "Model": (272, ASCII),
    "DateTime": (306, ASCII),
    "Artist": (315, ASCII),
    "Copyright": (33432, ASCII),
}
_EXIF = {
    "ExposureTime": (33434, RATIONAL),
    "FNumber": (33437, RATIONAL),
    "ExposureProgram": (34850, SHORT),
    "ISOSpeedRatings": (34855, SHORT),
    "DateTimeOriginal": (36867, ASCII),
    "DateTimeDigitized": (36868, ASCII),
    "OffsetTime": (36880, ASCII),
    "OffsetTimeOriginal": (36881, ASCII),
    "ShutterSpeedValue": (37377, SRATIONAL),
    "ApertureValue": (37378, RATIONAL),
    "ExposureBiasValue": (37380, SRATIONAL),
    "MaxApertureValue": (37381, RATIONAL),
    "SubjectDistance": (37382, RATIONAL),
    "MeteringMode": (37383, SHORT),
    "LightSource": (37384, SHORT),
    "Flash": (37385, SHORT),
    "FocalLength": (37386, RATIONAL),
    "SubsecTime": (37520, ASCII),
    "SubsecTimeOriginal": (37521, ASCII),
    "ExposureMode": (41986, SHORT),
    "WhiteBalance": (41987, SHORT),
    "FocalLengthIn35mmFilm": (41989, SHORT),
    "BodySerialNumber": (42033, ASCII),
    "LensSpecification": (42034, RATIONAL),
    "LensMake": (42035, ASCII),
    "LensModel": (42036, ASCII),
}
# A microscope's file describes its whole stack in words like these; in a fused picture they would be wrong.
_STACK_MARKS = ("<OME", "ImageJ=", '{"shape"')
_WANTED: dict[int, type | tuple[type, ...]] = {
    ASCII: str,
    SHORT: int,
    RATIONAL: (Fraction, float, int),
    SRATIONAL: (Fraction, float, int),
}


@dataclass(frozen=True)
class Facts:
    """What a file says about its pixels: EXIF by name, orientation 1..8 and ICC profile."""

    exif: Mapping[str, Any] = field(default_factory=dict)
    orientation: int = 1
    icc: bytes | None = None


def read_facts(buffer: Any) -> Facts:
    """Facts of a JPEG, PNG, WebP or TIFF-structured buffer (bytes or mmap); empty where there are none.

    Damaged metadata never raises: pixels may be fine without it.
    """
    head = bytes(buffer[:12])
    if head[:2] == b"\xff\xd8":
        exif, icc = _jpeg_facts(buffer)
    elif head[:8] == b"\x89PNG\r\n\x1a\n":
        exif, icc = _png_facts(buffer)
    elif head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        exif, icc = _webp_facts(buffer)
    else:
        return tag_facts(buffer)
    facts = tag_facts(exif) if exif else Facts()
    return Facts(facts.exif, facts.orientation, icc or None)


def tag_facts(block: Any) -> Facts:
    """Facts of a TIFF-structured buffer: an EXIF block, a TIFF, a DNG or most other camera raws."""
    try:
        tags = TagBlock(block)
        first, _ = tags.ifd(tags.first)
        exif = tags.ifd(first[EXIF_IFD])[0] if isinstance(first.get(EXIF_IFD), int) else {}
    except BadBlock:
        return Facts()
    values: dict[str, Any] = {}
    for table, source in ((_IFD0, first), (_EXIF, {**first, **exif})):
        for name, (code, kind) in table.items():
            value = _clean(source.get(code), kind)
            if value is not None:
                values[name] = value
    if any(mark in values.get("ImageDescription", "") for mark in _STACK_MARKS):
        del values["ImageDescription"]
    orientation, icc = first.get(ORIENTATION, 1), first.get(ICC_PROFILE)
    upright = orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1
    return Facts(values, upright, icc if isinstance(icc, bytes) else None)


def _clean(value: Any, kind: int) -> Any:
    """The value if it is of the tag's kind and says something, else None."""
    if kind == SHORT and isinstance(value, tuple):  # some cameras give the ISO twice
        value = value[0]
    parts = as_tuple(value)
    if not all(isinstance(p, _WANTED[kind]) for p in parts) or value == "":
        return None
    if kind in (RATIONAL, SRATIONAL):  # a few programs write these as floating point
        parts = tuple(Fraction(str(p)) if isinstance(p, float) and isfinite(p) else p for p in parts)
    if len(parts) > 1:
        return parts
    return parts[0] if parts[0] == parts[0] else None


def capture_time(exif: Mapping[str, Any]) -> tuple[str, Fraction] | None:
    """Date and time (sorts as text) and the fraction of a second, or None when the file does not say."""
    when = exif.get("DateTimeOriginal") or exif.get("DateTimeDigitized") or exif.get("DateTime")
    if not isinstance(when, str) or not any(c in "123456789" for c in when):
        return None
    digits = str(exif.get("SubsecTimeOriginal") or exif.get("SubsecTime") or "").strip()
    plain = digits.isascii() and digits.isdigit()
    return when, Fraction(int(digits), 10 ** len(digits)) if plain else Fraction(0)


def ifd0_tags(meta: Meta | None, description: str | None, *, orientation: int = 1) -> list[Tag]:
    """Tags of the main directory that say whose picture this is: description, camera, dates, software."""
    exif: dict[str, Any] = dict(meta.exif) if meta else {}
    if meta:
        exif = {"Make": meta.make, "Model": meta.model, **exif}
    if description is not None:
        exif["ImageDescription"] = description
    tags = _tags(_IFD0, exif)
    return [*tags, Tag(305, ASCII, SOFTWARE), Tag(ORIENTATION, SHORT, orientation)]


def exif_tags(meta: Meta | None, size: tuple[int, int], *, srgb: bool = True) -> list[Tag]:
    """Tags of the EXIF directory: what ``meta.exif`` keeps, version, size (h, w) and colour space."""
    kept = _tags(_EXIF, meta.exif) if meta else []
    return [
        *kept,
        Tag(36864, UNDEFINED, b"0232"),
        Tag(40961, SHORT, 1 if srgb else 0xFFFF),
        Tag(40962, LONG, size[1]),
        Tag(40963, LONG, size[0]),
    ]


def exif_block(meta: Meta | None, size: tuple[int, int], description: str | None, *, srgb: bool = True) -> bytes:
    """A whole EXIF block (TIFF structure) for JPEG's APP1 and PNG's eXIf."""
    return write_block(ifd0_tags(meta, description), exif_tags(meta, size, srgb=srgb))


def _tags(table: Mapping[str, tuple[int, int]], values: Mapping[str, Any]) -> list[Tag]:
    tags = []
    for name, (code, kind) in table.items():
        value = values.get(name)
        if value is None or value == "":
            continue
        if kind == SHORT:
            value = min(max(int(value), 0), 0xFFFF)
        tags.append(Tag(code, kind, value))
    return tags


def _jpeg_facts(buffer: Any) -> tuple[bytes, bytes]:
    exif, icc = b"", {}
    for marker, start, end in jpeg_segments(buffer):
        body = bytes(buffer[start:end])
        if marker == 0xE1 and body.startswith(b"Exif\0\0") and not exif:
            exif = body[6:]
        elif marker == 0xE2 and body.startswith(b"ICC_PROFILE\0") and len(body) > 14:
            icc[body[12]] = body[14:]
    return exif, b"".join(icc[i] for i in sorted(icc))


def jpeg_segments(buffer: Any) -> Iterator[tuple[int, int, int]]:
    """(marker, start, end) of the segments' bodies up to and with the first scan's header."""
    at = 2
    while at + 4 <= len(buffer) and buffer[at] == 0xFF:
        marker = buffer[at + 1]
        if marker == 0xFF or 0xD0 <= marker <= 0xD8 or marker == 1:
            at += 1 if marker == 0xFF else 2
            continue
        size = int.from_bytes(buffer[at + 2 : at + 4], "big")
        if marker == 0xD9 or size < 2:
            return
        yield marker, at + 4, at + 2 + size
        if marker == 0xDA:
            return
        at += 2 + size


def png_chunks(buffer: Any) -> Iterator[tuple[bytes, int, int]]:
    """(type, start, end) of the chunks' bodies, as far as their headers reach."""
    at = 8
    while at + 8 <= len(buffer):
        size, kind = struct.unpack(">I4s", bytes(buffer[at : at + 8]))
        yield kind, at + 8, at + 8 + size
        at += 12 + size


def _png_facts(buffer: Any) -> tuple[bytes, bytes]:
    exif, icc = b"", b""
    for kind, start, end in png_chunks(buffer):
        if kind == b"eXIf":
            exif = bytes(buffer[start:end])
        elif kind == b"iCCP":
            body = bytes(buffer[start:end])
            try:
                icc = zlib.decompress(body[body.index(b"\0") + 2 :])
            except (ValueError, zlib.error):
                continue
    return exif, icc


def _webp_facts(buffer: Any) -> tuple[bytes, bytes]:
    found = {b"EXIF": b"", b"ICCP": b""}
    at = 12
    while at + 8 <= len(buffer):
        kind, size = struct.unpack("<4sI", bytes(buffer[at : at + 8]))
        if kind in found:
            found[kind] = bytes(buffer[at + 8 : at + 8 + size])
        at += 8 + size + size % 2
    return found[b"EXIF"].removeprefix(b"Exif\0\0"), found[b"ICCP"]
