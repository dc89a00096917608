"""Tiles of a large frame: boxes with halos, and how they are read.

What a network computes at a pixel depends on pixels no further than its halo. So a tile read with a halo around it
gives, inside, exactly what the whole frame would: borders of the frame are borders of the tile, too, and tiles begin
where the network's halvings do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

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
