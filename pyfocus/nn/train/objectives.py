"""What a network is trained for, by the recipe's ``loss``: its loss of a batch, and its picture as it is looked at.

* "stream": :func:`pyfocus.nn.losses.stream_loss` on linear frames.
* "l1": the published networks' mean absolute error of the picture as it is looked at, a border left out. Fed rgb, they
  see and answer with what displays show; fed raw, with linear light in the camera's colours ("encoding" in a model's
  facts), where the published ones had to learn the white balance and the tone curve too.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import ArgumentError
from ..batch import Batch
from ..losses import seen, stream_loss
from .recipes import Recipe


class Objective(Protocol):
    """A way to learn from a batch."""

    def loss(self, net: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """The loss (a scalar that can be differentiated) and its parts."""

    def picture(self, net: nn.Module, batch: Batch) -> Tensor:
        """(B, 3, H', W') as it is looked at: white-balanced, sRGB-encoded, not clipped."""


def objective_of(recipe: Recipe, device: str) -> Objective:
    """The recipe's objective, computing on a device in the recipe's arithmetic."""
    numbers = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(recipe.amp)
    cast = Cast(device.partition(":")[0], numbers)
    return StreamObjective(cast) if recipe.loss == "stream" else PublishedObjective(cast, recipe.border_px)


class Cast:
    """Autocast for the network alone: losses are in float32."""

    def __init__(self, device: str, numbers: torch.dtype | None) -> None:
        self.device, self.numbers = device, numbers

    def run(self, net: nn.Module, *inputs: Tensor) -> Any:
        """``net(*inputs)``, its answer in float32."""
        with torch.autocast(self.device, dtype=self.numbers, enabled=self.numbers is not None):
            out = net(*inputs)
        if isinstance(out, Tensor):
            return out.float()
        return replace(out, **{f.name: getattr(out, f.name).float() for f in fields(out)})


class StreamObjective:
    """FocusDeepStream's."""

    def __init__(self, cast: Cast) -> None:
        self._cast = cast

    def loss(self, net: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """As :class:`Objective` says."""
        return stream_loss(self._run(net, batch), batch)

    def picture(self, net: nn.Module, batch: Batch) -> Tensor:
        """As :class:`Objective` says."""
        return seen(self._run(net, batch).image, batch.white_balance)

    def _run(self, net: nn.Module, batch: Batch) -> Any:
        return self._cast.run(net, batch.frames, batch.index.float(), batch.noise, batch.white_balance)


class PublishedObjective:
    """FocusDeep's and UNet's."""

    def __init__(self, cast: Cast, border_px: int) -> None:
        self._cast, self._border = cast, border_px

    def loss(self, net: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """As :class:`Objective` says."""
        error = (self.picture(net, batch) - target(batch)).abs()
        b = self._border
        value = error[:, :, b : error.shape[2] - b, b : error.shape[3] - b].mean()
        return value, {"l1": float(value.detach())}

    def picture(self, net: nn.Module, batch: Batch) -> Tensor:
        """As :class:`Objective` says."""
        out: Tensor = self._cast.run(net, published_input(batch))
        if batch.kind != "rgb":
            out = seen(out, batch.white_balance)
        if out.shape[2:] != batch.truth.shape[2:]:
            raise ArgumentError(
                f"train: the network's picture is {tuple(out.shape[2:])} and the truth {tuple(batch.truth.shape[2:])}; "
                "a UNet for raw frames takes kind=mosaic"
            )
        return out


def encoding_of(recipe: Recipe) -> str:
    """What the network takes and gives: "srgb", white-balanced, or "linear", as the camera has it."""
    return "srgb" if recipe.loss == "l1" and recipe.kind == "rgb" else "linear"


def published_input(batch: Batch) -> Tensor:
    """The frames (B, N, C, H, W) as a published network is fed: rgb as displays show it, raw as the sensor has it."""
    if batch.kind != "rgb":
        return batch.frames
    gains = batch.white_balance.repeat_interleave(batch.frames.shape[1], 0)
    return seen(batch.frames.flatten(0, 1), gains).clamp(0, 1).unflatten(0, batch.frames.shape[:2])


def target(batch: Batch) -> Tensor:
    """The truth (B, 3, H', W') as it is looked at, in [0, 1]."""
    return seen(batch.truth, batch.white_balance).clamp(0, 1)


def mean_of_frames(batch: Batch) -> Tensor:
    """The least that a network must beat: the frames' mean (B, 3, H', W') as it is looked at, in [0, 1]."""
    mean = batch.frames.mean(1)
    if batch.kind != "rgb":
        r, g, h, b = (F.pixel_unshuffle(mean, 2) if batch.kind == "mosaic" else mean).unbind(1)
        mean = F.interpolate(torch.stack([r, (g + h) / 2, b], 1), scale_factor=2.0, mode="bilinear")
    return seen(mean, batch.white_balance).clamp(0, 1)


def psnr(picture: Tensor, truth: Tensor) -> Tensor:
    """(B,) dB of pictures (B, 3, H, W) in [0, 1], where they lie and NaN for NaN: what :func:`pyfocus.metrics.psnr`
    says of one, but 100 for no error at all, so that means of several stay finite.
    """
    error = (picture.clamp(0, 1) - truth).square().mean((1, 2, 3))
    return -10 * torch.log10(error.clamp_min(1e-10))
