"""What the published networks are fed: kinds of input, their checks, and sizes made whole by mirrored pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from ..errors import ArgumentError

Kind = Literal["rgb", "rggb", "mosaic"]


@dataclass(frozen=True)
class Layout:
    """``channels`` of one frame, and how many output pixels lie along one of its pixels."""

    channels: int
    scale: int


LAYOUTS: dict[Kind, Layout] = {"rgb": Layout(3, 1), "rggb": Layout(4, 2), "mosaic": Layout(1, 1)}


def layout_of(network: str, kind: Kind) -> Layout:
    """The layout of a kind of input. Raises ArgumentError."""
    if kind not in LAYOUTS:
        raise ArgumentError(f"{network}: kind must be one of {', '.join(LAYOUTS)}, got {kind!r}")
    return LAYOUTS[kind]


def check_count(network: str, name: str, value: int, step: int = 1) -> int:
    """``value`` itself, a positive multiple of ``step``. Raises ArgumentError."""
    if value < 1 or value % step:
        what = f"a multiple of {step}" if step > 1 else "1 or more"
        raise ArgumentError(f"{network}: {name} must be {what}, got {value}")
    return value


def check_burst(network: str, burst: Tensor, frames: int, channels: int, step: int) -> None:
    """That ``burst`` is (B, frames, channels, H, W) of floats, H and W at least ``step``. Raises ArgumentError."""
    expected = f"(batch, {frames}, {channels}, H, W)"
    if burst.dim() != 5 or burst.shape[1] != frames or burst.shape[2] != channels:
        raise ArgumentError(
            f"{network}: burst must have shape {expected}, got {tuple(burst.shape)}: "
            f"this network takes {frames} frames of {channels} {'channels' if channels > 1 else 'channel'}"
        )
    if not burst.is_floating_point():
        raise ArgumentError(f"{network}: burst must be of floats in [0, 1], got {burst.dtype}")
    if burst.shape[3] < step or burst.shape[4] < step:
        raise ArgumentError(
            f"{network}: burst must have at least {step} x {step} pixels, got {burst.shape[3]} x {burst.shape[4]}"
        )


def pad_to(x: Tensor, step: int) -> Tensor:
    """(B, C, H, W) with rows below and columns to the right, so that ``step`` divides both sizes.

    Mirrored about the last pixel, which keeps the colours of a mosaic in their places.
    """
    down, right = -x.shape[2] % step, -x.shape[3] % step
    return F.pad(x, (0, right, 0, down), mode="reflect") if down or right else x
