"""FocusDeep, the network of Araujo, Ponce & Mairal 2023 (arXiv 2311.17846, section 3.3): N frames in, one picture out.

frame by frame:  shallow features ─ pyramid ─ alignment to the frame before
all together:    fusion (1x1) ─ long-range concatenation trunk ─ upsampling ─ + skip of one raw frame
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ArgumentError
from .align import OFFSET_GROUPS, CascadingAlignment, FeaturePyramid
from .bursts import Kind, check_burst, check_count, layout_of, pad_to
from .layers import NormedConv2d, WideActivation

FRONT_BLOCKS, GROUPS, BLOCKS = 5, 5, 4
STEP = 4  # the pyramid halves twice


class FocusDeep(nn.Module):
    """The published network: a burst (B, frames, C, H, W) to pictures (B, 3, s H, s W).

    ``kind`` of input: "rgb" (C = 3, s = 1); "rggb", the four planes of a mosaic at half size (C = 4, s = 2), as the
    paper says; "mosaic", the flat mosaic with red in the first corner (C = 1, s = 1), as the published code does.
    Values in [0, 1]; 0.5 is subtracted on the way in and added on the way out, and the output is not clipped.

    The defaults are the published code's last version. Its other versions and open choices are options:

    * ``modulated``: dense deformable convolutions with a mask, and features instead of offsets told from level to
      level, as in EBSR and the first version; False: grouped ones without mask.
    * ``zero_offsets``: alignment starts as no motion (EBSR, EDVR); False: from torch's random weights, as published.
    * ``reference``: each frame is aligned to the "previous" one, the first to itself (paper), or all to the "first"
      (EBSR).
    * ``skip``: the frame whose raw pixels are added at the end. Published: 0. Any index, from the end if negative, or
      "mean" of all frames, which favours none.

    ``frames_at_once`` bounds memory where no gradients are kept: that many frames go through the frame-by-frame part
    together, 0 for all.
    """

    def __init__(
        self,
        kind: Kind = "rgb",
        frames: int = 30,
        features: int = 64,
        *,
        modulated: bool = False,
        zero_offsets: bool = False,
        reference: Literal["previous", "first"] = "previous",
        skip: int | Literal["mean"] = 0,
        frames_at_once: int = 0,
    ) -> None:
        super().__init__()
        layout = layout_of("FocusDeep", kind)
        self.frames = check_count("FocusDeep", "frames", frames)
        f = check_count("FocusDeep", "features", features, OFFSET_GROUPS)
        if reference not in ("previous", "first"):
            raise ArgumentError(f"FocusDeep: reference must be 'previous' or 'first', got {reference!r}")
        if skip != "mean" and not (isinstance(skip, int) and -frames <= skip < frames):
            raise ArgumentError(f"FocusDeep: skip must be a frame's index, of {frames}, or 'mean', got {skip!r}")
        self.kind, self.channels, self.scale = kind, layout.channels, layout.scale
        self.reference, self.skip, self.frames_at_once = reference, skip, frames_at_once
        self.config: dict[str, Any] = {
            "kind": kind, "frames": frames, "features": features, "modulated": modulated, "zero_offsets": zero_offsets,
            "reference": reference, "skip": skip, "frames_at_once": frames_at_once,
        }  # fmt: skip
        self.shallow = NormedConv2d(layout.channels, f, 3)
        self.front = nn.Sequential(*[WideActivation(f, residual=True) for _ in range(FRONT_BLOCKS)])
        self.pyramid = FeaturePyramid(f)
        self.align = CascadingAlignment(f, modulated=modulated, zero_offsets=zero_offsets)
        self.fuse = NormedConv2d(frames * f, f, 1)
        self.trunk = LongRangeConcatenation(f, GROUPS, BLOCKS)
        self.tail = Tail(f, layout.scale)
        self.direct = Direct(layout.channels, f, layout.scale)

    def forward(self, burst: Tensor) -> Tensor:
        """(B, frames, C, H, W) to (B, 3, s H, s W). Sizes that 4 does not divide are mirrored at two edges.

        Raises ArgumentError for another number of frames or channels, and for fewer than 4 rows or columns.
        """
        check_burst("FocusDeep", burst, self.frames, self.channels, STEP)
        size = [self.scale * n for n in burst.shape[3:]]
        x = pad_to(burst.flatten(1, 2) - 0.5, STEP).unflatten(1, (self.frames, self.channels))
        aligned = self._align(self._pyramids(x))
        fused = F.relu(self.fuse(aligned.flatten(1, 2)))
        bright, colour = self.direct(x.mean(1) if self.skip == "mean" else x[:, self.skip])
        out = self.tail(self.trunk(fused), bright) + colour + 0.5
        return out[:, :, : size[0], : size[1]]

    def _pyramids(self, x: Tensor) -> list[Tensor]:
        """Levels (B, frames, features, H, W) and halves and quarters of it."""
        parts = []
        for part in self._parts(x):
            levels = self.pyramid(self.front(F.relu(self.shallow(part.flatten(0, 1)))))
            parts.append([level.unflatten(0, part.shape[:2]) for level in levels])
        return [torch.cat(level, 1) for level in zip(*parts, strict=True)]

    def _align(self, levels: list[Tensor]) -> Tensor:
        """(B, frames, features, H, W): each frame's features as its reference sees them."""
        if self.reference == "previous":
            others = [torch.cat([level[:, :1], level[:, :-1]], 1) for level in levels]
        else:
            others = [level[:, :1].expand_as(level) for level in levels]
        aligned = []
        for part in zip(*map(self._parts, [*levels, *others]), strict=True):
            flat = [level.flatten(0, 1) for level in part]
            aligned.append(self.align(flat[:3], flat[3:]).unflatten(0, part[0].shape[:2]))
        return torch.cat(aligned, 1)

    def _parts(self, x: Tensor) -> tuple[Tensor, ...]:
        """The frames in parts of ``frames_at_once``."""
        parts: tuple[Tensor, ...] = x.split(self.frames_at_once or self.frames, 1)
        return parts


class LongRangeConcatenation(nn.Module):
    """LRCN of EBSR: groups of blocks, each handing on its output *and* its input, brought together at the end."""

    def __init__(self, features: int, groups: int, blocks: int) -> None:
        super().__init__()
        self.groups = nn.ModuleList([Group(features, g + 1, blocks) for g in range(groups)])
        self.join = NormedConv2d((groups + 1) * features, features, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, features, H, W) to the same."""
        for group in self.groups:
            x = torch.cat([group(x), x], 1)
        result: Tensor = self.join(x)
        return result


class Group(nn.Module):
    """``blocks`` wide activation blocks on ``width`` times the features, each seeing all that came before it."""

    def __init__(self, features: int, width: int, blocks: int) -> None:
        super().__init__()
        f = features
        self.head = NormedConv2d(width * f, f, 1) if width > 1 else nn.Identity()
        self.heads = nn.ModuleList([NormedConv2d((b + 1) * f, f, 1) if b else nn.Identity() for b in range(blocks)])
        self.blocks = nn.ModuleList([WideActivation(f, residual=False) for _ in range(blocks)])
        self.tail = NormedConv2d((blocks + 1) * f, f, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, width features, H, W) to (N, features, H, W)."""
        x = self.head(x)
        for head, block in zip(self.heads, self.blocks, strict=True):
            x = torch.cat([block(head(x)), x], 1)
        result: Tensor = self.tail(x)
        return result


class Tail(nn.Module):
    """From features to a picture ``scale`` times as large."""

    def __init__(self, features: int, scale: int) -> None:
        super().__init__()
        self.up = NormedConv2d(features, features * scale * scale, 3)
        self.refine = nn.ModuleList([NormedConv2d(features, features, 3) for _ in range(2)])
        self.colour = NormedConv2d(features, 3, 3)
        self.scale = scale

    def forward(self, x: Tensor, bright: Tensor) -> Tensor:
        """x (N, features, H, W) and the skip's features (N, features, s H, s W) to (N, 3, s H, s W)."""
        x = F.relu(F.pixel_shuffle(self.up(x), self.scale)) + bright
        for refine in self.refine:
            x = F.relu(refine(x))
        result: Tensor = self.colour(x)
        return result


class Direct(nn.Module):
    """The skip: one raw frame past everything, as features and as colour."""

    def __init__(self, channels: int, features: int, scale: int) -> None:
        super().__init__()
        self.up = NormedConv2d(channels, features * scale * scale, 3)
        self.colour = NormedConv2d(features, 3, 3)
        self.scale = scale

    def forward(self, frame: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) to (N, features, s H, s W) and (N, 3, s H, s W)."""
        bright = F.relu(F.pixel_shuffle(self.up(frame), self.scale))
        return bright, self.colour(bright)
