"""One batch of bursts to learn from or to be judged on: what the network sees, and what it should have answered."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor, device

from .bursts import Kind


@dataclass(frozen=True)
class Batch:
    """B bursts of N frames, all in linear light and camera colours, none of it white-balanced.

    * ``frames`` (B, N, C, H, W) float32: as ``kind`` says, "rgb", "rggb" or "mosaic"; noise may go below 0. The first
      frame is the geometric reference, whatever its place in focus order.
    * ``index`` (B, N): each frame's place in focus order, 0 to N - 1.
    * ``truth`` (B, 3, H', W'): sharp everywhere and without noise, in the geometry of the first frame; for "rggb"
      H', W' are twice H, W.
    * ``depth`` (B, 1, H', W'): the place in focus order where each pixel is sharpest, in the units of ``index``.
    * ``sharp`` (B, 1, H', W') in [0, 1]: 1 where some frame is in focus.
    * ``noise`` (B, 2): shot and read; a raw sample x has the variance ``shot * x + read``.
    * ``white_balance`` (B, 3): gains for R, G, B; green is 1.
    """

    frames: Tensor
    index: Tensor
    truth: Tensor
    depth: Tensor
    sharp: Tensor
    noise: Tensor
    white_balance: Tensor
    kind: Kind = "rgb"

    def __len__(self) -> int:
        return int(self.frames.shape[0])

    def to(self, place: device | str) -> Batch:
        """The same on another device."""
        return self._each(lambda x: x.to(place, non_blocking=True))

    def part(self, start: int, stop: int) -> Batch:
        """Bursts ``start`` to ``stop`` of it, as views."""
        return self._each(lambda x: x[start:stop])

    def _each(self, change: Any) -> Batch:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return Batch(**{k: change(v) if isinstance(v, Tensor) else v for k, v in values.items()})
