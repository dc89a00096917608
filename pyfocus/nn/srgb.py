"""The sRGB curve of IEC 61966-2-1 in torch, as ``pyfocus.colour`` has it for NumPy: both ways, with gradients."""

from __future__ import annotations

import torch
from torch import Tensor

_FOOT_LINEAR, _FOOT_CODED = 0.0031308, 0.04045  # where the straight part ends


def encode_srgb(linear: Tensor) -> Tensor:
    """sRGB values of linear light, any shape; below 0 the straight part goes on. Differentiable everywhere."""
    low = linear.clamp_max(_FOOT_LINEAR) * 12.92
    high = 1.055 * linear.clamp_min(_FOOT_LINEAR) ** (1 / 2.4) - 0.055
    return torch.where(linear <= _FOOT_LINEAR, low, high)


def decode_srgb(coded: Tensor) -> Tensor:
    """Linear light of sRGB values, any shape; below 0 the straight part goes on. Differentiable everywhere."""
    low = coded.clamp_max(_FOOT_CODED) / 12.92
    high = ((coded.clamp_min(_FOOT_CODED) + 0.055) / 1.055) ** 2.4
    return torch.where(coded <= _FOOT_CODED, low, high)
