"""The state of an exported folding network for a whole frame: in this machine's memory, in a file, or on a card."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
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
KEPT_BYTES = 256_000_000  # from step to step, of memory for parts
Lot = dict[str, npt.NDArray[np.float32]]  # flat arrays by name, each as large as the largest that was wanted


class ArrayState:
    """The state in arrays; past ``memory`` bytes (None: half of this machine's) in one temporary file.

    What is read of it lies in two lots of memory in turn, so until the next but one is read; parts that were written
    give theirs to the next. Fresh pages cost more than the copies themselves. Results are put in their places by a
    thread of its own, while the next tiles run; it is done when the step is over (``turn``).
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
        self._lots: tuple[Lot, Lot] = ({}, {})
        self._free: dict[tuple[int, ...], list[Array]] = {}  # of parts that were written
        self._writer = ThreadPoolExecutor(1, "pyfocus-state")
        self._jobs: list[Future[None]] = []

    def read(self, windows: list[Box]) -> dict[str, Array]:
        """The state of parts of the frame of one size, a batch, by the names of the graph's inputs."""
        self._lots = self._lots[::-1]
        parts = {}
        for name, own, s in zip(self._names, self._maps, self._strides, strict=True):
            if s:
                where = [window.within(self._frame, s) for window in windows]
                shape = (len(windows), own.shape[1], *map(_length, where[0]))
                parts[name] = _room(self._lots[0], name, shape)
                self._copy(own, [(rows.start, columns.start) for rows, columns in where], parts[name])
            else:
                parts[name] = np.repeat(own, len(windows), 0)
        if self._pages:
            self._pages.release()
        return parts

    def cores(self, state: dict[str, Array], cores: list[Box], windows: list[Box]) -> list[list[Array]]:
        """Of a state of ``windows``, what lies in each one's core: copies, begun, until they are written."""
        return [self._core(state, k, core, window) for k, (core, window) in enumerate(zip(cores, windows, strict=True))]

    def _core(self, state: dict[str, Array], k: int, core: Box, window: Box) -> list[Array]:
        parts: list[Array] = []
        copies: list[tuple[Array, Array]] = []
        for name, s in zip(self._names, self._strides, strict=True):
            values = state[name][k : k + 1]
            if s:
                values = _part(values, core.within(window, s))
                free = self._free.get(values.shape)
                part = free.pop() if free else np.empty(values.shape, np.float32)
                copies.append((part, values))
                values = part
            parts.append(values)
        self._begin(copies)
        return parts

    def _copy(self, source: Array, origins: list[tuple[int, int]], to: Array) -> None:
        """Parts of maps (1, C, H, W), by all threads."""
        _C.tile_gather(source[0], np.array(origins, np.int32), to, threads=self._threads)

    def write(self, done: Sequence[tuple[Box, list[Array]]]) -> None:
        """Put maps of parts of the frame in their places."""
        copies = [
            (_part(own, box.within(self._frame, s)), part)
            for box, parts in done
            for own, part, s in zip(self._maps, parts, self._strides, strict=True)
            if s
        ]
        self._begin(copies, written=True)

    def _begin(self, copies: list[tuple[Array, Array]], written: bool = False) -> None:
        """Have the writer copy arrays, (to, from), after what it was given before."""

        def copy() -> None:
            for to, values in copies:
                np.copyto(to, values)
                if written:
                    self._free.setdefault(values.shape, []).append(values)
                    if self._pages:
                        self._pages.release()

        self._jobs.append(self._writer.submit(copy))

    def _settle(self) -> None:
        """Wait until everything is in its place."""
        jobs, self._jobs = self._jobs, []
        for job in jobs:
            job.result()

    def turn(self, parts: list[Array]) -> None:
        """A step is over: take over what is no map from any tile."""
        self._settle()
        if sum(part.nbytes for parts in self._free.values() for part in parts) > KEPT_BYTES:
            self._free.clear()
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
        self._writer.shutdown()
        self._maps, self._lots = [], ({}, {})
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
        self._placed: dict[tuple[Any, ...], AnyArray] = {}
        self._clean = True

    def read(self, windows: list[Box]) -> dict[str, AnyArray]:
        """The state of parts of the frame of one size, a batch, by the names of the graph's inputs."""
        parts = {}
        for name, own, s in zip(self._names, self._maps, self._strides, strict=True):
            parts[name] = self._on.kept(f"in {name}", self._shape(own, windows, s))
            self._gather(own.reshape(own.shape[1:]), self._origins(windows, s), parts[name])
        return parts

    def outputs(self, windows: list[Box]) -> dict[str, AnyArray]:
        """Arrays for a step to write, by the names of the graph's outputs."""
        named = zip(self._names, self._maps, self._strides, strict=True)
        return {next_name(name): self._on.kept(f"out {name}", self._shape(own, windows, s)) for name, own, s in named}

    def put(self, outputs: dict[str, AnyArray], core: Box, windows: list[Box]) -> None:
        """Put a step's outputs into the next state: of all windows what lies as ``core`` does in the first."""
        if self._clean:
            for array in self._next:
                _clear(array, self._on)
            self._clean = False
        for name, to, s in zip(self._names, self._next, self._strides, strict=True):
            part = outputs[next_name(name)]
            if s:
                _C.tile_scatter(
                    part, self._origins(windows, s), self._mask(core.within(windows[0], s), part.shape[2:]),
                    to.reshape(to.shape[1:]), self._weights[s], stream=self._on.stream,
                )  # fmt: skip
            else:  # of the batch, the first: a row of a picture
                count, channels = part.shape[:2]
                row = to.reshape((1, 1, 1, channels))
                self._gather(part.reshape((1, count, channels)), self._origins(windows[:1], s), row)

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

    def _shape(self, own: AnyArray, windows: list[Box], stride: int) -> tuple[int, ...]:
        """Of windows' parts of a map."""
        size = map(_length, windows[0].within(self._frame, stride)) if stride else own.shape[2:]
        return len(windows), own.shape[1], *size

    def _origins(self, windows: list[Box], stride: int) -> AnyArray:
        """(B, 2) int32: where tiles begin; in what is no map, at its one pixel."""
        corners = tuple((w.y0 // stride, w.x0 // stride) if stride else (0, 0) for w in windows)
        return self._place(corners, lambda: np.array(corners, np.int32))

    def _gather(self, source: AnyArray, origins: AnyArray, to: AnyArray) -> None:
        _C.tile_gather(source, origins, to, stream=self._on.stream)

    def _mask(self, core: tuple[slice, slice], size: tuple[int, int]) -> AnyArray:
        """(h, w): 1 in the core, 0 around it."""

        def make() -> Array:
            mask = np.zeros(size, np.float32)
            mask[core] = 1
            return mask

        rows, columns = core
        return self._place((rows.start, rows.stop, columns.start, columns.stop, *size), make)

    def _place(self, key: tuple[Any, ...], make: Any) -> AnyArray:
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


def _room(lot: Lot, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """An array of a lot's memory."""
    size = int(np.prod(shape))
    if name not in lot or lot[name].size < size:
        lot[name] = np.empty(size, np.float32)
    return lot[name][:size].reshape(shape)


def _length(side: slice) -> int:
    return int(side.stop - side.start)


def _clear(array: AnyArray, on: Arrays) -> None:
    if on.is_device:
        _C.device_fill(array, 0, stream=on.stream)
    else:
        array[...] = 0
