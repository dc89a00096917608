"""A network that takes a fixed number of frames at once, as a fuser: frames are kept, and worked on at the end."""

from __future__ import annotations

import os
from typing import Any, Literal

import numpy as np

from ..burst import Frame
from ..colour import linear_to_srgb, srgb_to_linear
from ..errors import ArgumentError, BurstError
from ..framestore import FrameStore
from ..fuse import Fused, Mask, Planes
from ..networks import NetworkFolding
from ..raw import plane_offsets
from ..tiles import Box, whole
from .stream_fuser import tensor_of
from .tiles import Tiler, quietly, torch_device

Encoding = Literal["srgb", "linear"]

# Tiles' halos, in pixels of the network's input. Gradients reach 52 and 153 pixels; the rest is room for offsets.
HALO_PX = {"FocusDeep": 64, "UNet": 160}
STEP_PX = 16  # UNet halves four times, FocusDeep twice


class BurstFuser(NetworkFolding):
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
    ) -> None:
        name, self._kind = type(net).__name__, net.kind
        super().__init__(name, threads, tile_px, STEP_PX)
        self.net: Any = net
        self._tiler = Tiler(net, torch_device(device), tile_px // STEP_PX * STEP_PX)
        self._encoding = encoding or ("srgb" if net.kind == "rgb" else "linear")
        if self._encoding not in ("srgb", "linear"):
            raise ArgumentError(f"BurstFuser: encoding must be 'srgb' or 'linear', got {encoding!r}")
        if net.kind == "rggb" and getattr(net, "scale", 1) != 2:
            raise ArgumentError(f"BurstFuser: {name} gives half the size of 'rggb'; take kind 'mosaic' or 'rgb'")
        halo = HALO_PX.get(name, STEP_PX) if halo_px is None else halo_px
        self._halo = -(-(halo // 2 if net.kind == "mosaic" else halo) // STEP_PX) * STEP_PX  # in pixels of a plane
        self.domain = "rgb" if net.kind == "rgb" else "raw"
        if getattr(net, "frames_at_once", None) == 0:
            net.frames_at_once = 1
        self._red = (0, 0)
        self.memory, self._folder = memory, folder
        self._store = FrameStore(0)  # of no frames, which takes nothing

    def begin(self, frame: Frame) -> None:
        """The burst's white balance and pattern, from its first frame as the camera gave it."""
        super().begin(frame)
        if self.domain == "raw" and frame.meta.cfa is None:
            raise BurstError(
                f"BurstFuser: {type(self.net).__name__} takes mosaics ({self._kind}), "
                f"{frame.meta.name or 'the first frame'} is a picture; stack camera raws, or take another network"
            )
        if self.domain == "raw":
            self._red = plane_offsets(str(frame.meta.cfa))[0]

    def push(self, planes: Planes, valid: Mask | None = None, *, index: float | None = None) -> None:
        """Keep a frame; see :class:`pyfocus.Fuser`. Raises ResourceError when the disk is full."""
        self._check(planes)
        if self._accept(planes, valid):
            self._store = FrameStore(self.memory, self._folder)
        self._store.push(planes)

    def preview(self) -> Planes:
        """The mean of the frames so far, planes as they were pushed."""
        self._need_frames("preview")
        assert self._shape is not None
        image = np.empty(self._shape, np.float32)
        everything = whole((self._shape[1], self._shape[2]))
        for box in everything.cut(256, self._shape[2]):
            rows, columns = box.within(everything)
            image[:, rows, columns] = self._store.tile(rows, columns).mean(0)
        return image

    def finish(self) -> Fused:
        """The picture, (3, s h, s w): of raws at full size; the frames are given away."""
        self._need_frames("finish")
        assert self._shape is not None
        count = len(self._store)
        frames = [i * count // self.net.frames for i in range(self.net.frames)]
        scale = 1 if self._kind == "rgb" else 2
        everything = whole((self._shape[1], self._shape[2]))
        image = np.empty((3, scale * everything.y1, scale * everything.x1), np.float32)

        def fuse(core: Box) -> None:
            window = core.grown(self._halo, everything.size)
            light = self._store.tile(*window.within(everything), frames)
            out = self.net(tensor_of(self._shown(light), self._tiler.device))[0].cpu().numpy()
            y, x = self._red if scale == 2 else (0, 0)
            image[(slice(None), *core.within(everything, scale=scale))] = self._light(
                out[:, y:, x:][(slice(None), *core.within(window, scale=scale))]
            )

        with quietly(self.threads):
            self._tiler.run(everything, fuse)
        self._finished = True
        self._store.close()
        return Fused(self._as_given(image))

    def _shown(self, light: Planes) -> Planes:
        """Frames (N, C, h, w) of a tile as the network takes them."""
        if self._kind == "rgb":
            light = np.broadcast_to(light, (light.shape[0], 3, *light.shape[2:]))
        if self._encoding == "srgb":
            light = np.asarray(linear_to_srgb(light), np.float32)
        else:
            r, g, b = self._balance
            light = light / np.array([r, g, b] if self._kind == "rgb" else [r, g, g, b], np.float32)[:, None, None]
        if self._kind == "rgb":
            return light
        return _red_first(light, self._red, flat=self._kind == "mosaic")

    def _light(self, image: Planes) -> Planes:
        """What the network gave (3, h, w), as linear light, white-balanced."""
        if self._encoding == "srgb":
            return np.asarray(srgb_to_linear(image), np.float32)
        return image * self._balance[:, None, None]


def _red_first(planes: Planes, red: tuple[int, int], flat: bool) -> Planes:
    """R, G1, G2, B (N, 4, h, w) of any pattern as a mosaic (N, 1, 2h, 2w) with red in its first corner, or its planes.

    Where red is not first, a row or column before it and one at the end are mirrored: they have the right colours.
    """
    count, _, h, w = planes.shape
    y, x = red
    mosaic = np.empty((count, 1, 2 * h, 2 * w), np.float32)
    for plane, (dy, dx) in enumerate(((y, x), (y, 1 - x), (1 - y, x), (1 - y, 1 - x))):
        mosaic[:, 0, dy::2, dx::2] = planes[:, plane]
    mosaic = np.pad(mosaic, ((0, 0), (0, 0), (y, y), (x, x)), mode="reflect")
    if flat:
        return mosaic
    return np.concatenate([mosaic[:, :, dy::2, dx::2] for dy in (0, 1) for dx in (0, 1)], axis=1)
