"""Files to a burst whose frames are read when asked for."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Literal

import numpy as np

from ..burst import Burst, Frame, Meta
from ..errors import ArgumentError, BurstError, ReadError
from .buffers import Recycled
from .image_files import read_coded
from .order import FrameSource, Order, PathLike, Paths, find_frames, image_kind, read_head
from .raw_files import NoMosaicError, read_developed, read_mosaic
from .tiff_files import read_tiff

Domain = Literal["raw", "rgb", "auto"]
DOMAINS = ("raw", "rgb", "auto")


def read_burst(paths: Paths, *, order: Order = "name", domain: Domain = "raw") -> Burst:
    """Burst of files, folders and patterns (see ``find_frames``); files are opened when a frame is asked for.

    ``domain`` says what becomes of camera raws: "raw" keeps their mosaics, "rgb" develops each one to linear
    light, "auto" keeps mosaics where the sensor has a Bayer pattern and develops otherwise. Image files are
    images in any domain. All frames take white balance and levels from frame 0. Frames may be read from
    several threads. Raises ReadError for missing, empty or unreadable files; reading a frame raises
    ReadError, or BurstError when it does not match frame 0.
    """
    if domain not in DOMAINS:
        raise ArgumentError(f"read_burst: domain must be one of {', '.join(DOMAINS)}, got {domain!r}")
    sources = find_frames(paths, order)
    for path in {s.path for s in sources}:
        read_head(path)
    return Burst([s.name for s in sources], _Reader(sources, domain).read)


def read_image(path: PathLike) -> Frame:
    """One image file or camera raw as an image: raws are developed to linear light with their own levels."""
    source = FrameSource(Path(os.fspath(path)))
    return _read(source, "rgb", None)


def check_same(first: Frame, frame: Frame) -> None:
    """Raise BurstError unless both frames are of one size, kind of pixel, CFA order and camera."""
    one, two = first.meta, frame.meta
    if first.size != frame.size:
        (h0, w0), (h1, w1) = first.size, frame.size
        found = f"{two.name} is {w1} x {h1} px, {one.name} is {w0} x {h0} px"
    elif one.camera and two.camera and one.camera != two.camera:
        found = f"{two.name} is from {two.camera}, {one.name} from {one.camera}"
    elif one.cfa != two.cfa:
        found = f"{two.name} is {_pattern(two)}, {one.name} is {_pattern(one)}"
    elif first.data.shape != frame.data.shape or first.data.dtype != frame.data.dtype:
        found = f"{two.name} is {_pixels(frame)}, {one.name} is {_pixels(first)}"
    else:
        return
    raise BurstError(f"read_burst: the frames are not of one burst: {found}; leave out the ones that do not belong")


def _pattern(meta: Meta) -> str:
    return f"a {meta.cfa} mosaic" if meta.cfa else "an image"


def _pixels(frame: Frame) -> str:
    return f"{frame.data.dtype} {'grey' if frame.data.ndim == 2 else 'RGB'}"


class _Reader:
    """Reads frames of one burst and holds frame 0's facts, to which all others are compared."""

    def __init__(self, sources: list[FrameSource], domain: Domain) -> None:
        self._sources = sources
        self._domain = domain
        self._lock = Lock()
        self._memory = Recycled()
        self._first: Frame | None = None

    def read(self, index: int) -> Frame:
        """Frame ``index``; reads frame 0 before it if nobody has yet."""
        if index == 0:
            frame = _read(self._sources[0], self._domain, None, self._memory)
            self._keep(frame)
            return frame
        with self._lock:
            if self._first is None:
                self._keep(_read(self._sources[0], self._domain, None, self._memory))
            first = self._first
        assert first is not None
        # "auto" was decided by frame 0
        domain = self._domain if self._domain != "auto" else ("raw" if first.is_mosaic else "rgb")
        frame = _read(self._sources[index], domain, first.meta if self._sources[0].is_raw else None, self._memory)
        check_same(first, frame)
        if frame.is_mosaic:
            one = first.meta
            levels = replace(frame.meta, black=one.black, white=one.white, white_balance=one.white_balance)
            frame = Frame(frame.data, replace(levels, xyz_to_camera=one.xyz_to_camera))
        return frame

    def _keep(self, frame: Frame) -> None:
        """Hold the frame's facts with a stand-in for its pixels: right shape and dtype, no memory."""
        stand_in = np.broadcast_to(np.zeros((), frame.data.dtype), frame.data.shape)
        self._first = Frame(stand_in, frame.meta)


def _read(source: FrameSource, domain: Domain, first: Meta | None, memory: Recycled | None = None) -> Frame:
    path = source.path
    if not source.is_raw:
        if not path.is_file():
            raise ReadError(f"{path}: no such file")
        return read_tiff(path, source.page, memory) if image_kind(read_head(path)) == "tiff" else read_coded(path)
    if domain == "rgb":
        return read_developed(path, first)
    try:
        return read_mosaic(path)
    except NoMosaicError:
        if domain == "raw":
            raise
        return read_developed(path, first)
