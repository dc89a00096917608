"""Oracle of the modulated deformable convolution and its gradients: Zhu et al. 2019 in NumPy float64.

Written with hat functions: the weight of pixel r in a sample at y is max(0, 1 - |y - r|), its derivative from the right
1 below r and -1 from r on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]
Pair = tuple[int, int]


@dataclass(frozen=True)
class Steps:
    """How the kernel goes over the image; pairs are (y, x)."""

    stride: Pair = (1, 1)
    pad: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    offset_groups: int = 1


def output_size(size: Pair, kernel: Pair, s: Steps) -> Pair:
    """(oh, ow) of an image (h, w)."""
    h, w = (max(0, (size[i] + 2 * s.pad[i] - s.dilation[i] * (kernel[i] - 1) - 1) // s.stride[i] + 1) for i in (0, 1))
    return h, w


def positions(offset: Float, kernel: Pair, s: Steps) -> tuple[Float, Float]:
    """y and x, each (N, groups, taps, oh, ow), of every sample."""
    n, _, oh, ow = offset.shape
    pairs = offset.reshape(n, s.offset_groups, kernel[0] * kernel[1], 2, oh, ow)
    i, j = (v.reshape(-1, 1, 1) for v in np.mgrid[: kernel[0], : kernel[1]])
    y = i * s.dilation[0] + np.arange(oh)[:, None] * s.stride[0] - s.pad[0]
    x = j * s.dilation[1] + np.arange(ow)[None, :] * s.stride[1] - s.pad[1]
    return pairs[:, :, :, 0] + y, pairs[:, :, :, 1] + x


def corners(y: Float, x: Float, size: Pair) -> Iterator[tuple[Ints, Ints, Float, Float, Float]]:
    """Row, column, weight and its derivatives by y and x of the four pixels of each sample; all 0 outside the image."""
    h, w = size
    seen = (y >= -1) & (y < h) & (x >= -1) & (x < w)  # False for NaN; on -1 the weights are 0, but not the derivatives
    y, x = np.where(seen, y, 0.0), np.where(seen, x, 0.0)
    for down in (0, 1):
        for right in (0, 1):
            row, column = np.floor(y).astype(int) + down, np.floor(x).astype(int) + right
            inside = seen & (row >= 0) & (row < h) & (column >= 0) & (column < w)
            wy, wx = np.maximum(0, 1 - np.abs(y - row)), np.maximum(0, 1 - np.abs(x - column))
            dy, dx = np.where(y < row, 1.0, -1.0), np.where(x < column, 1.0, -1.0)
            yield (
                np.clip(row, 0, h - 1),
                np.clip(column, 0, w - 1),
                np.where(inside, wy * wx, 0.0),
                np.where(inside, dy * wx, 0.0),
                np.where(inside, wy * dx, 0.0),
            )


def _per_channel(v: npt.NDArray[np.generic], channels: int) -> npt.NDArray[np.generic]:
    return np.repeat(v, channels // v.shape[1], axis=1)


def samples(image: Float, offset: Float, kernel: Pair, s: Steps) -> tuple[Float, Float, Float]:
    """Samples and their derivatives by y and by x, each (N, C, taps, oh, ow)."""
    n, c, h, w = image.shape
    batch, channel = np.arange(n).reshape(-1, 1, 1, 1, 1), np.arange(c).reshape(1, -1, 1, 1, 1)
    out = [np.zeros((n, c, kernel[0] * kernel[1], *offset.shape[2:])) for _ in range(3)]
    for row, column, *weights in corners(*positions(offset, kernel, s), (h, w)):
        value = image[batch, channel, _per_channel(row, c), _per_channel(column, c)]
        for total, weight in zip(out, weights, strict=True):
            total += _per_channel(weight, c) * value
    return out[0], out[1], out[2]


def _grouped(weight: Float, s: Steps) -> Float:
    """(groups, O / groups, C / groups, taps)."""
    return weight.reshape(s.groups, -1, weight.shape[1], weight.shape[2] * weight.shape[3])


def deform_conv(image: Float, weight: Float, offset: Float, mask: Float | None, bias: Float | None, s: Steps) -> Float:
    """Output (N, O, oh, ow)."""
    n, c = image.shape[:2]
    kernel, area = (weight.shape[2], weight.shape[3]), offset.shape[2:]
    column = samples(image, offset, kernel, s)[0]
    if mask is not None:
        column = column * _per_channel(mask.reshape(n, s.offset_groups, -1, *area), c)
    out = np.einsum("goct,ngctyx->ngoyx", _grouped(weight, s), column.reshape(n, s.groups, -1, *column.shape[2:]))
    out = out.reshape(n, len(weight), *area)
    return out if bias is None else out + bias.reshape(-1, 1, 1)


def deform_conv_backward(
    upstream: Float, image: Float, weight: Float, offset: Float, mask: Float | None, s: Steps
) -> dict[str, Float]:
    """Gradients by input, offset, mask, weight and bias of sum(upstream * output)."""
    n, c, h, w = image.shape
    kernel, area, taps = (weight.shape[2], weight.shape[3]), offset.shape[2:], weight.shape[2] * weight.shape[3]
    value, by_y, by_x = samples(image, offset, kernel, s)
    grouped = upstream.reshape(n, s.groups, -1, *area)
    scale = (
        np.ones((n, s.offset_groups, taps, *area)) if mask is None else mask.reshape(n, s.offset_groups, taps, *area)
    )
    m = _per_channel(scale, c)
    u = np.einsum("goct,ngoyx->ngctyx", _grouped(weight, s), grouped).reshape(value.shape)
    by_weight = np.einsum("ngoyx,ngctyx->goct", grouped, (m * value).reshape(n, s.groups, -1, taps, *area))

    def per_group(v: Float) -> Float:
        return v.reshape(n, s.offset_groups, -1, taps, *area).sum(axis=2)

    by_image = np.zeros(image.shape)
    batch, channel = np.arange(n).reshape(-1, 1, 1, 1, 1), np.arange(c).reshape(1, -1, 1, 1, 1)
    for row, column, share, *_ in corners(*positions(offset, kernel, s), (h, w)):
        np.add.at(
            by_image,
            (batch, channel, _per_channel(row, c), _per_channel(column, c)),
            u * m * _per_channel(share, c),
        )
    return {
        "input": by_image,
        "offset": np.stack([per_group(u * m * by_y), per_group(u * m * by_x)], axis=3).reshape(offset.shape),
        "mask": per_group(u * value).reshape(n, -1, *area),
        "weight": by_weight.reshape(weight.shape),
        "bias": upstream.sum(axis=(0, 2, 3)),
    }
