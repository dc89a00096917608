"""The small layers that the networks are made of: convolutions under weight norm, wide activation blocks, upsampling.

Shapes are (N, C, H, W); every convolution keeps H and W unless it has a stride.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class NormedConv2d(nn.Module):
    """Convolution whose weight is ``gain * direction / |direction|``, one gain per output channel.

    Weight normalisation (Salimans & Kingma, NeurIPS 2016). It starts as torch's own convolution: the gain is the length
    that the direction begins with. ``zero``: it starts as the constant 0 instead, by gain and bias.
    """

    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1, *, zero: bool = False) -> None:
        super().__init__()
        plain = nn.Conv2d(inputs, outputs, size)
        assert plain.bias is not None
        self.direction, self.bias, self.stride = plain.weight, plain.bias, stride
        self.gain = nn.Parameter(_length(plain.weight.detach()))
        if zero:
            nn.init.zeros_(self.gain)
            nn.init.zeros_(self.bias)

    def weight(self) -> Tensor:
        """(outputs, inputs, size, size)."""
        return self.direction * (self.gain / _length(self.direction))

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride), rounded up."""
        return F.conv2d(x, self.weight(), self.bias, self.stride, self.direction.shape[-1] // 2)


def _length(weight: Tensor) -> Tensor:
    return torch.linalg.vector_norm(weight, dim=(1, 2, 3), keepdim=True)


class WideActivation(nn.Module):
    """1x1 to six times the features, ReLU, 1x1 to 4/5 of them, 3x3 back: WDSR's linear low-rank block.

    Yu et al., "Wide activation for efficient and accurate image super-resolution", 2018. ``residual`` adds the input.
    """

    def __init__(self, features: int, *, residual: bool) -> None:
        super().__init__()
        self.residual = residual
        self.widen = NormedConv2d(features, 6 * features, 1)
        self.narrow = NormedConv2d(6 * features, 4 * features // 5, 1)
        self.mix = NormedConv2d(4 * features // 5, features, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(N, features, H, W) to the same."""
        out = self.mix(self.narrow(F.relu(self.widen(x))))
        return x + out if self.residual else out


def up2(x: Tensor) -> Tensor:
    """Twice the size, bilinear, by the pixels' areas (align_corners=False)."""
    return F.interpolate(x, (2 * x.shape[2], 2 * x.shape[3]), mode="bilinear", align_corners=False)


def leaky(x: Tensor) -> Tensor:
    """Leaky ReLU of slope 0.1: the alignment's activation."""
    return F.leaky_relu(x, 0.1)
