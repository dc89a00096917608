"""An exported network that takes a fixed number of frames, as a fuser: ``burst`` once per tile, at the end."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext

import numpy as np

from ..fuse import Planes
from ..network_bursts import STEP_PX, BurstFolding, batch_of
from ..networks import Runtime
from ..tiles import Box, FixedTiles
from ..tilework import TileRuns
from .exported import Exported

TILE_PX = 256


class ExportedBurstFuser(BurstFolding):
    """A network of a fixed number of frames from an exported file; see :class:`pyfocus.nn.fusers.BurstFuser`.

    Sizes that the network's step does not divide are mirrored at two edges, as the network itself does in torch. A
    model of one tile size is run in tiles of that size; ArgumentError for a smaller frame.
    """

    def __init__(
        self,
        exported: Exported,
        *,
        threads: int = 0,
        memory: int | None = None,
        tile_px: int = TILE_PX,
        folder: str | os.PathLike[str] | None = None,
        at_once: int = 1,
    ) -> None:
        self.exported, facts = exported, exported.facts
        super().__init__(
            facts.network, facts.kind, facts.frames, scale=facts.scale, encoding=facts.encoding,
            halo_px=facts.halo_px, threads=threads, tile_px=max(facts.tile) if facts.tile else tile_px, memory=memory,
            folder=folder, at_once=exported.tiles_at_once(at_once),
        )  # fmt: skip
        self._tiler = TileRuns(
            self._wanted_px // STEP_PX * STEP_PX, at_once=self._at_once, ahead=True, fixed=bool(facts.tile)
        )

    @property
    def runtime(self) -> Runtime | None:
        """What runs the files."""
        return self.exported.runtime

    def _at_work(self) -> AbstractContextManager[None]:
        return nullcontext()

    def _run(self, shown: list[Planes]) -> list[Planes]:
        facts, (height, width) = self.exported.facts, shown[0].shape[2:]
        whole = facts.tile or tuple(-(-n // facts.step_px) * facts.step_px for n in (height, width))
        frames = batch_of(shown)
        if (height, width) != whole:
            missing = [(0, 0), (0, 0), (0, 0), (0, whole[0] - height), (0, whole[1] - width)]
            frames = np.pad(frames, missing, mode="reflect")
        images: Planes = self.exported.burst({"frames": frames})[0]
        ratio = facts.scale
        return list(images[:, :, : ratio * height, : ratio * width])

    def _fixed(self) -> FixedTiles | None:
        """Windows in pixels of a plane that make up one tile, as the burst's pattern lets the network see it."""
        facts = self.exported.facts
        if not facts.tile:
            return None
        per = 2 if facts.kind == "mosaic" else 1  # pixels of the input per pixel of a plane
        extra = [0 if facts.kind == "rgb" else per * first for first in self._red]
        height, width = ((n - more) // per for n, more in zip(facts.tile, extra, strict=True))
        return FixedTiles((height, width), max(1, facts.step_px // per))

    def _rows(self, everything: Box) -> list[list[Box]]:
        fixed = self._fixed()
        return fixed.rows(everything, self._halo) if fixed else super()._rows(everything)

    def _window(self, core: Box, everything: Box) -> Box:
        fixed = self._fixed()
        return fixed.window(core, everything, self._halo) if fixed else super()._window(core, everything)
