"""What networks as fusers have in common, whatever runs them: checks, white balance, noise, and folding by tiles.

Planes come as every fuser gets them: linear light, mosaics white-balanced. Networks see the camera's own values, so
balance is taken out before them and put back after.
"""

from __future__ import annotations

import bisect
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from .burst import Frame, Meta
from .errors import ArgumentError, BurstError, PyfocusError
from .fuse import Fused, Mask, Planes, _Folding
from .kept import Kept
from .noise import estimate_noise
from .tiles import Box, Size, read_box, rows_of_tiles, whole
from .tilework import TileRuns
from .warp import Domain

Noise = tuple[float, float]
Tell = Callable[[str, float, int], None]
# Assumed where a frame has no flat place to tell, or less variance than the least at a fifth of white: what the shipped
# network learned as clean pictures. Between lies nothing that it was shown: texture taken for noise would be smoothed.
CLEAN: Noise = (1e-6, 1e-8)
LEAST_VARIANCE, FIFTH = 6e-6, 0.2
AT_ONCE = 4  # tiles, on a card


@dataclass(frozen=True)
class Runtime:
    """What runs a network: ``name`` and ``version`` of the library, and where in it: a ``provider``, a device."""

    name: str
    version: str
    provider: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}, {self.provider}"


class NetworkFolding(_Folding, ABC):
    """Checks, white balance and grey pictures. ``network``: what it is called in errors.

    ``runtime`` says what runs it. ``tell(what, done, total)``, when set, is called from the thread that pushes, between
    tiles, with tiles of the "push" or the "finish" at hand; it may raise to stop. ``kept``, when set before the first
    frame, is where finished work is kept, and where an earlier run's is taken from.
    """

    domain: Domain = "rgb"
    gives_depth = False

    def __init__(self, network: str, threads: int, tile_px: int, step_px: int, at_once: int) -> None:
        super().__init__(threads)
        if tile_px < step_px:
            raise ArgumentError(f"{type(self).__name__}: tile_px must be {step_px} or more, got {tile_px}")
        if at_once < 1:
            raise ArgumentError(f"{type(self).__name__}: at_once must be 1 or more, got {at_once}")
        self._wanted_px, self._at_once = tile_px, at_once  # before memory made them less
        self._network = network
        self._balance = np.ones(3, np.float32)
        self._broken = False
        self.tell: Tell | None = None
        self.kept: Kept | None = None

    @property
    @abstractmethod
    def runtime(self) -> Runtime | None:
        """What runs the network now."""

    def begin(self, frame: Frame) -> None:
        """The burst's facts, from its first frame as the camera gave it: white balance, and what else is needed.

        A burst that was broken off at its first frame, for want of memory on a device, begins anew with it.
        """
        self.frames, self._shape, self._broken = 0, None, False
        if frame.is_mosaic:
            balance = np.asarray(frame.meta.white_balance, np.float32)
            self._balance = balance / balance[1]

    def _check(self, planes: Planes) -> None:
        """That a frame may be pushed: its pixels are numbers, and its planes what the network takes."""
        name, number = type(self).__name__, self.frames
        if self._broken:
            raise ArgumentError(f"{name}.push: an earlier push was broken off; make a new {name}")
        counts = (1, 3) if self.domain == "rgb" else (4,)
        if planes.ndim == 3 and planes.shape[0] not in counts:
            raise ArgumentError(
                f"{name}.push: {self._network} takes {' or '.join(map(str, counts))} planes, got "
                f"{planes.shape[0]}; stack with domain={self.domain!r} (--domain {self.domain})"
                + (", which needs camera raws" if self.domain == "raw" else "")
            )
        if not all(np.isfinite(plane).all() for plane in planes):
            raise BurstError(
                f"{name}.push: frame {number} has pixels that are not finite numbers (NaN or infinity), which a "
                "network would spread; leave the frame out or repair it"
            )

    def _need_frames(self, method: str) -> None:
        """That there is a burst to finish. No network has learned what to make of one frame."""
        super()._need_frames(method)
        if method == "finish" and self.frames < 2 and not self._broken:
            raise BurstError(
                f"{type(self).__name__}.finish: {self._network} takes bursts of two frames or more, got one; "
                "give it more, or take fuser='laplacian' (--fuser laplacian), which gives one back as it is"
            )

    def _three(self, planes: Planes) -> Planes:
        """Grey as three planes alike."""
        return np.broadcast_to(planes, (3, *planes.shape[1:])) if planes.shape[0] == 1 else planes

    def _as_given(self, image: Planes) -> Planes:
        """Grey again, where frames are grey."""
        grey = self._shape is not None and self._shape[0] == 1
        return np.asarray(image.mean(0, keepdims=True), np.float32) if grey else image


class Share:
    """How much of some tiles is done, told as it grows. Tiles that memory made smaller count for their part."""

    def __init__(self, tell: Tell | None, what: str, sizes: list[tuple[int, int]]) -> None:
        self._tell, self._what, self._count = tell, what, len(sizes)
        self._all_px = max(1, sum(h * w for h, w in sizes))
        self._px = 0

    def add(self, size: tuple[int, int]) -> None:
        """A tile of that size is done."""
        self._px += size[0] * size[1]
        if self._tell:
            self._tell(self._what, self._count * self._px / self._all_px, self._count)


class Tiles(NamedTuple):
    """Tiles that are worked on together: their ``windows``, what was gathered of the ``state``, and of a frame its
    ``light`` (B, 3, h, w) and where it was ``seen`` (B, 1, h, w), None for everywhere."""

    windows: list[Box]
    state: Any
    light: Planes | None = None
    seen: npt.NDArray[Any] | None = None


class State(Protocol):
    """What a folding network remembers, for the whole frame: maps that are read and written by tiles, and the rest."""

    def write(self, done: Sequence[tuple[Box, list[Any]]]) -> None:
        """Put maps of parts of the frame in their places."""

    def turn(self, parts: list[Any]) -> None:
        """A step is over: take over what is no map from any tile."""

    def arrays(self) -> Iterator[npt.NDArray[Any]]:
        """All of it, as arrays of this machine's memory, in an order that stays."""

    def restore(self, arrays: Iterator[npt.NDArray[Any]]) -> None:
        """Take all of it from what ``arrays`` gave."""

    def close(self) -> None:
        """Give the memory away."""


class StreamFolding(NetworkFolding):
    """Folding by tiles; what runs the network fills in the methods at the end.

    Every push runs the network over the frame in tiles, each read with a halo of one step's reach from the frame and
    from the state as it was before; so the state becomes what the whole frame at once would make it, however many
    frames there are. Rows of tiles wait for those that still read the old state. ``finish`` does the same.

    With ``kept``, the state is kept after frames, and frames that an earlier run folded are taken as done.

    ``net`` knows ``step_px``, ``step_halo_px`` and ``finish_halo_px``; the rest is as for
    :class:`pyfocus.nn.fusers.StreamFuser`.
    """

    gives_depth = True
    _tiler: TileRuns

    def __init__(
        self, net: Any, network: str, noise: Noise | None, threads: int, tile_px: int, memory: int | None,
        folder: str | os.PathLike[str] | None, at_once: int = 1,
    ) -> None:  # fmt: skip
        super().__init__(network, threads, tile_px, net.step_px, at_once)
        if noise is not None and not (len(noise) == 2 and all(0 <= value < 1 for value in noise)):
            raise ArgumentError(f"{type(self).__name__}: noise must be (shot, read), each in [0, 1), got {noise}")
        self.net: Any = net
        self._wanted_noise, self.noise = noise, noise
        self.memory, self._folder = memory, folder
        self._state: Any = None
        self._folded = 0  # frames that the state holds

    def begin(self, frame: Frame) -> None:
        """The burst's white balance and noise, from its first frame as the camera gave it."""
        super().begin(frame)
        if self._state is not None:
            self._state.close()
        self._state = None
        self.noise = self._wanted_noise or noise_of(type(self).__name__, frame)

    def push(self, planes: Planes, valid: Mask | None = None, *, index: float | None = None) -> None:
        """Fold a frame in; see :class:`pyfocus.Fuser`. One that an earlier run folded already is only counted."""
        self._check(planes)
        first = self._accept(planes, valid)
        if self.noise is None:  # nobody called begin: the planes are all there is to look at
            frame = Frame(np.ascontiguousarray(planes.transpose(1, 2, 0)), Meta(encoding="linear"))
            self.noise = noise_of(type(self).__name__, frame)
        place = float(self.frames - 1 if index is None else index)
        self._broken = True
        with self._at_work():
            if first:
                self._state = self._open(whole(planes.shape[1:], self.net.step_px).size)
                self._folded = self.kept.read_state(self._kept_facts(), self._state.restore) if self.kept else 0
            if self.frames > self._folded:
                self._fold(planes, valid, place)
                self._folded = self.frames
                if self.kept:
                    self.kept.write_state(self._kept_facts(), self._folded, self._state.arrays())
        self._broken = False

    def preview(self) -> Planes:
        """What finish would give now; as much work as finish is."""
        return self._result("preview").image

    def finish(self) -> Fused:
        """The picture, depth in places of focus order, and confidence; the state is given away."""
        fused = self._result("finish")
        self._finished = True
        if self._state:
            self._state.close()
        self._state = None
        return fused

    def _fold(self, planes: Planes, valid: Mask | None, place: float) -> None:
        """One step over the whole frame. Parts of the state are written when no tile reads what was there any more."""
        state, halo = self._state, self.net.step_halo_px
        everything = whole(planes.shape[1:], self.net.step_px)
        rows = self._rows(everything, halo)
        tops = [row[0].y0 for row in rows]
        share = Share(self.tell, "push", [core.size for row in rows for core in row])
        waiting: list[tuple[Box, list[Any]]] = []
        written = 0
        gather = partial(self._gather, everything, halo, planes, valid)
        work = partial(self._step, place=place)
        window = partial(self._window, everything=everything, halo=halo)
        for core, parts in self._tiler.run([core for row in rows for core in row], window, gather, work):
            top = tops[bisect.bisect_right(tops, core.y0) - 1]
            if top > written:
                free = [box.y1 + halo <= top for box, _ in waiting]
                state.write([entry for entry, past in zip(waiting, free, strict=True) if past])
                waiting = [entry for entry, past in zip(waiting, free, strict=True) if not past]
                written = top
            waiting.append((core, parts))
            share.add(core.size)
        state.write(waiting)
        state.turn(waiting[-1][1])

    def _gather(self, everything: Box, halo: int, planes: Planes | None, valid: Mask | None, cores: list[Box]) -> Tiles:
        """What tiles need of the state, and of a frame if there is one. May run in another thread."""
        windows = [self._window(core, everything, halo) for core in cores]
        state, shape = self._read(windows), (len(windows), 3, *windows[0].size)
        if planes is None:
            return Tiles(windows, state)
        light = np.empty(shape, np.float32)
        for k, window in enumerate(windows):
            np.divide(self._three(read_box(planes, window)), self._balance[:, None, None], out=light[k])
        if valid is None:
            return Tiles(windows, state, light)
        seen = np.stack([read_box(valid, window)[None] for window in windows], dtype=np.float32, casting="unsafe")
        return Tiles(windows, state, light, seen)

    def _result(self, method: str) -> Fused:
        self._need_frames(method)
        if self._broken:
            name = type(self).__name__
            raise BurstError(f"{name}.{method}: a push was broken off; make a new {name}")
        assert self._shape is not None
        height, width = self._shape[1:]
        everything, halo = whole((height, width), self.net.step_px), self.net.finish_halo_px
        image, maps = np.empty((3, height, width), np.float32), np.empty((2, height, width), np.float32)

        def finish(cores: list[Box], tiles: Tiles) -> list[None]:
            real = [Box(core.y0, min(core.y1, height), core.x0, min(core.x1, width)) for core in cores]
            parts = [box.within(window) for box, window in zip(real, tiles.windows, strict=True)]
            for box, (part, map_parts) in zip(real, self._finish(tiles, parts), strict=True):
                to = (slice(None), *box.within(everything))
                image[to] = part * self._balance[:, None, None]
                maps[to] = map_parts
            return [None] * len(cores)

        cores = [core for row in self._rows(everything, halo) for core in row]
        share = Share(self.tell, method, [core.size for core in cores])
        gather = partial(self._gather, everything, halo, None, None)
        window = partial(self._window, everything=everything, halo=halo)
        with self._at_work():
            for core, _ in self._tiler.run(cores, window, gather, finish):
                share.add(core.size)
        return Fused(self._as_given(image), maps[0], maps[1])

    def _kept_facts(self) -> dict[str, Any]:
        """What kept work depends on, beside the run's own facts."""
        assert self.noise is not None and self._shape is not None
        return {
            "network": self._network, "tile_px": self._wanted_px, "at_once": self._at_once, "noise": list(self.noise),
            "white_balance": self._balance.tolist(), "shape": list(self._shape),
        }  # fmt: skip

    def _rows(self, everything: Box, halo: int) -> list[list[Box]]:
        """Tiles, row by row; a row is no lower than the halo."""
        return rows_of_tiles(everything, self._tiler.tile_px, halo)

    def _window(self, core: Box, everything: Box, halo: int) -> Box:
        """What is read for a tile."""
        return core.grown(halo, everything.size)

    # what runs the network

    @abstractmethod
    def _at_work(self) -> AbstractContextManager[None]:
        """Around all work of the network."""

    @abstractmethod
    def _open(self, size: Size) -> State:
        """A state of nothing folded yet, for a frame of that size."""

    @abstractmethod
    def _read(self, windows: list[Box]) -> Any:
        """Of the state what can be gathered before these tiles' turn, from another thread."""

    @abstractmethod
    def _step(self, cores: list[Box], tiles: Tiles, *, place: float) -> list[list[Any]]:
        """A step over the tiles' windows: for each the state's new parts in its core."""

    @abstractmethod
    def _finish(self, tiles: Tiles, parts: list[tuple[slice, slice]]) -> list[tuple[Planes, Planes]]:
        """Of each window's picture a part (3, h, w), and of its depth and confidence (2, h, w)."""


def noise_of(name: str, frame: Frame) -> Noise:
    """Shot and read of a frame; those of a clean picture, with a RuntimeWarning, where it has no flat place to tell."""
    try:
        level = estimate_noise(frame)
    except PyfocusError as error:
        warnings.warn(
            f"{name}: {error}; little noise is assumed: give noise=(shot, read) (--noise SHOT,READ)",
            RuntimeWarning,
            stacklevel=3,
        )
        return CLEAN
    shot, read = float(level.shot), float(level.read)
    return (shot, read) if shot * FIFTH + read > LEAST_VARIANCE else CLEAN
