"""ONNX's reference evaluator with deformable convolutions that do not take hours.

The evaluator's own DeformConv is a loop in Python over pixels and pairs of channels: 9 s for a map of 2 x 2 pixels and
48 channels. Here is the same formula in NumPy, in double precision, for it and for our plugin's node; tests hold them
together. Everything else is the evaluator's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from ..errors import ReadError
from . import nodes

Array = npt.NDArray[Any]


def open_evaluator(file: Path) -> ReferenceEvaluator:
    """The evaluator of a file. Raises ReadError."""
    model = read_model(file)
    try:
        return evaluator_of(model)
    except Exception as error:
        raise ReadError(f"{file}: ONNX's reference evaluator cannot read it: {_first_line(error)}") from error


def read_model(file: Path) -> onnx.ModelProto:
    """A file's model. Raises ReadError."""
    try:
        return onnx.load(file)
    except Exception as error:  # of protobuf, whose kinds are its own
        raise ReadError(f"{file}: is cut short, damaged or no ONNX model: {_first_line(error)}") from error


def evaluator_of(model: onnx.ModelProto) -> ReferenceEvaluator:
    """The evaluator of a model."""
    return ReferenceEvaluator(model, new_ops=[DeformConv, DeformConv2d])


class DeformConv(OpRun):
    """ONNX's node in two dimensions."""

    op_domain = ""

    def _run(
        self, X: Array, W: Array, offset: Array, B: Array | None = None, mask: Array | None = None,
        dilations: Any = None, group: Any = None, kernel_shape: Any = None, offset_group: Any = None, pads: Any = None,
        strides: Any = None,
    ) -> tuple[Array]:  # fmt: skip
        return (
            deform_conv(
                X, offset, mask, W, B, tuple(strides or (1, 1)), tuple(pads or (0, 0))[:2],
                tuple(dilations or (1, 1)), group or 1, offset_group or 1,
            ),
        )  # fmt: skip


class DeformConv2d(OpRun):
    """Our domain's node."""

    op_domain = nodes.DOMAIN

    def _run(
        self, input: Array, offset: Array, mask: Array, weight: Array, bias: Array, stride: Any = None,
        padding: Any = None, dilation: Any = None, groups: Any = None, offset_groups: Any = None,
        plugin_version: Any = None, plugin_namespace: Any = None,
    ) -> tuple[Array]:  # fmt: skip
        along, around, apart = ((int(n), int(n)) for n in (stride or 1, padding or 0, dilation or 1))
        return (deform_conv(input, offset, mask, weight, bias, along, around, apart, groups or 1, offset_groups or 1),)


def deform_conv(
    input: Array, offset: Array, mask: Array | None, weight: Array, bias: Array | None, stride: tuple[int, int],
    padding: tuple[int, int], dilation: tuple[int, int], groups: int, offset_groups: int,
) -> Array:  # fmt: skip
    """Modulated deformable convolution of (N, C, H, W), in double precision; the result in the type of ``input``.

    y(n, o, p) = bias(o) + sum over c, k of weight(o, c, k) mask(n, g, k, p) input(n, c, p stride + k dilation - padding
    + offset(n, g, k, p)), bilinear with zero outside, g the offset group of channel c.
    """
    batch, channels, height, width = input.shape
    features, per, kh, kw = weight.shape
    rows, columns = offset.shape[2:]
    taps = kh * kw
    moves = offset.astype(np.float64).reshape(batch, offset_groups, taps, 2, rows, columns)
    ky, kx = np.divmod(np.arange(taps), kw)
    y = np.arange(rows)[:, None] * stride[0] - padding[0] + (ky * dilation[0])[:, None, None] + moves[:, :, :, 0]
    x = np.arange(columns) * stride[1] - padding[1] + (kx * dilation[1])[:, None, None] + moves[:, :, :, 1]
    planes = input.astype(np.float64).reshape(batch, offset_groups, channels // offset_groups, height, width)
    samples = np.zeros((batch, offset_groups, taps, rows, columns, channels // offset_groups))
    first, group = np.ogrid[:batch, :offset_groups]
    image, group = (index[..., None, None, None] for index in (first, group))
    for row in (np.floor(y), np.floor(y) + 1):
        for column in (np.floor(x), np.floor(x) + 1):
            share = (1 - abs(y - row)) * (1 - abs(x - column))
            share *= (row >= 0) & (row < height) & (column >= 0) & (column < width)
            at = (image, group, slice(None), row.clip(0, height - 1).astype(int), column.clip(0, width - 1).astype(int))
            samples += share[..., None] * planes[at]
    if mask is not None:
        samples *= mask.reshape(batch, offset_groups, taps, rows, columns, 1)
    column_of = np.moveaxis(samples, -1, 2).reshape(batch, groups, per * taps, rows * columns)
    result = weight.astype(np.float64).reshape(groups, features // groups, per * taps) @ column_of
    result = result.reshape(batch, features, rows, columns)
    return (result if bias is None else result + bias[:, None, None]).astype(input.dtype)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
