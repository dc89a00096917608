"""Fusers from exported files, with ONNX Runtime and without torch: ``load("exported")`` or ``load("step.onnx")``.

A frame is worked on in tiles of one shape where the frame allows it, each with its halo, as in torch: see
:mod:`pyfocus.networks`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ArgumentError, ReadError
from ..framestore import Pages, half_of_memory
from ..fuse import Fuser, Planes
from ..networks import Noise, StreamFolding
from ..tiles import Box, Size, whole
from .facts import Facts
from .runtime import Array, Session, as_input

TILE_PX = 384  # DeformConv on CPUs takes 5 kB of scratch per pixel of its features
Run = Callable[[dict[str, Any]], list[Any]]


def load(
    path: str | os.PathLike[str],
    *,
    device: str = "cpu",
    threads: int = 0,
    noise: Noise | None = None,
    memory: int | None = None,
    tile_px: int = TILE_PX,
    folder: str | os.PathLike[str] | None = None,
) -> Fuser:
    """The fuser of an exported model: its folder, or one of its files. torch is not needed.

    ``device``: "cpu", "cuda", "cuda:1" or "auto". ``noise``, ``memory``, ``folder`` and ``tile_px`` as for
    :class:`pyfocus.nn.fusers.StreamFuser`; a file of one tile size takes that. Raises ReadError for files that are no
    exported model or do not belong together, ResourceError for a device that is not there.
    """
    exported = open_exported(path, device, threads)
    if exported.facts.part == "burst":
        raise ArgumentError(
            f"load: {path} takes bursts of {exported.facts.frames} frames at once, which is not run without torch yet; "
            "stack with its checkpoint (.pt)"
        )
    return OnnxStreamFuser(exported, noise=noise, threads=threads, memory=memory, tile_px=tile_px, folder=folder)


@dataclass(frozen=True)
class Exported:
    """The graphs of a model, ready to run: ``files`` by part, and what runs each."""

    facts: Facts
    halos: dict[str, int]
    files: dict[str, Path]
    runs: dict[str, Run]

    def zeros(self, height: int, width: int) -> dict[str, Array]:
        """A state of nothing folded yet."""
        return {
            name: np.zeros((1, channels, height // s, width // s) if s else (1, channels, 1, 1), np.float32)
            for name, channels, s in self.facts.state
        }

    def step(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """The state with one frame more."""
        return dict(zip((name for name, *_ in self.facts.state), self.runs["step"](inputs), strict=True))

    def finish(self, inputs: dict[str, Array]) -> list[Array]:
        """Picture, depth and confidence of a state; what else is in ``inputs`` is left out."""
        return self.runs["finish"]({key: inputs[key] for key in self.finish_inputs})

    def burst(self, inputs: dict[str, Array]) -> list[Array]:
        """The picture of a whole burst."""
        return self.runs["burst"](inputs)

    @property
    def finish_inputs(self) -> tuple[str, ...]:
        """What the finish takes: the state but for what steps alone look at, noise and white balance."""
        return (*(name for name, *_ in self.facts.state[2:]), "noise", "white_balance")

    def run_by(self, run_with: Callable[[Path], Run]) -> Exported:
        """The same files in another runtime."""
        runs = {part: run_with(file) for part, file in self.files.items()}
        return Exported(self.facts, self.halos, self.files, runs)


def open_exported(path: str | os.PathLike[str], device: str = "cpu", threads: int = 0) -> Exported:
    """All files of an exported model, by its folder or any one of them. Raises ReadError, ResourceError."""
    named = Path(path)
    if named.is_dir():
        named = next((named / f"{part}.onnx" for part in ("step", "burst") if (named / f"{part}.onnx").exists()), named)
        if named.is_dir():
            raise ReadError(f"{named}: holds no step.onnx or burst.onnx; name what pyfocus-export onnx wrote")
    first = Session(named, device, threads)
    sessions: dict[str, Session] = {first.facts.part: first}
    if first.facts.part != "burst":
        other = "finish" if first.facts.part == "step" else "step"
        file = named.with_name(f"{other}.onnx")
        if not file.exists():
            raise ReadError(f"{named}: needs {other}.onnx beside it; export the checkpoint again, or copy both")
        sessions[other] = Session(file, device, threads)
    facts = [session.facts for session in sessions.values()]
    if any((f.weights, f.tile, f.state) != (facts[0].weights, facts[0].tile, facts[0].state) for f in facts):
        raise ReadError(f"{named}: does not belong to the file beside it: they were exported of different weights")
    main = sessions.get("step", first).facts
    return Exported(
        main,
        {part: session.facts.halo_px for part, session in sessions.items()},
        {part: session.path for part, session in sessions.items()},
        {part: session.run for part, session in sessions.items()},
    )


def read_exported(path: str | os.PathLike[str]) -> Facts:
    """What an exported file says of itself. Raises ReadError for a file that is no model of ours."""
    return Session(path).facts


class OnnxStreamFuser(StreamFolding):
    """A folding network in ONNX Runtime. Deterministic on the CPU for one number of threads."""

    _state: ArrayState | None

    def __init__(
        self,
        exported: Exported,
        *,
        noise: Noise | None = None,
        threads: int = 0,
        memory: int | None = None,
        tile_px: int = TILE_PX,
        folder: str | os.PathLike[str] | None = None,
    ) -> None:
        self.exported, facts = exported, exported.facts
        if facts.tile:
            raise ArgumentError(
                f"load: {exported.files['step']} takes tiles of {facts.tile[0]} x {facts.tile[1]} px alone, which is "
                "for programs of your own; export without --tile to stack with it"
            )
        net = SimpleNamespace(
            step_px=facts.step_px, step_halo_px=exported.halos["step"], finish_halo_px=exported.halos["finish"]
        )
        super().__init__(net, facts.network, noise, threads, tile_px, memory, folder)
        self._tiler = _Tiles(tile_px // facts.step_px * facts.step_px)

    def _at_work(self) -> AbstractContextManager[None]:
        return nullcontext()

    def _open(self, size: Size) -> ArrayState:
        return ArrayState(self.exported.facts, size, self.memory, self._folder)

    def _step(self, core: Box, window: Box, light: Planes, seen: Array | None, place: float) -> list[Any]:
        assert self._state is not None
        height, width = window.size
        inputs = {
            **self._state.read(window), **self._facts(), "frame": as_input(light),
            "index": np.array([place], np.float32),
            "valid": np.ones((1, 1, height, width), np.float32) if seen is None else as_input(seen),
        }  # fmt: skip
        return self._state.cores(self.exported.step(inputs), core, window)

    def _finish(self, window: Box, part: tuple[slice, slice]) -> tuple[Planes, Planes]:
        assert self._state is not None
        image, depth, confidence = self.exported.finish({**self._state.read(window), **self._facts()})
        come = (0, slice(None), *part)
        return image[come], np.concatenate([depth[come], confidence[come]])

    def _facts(self) -> dict[str, Array]:
        """Noise (1, 2) and white balance (1, 3), as the network is told them."""
        return {"noise": as_input(np.array(self.noise)), "white_balance": as_input(self._balance)}


class _Tiles:
    """Work tile by tile, in order."""

    def __init__(self, tile_px: int) -> None:
        self.tile_px = tile_px

    def run(self, box: Box, work: Callable[[Box], Any]) -> list[tuple[Box, Any]]:
        """``work(tile)`` for all tiles of the box, and what it gave."""
        return [(tile, work(tile)) for tile in box.cut(self.tile_px, self.tile_px)]


class ArrayState:
    """A folding network's state for the whole frame, in arrays; past ``memory`` bytes in one temporary file."""

    def __init__(self, facts: Facts, size: Size, memory: int | None, folder: str | os.PathLike[str] | None) -> None:
        self._frame = whole(size)
        self._strides = [stride for *_, stride in facts.state]
        self._names = [name for name, *_ in facts.state]
        shapes = [(1, c, size[0] // s, size[1] // s) if s else (1, c, 1, 1) for _, c, s in facts.state]
        self.bytes = sum(4 * int(np.prod(shape)) for shape in shapes)
        limit = half_of_memory() if memory is None else memory
        self._pages = Pages(folder) if self.bytes > limit else None
        self._maps = [self._take(shape) for shape in shapes]

    def read(self, window: Box) -> dict[str, Array]:
        """The state of a part of the frame, by the names of the graph's inputs."""
        return {
            name: np.ascontiguousarray(_part(m, window.within(self._frame, s))) if s else m
            for name, m, s in zip(self._names, self._maps, self._strides, strict=True)
        }

    def cores(self, state: dict[str, Array], core: Box, window: Box) -> list[Array]:
        """Of a state of ``window``, what lies in ``core``."""
        return [
            _part(state[name], core.within(window, s)).copy() if s else state[name]
            for name, s in zip(self._names, self._strides, strict=True)
        ]

    def write(self, done: Sequence[tuple[Box, list[Array]]]) -> None:
        """Put maps of parts of the frame in their places."""
        for box, parts in done:
            for whole_map, part, s in zip(self._maps, parts, self._strides, strict=True):
                if s:
                    _part(whole_map, box.within(self._frame, s))[...] = part
        if self._pages:
            self._pages.release()

    def turn(self, parts: list[Array]) -> None:
        """A step is over: take over what is no map from any tile."""
        self._maps = [m if s else part for m, part, s in zip(self._maps, parts, self._strides, strict=True)]

    def close(self) -> None:
        """Give the memory away."""
        self._maps.clear()
        if self._pages:
            self._pages.close()

    def _take(self, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        if self._pages is None:
            return np.zeros(shape, np.float32)
        size = 4 * int(np.prod(shape))
        return self._pages.take(size, "OnnxStreamFuser: a part of the network's state").view(np.float32).reshape(shape)


def _part(values: Array, where: tuple[slice, slice]) -> Array:
    return values[:, :, where[0], where[1]]
