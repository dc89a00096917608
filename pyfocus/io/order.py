"""Which files make a burst, and in which order."""

from __future__ import annotations

import glob
import mmap
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from ..errors import ArgumentError, BurstError, ReadError
from .metadata import capture_time, read_facts

PathLike = str | os.PathLike[str]
Paths = PathLike | Iterable[PathLike]
Order = Literal["name", "exif", "as-given"]
ORDERS = ("name", "exif", "as-given")

IMAGE_SUFFIXES = frozenset({".tif", ".tiff", ".png", ".jpg", ".jpeg", ".webp"})
RAW_SUFFIXES = frozenset(
    {
        ".3fr",
        ".ari",
        ".arw",
        ".bay",
        ".cr2",
        ".cr3",
        ".crw",
        ".dcr",
        ".dng",
        ".erf",
        ".fff",
        ".iiq",
        ".k25",
        ".kdc",
    }
    | {".mef", ".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf"}
    | {".srw", ".x3f"}
)
_KNOWN = "TIFF, PNG, JPEG, WebP or camera raw"


@dataclass(frozen=True)
class FrameSource:
    """Where one frame lies: a file, and the page in it when the file holds several (counted from 0)."""

    path: Path
    page: int | None = None

    @property
    def name(self) -> str:
        """File name, with the page: ``stack.tif[3]``."""
        return self.path.name if self.page is None else f"{self.path.name}[{self.page}]"

    @property
    def is_raw(self) -> bool:
        """True for a camera raw, by its suffix."""
        return self.path.suffix.lower() in RAW_SUFFIXES


def natural_key(text: str) -> tuple[list[Any], str]:
    """Sorting key in which numbers count as numbers (IMG_2 before IMG_10) and letter case comes last."""
    parts = re.split(r"(\d+)", text)
    return [int(p) if i % 2 else p.casefold() for i, p in enumerate(parts)], text


def find_frames(paths: Paths, order: Order = "name") -> list[FrameSource]:
    """Frames of files, folders (the images in them, not in folders below) and glob patterns, in focus order.

    ``order``: "name" sorts naturally by path, "exif" by capture time with its sub-seconds and then by name,
    "as-given" keeps the caller's order (inside a folder or pattern: by name). Every page of a multi-page TIFF
    is a frame. In folders and patterns, hidden files and files of other kinds are passed over, and of a raw
    and its twin of the same name (IMG_1.CR2 beside IMG_1.JPG) the raw is taken. Raises ReadError, or
    BurstError when "exif" finds a file without a capture time.
    """
    if order not in ORDERS:
        raise ArgumentError(f"find_frames: order must be one of {', '.join(ORDERS)}, got {order!r}")
    given = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    files = [file for entry in given for file in _expand(Path(entry))]
    if not files:
        raise ReadError("find_frames: no files given; name image files, a folder or a pattern such as 'IMG_*.tif'")
    if order == "name":
        files.sort(key=lambda f: natural_key(str(f)))
    elif order == "exif":
        files.sort(key=lambda f: (_time_of(f), natural_key(str(f))))
    return [frame for file in files for frame in _pages(file)]


def _expand(path: Path) -> Sequence[Path]:
    if path.is_dir():
        try:
            found = _images(path.iterdir())
        except OSError as error:
            raise ReadError(f"{path}: cannot list the folder: {error.strerror}") from error
        if not found:
            raise ReadError(f"{path}: no images in this folder (expected {_KNOWN}; folders below are not searched)")
        return found
    if path.exists():
        _check_kind(path)
        return [path]
    if glob.has_magic(str(path)):
        found = _images(Path(p) for p in glob.glob(str(path)))
        if not found:
            raise ReadError(f"{path}: no image file matches this pattern (expected {_KNOWN})")
        return found
    raise ReadError(f"{path}: no such file or folder")


def _images(files: Iterable[Path]) -> list[Path]:
    known = [f for f in files if not f.name.startswith(".") and f.suffix.lower() in IMAGE_SUFFIXES | RAW_SUFFIXES]
    raws = {(f.parent, f.stem.casefold()) for f in known if f.suffix.lower() in RAW_SUFFIXES}
    chosen = [f for f in known if f.suffix.lower() in RAW_SUFFIXES or (f.parent, f.stem.casefold()) not in raws]
    return sorted((f for f in chosen if f.is_file()), key=lambda f: natural_key(str(f)))


def _check_kind(path: Path) -> None:
    """Refuse a file given by name that is neither named nor built like an image."""
    if path.suffix.lower() not in IMAGE_SUFFIXES | RAW_SUFFIXES and image_kind(read_head(path)) is None:
        raise ReadError(f"{path}: not an image (expected {_KNOWN})")


def read_head(path: Path) -> bytes:
    """The first 16 bytes; raises ReadError when the file is empty or cannot be read."""
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise ReadError(f"{path}: cannot be read: {error.strerror}") from error
    if not head:
        raise ReadError(f"{path}: the file is empty (0 bytes); copy it again from the card")
    return head


def image_kind(head: bytes) -> Literal["jpeg", "png", "webp", "tiff"] | None:
    """Kind of image file by its first 12 bytes, or None. Camera raws built like a TIFF say "tiff"."""
    if head[:3] == b"\xff\xd8\xff":
        return "jpeg"
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        return "png"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    return "tiff" if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+") else None


def _time_of(path: Path) -> tuple[str, Fraction]:
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as buffer:
            when = capture_time(read_facts(buffer).exif)
    except (OSError, ValueError) as error:
        raise ReadError(f"{path}: cannot be read: {error}") from error
    if when is None and path.suffix.lower() in RAW_SUFFIXES:
        from .raw_files import raw_capture_time

        when = raw_capture_time(path)
    if when is None:
        raise BurstError(f"{path}: no capture time in this file, so order 'exif' cannot place it; use order 'name'")
    return when


def _pages(path: Path) -> list[FrameSource]:
    if image_kind(read_head(path)) != "tiff" or path.suffix.lower() in RAW_SUFFIXES:
        return [FrameSource(path)]
    from .tiff_files import frame_pages

    pages = frame_pages(path)
    return [FrameSource(path, p) for p in pages] if len(pages) > 1 else [FrameSource(path)]
