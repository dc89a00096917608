"""An exported network that folds, as a fuser: ``step`` once per frame and tile, ``finish`` once per tile."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..arrays import Arrays
from ..fuse import Planes
from ..networks import Noise, Runtime, StreamFolding, Tiles
from ..tiles import Box, FixedTiles, Size
from ..tilework import TileRuns
from .exported import Array, Exported, Runner
from .states import ArrayState, BoundState, fits_twice

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
        at_once: int | None = None,
    ) -> None:
        self.exported, facts = exported, exported.facts
        net = SimpleNamespace(
            step_px=facts.step_px, step_halo_px=exported.halos["step"], finish_halo_px=exported.halos["finish"]
        )
        tile_px = max(facts.tile) if facts.tile else tile_px
        count = exported.tiles_at_once(at_once)
        super().__init__(net, facts.network, noise, threads, tile_px, memory, folder, count)
        self._tiler = TileRuns(
            tile_px // facts.step_px * facts.step_px, at_once=count, ahead=True, fixed=bool(facts.tile)
        )
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

    def _read(self, windows: list[Box]) -> Any:
        """The state, where it lies in this machine's memory; on a card it is gathered there, in turn."""
        return self._state.read(windows) if isinstance(self._state, ArrayState) else None

    def _step(self, cores: list[Box], tiles: Tiles, *, place: float) -> list[list[Any]]:
        state, windows = self._state, tiles.windows
        assert state is not None and tiles.light is not None
        count, (height, width) = len(cores), windows[0].size
        told = {
            **self._facts(count), "frame": tiles.light, "index": np.full(count, place, np.float32),
            "valid": np.ones((count, 1, height, width), np.float32) if tiles.seen is None else tiles.seen,
        }  # fmt: skip
        if isinstance(state, ArrayState):
            return state.cores(self.exported.step({**tiles.state, **told}), cores, windows)
        runner = self.exported.runners["step"]
        outputs = state.outputs(windows)
        runner.run_bound({**state.read(windows), **_there(told, runner.arrays)}, outputs)
        state.put(outputs, cores[0], windows)
        return [[]] * count

    def _finish(self, tiles: Tiles, parts: list[tuple[slice, slice]]) -> list[tuple[Planes, Planes]]:
        state, facts = self._state, self._facts(len(parts))
        assert state is not None
        if isinstance(state, ArrayState):
            image, depth, confidence = self.exported.finish({**tiles.state, **facts})
        else:
            image, depth, confidence = self._finish_bound(state, tiles.windows, facts)
        comes = [(k, slice(None), *part) for k, part in enumerate(parts)]
        return [(image[come], np.concatenate([depth[come], confidence[come]])) for come in comes]

    def _finish_bound(self, state: BoundState, windows: list[Box], facts: dict[str, Array]) -> list[Array]:
        runner: Runner = self.exported.runners["finish"]
        on = runner.arrays
        known = {**state.read(windows), **_there(facts, on)}
        results = {
            name: on.kept(name, (len(windows), channels, *windows[0].size))
            for name, channels in (("image", 3), ("depth", 1), ("confidence", 1))
        }
        runner.run_bound({name: known[name] for name in self.exported.finish_inputs}, results)
        return [on.to_host(array) for array in results.values()]

    def _facts(self, count: int) -> dict[str, Array]:
        """Noise (B, 2) and white balance (B, 3), as the network is told them."""
        told = {"noise": self.noise, "white_balance": self._balance}
        return {name: np.tile(np.array(values, np.float32), (count, 1)) for name, values in told.items()}

    def _rows(self, everything: Box, halo: int) -> list[list[Box]]:
        return self._fixed.rows(everything, halo) if self._fixed else super()._rows(everything, halo)

    def _window(self, core: Box, everything: Box, halo: int) -> Box:
        return self._fixed.window(core, everything, halo) if self._fixed else super()._window(core, everything, halo)


def _there(told: dict[str, Array], on: Arrays) -> dict[str, Any]:
    return {name: on.upload(array) for name, array in told.items()}
