"""The parts of FocusDeepStream: per-frame encoder, alignment to the frame before, heads, and the decoder at the end.

Features lie at 1/2, 1/4 and 1/8 of the frame's size; shapes are (B, C, H, W).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers import leaky, up2
from .ops import deform_conv2d

TAPS = 9
GROUPS = 4


class Residual(nn.Module):
    """Two 3x3 convolutions with a leaky ReLU between, added to their input; they start small."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.first, self.second = conv3(features, features), conv3(features, features)
        with torch.no_grad():
            self.second.weight.mul_(0.3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, features, H, W) to the same."""
        out: Tensor = x + self.second(leaky(self.first(x)))
        return out


class Hourglass(nn.Module):
    """A small U-Net of residual blocks: 1/2, 1/4, 1/8 and back, with what was there added at each size."""

    def __init__(self, inputs: int, widths: tuple[int, int, int], blocks: tuple[int, int, int]) -> None:
        super().__init__()
        a, b, c = widths
        self.enter = conv3(inputs, a)
        self.down = nn.ModuleList([conv3(a, b, 2), conv3(b, c, 2)])
        self.up = nn.ModuleList([nn.Conv2d(c, b, 1), nn.Conv2d(b, a, 1)])
        self.low = nn.Sequential(*[Residual(c) for _ in range(blocks[2])])
        self.middle = nn.Sequential(*[Residual(b) for _ in range(blocks[1])])
        self.high = nn.Sequential(*[Residual(a) for _ in range(blocks[0])])
        # Pixels of the frame that one output hangs on: 3x3 convolutions and up2 reach one pixel of their own size.
        self.halo_px = (2 + 4 * blocks[0]) + (2 + 8 * blocks[1] + 4) + (4 + 16 * blocks[2] + 8)

    def descend(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, inputs, h, w) to features at its size and at half of it; the latter know the size below, too."""
        first = leaky(self.enter(x))
        second = leaky(self.down[0](first))
        third = self.low(leaky(self.down[1](second)))
        return first, self.middle(second + up2(self.up[0](third)))

    def ascend(self, first: Tensor, second: Tensor) -> Tensor:
        """What ``descend`` gave, to features at the first size."""
        out: Tensor = self.high(first + up2(self.up[1](second)))
        return out


class BoundedAlignment(nn.Module):
    """Features of a frame where the frame before has them: one modulated deformable convolution.

    Offsets are ``reach * tanh(...)`` pixels of these features, so that a tile needs no more than a known halo. They
    start at zero and the convolution as the identity.
    """

    def __init__(self, features: int, reach: float) -> None:
        super().__init__()
        self.reach = reach
        self.compare = conv3(2 * features, features)
        self.guide = conv3(features, 3 * GROUPS * TAPS)
        nn.init.zeros_(self.guide.weight)
        nn.init.zeros_(self.guide.bias)
        weight = torch.randn(features, features, 3, 3) * (0.02 / features**0.5)
        weight[:, :, 1, 1] += 2 * torch.eye(features)  # the mask starts at a half
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(torch.zeros(features))

    def forward(self, frame: Tensor, before: Tensor) -> Tensor:
        """Both (B, features, h, w); the frame's features, moved."""
        guide = self.guide(leaky(self.compare(torch.cat([frame, before], 1))))
        guide = guide.to(torch.promote_types(guide.dtype, torch.float32))
        offset, mask = guide.split([2 * GROUPS * TAPS, GROUPS * TAPS], 1)
        return deform_conv2d(
            frame, self.weight, self.reach * torch.tanh(offset), mask.sigmoid(), self.bias, padding=1,
            offset_groups=GROUPS,
        )  # fmt: skip


class Decoder(nn.Module):
    """From the folded maps to corrections of the blended picture: residual, choice of blend, confidence."""

    def __init__(self, inputs: int, widths: tuple[int, int, int], blocks: tuple[int, int, int]) -> None:
        super().__init__()
        self.body = Hourglass(inputs, widths, blocks)
        self.out = conv3(widths[0], 12 + 4 + 1)
        with torch.no_grad():
            self.out.weight.mul_(0.1)
            self.out.bias.zero_()
            self.out.bias[12:16] = -1.0  # begin nearer to the sharp blend than to the smooth one

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, inputs, h, w) to residual (B, 12, h, w), share of the smooth blend (B, 4, h, w), confidence's logit."""
        out = self.out(self.body.ascend(*self.body.descend(x)))
        out = out.to(torch.promote_types(out.dtype, torch.float32))
        return out[:, :12], out[:, 12:16].sigmoid(), out[:, 16:]


def conv3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """3x3, size kept or halved."""
    return nn.Conv2d(inputs, outputs, 3, stride, 1)
