"""Sensor noise to train with: how strong it is drawn, and how it is added (Brooks et al. 2019, Unprocessing Images).

    noise = sample_noise(len(frames), generator)   # (B, 2): shot, read
    noisy = add_noise(frames, noise, generator)

A raw sample of mean x, linear in [0, 1] above black, has the variance ``shot * x + read``.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from ..errors import ArgumentError

SHOT_RANGE = (1e-4, 0.012)
READ_SLOPE, READ_OFFSET, READ_SPREAD = 2.18, 1.20, 0.26


def sample_noise(
    count: int,
    generator: Generator | None = None,
    *,
    shot_range: tuple[float, float] = SHOT_RANGE,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Draw ``count`` pairs (count, 2) of shot and read, one for all frames of a burst. Both are > 0, read a variance.

    log shot is uniform over ``shot_range``; log read is normal about 2.18 log shot + 1.20 with standard deviation 0.26
    (natural logarithms, the published code's figures). On the generator's device; drawn in float64, so that a seed
    means the same pairs in every ``dtype``. Raises ArgumentError.
    """
    low, high = shot_range
    if count < 0 or not 0 < low <= high < math.inf:
        raise ArgumentError(
            f"sample_noise: count must be 0 or more and shot_range two numbers 0 < low <= high, got {count} and "
            f"{shot_range}"
        )
    place = torch.device("cpu") if generator is None else generator.device
    even = torch.rand(count, generator=generator, device=place, dtype=torch.float64)
    normal = torch.randn(count, generator=generator, device=place, dtype=torch.float64)
    log_shot = math.log(low) + even * (math.log(high) - math.log(low))
    log_read = READ_SLOPE * log_shot + READ_OFFSET + READ_SPREAD * normal
    return torch.stack([log_shot, log_read], 1).exp().to(dtype)


def noise_variance(x: Tensor, noise: Tensor) -> Tensor:
    """Variance of samples of mean ``x``, as ``x`` is shaped: ``shot * x + read``, nowhere below 0.

    ``noise`` is (2,), one pair for all of ``x``, or (B, 2), one for each ``x[b]``. Raises ArgumentError.
    """
    pairs = noise.dim() == 2 and x.dim() >= 1 and noise.shape == (len(x), 2)
    if not pairs and noise.shape != (2,):
        first = f" or ({len(x)}, 2)" if x.dim() else ""
        raise ArgumentError(
            f"noise_variance: noise must be (2,){first}, shot and read for all or each of x, got {tuple(noise.shape)}"
        )
    shot, read = noise.to(x.device, x.dtype).unbind(-1)
    if pairs:
        each = (-1,) + (1,) * (x.dim() - 1)
        shot, read = shot.view(each), read.view(each)
    return (shot * x + read).clamp_min(0)


def add_noise(x: Tensor, noise: Tensor, generator: Generator | None = None) -> Tensor:
    """``x`` of floats with independent Gaussian noise of variance ``shot * x + read`` added, not clipped afterwards.

    ``x`` (B, ...) is linear light as the sensor has it (not white-balanced); ``noise`` (B, 2) or (2,). A variance that
    would be negative, below black, is 0. The generator must be on x's device. Raises ArgumentError.
    """
    if not x.is_floating_point():
        raise ArgumentError(f"add_noise: x must be of floats, linear in [0, 1], got {x.dtype}")
    spread = noise_variance(x, noise).sqrt()
    return x + spread * torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
