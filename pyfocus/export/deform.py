"""The deformable convolution for others: as ONNX's own operator, as bilinear samples and a matrix product, as our own.

*standard*   one DeformConv node: ONNX Runtime from 1.25, TensorRT's ModulatedDeformConv2d plugin
*gridsample* GridSample and MatMul: any runtime with opset 20's GridSample, TensorRT-RTX
*plugin*     a DeformConv2d of the domain ``pyfocus``, made of *standard*'s (:mod:`pyfocus.export.nodes`): our plugin
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from onnxscript import opset20
from torch import Tensor

from ..nn import ops  # noqa: F401  which registers the operator

OPERATOR = torch.ops.pyfocus.deform_conv2d.default


def as_node(
    input: Any, weight: Any, offset: Any, mask: Any, bias: Any, stride: Sequence[int], padding: Sequence[int],
    dilation: Sequence[int], groups: int, offset_groups: int,
) -> Any:  # fmt: skip
    """The operator's translation: torch and ONNX lay offsets and masks out alike."""
    return opset20.DeformConv(
        input, weight, offset, bias, mask, strides=list(stride), pads=[*padding, *padding], dilations=list(dilation),
        group=groups, offset_group=offset_groups, kernel_shape=list(weight.shape)[2:],
    )  # fmt: skip


def as_samples(
    input: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None, bias: Tensor | None, stride: Sequence[int],
    padding: Sequence[int], dilation: Sequence[int], groups: int, offset_groups: int,
) -> Tensor:  # fmt: skip
    """The same from grid_sample: every tap's samples as a column, times the weights. Coordinates in float32.

    y(b, o, p) = bias(o) + sum over c, k of weight(o, c, k) mask(b, g, k, p) input(b, c, p stride + k dilation - padding
    + offset(b, g, k, p)), g the offset group of channel c.
    """
    batch, channels, rows, columns = input.shape
    features, _, kh, kw = weight.shape
    height, width = offset.shape[2:]
    taps = kh * kw
    moves = offset.view(batch, offset_groups, taps, 2, height, width)

    def axis(steps: int, at: int, size: Any, shape: tuple[int, int]) -> Tensor:
        """Where the taps lie on one axis without offsets, (taps, ...)."""
        kernel = torch.arange(steps, device=input.device, dtype=torch.float32) * dilation[at] - padding[at]
        place = torch.arange(size, device=input.device, dtype=torch.float32) * stride[at]
        flat = kernel.view(shape).expand(kh, kw).reshape(1, 1, taps, 1, 1)
        return flat + (place.view(1, 1, 1, size, 1) if at == 0 else place.view(1, 1, 1, 1, size))

    y = axis(kh, 0, height, (kh, 1)) + moves[:, :, :, 0]
    x = axis(kw, 1, width, (1, kw)) + moves[:, :, :, 1]
    grid = torch.stack([(2 * x + 1) / columns - 1, (2 * y + 1) / rows - 1], -1)
    grid = grid.view(batch * offset_groups, taps * height, width, 2)
    planes = input.view(batch * offset_groups, channels // offset_groups, rows, columns)
    samples = F.grid_sample(planes, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    samples = samples.view(batch, offset_groups, channels // offset_groups, taps, height, width)
    if mask is not None:
        samples = samples * mask.view(batch, offset_groups, 1, taps, height, width)
    columns_of = samples.view(batch, groups, channels // groups * taps, height * width)
    result = weight.view(1, groups, features // groups, channels // groups * taps) @ columns_of
    result = result.view(batch, features, height, width)
    return result if bias is None else result + bias.view(1, features, 1, 1)
