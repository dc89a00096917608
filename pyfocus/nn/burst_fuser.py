"""A network that takes a fixed number of frames, in torch, as a fuser: frames are kept, and worked on at the end."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from typing import Any

import torch

from ..fuse import Planes
from ..network_bursts import HALO_PX, STEP_PX, BurstFolding, Encoding, batch_of
from ..networks import Runtime
from .tiles import Tiler, quietly, runtime_of, torch_device

__all__ = ["HALO_PX", "STEP_PX", "BurstFuser", "Encoding"]


class BurstFuser(BurstFolding):
    """A network that takes a fixed number of frames: :class:`pyfocus.nn.FocusDeep` or :class:`pyfocus.nn.UNet`.

    Frames are kept in a :class:`pyfocus.framestore.FrameStore` (``memory``, ``folder``) until ``finish``, which runs
    tile by tile. The network sees them in the order of the pushes. Of a burst that is longer than it takes, frame
    floor(i L / N) is its i-th: evenly spread, and the first is kept; of a shorter one the same rule repeats frames.

    ``encoding``: what the network was trained on, "srgb" (white-balanced, the default for "rgb") or "linear" (the
    camera's own values, the default for mosaics); its output is of the same. "rgb" takes domain="rgb", the others
    domain="raw": four planes, or the flat mosaic, moved so that red comes first. ``halo_px``: pixels of the network's
    input around a tile. Where a frame saw nothing, the network sees the frame's edge repeated. No depth. ``preview`` is
    the frames' mean. The rest is as for StreamFuser; ``frames_at_once`` of the network becomes 1 where it was left 0.
    """

    def __init__(
        self,
        net: Any,
        *,
        encoding: Encoding | None = None,
        threads: int = 0,
        device: str = "cpu",
        tile_px: int = 256,
        halo_px: int | None = None,
        memory: int | None = None,
        folder: str | os.PathLike[str] | None = None,
        at_once: int = 1,
    ) -> None:
        name = type(net).__name__
        super().__init__(
            name, net.kind, net.frames, scale=getattr(net, "scale", 1), encoding=encoding,
            halo_px=HALO_PX.get(name, STEP_PX) if halo_px is None else halo_px, threads=threads, tile_px=tile_px,
            memory=memory, folder=folder, at_once=at_once,
        )  # fmt: skip
        self.net: Any = net
        self._tiler: Tiler = Tiler(net, torch_device(device), tile_px // STEP_PX * STEP_PX, at_once)
        if getattr(net, "frames_at_once", None) == 0:
            net.frames_at_once = 1

    @property
    def runtime(self) -> Runtime:
        """torch, and where in it; the CPU when the device's memory ended."""
        return runtime_of(self._tiler.device)

    def _at_work(self) -> AbstractContextManager[None]:
        return quietly(self.threads)

    def _run(self, shown: list[Planes]) -> list[Planes]:
        images: Planes = self.net(torch.from_numpy(batch_of(shown)).to(self._tiler.device)).cpu().numpy()
        return list(images)
