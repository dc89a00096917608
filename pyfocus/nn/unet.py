"""The paper's baseline: a plain U-Net (Ronneberger et al., MICCAI 2015) over the frames stacked on channels."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .bursts import Kind, check_burst, check_count, layout_of, pad_to

STEP = 16  # four halvings
DEPTH = 4


class UNet(nn.Module):
    """A burst (B, frames, C, H, W) to pictures (B, 3, H, W), as published (arXiv 2311.17846, section 3.3).

    ``kind`` of input as for FocusDeep; C is 3, 4 or 1. There is no upsampling: the output of "rggb" is as large as the
    four planes are, so full-size results from raws need "mosaic". ``features`` of the finest level, doubled at each of
    four halvings. Values in [0, 1], shifted by 0.5 inside; the output is not clipped.
    """

    def __init__(self, kind: Kind = "rgb", frames: int = 30, features: int = 64) -> None:
        super().__init__()
        self.kind, self.channels = kind, layout_of("UNet", kind).channels
        self.frames = check_count("UNet", "frames", frames)
        f = check_count("UNet", "features", features)
        self.config: dict[str, Any] = {"kind": kind, "frames": frames, "features": features}
        widths = [f << level for level in range(DEPTH + 1)]
        inputs = [self.frames * self.channels, *widths]
        self.down = nn.ModuleList([_block(a, b) for a, b in zip(inputs, widths, strict=False)])
        self.up = nn.ModuleList([nn.ConvTranspose2d(2 * w, w, 2, 2) for w in widths[:DEPTH]])
        self.join = nn.ModuleList([_block(2 * w, w) for w in widths[:DEPTH]])
        self.colour = nn.Conv2d(f, 3, 1)

    def forward(self, burst: Tensor) -> Tensor:
        """(B, frames, C, H, W) to (B, 3, H, W). Sizes that 16 does not divide are mirrored at two edges.

        Raises ArgumentError for another number of frames or channels, and for fewer than 16 rows or columns.
        """
        check_burst("UNet", burst, self.frames, self.channels, STEP)
        x = pad_to(burst.flatten(1, 2) - 0.5, STEP)
        kept = []
        for level, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if level else x)
            kept.append(x)
        for level in reversed(range(DEPTH)):
            x = self.join[level](torch.cat([kept[level], self.up[level](x)], 1))
        result: Tensor = self.colour(x) + 0.5
        return result[:, :, : burst.shape[3], : burst.shape[4]]


def _block(inputs: int, outputs: int) -> nn.Sequential:
    """Three 3x3 convolutions without bias, a ReLU after each."""
    layers: list[nn.Module] = []
    for width in (inputs, outputs, outputs):
        layers += [nn.Conv2d(width, outputs, 3, padding=1, bias=False), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
