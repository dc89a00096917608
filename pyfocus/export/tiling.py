"""Work tile by tile in a runtime of exported files: smaller tiles where memory ends, or tiles of one size alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ..errors import ResourceError
from ..tiles import Box

SMALLEST_TILE_PX = 64


class Tiles:
    """Work tile by tile, in order. Where memory ends, tiles are halved, down to 64 pixels, and stay so.

    ``fixed``: the tiles cannot be made smaller.
    """

    def __init__(self, tile_px: int, fixed: bool = False) -> None:
        self.tile_px, self.fixed = tile_px, fixed

    def run(self, tiles: Iterable[Box], work: Callable[[Box], Any]) -> Iterator[tuple[Box, Any]]:
        """``work(tile)`` for all tiles, and what it gave, as it comes. Raises ResourceError when memory ends."""
        for tile in tiles:
            for part in [tile] if self.fixed else tile.cut(self.tile_px, self.tile_px):
                yield from self._attempt(part, work)

    def _attempt(self, tile: Box, work: Callable[[Box], Any]) -> list[tuple[Box, Any]]:
        try:
            return [(tile, work(tile))]
        except MemoryError as error:
            text = str(error) or "out of memory"
        # outside the handler, whose traceback holds on to arrays
        if self.fixed or self.tile_px <= SMALLEST_TILE_PX:
            what = "this model's tiles" if self.fixed else f"tiles of {self.tile_px} px"
            raise ResourceError(f"{text}; {what} do not fit into memory: close other programs, or work on the CPU")
        self.tile_px = max(SMALLEST_TILE_PX, self.tile_px // 2 // SMALLEST_TILE_PX * SMALLEST_TILE_PX)
        return [entry for part in tile.cut(self.tile_px, self.tile_px) for entry in self._attempt(part, work)]
