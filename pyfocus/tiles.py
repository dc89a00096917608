"""Tiles of a large frame: boxes with halos, and how they are read.

What a network computes at a pixel depends on pixels no further than its halo. So a tile read with a halo around it
gives, inside, exactly what the whole frame would: borders of the frame are borders of the tile, too, and tiles begin
where the network's halvings do.

Some networks' files take tiles of one size alone: :class:`FixedTiles` cuts a frame so that every tile, its halo
included, lies inside it, the last ones reaching back from the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import ArgumentError

Size = tuple[int, int]


@dataclass(frozen=True)
class Box:
    """Rows y0 to y1 and columns x0 to x1 of a frame, the ends not included."""

    y0: int
    y1: int
    x0: int
    x1: int

    @property
    def size(self) -> Size:
        """(h, w)."""
        return self.y1 - self.y0, self.x1 - self.x0

    def grown(self, halo: int, size: Size) -> Box:
        """With ``halo`` pixels around it, as far as the frame of ``size`` (h, w) goes."""
        return Box(
            max(0, self.y0 - halo), min(size[0], self.y1 + halo), max(0, self.x0 - halo), min(size[1], self.x1 + halo)
        )

    def cut(self, height: int, width: int) -> list[Box]:
        """Pieces of at most ``height`` x ``width``, row by row."""
        return [
            Box(y, min(y + height, self.y1), x, min(x + width, self.x1))
            for y in range(self.y0, self.y1, height)
            for x in range(self.x0, self.x1, width)
        ]

    def within(self, outer: Box, stride: int = 1, scale: int = 1) -> tuple[slice, slice]:
        """Where it lies in an array of ``outer``, whose pixels are ``stride`` pixels apart, or 1 / ``scale`` of one."""
        y0, y1, x0, x1 = (
            n * scale // stride
            for n in (self.y0 - outer.y0, self.y1 - outer.y0, self.x0 - outer.x0, self.x1 - outer.x0)
        )
        return slice(y0, y1), slice(x0, x1)


def whole(size: Size, step: int = 1) -> Box:
    """All of a frame (h, w), made up to multiples of ``step``."""
    return Box(0, -(-size[0] // step) * step, 0, -(-size[1] // step) * step)


def read_box(planes: npt.NDArray[Any], box: Box) -> npt.NDArray[Any]:
    """(..., h, w) of planes (..., H, W); rows and columns past the end are mirrored about the last one."""
    h, w = planes.shape[-2:]
    part = planes[..., min(box.y0, h - 1) : box.y1, min(box.x0, w - 1) : box.x1]
    missing = [(0, 0)] * (planes.ndim - 2) + [(0, max(0, box.y1 - h)), (0, max(0, box.x1 - w))]
    return np.pad(part, missing, mode="reflect") if any(after for _, after in missing) else part


def rows_of_tiles(frame: Box, tile_px: int, halo: int) -> list[list[Box]]:
    """Tiles of at most ``tile_px`` in rows no lower than the halo, so that a tile reads no further than one row."""
    height = max(tile_px, -(-halo // tile_px) * tile_px)
    return [band.cut(tile_px, tile_px) for band in frame.cut(height, frame.x1)]


@dataclass(frozen=True)
class FixedTiles:
    """Windows of ``tile`` (h, w) alone; they begin at multiples of ``step``, which divides halos."""

    tile: Size
    step: int

    def rows(self, frame: Box, halo: int) -> list[list[Box]]:
        """What each window is good for, row by row: all of it that lies a halo away from where it was cut off.

        Raises ArgumentError for a frame that is smaller than a tile, and for a tile that its halo leaves nothing of.
        """
        for size, window in zip(frame.size, self.tile, strict=True):
            if size + self.step <= window or (size > window and window < 2 * halo + self.step):
                (height, width), (h, w) = frame.size, self.tile
                why = "the frame is smaller" if size + self.step <= window else f"a halo of {halo} px leaves none of it"
                raise ArgumentError(
                    f"tiles: this model takes tiles of {h} x {w} px alone, of which a frame of {height} x {width} px "
                    f"cannot be made: {why}; export it without --tile, or with another size"
                )
        rows = self._cuts(frame.y1, self.tile[0], halo)
        columns = self._cuts(frame.x1, self.tile[1], halo)
        return [[Box(y0, y1, x0, x1) for x0, x1 in columns] for y0, y1 in rows]

    def window(self, core: Box, frame: Box, halo: int) -> Box:
        """What is read for a core; shorter than the tile by less than a step, where the frame ends between steps."""
        y = self._origin(core.y0, frame.y1, self.tile[0], halo)
        x = self._origin(core.x0, frame.x1, self.tile[1], halo)
        return Box(y, min(y + self.tile[0], frame.y1), x, min(x + self.tile[1], frame.x1))

    def _cuts(self, size: int, window: int, halo: int) -> list[tuple[int, int]]:
        cuts, start = [], 0
        while start < size:
            origin = self._origin(start, size, window, halo)
            end = size if origin + window >= size else (origin + window - halo) // self.step * self.step
            cuts.append((start, end))
            start = end
        return cuts

    def _origin(self, start: int, size: int, window: int, halo: int) -> int:
        last = max(0, -(-(size - window) // self.step) * self.step)
        return min(max(0, start - halo), last)
