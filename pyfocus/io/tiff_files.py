"""TIFF files: photographs, multi-page stacks, OME and ImageJ z-stacks. Decoding by tifffile."""

from __future__ import annotations

import logging
import mmap
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from ..burst import Frame
from ..errors import ReadError
from .buffers import Recycled
from .ifd import (
    STRIP_COUNTS,
    STRIP_OFFSETS,
    TILE_COUNTS,
    TILE_OFFSETS,
    BadBlock,
    TagBlock,
    as_tuple,
)
from .image_files import finish, one_line
from .metadata import tag_facts

Array = npt.NDArray[Any]
Tags = dict[int, Any]

_SUBFILE, _WIDTH, _HEIGHT, _BITS, _DESCRIPTION, _SAMPLES, _XRES = 254, 256, 257, 258, 270, 277, 282
_UM = {"nm": 1e-3, "µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0, "microns": 1.0, "\\u00B5m": 1.0, "mm": 1e3,
       "cm": 1e4, "m": 1e6}  # fmt: skip

# without a handler of its own, tifffile's log lines about odd tags would land on the caller's stderr
logging.getLogger("tifffile").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Stack:
    """How a microscope's file says its pages lie: counts per axis, and steps in micrometres where stated."""

    slices: int = 1
    channels: int = 1
    times: int = 1
    images: int = 0
    pixel_um: float | None = None
    step_um: float | None = None


def frame_pages(path: Path) -> list[int]:
    """Numbers of the pages that are frames: thumbnails, masks and pages of another size are left out.

    Raises ReadError for a broken file and for stacks over several channels.
    """
    with _opened(path) as buffer:
        pages = _directories(path, buffer)
        stack = _stack(pages[0])
    shapes = [tuple(str(tags.get(t, 1)) for t in (_WIDTH, _HEIGHT, _SAMPLES, _BITS)) for tags in pages]
    first = next((i for i, tags in enumerate(pages) if not tags.get(_SUBFILE, 0) & 5), 0)
    frames = [i for i, tags in enumerate(pages) if not tags.get(_SUBFILE, 0) & 5 and shapes[i] == shapes[first]]
    if len(frames) > 1 and (stack.channels > 1 or (stack.slices > 1 and stack.times > 1)):
        raise ReadError(
            f"{path}: a stack of {stack.slices} slices, {stack.channels} channels and {stack.times} times; "
            "save one channel at one time as a stack of its own"
        )
    if stack.images > len(pages) == 1:
        raise ReadError(f"{path}: an ImageJ stack above 4 GB without page headers; save it as OME-TIFF or BigTIFF")
    return frames or [0]


def read_tiff(path: Path, page: int | None = None, memory: Recycled | None = None) -> Frame:
    """Frame (H, W) or (H, W, 3), uint8, uint16 or float32, of one page (the first frame by default).

    Alpha is dropped, orientation applied; float pixels are taken as linear light. Raises ReadError, also for
    NaN and infinity. ``memory``: where uncompressed pixels may go.
    """
    number = page if page is not None else frame_pages(path)[0]
    with _opened(path) as buffer:
        pages = _directories(path, buffer)
        if number >= len(pages):
            raise ReadError(f"{path}: page {number} asked for, the file has {len(pages)}")
        _check_complete(path, pages[number], len(buffer))
        facts = tag_facts(buffer)
        stack = _stack(pages[0])
    pixels = _check_finite(path, _decode(path, number, memory))
    name = path.name if page is None else f"{path.name}[{page}]"
    frame = finish(name, pixels, facts, path)
    return Frame(frame.data, replace(frame.meta, pixel_um=stack.pixel_um, step_um=stack.step_um))


@contextmanager
def _opened(path: Path) -> Iterator[mmap.mmap]:
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as buffer:
            yield buffer
    except OSError as error:
        raise ReadError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:  # mmap's word for a file of 0 bytes
        raise ReadError(f"{path}: the TIFF file cannot be read: {one_line(error)}") from error


def _directories(path: Path, buffer: Any) -> list[Tags]:
    """Tags of every page in the chain; raises ReadError when a directory lies outside the file."""
    pages: list[Tags] = []
    try:
        block = TagBlock(buffer)
        offset, seen = block.first, set[int]()
        while offset and offset not in seen:
            seen.add(offset)
            tags, offset = block.ifd(offset)
            pages.append(tags)
    except BadBlock as error:
        raise ReadError(f"{path}: the TIFF file is truncated or broken ({error}); copy it again") from error
    if not pages or _WIDTH not in pages[0] or _HEIGHT not in pages[0]:
        raise ReadError(f"{path}: the TIFF file holds no picture (truncated or broken)")
    return pages


def _check_complete(path: Path, tags: Tags, size: int) -> None:
    for offsets, counts in ((STRIP_OFFSETS, STRIP_COUNTS), (TILE_OFFSETS, TILE_COUNTS)):
        if offsets in tags and counts in tags:
            pairs = zip(as_tuple(tags[offsets]), as_tuple(tags[counts]), strict=False)
            end = max(int(o) + int(c) for o, c in pairs)
            if end > size:
                raise ReadError(
                    f"{path}: the file is truncated: {size} bytes, its pixels reach to {end}; copy it again"
                )


def _decode(path: Path, number: int, memory: Recycled | None) -> Array:
    import tifffile

    try:
        with tifffile.TiffFile(path) as tif:
            page = tif.pages[number]
            kind = getattr(page.photometric, "name", str(page.photometric))
            if kind not in ("MINISBLACK", "MINISWHITE", "RGB", "YCBCR"):
                raise ReadError(f"{path}: {kind.lower()} pixels are not read; save it as RGB or grey")
            plain = memory is not None and page.is_final and page.dtype is not None
            pixels = page.asarray(out=memory.empty(page.shape, page.dtype)) if memory and plain else page.asarray()
            axes = page.axes
    except ReadError:
        raise
    except Exception as error:  # tifffile and each codec raise their own kinds
        raise ReadError(f"{path}: the TIFF data cannot be decoded: {one_line(error)}") from error
    if axes == "SYX":
        pixels = np.moveaxis(pixels, 0, -1)
    if axes not in ("YX", "YXS", "SYX"):
        raise ReadError(f"{path}: pixels with axes {axes} are not read; save one picture per page")
    if pixels.dtype.kind == "f":
        pixels = pixels.astype(np.float32, copy=False)
    if pixels.dtype not in (np.uint8, np.uint16, np.float32):
        raise ReadError(f"{path}: {pixels.dtype} pixels are not read; save it with 8, 16 or 32-bit float")
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    if kind == "MINISWHITE" and pixels.dtype.kind == "u":
        pixels = np.iinfo(pixels.dtype).max - pixels
    return np.asarray(pixels)


def _check_finite(path: Path, pixels: Array) -> Array:
    if pixels.dtype.kind == "f":
        bad = pixels.size - int(np.count_nonzero(np.isfinite(pixels)))
        if bad:
            raise ReadError(f"{path}: {bad} of {pixels.size} values are NaN or infinite; repair them before stacking")
    return pixels


def _stack(tags: Tags) -> Stack:
    text = tags.get(_DESCRIPTION)
    if not isinstance(text, str):
        return Stack()
    if "<OME" in text:
        return _ome_stack(text)
    return _imagej_stack(text, tags) if text.startswith("ImageJ=") else Stack()


def _ome_stack(text: str) -> Stack:
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError:
        return Stack()
    pixels = next((e for e in root.iter() if e.tag.endswith("}Pixels") or e.tag == "Pixels"), None)
    if pixels is None:
        return Stack()
    samples = [int(e.get("SamplesPerPixel", "1")) for e in pixels if e.tag.endswith("Channel")]
    counts = {axis: int(pixels.get(f"Size{axis}", "1")) for axis in "ZCT"}
    return Stack(
        slices=counts["Z"],
        channels=counts["C"] // max(samples, default=1),
        times=counts["T"],
        pixel_um=_length_um(pixels.get("PhysicalSizeX"), pixels.get("PhysicalSizeXUnit", "µm")),
        step_um=_length_um(pixels.get("PhysicalSizeZ"), pixels.get("PhysicalSizeZUnit", "µm")),
    )


def _imagej_stack(text: str, tags: Tags) -> Stack:
    said = dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))
    unit = said.get("unit", "")
    density = tags.get(_XRES)
    pixel = float(1 / density) if density and density == density else None
    return Stack(
        slices=int(said.get("slices", 1)),
        channels=int(said.get("channels", 1)),
        times=int(said.get("frames", 1)),
        images=int(said.get("images", 0)),
        pixel_um=_length_um(pixel, unit),
        step_um=_length_um(said.get("spacing"), unit),
    )


def _length_um(value: Any, unit: str) -> float | None:
    try:
        length = float(value) * _UM[unit]
    except (TypeError, ValueError, KeyError):
        return None
    return length if length > 0 else None
