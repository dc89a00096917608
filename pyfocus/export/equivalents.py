"""Nodes that runtimes are slow at, as others that give the same: pixel_unshuffle, and means over windows.

*pixel_unshuffle* is translated to a transposition of six axes, which ONNX Runtime does value by value on one thread;
SpaceToDepth moves the same values four times as fast, in another order of channels, which Gather mends. *AveragePool*
of stride 1 takes ONNX Runtime four times as long as a convolution with equal weights, a channel at a time. On other
runtimes both are as good as what they stand for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import torch
from onnx import NodeProto, helper, numpy_helper
from onnxscript import opset20

from .nodes import WINDOW, attributes_of, replace_nodes

UNSHUFFLE = torch.ops.aten.pixel_unshuffle.default


def as_blocks(input: Any, factor: int) -> Any:
    """The translation of pixel_unshuffle: channel c factor^2 + k holds pixel k of each block of channel c."""
    channels, pixels = int(input.shape[1]), factor * factor
    blocks = opset20.SpaceToDepth(input, blocksize=factor)  # channel k channels + c
    if channels == 1:
        return blocks
    order = [k * channels + c for c in range(channels) for k in range(pixels)]
    return opset20.Gather(blocks, opset20.Constant(value_ints=order), axis=1)


def pools_to_convolutions(model: onnx.ModelProto) -> None:
    """Put a convolution in the place of every AveragePool of stride 1 over a known number of channels.

    Where pixels past the border do not count, sums are divided by how many pixels each window has. For models whose
    types are settled, without notes of those they had before: these convolutions are of single precision.
    """
    graph = model.graph
    shaped = onnx.shape_inference.infer_shapes(model).graph
    values = (*shaped.input, *shaped.value_info)
    channels = {
        value.name: value.type.tensor_type.shape.dim[1].dim_value
        for value in values
        if len(value.type.tensor_type.shape.dim) == 4
    }
    nodes: list[NodeProto] = []
    for node in graph.node:
        count = channels.get(node.input[0], 0) if node.op_type == "AveragePool" else 0
        nodes += _convolution(node, graph, count) if count else [node]
    replace_nodes(graph, nodes)


def _convolution(node: NodeProto, graph: onnx.GraphProto, channels: int) -> list[NodeProto]:
    said, name = attributes_of(node), node.output[0]
    kernel, pads = list(said["kernel_shape"]), list(said.get("pads", [0] * 4))
    plain = not said.get("ceil_mode") and said.get("auto_pad", b"NOTSET") == b"NOTSET"
    if not plain or any(n != 1 for key in ("strides", "dilations") for n in said.get(key, [])):
        return [node]
    counted = any(pads) and not said.get("count_include_pad", 0)
    each = np.float32(1 if counted else 1 / np.prod(kernel))

    def convolve(value: str, result: str, count: int) -> NodeProto:
        weight = result + WINDOW
        graph.initializer.append(numpy_helper.from_array(np.full((count, 1, *kernel), each), weight))
        return helper.make_node(
            "Conv", [value, weight], [result], result, kernel_shape=kernel, pads=pads, group=count
        )  # fmt: skip

    if not counted:
        return [convolve(node.input[0], name, channels)]
    area, one, shape, ones, total, counts = (
        f"{name}_{part}" for part in ("area", "one", "shape", "ones", "total", "counts")
    )
    graph.initializer.append(numpy_helper.from_array(np.ones(2, np.int64), one))
    value = helper.make_tensor("value", onnx.TensorProto.FLOAT, [1], [1.0])
    return [
        convolve(node.input[0], total, channels),
        helper.make_node("Shape", [node.input[0]], [area], area, start=2),
        helper.make_node("Concat", [one, area], [shape], shape, axis=0),
        helper.make_node("ConstantOfShape", [shape], [ones], ones, value=value),
        convolve(ones, counts, 1),
        helper.make_node("Div", [total, counts], [name], node.name),
    ]
