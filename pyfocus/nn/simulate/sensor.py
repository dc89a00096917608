"""From views to the frames a stacker would hand on: moved, softened, exposed, developed, warped to the reference."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ... import _C
from ...affine import Matrix
from ..srgb import decode_srgb, encode_srgb

_LANCZOS3 = 2
BLACK_DN, WHITE_DN = 4096, 65535  # counts of the simulated raws: noise below black has room


def soften(x: Tensor, sigma_px: float) -> Tensor:
    """(N, C, H, W) under a Gaussian; the border's pixels are repeated."""
    if sigma_px < 0.05:
        return x
    half = math.ceil(3.5 * sigma_px)
    row = np.exp(-0.5 * (np.arange(-half, half + 1) / sigma_px) ** 2)
    weights = (row / row.sum()).tolist()
    h, w = x.shape[-2:]
    padded = F.pad(x, (half,) * 4, mode="replicate")
    rows = torch.zeros_like(padded[..., :w])
    for k, weight in enumerate(weights):
        rows.add_(padded[..., k : k + w], alpha=weight)
    out = torch.zeros_like(x)
    for k, weight in enumerate(weights):
        out.add_(rows[..., k : k + h, :], alpha=weight)
    return out


def move(frame: Tensor, matrix: Matrix, root: bool = True) -> Tensor:
    """A frame (3, H, W) seen through ``matrix`` (3, 3), destination to source pixels, as the pipeline resamples.

    Lanczos-3 of signed square roots; ``root`` False: ``frame`` holds roots already. Linear light comes back.
    """
    maps, out = np.ascontiguousarray(np.broadcast_to(matrix, (3, 3, 3))), torch.empty_like(frame)
    _C.warp(frame.contiguous(), maps, out, None, interpolation=_LANCZOS3, root=root, square=True, threads=1)
    return out


def centred(scale: float, shift: tuple[float, float], side: int) -> Matrix:
    """The map x' = c + scale (x - c) + shift about the middle of a canvas, (3, 3)."""
    c = (side - 1) / 2
    return np.array([[scale, 0, c - scale * c + shift[0]], [0, scale, c - scale * c + shift[1]], [0, 0, 1.0]])


def mosaic_of(frame: Tensor) -> Tensor:
    """The RGGB mosaic (..., H, W) of camera RGB (..., 3, H, W), H and W even."""
    out = frame[..., 1, :, :].clone()
    out[..., 0::2, 0::2] = frame[..., 0, 0::2, 0::2]
    out[..., 1::2, 1::2] = frame[..., 2, 1::2, 1::2]
    return out


def develop_mosaic(mosaic: Tensor, white_balance: tuple[float, float, float]) -> Tensor:
    """Square roots (3, H, W) of white-balanced camera RGB, from a mosaic of linear light, as the pipeline does."""
    counts = (mosaic * (WHITE_DN - BLACK_DN) + (BLACK_DN + 0.5)).clamp(0, WHITE_DN).to(torch.int32).to(torch.uint16)
    red, green, blue = white_balance
    scale = np.array([red, green, green, blue]) / (WHITE_DN - BLACK_DN)
    out = mosaic.new_empty(3, *mosaic.shape)
    _C.demosaic(counts, [0, 0], scale.tolist(), (-BLACK_DN * scale).tolist(), out, threads=1)
    return out


def code(x: Tensor, top: int) -> Tensor:
    """Linear light as it comes back from an sRGB file of ``top`` + 1 codes."""
    return decode_srgb(torch.round(encode_srgb(x.clamp(0, 1)) * top) / top)
