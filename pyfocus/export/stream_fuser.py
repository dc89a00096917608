"""An exported network that folds, as a fuser: ``step`` once per frame and tile, ``finish`` once per tile."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..arrays import Arrays
from ..fuse import Planes
from ..networks import Noise, Runtime, StreamFolding
from ..tiles import Box, FixedTiles, Size
from .exported import Array, Exported, Runner
from .states import ArrayState, BoundState, fits_twice
from .tiling import Tiles

TILE_PX = 512  # as in torch: smaller ones pay for more halo


class ExportedStreamFuser(StreamFolding):
    """A folding network from exported files. Deterministic on the CPU for one number of threads.

    On a card the state lies there, where two of it fit into half of the free memory, and tiles are bound to arrays
    there; else in this machine's memory, and tiles are copied. A model of one tile size is run in tiles of that size
    that all lie inside the frame; ArgumentError for a smaller frame.
    """

    _state: ArrayState | BoundState | None

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
        net = SimpleNamespace(
            step_px=facts.step_px, step_halo_px=exported.halos["step"], finish_halo_px=exported.halos["finish"]
        )
        tile_px = max(facts.tile) if facts.tile else tile_px
        super().__init__(net, facts.network, noise, threads, tile_px, memory, folder)
        self._tiler: Tiles = Tiles(tile_px // facts.step_px * facts.step_px, fixed=bool(facts.tile))
        self._fixed = FixedTiles((facts.tile[0], facts.tile[1]), facts.step_px) if facts.tile else None

    @property
    def runtime(self) -> Runtime | None:
        """What runs the files."""
        return self.exported.runtime

    def _at_work(self) -> AbstractContextManager[None]:
        return nullcontext()

    def _open(self, size: Size) -> ArrayState | BoundState:
        frame = Box(0, size[0], 0, size[1])
        for halo in self.exported.halos.values():
            self._rows(frame, halo)  # which refuses frames that no tile is made of
        step = self.exported.runners.get("step")
        if step is not None and fits_twice(self.exported.facts, size, step.arrays):
            return BoundState(self.exported.facts, size, step.arrays)
        return ArrayState(self.exported.facts, size, self.memory, self._folder, self.threads)

    def _step(self, core: Box, window: Box, light: Planes, seen: Array | None, place: float) -> list[Any]:
        state = self._state
        assert state is not None
        height, width = window.size
        told = {
            **self._facts(), "frame": as_input(light), "index": np.array([place], np.float32),
            "valid": np.ones((1, 1, height, width), np.float32) if seen is None else as_input(seen),
        }  # fmt: skip
        if isinstance(state, ArrayState):
            return state.cores(self.exported.step({**state.read(window), **told}), core, window)
        runner = self.exported.runners["step"]
        outputs = state.outputs(window)
        runner.run_bound({**state.read(window), **_there(told, runner.arrays)}, outputs)
        state.put(outputs, core, window)
        return []

    def _finish(self, window: Box, part: tuple[slice, slice]) -> tuple[Planes, Planes]:
        state = self._state
        assert state is not None
        if isinstance(state, ArrayState):
            image, depth, confidence = self.exported.finish({**state.read(window), **self._facts()})
        else:
            image, depth, confidence = self._finish_bound(state, window)
        come = (0, slice(None), *part)
        return image[come], np.concatenate([depth[come], confidence[come]])

    def _finish_bound(self, state: BoundState, window: Box) -> list[Array]:
        runner: Runner = self.exported.runners["finish"]
        on = runner.arrays
        known = {**state.read(window), **_there(self._facts(), on)}
        results = {
            name: on.kept(name, (1, count, *window.size))
            for name, count in (("image", 3), ("depth", 1), ("confidence", 1))
        }
        runner.run_bound({name: known[name] for name in self.exported.finish_inputs}, results)
        return [on.to_host(array) for array in results.values()]

    def _facts(self) -> dict[str, Array]:
        """Noise (1, 2) and white balance (1, 3), as the network is told them."""
        return {"noise": as_input(np.array(self.noise)), "white_balance": as_input(self._balance)}

    def _rows(self, everything: Box, halo: int) -> list[list[Box]]:
        return self._fixed.rows(everything, halo) if self._fixed else super()._rows(everything, halo)

    def _window(self, core: Box, everything: Box, halo: int) -> Box:
        return self._fixed.window(core, everything, halo) if self._fixed else super()._window(core, everything, halo)


def as_input(values: Array) -> Array:
    """(1, ...) float32 in C order."""
    return np.ascontiguousarray(values, np.float32)[None]


def _there(told: dict[str, Array], on: Arrays) -> dict[str, Any]:
    return {name: on.upload(array) for name, array in told.items()}
