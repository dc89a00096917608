"""TIFF tag blocks (TIFF 6.0, section 2; BigTIFF), read from and written to bytes.

EXIF in JPEG, PNG and WebP, every TIFF, DNG and most camera raws are one and the same structure: a header,
then directories (IFDs) of tagged values. This file knows that structure and no meaning of any tag.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED, SRATIONAL = 1, 2, 3, 4, 5, 7, 10

STRIP_OFFSETS, STRIP_COUNTS, TILE_OFFSETS, TILE_COUNTS = 273, 279, 324, 325
SUB_IFDS, EXIF_IFD = 330, 34665

_FORMAT = {1: "B", 2: "s", 3: "H", 4: "I", 5: "II", 6: "b", 7: "s", 8: "h", 9: "i", 10: "ii", 11: "f",
           12: "d", 13: "I", 16: "Q", 17: "q", 18: "Q"}  # fmt: skip
# TIFF and BigTIFF, then the numbers Panasonic (RW2) and Olympus (ORF) put in their place
_MAGIC = {42, 43, 0x55, 0x4F52, 0x5352}
_MAX_VALUES = 1 << 22


class BadBlock(ValueError):
    """The bytes are no TIFF tag block, or one that ends early."""


@dataclass(frozen=True)
class Tag:
    """One entry to write: tag number, TIFF type, values (str for ASCII, bytes for UNDEFINED and BYTE)."""

    code: int
    type: int
    values: Any


class TagBlock:
    """Directories of a TIFF-structured buffer (bytes or mmap). Broken entries are left out, not raised."""

    def __init__(self, buffer: Any) -> None:
        head = bytes(buffer[:16])
        if len(head) < 8 or head[:2] not in (b"II", b"MM"):
            raise BadBlock("no TIFF header")
        self._buffer = buffer
        self._order = "<" if head[:2] == b"II" else ">"
        magic = struct.unpack(self._order + "H", head[2:4])[0]
        if magic not in _MAGIC:
            raise BadBlock(f"TIFF header with unknown number {magic}")
        self._big = magic == 43
        self.first = self._unpack("Q", 8)[0] if self._big else self._unpack("I", 4)[0]

    def ifd(self, offset: int) -> tuple[dict[int, Any], int]:
        """Values by tag number of the directory at ``offset``, and the next one's offset (0 = none).

        ASCII gives str, UNDEFINED bytes, rationals Fraction (NaN for n/0); single numbers come bare, several
        as a tuple. Raises BadBlock when the directory itself lies outside the buffer.
        """
        count_format, entry_size, word = ("Q", 20, "Q") if self._big else ("H", 12, "I")
        count = self._unpack(count_format, offset)[0]
        start = offset + struct.calcsize(count_format)
        tags: dict[int, Any] = {}
        for i in range(min(count, 4096)):
            at = start + i * entry_size
            code, kind, number = self._unpack("HH" + word, at)
            value = self._value(kind, number, at + 4 + struct.calcsize(word), word)
            if value is not None:
                tags[code] = value
        end = start + count * entry_size
        try:
            return tags, int(self._unpack(word, end)[0])
        except BadBlock:
            return tags, 0

    def ifds(self) -> list[dict[int, Any]]:
        """All directories of the chain and their SubIFDs, in order; stops at loops."""
        found: list[dict[int, Any]] = []
        queue, seen = [self.first], set[int]()
        while queue and len(found) < 4096:
            offset = queue.pop(0)
            if offset == 0 or offset in seen:
                continue
            seen.add(offset)
            tags, following = self.ifd(offset)
            found.append(tags)
            queue += [*as_tuple(tags.get(SUB_IFDS, ())), following]
        return found

    def _unpack(self, form: str, offset: int) -> tuple[Any, ...]:
        size = struct.calcsize(self._order + form)
        piece = bytes(self._buffer[offset : offset + size])
        if offset < 0 or len(piece) < size:
            raise BadBlock(f"ends at byte {len(self._buffer)}, needs {offset + size}")
        return struct.unpack(self._order + form, piece)

    def _value(self, kind: int, number: int, at: int, word: str) -> Any:
        form = _FORMAT.get(kind)
        if form is None or number == 0 or number > _MAX_VALUES:
            return None
        size = struct.calcsize("<" + form) * number
        try:
            if size > struct.calcsize(word):
                at = self._unpack(word, at)[0]
            raw = self._unpack(f"{number}s" if form == "s" else form[0] * (number * len(form)), at)
        except (BadBlock, struct.error, OverflowError):
            return None
        if kind == ASCII:
            return raw[0].split(b"\0")[0].decode("utf-8", "replace").strip()
        if kind == UNDEFINED:
            return raw[0]
        if len(form) == 2:
            raw = tuple(Fraction(a, b) if b else float("nan") for a, b in zip(raw[::2], raw[1::2], strict=True))
        return raw[0] if number == 1 else raw


def as_tuple(value: Any) -> tuple[Any, ...]:
    """A tag's value as a tuple, however many there are."""
    return value if isinstance(value, tuple) else (value,)


def data_end(block: TagBlock) -> int:
    """Byte after the last strip or tile that any directory of the file names; 0 when none is named."""
    end = 0
    for tags in block.ifds():
        for offsets, counts in ((STRIP_OFFSETS, STRIP_COUNTS), (TILE_OFFSETS, TILE_COUNTS)):
            if offsets in tags and counts in tags:
                pairs = zip(as_tuple(tags[offsets]), as_tuple(tags[counts]), strict=False)
                end = max([end, *(int(o) + int(c) for o, c in pairs)])
    return end


def write_block(ifd0: Sequence[Tag], exif: Sequence[Tag] = ()) -> bytes:
    """A little-endian TIFF block: header, IFD0, and the EXIF directory it points to when there is one.

    Tags are sorted, offsets are even. A ``StripOffsets`` of 0 is replaced by the block's own length (a
    multiple of 16), so pixels can be appended right behind it.
    """
    tags = [t for t in ifd0 if t.code != EXIF_IFD]
    if exif:
        tags.append(Tag(EXIF_IFD, LONG, 0))
    first = _directory(tags, 8, {})
    exif_at = 8 + len(first)
    second = _directory(exif, exif_at, {}) if exif else b""
    total = -(-(exif_at + len(second)) // 16) * 16
    first = _directory(tags, 8, {EXIF_IFD: exif_at, STRIP_OFFSETS: total})
    body = b"II*\0" + struct.pack("<I", 8) + first + second
    return body + bytes(total - len(body)) if any(t.code == STRIP_OFFSETS for t in tags) else body


def _directory(tags: Sequence[Tag], at: int, fill: Mapping[int, int]) -> bytes:
    ordered = sorted(tags, key=lambda t: t.code)
    entries, extra = b"", b""
    extra_at = at + 2 + 12 * len(ordered) + 4
    for tag in ordered:
        payload, count = _payload(tag.type, fill.get(tag.code, tag.values))
        if len(payload) <= 4:
            field = payload.ljust(4, b"\0")
        else:
            field = struct.pack("<I", extra_at + len(extra))
            extra += payload + bytes(len(payload) % 2)
        entries += struct.pack("<HHI", tag.code, tag.type, count) + field
    return struct.pack("<H", len(ordered)) + entries + bytes(4) + extra


def _payload(kind: int, values: Any) -> tuple[bytes, int]:
    if kind == ASCII:
        text = str(values).encode("utf-8") + b"\0"
        return text, len(text)
    if kind in (UNDEFINED, BYTE) and isinstance(values, bytes):
        return values, len(values)
    numbers = as_tuple(values)
    if kind in (RATIONAL, SRATIONAL):
        flat = [part for v in numbers for part in _ratio(v, signed=kind == SRATIONAL)]
        return struct.pack(f"<{len(flat)}{_FORMAT[kind][0]}", *flat), len(numbers)
    return struct.pack(f"<{len(numbers)}{_FORMAT[kind]}", *(int(v) for v in numbers)), len(numbers)


def _ratio(value: Any, *, signed: bool) -> tuple[int, int]:
    """Numerator and denominator that fit 32 bits; 0/0, EXIF's word for unknown, when the value is NaN."""
    if value != value:
        return 0, 0
    top = (1 << 31) - 1 if signed else (1 << 32) - 1
    exact: Fraction = value if isinstance(value, Fraction) else Fraction(str(float(value)))
    if not (-top if signed else 0) <= exact <= top:
        exact = Fraction(top if exact > 0 else -top if signed else 0)
    limit = int(top // max(Fraction(1), abs(exact)))
    if exact.denominator > limit:
        exact = exact.limit_denominator(min(limit, 10_000_000))
    return exact.numerator, exact.denominator
