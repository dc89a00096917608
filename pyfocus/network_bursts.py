"""Networks that take a fixed number of frames at once: frames are kept, and worked on tile by tile at the end."""

from __future__ import annotations

import os
import warnings
from abc import abstractmethod
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Literal

import numpy as np

from .burst import Frame
from .colour import linear_to_srgb, srgb_to_linear
from .errors import ArgumentError, BurstError
from .framestore import FrameStore
from .fuse import Fused, Mask, Planes
from .networks import NetworkFolding, Share
from .raw import plane_offsets
from .tiles import Box, rows_of_tiles, whole
from .tilework import TileRuns

Encoding = Literal["srgb", "linear"]

# Tiles' halos, in pixels of the network's input. Gradients reach 52 and 153 pixels; the rest is room for offsets.
HALO_PX = {"FocusDeep": 64, "UNet": 160}
STEP_PX = 16  # UNet halves four times, FocusDeep twice


class BurstFolding(NetworkFolding):
    """A burst as :class:`pyfocus.nn.fusers.BurstFuser` takes it; what runs the network fills in two methods.

    ``kind`` of the network's input, as in :class:`pyfocus.nn.FocusDeep`; ``count`` of frames that it takes; ``scale``:
    how much larger than an input's plane the picture is; ``halo_px`` in pixels of the input. With ``kept``, tiles that
    an earlier run finished are taken as done.
    """

    _tiler: TileRuns

    def __init__(
        self, network: str, kind: str, count: int, *, scale: int, encoding: str | None, halo_px: int, threads: int,
        tile_px: int, memory: int | None, folder: str | os.PathLike[str] | None, at_once: int = 1,
    ) -> None:  # fmt: skip
        super().__init__(network, threads, tile_px, STEP_PX, at_once)
        name = type(self).__name__
        self._kind, self._count = kind, count
        self._encoding = encoding or ("srgb" if kind == "rgb" else "linear")
        if self._encoding not in ("srgb", "linear"):
            raise ArgumentError(f"{name}: encoding must be 'srgb' or 'linear', got {encoding!r}")
        if kind == "rggb" and scale != 2:
            raise ArgumentError(f"{name}: {network} gives half the size of 'rggb'; take kind 'mosaic' or 'rgb'")
        self._halo = -(-(halo_px // 2 if kind == "mosaic" else halo_px) // STEP_PX) * STEP_PX  # in pixels of a plane
        self.domain = "rgb" if kind == "rgb" else "raw"
        self._red = (0, 0)
        self.memory, self._folder = memory, folder
        self._store = FrameStore(0)  # of no frames, which takes nothing

    def begin(self, frame: Frame) -> None:
        """The burst's white balance and pattern, from its first frame as the camera gave it."""
        super().begin(frame)
        if self.domain == "raw" and frame.meta.cfa is None:
            raise BurstError(
                f"{type(self).__name__}: {self._network} takes mosaics ({self._kind}), "
                f"{frame.meta.name or 'the first frame'} is a picture; stack camera raws, or take another network"
            )
        if self.domain == "raw":
            self._red = plane_offsets(str(frame.meta.cfa))[0]

    def push(self, planes: Planes, valid: Mask | None = None, *, index: float | None = None) -> None:
        """Keep a frame; see :class:`pyfocus.Fuser`. Raises ResourceError when the disk is full."""
        self._check(planes)
        if self._accept(planes, valid):
            self._rows(whole((planes.shape[1], planes.shape[2])))  # which refuses frames that no tile is made of
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
        pushed = len(self._store)
        if pushed != self._count:
            how = "some are not looked at" if pushed > self._count else "some are shown to it more than once"
            warnings.warn(
                f"{type(self).__name__}: {self._network} was made for bursts of {self._count} frames, this one has "
                f"{pushed}: {how}",
                RuntimeWarning,
                stacklevel=2,
            )
        frames = [i * pushed // self._count for i in range(self._count)]
        scale = 1 if self._kind == "rgb" else 2
        everything = whole((self._shape[1], self._shape[2]))
        shape = (3, scale * everything.y1, scale * everything.x1)
        image, done = self.kept.open_picture(self._kept_facts(), shape) if self.kept else (None, set())
        image = np.empty(shape, np.float32) if image is None else image

        def gather(cores: list[Box]) -> list[Planes]:
            windows = [self._window(core, everything) for core in cores if core not in done]
            return [self._shown(self._store.tile(*window.within(everything), frames)) for window in windows]

        def fuse(cores: list[Box], shown: list[Planes]) -> list[None]:
            new = [core for core in cores if core not in done]
            for core, out in zip(new, self._run(shown) if shown else (), strict=True):
                y, x = self._red if scale == 2 else (0, 0)
                part = core.within(self._window(core, everything), scale=scale)
                image[(slice(None), *core.within(everything, scale=scale))] = self._light(
                    out[:, y:, x:][(slice(None), *part)]
                )
                if self.kept:
                    self.kept.finish_tile(core)
            return [None] * len(cores)

        cores = [core for row in self._rows(everything) for core in row]
        share = Share(self.tell, "finish", [core.size for core in cores])
        window = partial(self._window, everything=everything)
        with self._at_work():
            for core, _ in self._tiler.run(cores, window, gather, fuse):
                share.add(core.size)
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
        return red_first(light, self._red, flat=self._kind == "mosaic")

    def _light(self, image: Planes) -> Planes:
        """What the network gave (3, h, w), as linear light, white-balanced."""
        if self._encoding == "srgb":
            return np.asarray(srgb_to_linear(image), np.float32)
        return image * self._balance[:, None, None]

    def _kept_facts(self) -> dict[str, Any]:
        """What kept work depends on, beside the run's own facts."""
        return {
            "network": self._network, "tile_px": self._wanted_px, "at_once": self._at_once,
            "encoding": self._encoding, "frames": self.frames, "white_balance": self._balance.tolist(),
        }  # fmt: skip

    def _rows(self, everything: Box) -> list[list[Box]]:
        """Tiles, row by row, in pixels of a plane."""
        return rows_of_tiles(everything, self._tiler.tile_px, 0)

    def _window(self, core: Box, everything: Box) -> Box:
        """What is read for a tile."""
        return core.grown(self._halo, everything.size)

    # what runs the network

    @abstractmethod
    def _at_work(self) -> AbstractContextManager[None]:
        """Around all work of the network."""

    @abstractmethod
    def _run(self, shown: list[Planes]) -> list[Planes]:
        """Pictures (3, s h, s w) of tiles' frames (N, C, h, w), all of one size, both as the network has them."""


def batch_of(shown: list[Planes]) -> Planes:
    """(B, N, C, h, w) float32 in C order of tiles' frames."""
    return np.ascontiguousarray(shown[0], np.float32)[None] if len(shown) == 1 else np.stack(shown, dtype=np.float32)


def red_first(planes: Planes, red: tuple[int, int], flat: bool) -> Planes:
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
