"""What a folding network sees of a frame: values on an even scale, their noise on that scale, and focus measures."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST_STEP = 0.02  # on the compressed scale: details of clean pictures are measured in it
KNEE = 2e-3  # linear light below which the curve is straight rather than a root


def compress(linear: Tensor) -> Tensor:
    """Linear light, of any sign, on a scale where equal steps look about equal: a square root with a soft foot.

    c = sqrt((x + sqrt(x^2 + 4 KNEE^2)) / 2): sqrt(x) far above the knee, positive and smooth below 0, where noise goes.
    """
    return torch.sqrt((linear + torch.sqrt(linear * linear + 4 * KNEE * KNEE)) / 2)


def expand(compressed: Tensor) -> Tensor:
    """The inverse of :func:`compress`; values below a hundredth of a step from 0 are taken as that."""
    c = compressed.clamp_min(5e-3)
    return c * c - KNEE * KNEE / (c * c)


def slope(linear: Tensor, compressed: Tensor) -> Tensor:
    """Derivative of :func:`compress`, of which ``compressed`` is the value."""
    return compressed / (2 * torch.sqrt(linear * linear + 4 * KNEE * KNEE))


def noise_map(balanced: Tensor, noise: Tensor, white_balance: Tensor) -> Tensor:
    """Standard deviation, on the compressed scale, of white-balanced values (B, C, h, w) with C a multiple of 3.

    ``noise`` (B, 2) shot and read of raw samples x, of variance ``shot x + read``; a gain g makes of it
    ``g shot (g x) + g^2 read``. Channels are R..., G..., B...
    """
    gain = white_balance.repeat_interleave(balanced.shape[1] // 3, 1)[:, :, None, None]
    shot, read = noise[:, :1, None, None], noise[:, 1:, None, None]
    variance = gain * shot * balanced.clamp_min(0) + gain * gain * read
    return torch.sqrt(variance) * slope(balanced, compress(balanced))


def focus_energies(compressed: Tensor, sigma: Tensor) -> Tensor:
    """(B, 3, H, W) on the compressed scale to (B, 2, H/2, W/2): half the logarithm of the energy of two Laplacians.

    One at full size, one at half size; each squared and averaged over five by five half-size pixels: the classical
    focus measures (Nayar & Nakagawa 1994 and after), from which the network starts. The variance that noise of
    ``sigma`` (B, 3, H/2, W/2) leaves in grey is added to the energy, so that noise alone makes no frame stand out.
    """
    grey = compressed.mean(1, keepdim=True)
    half = F.avg_pool2d(grey, 2)
    fine = F.avg_pool2d(_laplacian(grey).square(), 2)
    energy = torch.cat([fine, _laplacian(half).square()], 1)
    energy = F.avg_pool2d(F.pad(energy, (2, 2, 2, 2), mode="replicate"), 5, 1)
    floor = sigma.square().mean(1, keepdim=True) / 3
    return 0.5 * torch.log(energy + floor + 1e-7)


def details(packed: Tensor, sigma: Tensor) -> Tensor:
    """What stands out of the mean of 3x3 blocks, in units of the noise: (B, 15, h, w) of packed colours (B, 12, h, w).

    12 differences, divided by ``sigma`` (B, 3, h, w) and a least step, and the colours' means over each block.
    """
    around = F.avg_pool2d(packed, 3, 1, 1, count_include_pad=False)
    means = packed.unflatten(1, (3, 4)).mean(2)
    return torch.cat([(packed - around) / unit(sigma), means], 1)


def unit(sigma: Tensor) -> Tensor:
    """(B, 12, h, w): the step that differences are measured in, for each packed colour of ``sigma`` (B, 3, h, w)."""
    return (sigma + LEAST_STEP).repeat_interleave(4, 1)


def _laplacian(x: Tensor) -> Tensor:
    """Four neighbours' mean less the middle; the border goes on as it ends."""
    y = F.pad(x, (1, 1, 1, 1), mode="replicate")
    around = y[:, :, :-2, 1:-1] + y[:, :, 2:, 1:-1] + y[:, :, 1:-1, :-2] + y[:, :, 1:-1, 2:]
    return x - around / 4
