"""A network that folds, in torch, as a fuser: tile by tile over each frame as it comes, one state for all of it."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..fuse import Planes
from ..networks import CLEAN, Noise, Runtime, StreamFolding
from ..tiles import Box, Size
from .tiles import FrameState, Tiler, quietly, runtime_of, torch_device

__all__ = ["CLEAN", "Noise", "StreamFuser", "tensor_of"]


class StreamFuser(StreamFolding):
    """A network that folds: ``init_state``, ``step``, ``finish`` as :class:`pyfocus.nn.FocusDeepStream` has them.

    Every push runs the network over the frame in tiles, each read with a halo of one step's reach from the frame and
    from the state as it was before; so the state becomes what the whole frame at once would make it, however many
    frames there are. Two rows of tiles wait for those that still read the old state. ``finish`` does the same.

    ``noise``: shot and read of one sample of the sensor, whose variance is ``shot x + read``; None: estimated from the
    first frame, as the camera gave it. ``memory``: bytes that the state may take here, past which it lies in a
    temporary file in ``folder``; None: half of this machine's. ``device``: "cpu", "cuda", "cuda:1" or "auto", torch's.
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
    ) -> None:
        super().__init__(net, type(net).__name__, noise, threads, tile_px, memory, folder)
        self._tiler = Tiler(net, torch_device(device), tile_px // net.step_px * net.step_px)

    @property
    def runtime(self) -> Runtime:
        """torch, and where in it; the CPU when the device's memory ended."""
        return runtime_of(self._tiler.device)

    def _at_work(self) -> AbstractContextManager[None]:
        return quietly(self.threads)

    def _open(self, size: Size) -> FrameState:
        return FrameState(self.net, size, self.net.step_px, self._tiler.device, self.memory, self._folder)

    def _step(self, core: Box, window: Box, light: Planes, seen: npt.NDArray[Any] | None, place: float) -> list[Any]:
        state, device = self._state, self._tiler.device
        assert state is not None
        new = self.net.step(
            state.read(window, device), tensor_of(light, device), torch.tensor([place], device=device),
            *self._facts(device), None if seen is None else tensor_of(seen, device),
        )  # fmt: skip
        return state.cores(new, core, window)

    def _finish(self, window: Box, part: tuple[slice, slice]) -> tuple[Planes, Planes]:
        state, device = self._state, self._tiler.device
        assert state is not None
        out = self.net.finish(state.read(window, device), *self._facts(device))
        come = (0, slice(None), *part)
        return out.image[come].cpu().numpy(), torch.cat([out.depth, out.confidence], 1)[come].cpu().numpy()

    def _facts(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Noise (1, 2) and white balance (1, 3), as the network is told them."""
        assert self.noise is not None
        return torch.tensor([self.noise], device=device), torch.from_numpy(self._balance).to(device)[None]


def tensor_of(values: npt.NDArray[Any], device: torch.device) -> Tensor:
    """(1, ...) float32 there."""
    return torch.from_numpy(np.ascontiguousarray(values, np.float32))[None].to(device)
