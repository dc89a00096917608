"""Warped frames kept until all have come: 16 bits a value, in memory up to a limit and in one temporary file past it.

Values are kept as roots, which spends the codes as evenly as noise and eyes do:

    root = sign(v) sqrt(|v|)        code = round((root - LOWEST) / STEP)        v = root |root|

LOWEST = -0.25 and STEP = 2.25 / 65535 hold -0.0625 to 4 (noise below black; highlights past white by white balance and
gain); beyond that values are clipped. The error is at most |root| STEP + STEP^2 / 4: 3.4e-5 at white and 3.4e-6 at
0.01, under two codes of 16-bit sRGB everywhere, where linear codes over the same range would be off by 26 in the
shadows.
"""

from __future__ import annotations

import mmap
import os
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _C
from .errors import ArgumentError, BurstError, ResourceError
from .fuse import Planes

LOWEST, HIGHEST = -0.25, 2.0  # roots of the smallest and the largest value
STEP = (HIGHEST - LOWEST) / 65535
Codes = npt.NDArray[np.uint16]
_AT_ONCE = 8  # frames whose pages are in memory at a time
_AROUND = 2 << 20  # bytes: Linux maps up to so much before and after a page that is touched, all that one table holds


class FrameStore:
    """Frames (C, H, W) float32 of linear light, given back tile by tile; close it, or leave it to the collector.

    ``memory``: bytes that frames may take here; those that do not fit go to one temporary file, mapped into memory.
    None: half of this machine's. ``folder``: where that file lies (default: TMPDIR, else /var/tmp, which unlike /tmp is
    never in memory). ``threads`` encode a frame (0: all). Raises ResourceError when the disk is full; the frames before
    stay.
    """

    def __init__(
        self, memory: int | None = None, folder: str | os.PathLike[str] | None = None, threads: int = 0
    ) -> None:
        if memory is not None and memory < 0:
            raise ArgumentError(f"FrameStore: memory must be 0 bytes or more, or None, got {memory}")
        self.memory = half_of_memory() if memory is None else memory
        self.threads = threads
        self.shape: tuple[int, int, int] | None = None
        self.in_memory_bytes = 0
        self._frames: list[Codes] = []
        self._homes: list[int | None] = []  # where in the pages a frame lies; None: in memory
        self._pages = Pages(folder)
        self._closed = False

    @property
    def on_disk_bytes(self) -> int:
        """What the temporary file takes."""
        return self._pages.bytes

    def __len__(self) -> int:
        return len(self._frames)

    def __enter__(self) -> FrameStore:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def push(self, planes: Planes) -> None:
        """Keep a frame (C, H, W), finite; all are of one shape. Raises ArgumentError, BurstError, ResourceError."""
        if self._closed:
            raise ArgumentError("FrameStore.push: the store was closed; make a new one")
        if planes.ndim != 3 or planes.dtype != np.float32 or not planes.size:
            raise ArgumentError(f"FrameStore.push: planes must be (C, H, W) float32, got {planes.shape} {planes.dtype}")
        if self.shape not in (None, planes.shape):
            raise BurstError(f"FrameStore.push: frame {len(self)} is {planes.shape}, the first was {self.shape}")
        size = 2 * planes.size
        home: int | None = None
        if self.in_memory_bytes + size <= self.memory:
            codes = np.empty(planes.shape, np.uint16)
            self.in_memory_bytes += size
        else:
            home = self._pages.pieces
            codes = self._pages.take(size, f"FrameStore.push: frame {len(self)}").view(np.uint16).reshape(planes.shape)
        planes = np.ascontiguousarray(planes)
        for c in range(len(planes)):
            part = slice(c, c + 1)
            _C.roots_encode(planes[part], codes[part], LOWEST, HIGHEST, 1 / STEP, threads=self.threads)
            if home is not None:
                self._pages.release_part(home, c * codes[0].nbytes, (c + 1) * codes[0].nbytes)
        self.shape = (planes.shape[0], planes.shape[1], planes.shape[2])
        self._frames.append(codes)
        self._homes.append(home)

    def tile(self, rows: slice, columns: slice, frames: Sequence[int] | None = None) -> Planes:
        """(N, C, h, w) float32: a part of every frame, or of the ``frames`` named, in that order."""
        return self.read(rows, columns, frames, light_of_codes())

    def read(self, rows: slice, columns: slice, frames: Sequence[int] | None, table: npt.NDArray[np.float32]) -> Planes:
        """(N, C, h, w) float32: what ``table`` (65536,) says of each code; ``tile`` takes that of light."""
        chosen = range(len(self)) if frames is None else frames
        values: Planes | None = None
        for first in range(0, len(chosen), _AT_ONCE):
            some = chosen[first : first + _AT_ONCE]
            parts = self.codes(rows, columns, some)
            if values is None:
                values = np.empty((len(chosen), *parts[0].shape), np.float32)
            _C.roots_lookup(parts, table, values[first : first + _AT_ONCE], threads=1)
            self.release(rows, some)
        if values is None:
            raise BurstError("FrameStore.tile: no frames were pushed, or the store was closed")
        return values

    def codes(self, rows: slice, columns: slice, frames: Sequence[int] | None = None) -> list[Codes]:
        """(C, h, w) uint16 of every frame, or of the ``frames`` named: views. ``release`` when they were read."""
        if not self._frames:
            raise BurstError("FrameStore.tile: no frames were pushed, or the store was closed")
        chosen = range(len(self)) if frames is None else frames
        return [self._frames[i][:, rows, columns] for i in chosen]

    def release(self, rows: slice, frames: Sequence[int] | None = None) -> None:
        """What was read of a file in these rows need not stay in memory; other threads' rows do."""
        if not self._pages.bytes or self.shape is None:
            return
        channels, height, width = self.shape
        top, bottom, _ = rows.indices(height)
        for i in range(len(self)) if frames is None else frames:
            home = self._homes[i]
            if home is not None:
                for channel in range(channels):
                    first = 2 * width * (channel * height + top)
                    self._pages.release_part(home, first, first + 2 * width * (bottom - top))

    def close(self) -> None:
        """Give memory and file away; closing twice does nothing."""
        self._closed = True
        self._frames.clear()
        self._homes.clear()
        self._pages.close()


class Pages:
    """Memory that lies in one temporary file, taken piece by piece; ``bytes`` of it so far.

    The file has no name from the beginning, so nothing stays behind however the process ends. Its room is reserved
    before it is mapped: a disk that fills up is a ResourceError, not the signal that a write to a map would end in.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self.folder = _roomy_folder() if folder is None else Path(folder)
        self.bytes = 0
        self._file: Any = None
        self._closing: Any = None
        self._maps: list[mmap.mmap] = []

    def take(self, size: int, what: str) -> npt.NDArray[np.uint8]:
        """``size`` more bytes to read and write, for as long as the array lives. ``what`` needs them: for the error."""
        length = -(-size // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="pyfocus-", dir=self.folder)  # noqa: SIM115
                self._closing = weakref.finalize(self, self._file.close)
            os.posix_fallocate(self._file.fileno(), self.bytes, length)
            pages = mmap.mmap(self._file.fileno(), length, offset=self.bytes)
        except OSError as error:
            if self._file is not None:
                os.ftruncate(self._file.fileno(), self.bytes)
            raise ResourceError(
                f"{what} ({size / 1e6:.0f} MB) does not fit into {self.folder}, which holds {self.bytes / 1e6:.0f} MB "
                f"of this already: {error.strerror}; allow more memory, or set TMPDIR to a folder with room"
            ) from error
        self.bytes += length
        self._maps.append(pages)
        return np.frombuffer(pages, np.uint8, size)

    @property
    def pieces(self) -> int:
        """How many were taken."""
        return len(self._maps)

    def release(self) -> None:
        """Leave it to the system what of it stays in memory: this process has no claim until it touches it again."""
        for pages in self._maps:
            pages.madvise(mmap.MADV_DONTNEED)

    def release_part(self, piece: int, first: int, end: int) -> None:
        """The same for bytes [first, end) of one piece, and for what the system mapped around them with them."""
        pages, page = self._maps[piece], mmap.PAGESIZE
        first, end = max(0, first - _AROUND) // page * page, min(-(-(end + _AROUND) // page) * page, len(pages))
        pages.madvise(mmap.MADV_DONTNEED, first, end - first)

    def close(self) -> None:
        """Give the file away; arrays still in use keep their pages."""
        self._maps.clear()
        if self._closing is not None:
            self._closing()


def disk_room(folder: str | os.PathLike[str] | None = None) -> int:
    """Bytes that are free where the temporary file would lie."""
    return shutil.disk_usage(_roomy_folder() if folder is None else folder).free


def half_of_memory() -> int:
    """Half of this machine's memory, in bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


@lru_cache(maxsize=1)
def light_of_codes() -> npt.NDArray[np.float32]:
    """Linear light of every code."""
    root = np.arange(65536) * STEP + LOWEST
    table: npt.NDArray[np.float32] = (root * np.abs(root)).astype(np.float32)
    table[round(-LOWEST / STEP)] = 0  # the code of 0 is 0, not a billionth
    table.setflags(write=False)
    return table


def _roomy_folder() -> Path:
    large = Path("/var/tmp")
    return large if not os.environ.get("TMPDIR") and os.access(large, os.W_OK) else Path(tempfile.gettempdir())
