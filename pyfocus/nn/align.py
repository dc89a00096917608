"""Feature-enhanced pyramid, cascading and deformable alignment: a frame's features moved onto another's.

Paper, section 3.3, after EBSR (Luo et al., CVPR workshops 2021) and EDVR (Wang et al., CVPR workshops 2019). Pyramids
are lists of three levels (N, features, H, W), (N, features, H/2, W/2), (N, features, H/4, W/4), finest first.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import NormedConv2d, leaky, up2
from .ops import deform_conv2d

OFFSET_GROUPS = 8
TAPS = 9
LARGEST_OFFSET_PX = 200.0  # of modulated alignment, in pixels of its level


class FeaturePyramid(nn.Module):
    """Features at three scales, each enhanced by what the coarser ones see."""

    def __init__(self, features: int) -> None:
        super().__init__()
        f = features
        self.down = nn.ModuleList([NormedConv2d(f, 2 * f, 3, 2), NormedConv2d(2 * f, 4 * f, 3, 2)])
        self.lateral = nn.ModuleList([NormedConv2d(n * f, f, 1) for n in (1, 2, 4)])
        self.smooth = nn.ModuleList([NormedConv2d(f, f, 3) for _ in range(2)])

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, features, H, W), H and W multiples of 4, to a pyramid."""
        half = F.relu(self.down[0](x))
        quarter = F.relu(self.down[1](half))
        top = F.relu(self.lateral[2](quarter))
        middle = self.smooth[1](up2(top) + self.lateral[1](half))
        return [self.smooth[0](up2(middle) + self.lateral[0](x)), middle, top]


class PlainDeform(nn.Module):
    """Grouped 3x3 deformable convolution without mask; its guide is the offsets themselves.

    The offsets come out of a convolution *and* a leaky ReLU, so that negative ones are damped tenfold. That is how it
    was published.
    """

    def __init__(self, features: int, *, zero_offsets: bool) -> None:
        super().__init__()
        self.offset = NormedConv2d(features, 2 * OFFSET_GROUPS * TAPS, 3, zero=zero_offsets)
        plain = nn.Conv2d(features, features, 3, groups=OFFSET_GROUPS)
        self.weight, self.bias = plain.weight, plain.bias

    def guide(self, features: Tensor) -> Tensor:
        """Offsets (N, 144, H, W) as pairs (y, x) from features of both frames; also what the finer level is told."""
        return leaky(self.offset(features))

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        """x (N, features, H, W) sampled where the guide says."""
        return deform_conv2d(
            x, self.weight, guide, None, self.bias, padding=1, groups=OFFSET_GROUPS, offset_groups=OFFSET_GROUPS
        )


class ModulatedDeform(nn.Module):
    """Dense 3x3 deformable convolution with a mask in (0, 1), as in EBSR.

    Its guide is features, told on to finer levels; offsets are limited to 200 pixels.
    """

    def __init__(self, features: int, *, zero_offsets: bool) -> None:
        super().__init__()
        self.mix = NormedConv2d(features, features, 3)
        self.offset = nn.Conv2d(features, 3 * OFFSET_GROUPS * TAPS, 3, padding=1)
        if zero_offsets:
            nn.init.zeros_(self.offset.weight)
            nn.init.zeros_(self.offset.bias)
        plain = nn.Conv2d(features, features, 3)
        self.weight, self.bias = plain.weight, plain.bias

    def guide(self, features: Tensor) -> Tensor:
        """(N, features, H, W), from which forward makes offsets and mask."""
        return leaky(self.mix(features))

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        """x (N, features, H, W) sampled where the guide says, and weighted."""
        offset, mask = self.offset(guide).split([2 * OFFSET_GROUPS * TAPS, OFFSET_GROUPS * TAPS], 1)
        offset = offset.clamp(-LARGEST_OFFSET_PX, LARGEST_OFFSET_PX)
        return deform_conv2d(x, self.weight, offset, mask.sigmoid(), self.bias, padding=1, offset_groups=OFFSET_GROUPS)


class CascadingAlignment(nn.Module):
    """Aligns from the coarsest level to the finest, each told by the one above, and once more at the end."""

    def __init__(self, features: int, *, modulated: bool = False, zero_offsets: bool = False) -> None:
        super().__init__()
        f, deform = features, ModulatedDeform if modulated else PlainDeform
        told = f + (f if modulated else 2 * OFFSET_GROUPS * TAPS)
        self.compare = nn.ModuleList([NormedConv2d(2 * f, f, 3) for _ in range(3)])
        self.deform = nn.ModuleList([deform(f, zero_offsets=zero_offsets) for _ in range(3)])
        self.hear = nn.ModuleList([NormedConv2d(told, f, 3) for _ in range(2)])
        self.join = nn.ModuleList([NormedConv2d(2 * f, f, 3) for _ in range(2)])
        self.compare_again = NormedConv2d(2 * f, f, 3)
        self.deform_again = deform(f, zero_offsets=zero_offsets)

    def forward(self, frame: Sequence[Tensor], reference: Sequence[Tensor]) -> Tensor:
        """The frame's features (N, features, H, W), where the reference has them; both are pyramids."""
        guide = self.deform[2].guide(leaky(self.compare[2](torch.cat([frame[2], reference[2]], 1))))
        aligned = leaky(self.deform[2](frame[2], guide))
        for level in (1, 0):
            both = leaky(self.compare[level](torch.cat([frame[level], reference[level]], 1)))
            told = up2(guide) * 2  # a pixel of the coarser level is two of this one
            guide = self.deform[level].guide(leaky(self.hear[level](torch.cat([both, told], 1))))
            moved = self.deform[level](frame[level], guide)
            aligned = self.join[level](torch.cat([moved, up2(aligned)], 1))
            aligned = leaky(aligned) if level else aligned
        guide = self.deform_again.guide(leaky(self.compare_again(torch.cat([aligned, reference[0]], 1))))
        return leaky(self.deform_again(aligned, guide))
