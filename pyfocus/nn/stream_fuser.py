"""A network that folds, in torch, as a fuser: tile by tile over each frame as it comes, one state for all of it."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from ..fuse import Planes
from ..networks import CLEAN, Noise, Runtime, StreamFolding, Tiles
from ..tiles import Box, Size
from .tiles import CPU, FrameState, Tiler, leaves, moved, quietly, rebuilt, runtime_of, tiles_at_once, torch_device

__all__ = ["CLEAN", "Noise", "StreamFuser"]


class StreamFuser(StreamFolding):
    """A network that folds: ``init_state``, ``step``, ``finish`` as :class:`pyfocus.nn.FocusDeepStream` has them.

    Every push runs the network over the frame in tiles, each read with a halo of one step's reach from the frame and
    from the state as it was before; so the state becomes what the whole frame at once would make it, however many
    frames there are. Two rows of tiles wait for those that still read the old state. ``finish`` does the same.

    ``noise``: shot and read of one sample of the sensor, whose variance is ``shot x + read``; None: estimated from the
    first frame, as the camera gave it. ``memory``: bytes that the state may take here, past which it lies in a
    temporary file in ``folder``; None: half of this machine's. ``device``: "cpu", "cuda", "cuda:1" or "auto", torch's.
    ``at_once``: tiles of one shape that go through together, as a batch; None: 1 on the CPU, 4 on a card.
    ``threads``: of torch, for the time of the work. The network is put into evaluation mode and onto the device.
    Deterministic on the CPU. Grey frames are shown to the network as three planes alike. Raises BurstError for frames
    with NaN.
    """

    _state: FrameState | None
    _tiler: Tiler

    def __init__(
        self,
        net: Any,
        *,
        noise: Noise | None = None,
        threads: int = 0,
        device: str = "cpu",
        tile_px: int = 512,
        memory: int | None = None,
        folder: str | os.PathLike[str] | None = None,
        at_once: int | None = None,
    ) -> None:
        place = torch_device(device)
        count = tiles_at_once(at_once, place)
        super().__init__(net, type(net).__name__, noise, threads, tile_px, memory, folder, count)
        self._tiler = Tiler(net, place, tile_px // net.step_px * net.step_px, count)

    @property
    def runtime(self) -> Runtime:
        """torch, and where in it; the CPU when the device's memory ended."""
        return runtime_of(self._tiler.device)

    def _at_work(self) -> AbstractContextManager[None]:
        return quietly(self.threads)

    def _open(self, size: Size) -> FrameState:
        return FrameState(self.net, size, self.net.step_px, self._tiler.device, self.memory, self._folder)

    def _read(self, windows: list[Box]) -> Any:
        """The state, where it lies in this machine's memory; on a card it is gathered there, in turn."""
        state = self._state
        assert state is not None
        return state.read(windows, CPU) if state.home == CPU else None

    def _step(self, cores: list[Box], tiles: Tiles, *, place: float) -> list[list[Any]]:
        state, device, count = self._state, self._tiler.device, len(cores)
        assert state is not None and tiles.light is not None
        new = self.net.step(
            self._there(tiles), torch.from_numpy(tiles.light).to(device), torch.tensor([place] * count, device=device),
            *self._facts(count), None if tiles.seen is None else torch.from_numpy(tiles.seen).to(device),
        )  # fmt: skip
        return state.cores(new, cores, tiles.windows)

    def _finish(self, tiles: Tiles, parts: list[tuple[slice, slice]]) -> list[tuple[Planes, Planes]]:
        out = self.net.finish(self._there(tiles), *self._facts(len(parts)))
        maps = torch.cat([out.depth, out.confidence], 1)
        comes = [(k, slice(None), *part) for k, part in enumerate(parts)]
        return [(out.image[come].cpu().numpy(), maps[come].cpu().numpy()) for come in comes]

    def _there(self, tiles: Tiles) -> Any:
        """The tiles' state on the device."""
        state, device = self._state, self._tiler.device
        assert state is not None
        if tiles.state is None:
            return state.read(tiles.windows, device)
        return rebuilt(tiles.state, (moved(leaf, device) for leaf in leaves(tiles.state)))

    def _facts(self, count: int) -> tuple[Tensor, Tensor]:
        """Noise (B, 2) and white balance (B, 3), as the network is told them."""
        assert self.noise is not None
        told = (self.noise, self._balance.tolist())
        noise, balance = (torch.tensor([values] * count, device=self._tiler.device) for values in told)
        return noise, balance
