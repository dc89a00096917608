"""Mixed precision: convolutions and their weights in half, everything that counts or measures in single precision.

In half: Conv, ConvTranspose, the plugin's DeformConv2d (data and weights), the matrix product of *gridsample*, and what
lies between them and only passes values on: activations, sums of features, resizing. In single precision: all else, so
inputs and outputs, the state, coordinates, offsets and masks, tanh, sigmoid, exponentials, sums of weights, and ONNX's
DeformConv, whose coordinates would lose their places in half. Types are written into the graph, as Cast nodes and
weights in half, so that strongly typed engines (TensorRT 11) do the same.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, numpy_helper

from ..errors import ExportError
from .nodes import FLOAT, HALF, OP, WINDOW, cast_node, replace_nodes, types_of

# Nodes in half, with the places of their data among their inputs; None: all.
ROOTS: dict[str, tuple[int, ...] | None] = {
    "Conv": (0, 1, 2), "ConvTranspose": (0, 1, 2), "MatMul": (0, 1), OP: (0, 3, 4),
}  # fmt: skip
# Nodes that are so between those: such as round, and such as only move values.
ROUNDING: dict[str, tuple[int, ...] | None] = {
    "Add": (0, 1), "LeakyRelu": (0,), "MaxPool": (0,), "Relu": (0,), "Resize": (0,),
}  # fmt: skip
MOVING: dict[str, tuple[int, ...] | None] = {
    "Concat": None, "DepthToSpace": (0,), "Expand": (0,), "Reshape": (0,), "Slice": (0,), "Split": (0,),
    "Squeeze": (0,), "Transpose": (0,), "Unsqueeze": (0,), "Where": (1, 2),
}  # fmt: skip
DATA = {**ROOTS, **ROUNDING, **MOVING}
SHAPES = ("Shape", "Size")  # which look at no values
SUFFIX = "_half"


def mix(model: onnx.ModelProto) -> None:
    """Give a graph in single precision mixed precision. Raises ExportError for weights that half cannot hold."""
    graph = model.graph
    floats = {name for name, kind in types_of(model).items() if kind == FLOAT}
    chosen = _choose(graph, floats)
    writer = _Writer(graph, {name for k in chosen for name in graph.node[k].output})
    for k, node in enumerate(graph.node):
        writer.write(node, _data(node, floats) if k in chosen else None)
    writer.close()


def _data(node: NodeProto, floats: set[str]) -> list[int]:
    """Which inputs of a node are values that it may take in half."""
    places = DATA.get(node.op_type, ())
    wanted = range(len(node.input)) if places is None else places
    return [k for k in wanted if k < len(node.input) and node.input[k] in floats]


def _choose(graph: onnx.GraphProto, floats: set[str]) -> set[int]:
    """Places of the nodes in half: the roots, and what lies between them."""
    nodes = list(graph.node)
    weights = {tensor.name for tensor in graph.initializer}
    makers = {name: k for k, node in enumerate(nodes) for name in node.output}
    users: dict[str, list[int]] = defaultdict(list)
    for k, node in enumerate(nodes):
        for name in node.input if node.op_type not in SHAPES else ():
            users[name].append(k)
    outputs = {value.name for value in graph.output}

    def between(k: int) -> bool:
        """Whether all that node k takes is there in half and some of what it gives is wanted so; moves, or nearly."""
        node = nodes[k]
        given = [makers.get(node.input[i], -1) in half for i in _data(node, floats) if node.input[i] not in weights]
        wanted = [user in half for name in node.output for user in users[name]]
        saved = node.op_type in MOVING and all(wanted) and outputs.isdisjoint(node.output)
        return any(wanted) and (all(given) if not saved else any(given)) and bool(given)

    single = {k for k, node in enumerate(nodes) if any(name.endswith(WINDOW) for name in node.input)}
    roots = {k for k, node in enumerate(nodes) if node.op_type in ROOTS} - single
    half = roots | {k for k, node in enumerate(nodes) if node.op_type in DATA and _data(node, floats)} - single
    while dropped := {k for k in half - roots if not between(k)}:
        half -= dropped
    return half


class _Writer:
    """The graph anew: every node with what it takes in its own precision. A value x in half is called x_half."""

    def __init__(self, graph: onnx.GraphProto, halves: set[str]) -> None:
        self.graph, self.halves = graph, halves
        self.weights = {tensor.name: tensor for tensor in graph.initializer}
        self.outputs = {value.name for value in graph.output}
        self.nodes: list[NodeProto] = []
        self.there: set[str] = set()  # casts
        self.rounded: dict[str, TensorProto] = {}

    def write(self, node: NodeProto, data: list[int] | None) -> None:
        """A node; ``data``: which inputs it takes in half, None for a node in single precision."""
        new = NodeProto.FromString(node.SerializeToString())
        for k, name in enumerate(node.input):
            if data is not None and k in data:
                new.input[k] = self._in_half(name)
            elif name in self.halves:
                new.input[k] = name + SUFFIX if node.op_type in SHAPES else self._cast(name + SUFFIX, name, FLOAT)
        if data is not None:
            new.output[:] = [name + SUFFIX for name in node.output]
        self.nodes.append(new)
        for name in self.outputs.intersection(node.output if data is not None else ()):
            self._cast(name + SUFFIX, name, FLOAT)

    def close(self) -> None:
        """Put nodes and weights into the graph; a weight that is needed in half alone keeps its name."""
        used = {name for node in self.nodes for name in node.input}
        alone = {name + SUFFIX: name for name in self.rounded if name not in used}
        for node in self.nodes:
            node.input[:] = [alone.get(name, name) for name in node.input]
        replace_nodes(self.graph, self.nodes)
        kept = [tensor for name, tensor in self.weights.items() if name in used]
        for name, tensor in self.rounded.items():
            tensor.name = name if name + SUFFIX in alone else name + SUFFIX
            kept.append(tensor)
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)

    def _in_half(self, name: str) -> str:
        if name in self.weights:
            if name not in self.rounded:
                self.rounded[name] = _rounded(self.weights[name])
            return name + SUFFIX
        return name + SUFFIX if name in self.halves else self._cast(name, name + SUFFIX, HALF)

    def _cast(self, value: str, result: str, kind: int) -> str:
        if result not in self.there:
            self.nodes.append(cast_node(value, result, kind))
            self.there.add(result)
        return result


def _rounded(tensor: TensorProto) -> TensorProto:
    values = numpy_helper.to_array(tensor)
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    if not np.isfinite(half).all():
        raise ExportError(
            f"export: {tensor.name} has values that half precision cannot hold (up to {np.abs(values).max():.3g}, "
            "65504 at most); take --precision fp32"
        )
    return numpy_helper.from_array(half)
