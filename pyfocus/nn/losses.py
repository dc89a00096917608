"""What FocusDeepStream learns by: the picture as eyes see it, its blends, the depth, and being sure when it may be."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .batch import Batch
from .srgb import encode_srgb
from .stream import StreamResult

CHARBONNIER = 1e-3
BORDER_PX = 8


def seen(linear: Tensor, white_balance: Tensor) -> Tensor:
    """Camera RGB (B, 3, H, W) as it is looked at: white-balanced and sRGB-encoded, without a colour matrix."""
    return encode_srgb(linear * white_balance[:, :, None, None])


def stream_loss(out: StreamResult, batch: Batch) -> tuple[Tensor, dict[str, float]]:
    """The loss of a batch and its parts.

    Charbonnier (Charbonnier et al. 1994) on the encoded picture; a quarter as much on the sharp blend, a tenth on the
    smooth one, so that weights learn directly; the depth where some frame is sharp; the confidence as a forecast
    that the depth is right to a frame. Where no frame is sharp the truth cannot be known: it counts a fifth there, so
    that the least blurred frame is learned and not a guess. A border is left out, where a real tile has a halo.
    """
    cut = (..., slice(BORDER_PX, -BORDER_PX), slice(BORDER_PX, -BORDER_PX))
    white = batch.white_balance
    truth = seen(batch.truth, white)[cut]

    sharp = batch.sharp[cut]
    weight = 0.2 + 0.8 * sharp

    def away(picture: Tensor) -> Tensor:
        error = seen(picture, white)[cut] - truth
        return (weight * (torch.sqrt(error * error + CHARBONNIER**2) - CHARBONNIER)).mean()

    image, blend, smooth = away(out.image), away(out.blend), away(out.smooth)
    miss = (out.depth - batch.depth)[cut].abs()
    depth = (F.smooth_l1_loss(miss, torch.zeros_like(miss), reduction="none").clamp_max(4) * sharp).mean()
    right = ((miss < 1) & (sharp > 0.5)).to(miss.dtype)
    sure = F.binary_cross_entropy_with_logits(out.confidence_logit[cut], right)
    loss = image + 0.25 * blend + 0.1 * smooth + 0.02 * depth + 0.003 * sure
    parts = {"image": image, "blend": blend, "smooth": smooth, "depth": depth, "sure": sure}
    return loss, {name: float(value.detach()) for name, value in parts.items()}
