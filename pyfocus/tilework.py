"""Work on tiles, in order: alike ones some at once, the next ones gathered while these are worked on.

Where memory ends, fewer tiles are taken at once, then smaller ones, and it stays so for those to come.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from typing import Any, TypeVar

from .errors import ResourceError
from .tiles import Box

SMALLEST_TILE_PX = 64
G = TypeVar("G")
T = TypeVar("T")


class TileRuns:
    """Runs work over tiles of at most ``tile_px``, ``at_once`` of them together where they are alike.

    ``ahead``: what the next ones need is gathered by another thread meanwhile. ``fixed``: tiles cannot be cut.
    """

    def __init__(self, tile_px: int, *, at_once: int = 1, ahead: bool = False, fixed: bool = False) -> None:
        self.tile_px, self.at_once, self.ahead, self.fixed = tile_px, at_once, ahead, fixed

    def run(
        self,
        tiles: Iterable[Box],
        window: Callable[[Box], Box],
        gather: Callable[[list[Box]], G],
        work: Callable[[list[Box], G], Sequence[T]],
    ) -> Iterator[tuple[Box, T]]:
        """Every tile, or part of one, in order, with what ``work(group, gather(group))`` gave for it, as it comes.

        Tiles of a group have windows of one size and lie in them alike. ``gather`` may run in another thread, while
        ``work`` is at the group before and while the caller looks at results. Raises ResourceError when memory ends.
        """
        coming = deque(tiles)
        with ThreadPoolExecutor(1, "pyfocus-tiles") if self.ahead else nullcontext() as reader:
            group = self._take(coming, window)
            fetch = _fetch(reader, gather, group)
            while group:
                after: list[Box] = []
                results: Sequence[T] = ()
                short = ""
                try:
                    gathered = fetch()
                    after = self._take(coming, window)
                    fetch = _fetch(reader, gather, after)
                    self._prepare()
                    results = work(group, gathered)
                except Exception as error:
                    short = self._shortage(error)
                    if not short:
                        raise
                gathered = None  # type: ignore[assignment]
                if short:  # outside the handler, whose traceback holds on to arrays
                    coming.extendleft(reversed([*group, *after]))
                    self._retreat(short, len(group))
                    after = self._take(coming, window)
                    fetch = _fetch(reader, gather, after)
                yield from zip(group, results, strict=False)
                group = after

    def _take(self, coming: deque[Box], window: Callable[[Box], Box]) -> list[Box]:
        """The next tiles, cut to size."""

        def alike(tile: Box) -> tuple[Any, ...]:
            there = window(tile)
            return there.size, tile.within(there)

        if not coming:
            return []
        first = coming.popleft()
        parts = [first] if self.fixed else first.cut(self.tile_px, self.tile_px)
        coming.extendleft(reversed(parts[1:]))
        group = parts[:1]
        while coming and len(group) < self.at_once and self._fits(coming[0]) and alike(coming[0]) == alike(group[0]):
            group.append(coming.popleft())
        return group

    def _fits(self, tile: Box) -> bool:
        return self.fixed or max(tile.size) <= self.tile_px

    def _prepare(self) -> None:
        """Before every work."""

    def _shortage(self, error: Exception) -> str:
        """In words, that memory ended; nothing for other errors."""
        return str(error) or "out of memory" if isinstance(error, MemoryError) else ""

    def _retreat(self, text: str, count: int) -> None:
        """There was no memory for so many tiles at once: take fewer, or smaller ones. Raises ResourceError."""
        if count > 1:
            self.at_once = count // 2
        elif self.fixed or self.tile_px <= SMALLEST_TILE_PX:
            what = "this model's tiles" if self.fixed else f"tiles of {self.tile_px} px"
            raise ResourceError(f"{text}; {what} do not fit into memory: close other programs, or work on the CPU")
        else:
            self.tile_px = max(SMALLEST_TILE_PX, self.tile_px // 2 // SMALLEST_TILE_PX * SMALLEST_TILE_PX)


def _fetch(reader: ThreadPoolExecutor | None, gather: Callable[[list[Box]], G], group: list[Box]) -> Callable[[], G]:
    """What gives the gathered, begun if there is a thread for it."""
    if reader is None or not group:
        return partial(gather, group)
    return reader.submit(gather, group).result
