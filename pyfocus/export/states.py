"""The state of an exported folding network for a whole frame: in this machine's memory, in a file, or on a card."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import _C
from ..arrays import AnyArray, Arrays, DeviceArrays
from ..framestore import Pages, half_of_memory
from ..tiles import Box, Size, whole
from .exported import next_name
from .facts import Facts

Array = npt.NDArray[Any]


class ArrayState:
    """The state in arrays; past ``memory`` bytes (None: half of this machine's) in one temporary file.

    What is read of it lies in the same memory every time, until the next is read; parts that were written give theirs
    to the next. Fresh pages cost more than the copies themselves.
    """

    def __init__(
        self, facts: Facts, size: Size, memory: int | None, folder: str | os.PathLike[str] | None, threads: int = 0
    ) -> None:
        self._frame, self._threads = whole(size), threads
        self._strides = [stride for *_, stride in facts.state]
        self._names = [name for name, *_ in facts.state]
        shapes = shapes_of(facts, size)
        self.bytes = sum(4 * int(np.prod(shape)) for shape in shapes)
        limit = half_of_memory() if memory is None else memory
        self._pages = Pages(folder) if self.bytes > limit else None
        self._maps = [self._take(shape) for shape in shapes]
        self._read: dict[str, npt.NDArray[np.float32]] = {}  # flat, as large as the largest window
        self._free: dict[tuple[int, ...], list[Array]] = {}  # of parts that were written

    def read(self, window: Box) -> dict[str, Array]:
        """The state of a part of the frame, by the names of the graph's inputs, until the next is read."""
        parts = {}
        for name, own, s in zip(self._names, self._maps, self._strides, strict=True):
            parts[name] = own
            if s:
                where = window.within(self._frame, s)
                there = _part(own, where)
                if name not in self._read or self._read[name].size < there.size:
                    self._read[name] = np.empty(there.size, np.float32)
                parts[name] = self._read[name][: there.size].reshape(there.shape)
                self._copy(own, where, parts[name])
        return parts

    def cores(self, state: dict[str, Array], core: Box, window: Box) -> list[Array]:
        """Of a state of ``window``, what lies in ``core``: copies, until they are written."""
        parts = []
        for name, s in zip(self._names, self._strides, strict=True):
            parts.append(state[name])
            if s:
                where = core.within(window, s)
                shape = _part(state[name], where).shape
                free = self._free.get(shape)
                parts[-1] = free.pop() if free else np.empty(shape, np.float32)
                self._copy(state[name], where, parts[-1])
        return parts

    def _copy(self, source: Array, where: tuple[slice, slice], to: Array) -> None:
        """A part of maps (1, C, H, W), by all threads."""
        origin = np.array([[where[0].start, where[1].start]], np.int32)
        _C.tile_gather(source[0], origin, to, threads=self._threads)

    def write(self, done: Sequence[tuple[Box, list[Array]]]) -> None:
        """Put maps of parts of the frame in their places."""
        copies = [
            (_part(own, box.within(self._frame, s)), part)
            for box, parts in done
            for own, part, s in zip(self._maps, parts, self._strides, strict=True)
            if s
        ]
        with ThreadPoolExecutor(self._threads or _C.threads()) as pool:
            list(pool.map(np.copyto, *zip(*copies, strict=True)) if copies else ())
        for _, part in copies:
            self._free.setdefault(part.shape, []).append(part)
        if self._pages:
            self._pages.release()

    def turn(self, parts: list[Array]) -> None:
        """A step is over: take over what is no map from any tile."""
        self._maps = [m if s else part for m, part, s in zip(self._maps, parts, self._strides, strict=True)]

    def arrays(self) -> Iterator[Array]:
        """All of it, in the order of the metadata."""
        yield from self._maps

    def restore(self, arrays: Iterator[Array]) -> None:
        """Take all of it from what ``arrays`` gave."""
        for own, array in zip(self._maps, arrays, strict=True):
            own[...] = array
        if self._pages:
            self._pages.release()

    def close(self) -> None:
        """Give the memory away."""
        self._maps.clear()
        self._read.clear()
        self._free.clear()
        if self._pages:
            self._pages.close()

    def _take(self, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        if self._pages is None:
            return np.zeros(shape, np.float32)
        size = 4 * int(np.prod(shape))
        return self._pages.take(size, "the state of an exported network").view(np.float32).reshape(shape)


class BoundState:
    """The state where ``arrays`` lie, a card's memory: tiles of it are gathered and put back there, by kernels.

    There are two: steps read one and write the other, so no tile waits. What a step gives comes as arrays that it wrote
    in place (``outputs``); nothing of the state crosses the bus.
    """

    def __init__(self, facts: Facts, size: Size, arrays: Arrays) -> None:
        self._frame, self._on = whole(size), arrays
        self._strides = [stride for *_, stride in facts.state]
        self._names = [name for name, *_ in facts.state]
        shapes = shapes_of(facts, size)
        self._maps = [arrays.zeros(shape) for shape in shapes]
        self._next = [arrays.zeros(shape) for shape in shapes]
        self._weights = {s: arrays.empty((size[0] // s, size[1] // s)) for s in self._strides if s}
        self._placed: dict[tuple[int, ...], AnyArray] = {}
        self._clean = True

    def read(self, window: Box) -> dict[str, AnyArray]:
        """The state of a part of the frame, by the names of the graph's inputs."""
        parts = {}
        for name, own, s in zip(self._names, self._maps, self._strides, strict=True):
            parts[name] = own
            if s:
                rows, columns = window.within(self._frame, s)
                parts[name] = self._on.kept(f"in {name}", (1, own.shape[1], _length(rows), _length(columns)))
                origin = self._origin(rows.start, columns.start)
                _C.tile_gather(own.reshape(own.shape[1:]), origin, parts[name], stream=self._on.stream)
        return parts

    def outputs(self, window: Box) -> dict[str, AnyArray]:
        """Arrays for a step to write, by the names of the graph's outputs."""
        shapes = {
            name: (1, own.shape[1], *(_length(side) for side in window.within(self._frame, s))) if s else own.shape
            for name, own, s in zip(self._names, self._maps, self._strides, strict=True)
        }
        return {next_name(name): self._on.kept(f"out {name}", shape) for name, shape in shapes.items()}

    def put(self, outputs: dict[str, AnyArray], core: Box, window: Box) -> None:
        """Put what lies in ``core`` of a step's outputs in its place in the next state."""
        if self._clean:
            for array in self._next:
                _clear(array, self._on)
            self._clean = False
        for name, to, s in zip(self._names, self._next, self._strides, strict=True):
            part = outputs[next_name(name)]
            if s:
                rows, columns = window.within(self._frame, s)
                _C.tile_scatter(
                    part, self._origin(rows.start, columns.start), self._mask(core.within(window, s), part.shape[2:]),
                    to.reshape(to.shape[1:]), self._weights[s], stream=self._on.stream,
                )  # fmt: skip
            else:
                self._copy(to, part)

    def write(self, done: Sequence[Any]) -> None:
        """Nothing waits."""

    def turn(self, parts: list[Any]) -> None:
        """A step is over: the next state is the state."""
        self._maps, self._next, self._clean = self._next, self._maps, True

    def arrays(self) -> Iterator[Array]:
        """All of it, in the order of the metadata, in the host's memory."""
        for own in self._maps:
            yield self._on.to_host(own)

    def restore(self, arrays: Iterator[Array]) -> None:
        """Take all of it from what ``arrays`` gave."""
        for own, array in zip(self._maps, arrays, strict=True):
            self._copy(own, array)
        self._on.wait()

    def close(self) -> None:
        """Give the memory away."""
        self._maps, self._next, self._placed = [], [], {}
        self._weights.clear()

    def _origin(self, y: int, x: int) -> AnyArray:
        """(1, 2) int32: where a tile begins."""
        return self._place((y, x), lambda: np.array([[y, x]], np.int32))

    def _mask(self, core: tuple[slice, slice], size: tuple[int, int]) -> AnyArray:
        """(h, w): 1 in the core, 0 around it."""

        def make() -> Array:
            mask = np.zeros(size, np.float32)
            mask[core] = 1
            return mask

        rows, columns = core
        return self._place((rows.start, rows.stop, columns.start, columns.stop, *size), make)

    def _place(self, key: tuple[int, ...], make: Any) -> AnyArray:
        if key not in self._placed:
            self._placed[key] = self._on.upload(make())
        return self._placed[key]

    def _copy(self, to: AnyArray, array: AnyArray) -> None:
        if self._on.is_device:
            _C.device_copy(to, array, stream=self._on.stream)
        else:
            to[...] = array


def fits_twice(facts: Facts, size: Size, arrays: Arrays) -> bool:
    """True when two states take no more than half of the card's free memory."""
    if not isinstance(arrays, DeviceArrays):
        return False
    return 2 * sum(4 * int(np.prod(shape)) for shape in shapes_of(facts, size)) <= arrays.room // 2


def shapes_of(facts: Facts, size: Size) -> list[tuple[int, ...]]:
    """Of every map of the state, for a frame (h, w)."""
    return [(1, c, size[0] // s, size[1] // s) if s else (1, c, 1, 1) for _, c, s in facts.state]


def _part(values: Array, where: tuple[slice, slice]) -> Array:
    return values[:, :, where[0], where[1]]


def _length(side: slice) -> int:
    return int(side.stop - side.start)


def _clear(array: AnyArray, on: Arrays) -> None:
    if on.is_device:
        _C.device_fill(array, 0, stream=on.stream)
    else:
        array[...] = 0
