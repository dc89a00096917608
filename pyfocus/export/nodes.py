"""The deformable convolution's node: ONNX's own DeformConv, and DeformConv2d of our domain, a TensorRT plugin's.

    DeformConv2d(input T, offset float, mask float, weight T, bias T) -> output T      domain pyfocus, version 1
    T: float or float16; integers stride, padding, dilation, groups, offset_groups; plugin_version, plugin_namespace

Offsets stay in single precision beside half precision data, which DeformConv's one type for all does not allow. Layouts
are DeformConv's. ONNX Runtime has no such node: :func:`to_standard` puts DeformConv back in its place.
"""

from __future__ import annotations

from typing import Any

import onnx
from onnx import NodeProto, TensorProto, helper
from onnx.defs import OpSchema

from ..errors import ExportError

DOMAIN, VERSION, OP = "pyfocus", 1, "DeformConv2d"
INPUTS = ("input", "offset", "mask", "weight", "bias")
STEPS = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "offset_groups": 1}
PLUGIN = {"plugin_version": "1", "plugin_namespace": DOMAIN}  # by which TensorRT's parser finds the plugin
WINDOW = "_window"  # ends the names of weights that only count (:mod:`pyfocus.export.equivalents`)
FLOAT, HALF, INT64 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64


def to_plugin(model: onnx.ModelProto) -> None:
    """Put DeformConv2d in every DeformConv's place. A mask or a bias that a node goes without is made: ones, zeros.

    Raises ExportError for strides, paddings or dilations that differ by axis.
    """
    graph = model.graph
    nodes: list[NodeProto] = []
    for node in graph.node:
        nodes += _plugin_nodes(node, graph) if node.op_type == "DeformConv" else [node]
    replace_nodes(graph, nodes)
    if all(entry.domain != DOMAIN for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, VERSION))


def to_standard(model: onnx.ModelProto) -> None:
    """The inverse: DeformConv for DeformConv2d, in single precision, with casts where the data is in half."""
    halves = {name for name, kind in types_of(model).items() if kind == HALF}
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        nodes += _standard_nodes(node, node.input[0] in halves) if node.domain == DOMAIN else [node]
    replace_nodes(model.graph, nodes)
    kept = [entry for entry in model.opset_import if entry.domain != DOMAIN]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    """The element type of every value of a model's graph, by name."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = (*graph.input, *graph.output, *graph.value_info)
    return {v.name: v.type.tensor_type.elem_type for v in values} | {t.name: t.data_type for t in graph.initializer}


def replace_nodes(graph: onnx.GraphProto, nodes: list[NodeProto]) -> None:
    """Other nodes for a graph, which may be its own."""
    kept = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)


def attributes_of(node: NodeProto) -> dict[str, Any]:
    """A node's attributes by name."""
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _plugin_nodes(node: NodeProto, graph: onnx.GraphProto) -> list[NodeProto]:
    said, name = attributes_of(node), node.output[0]
    data, weight, offset, bias, mask = [*node.input, "", ""][:5]
    steps = {
        "stride": _one(node, "strides", said.get("strides", [1])), "padding": _one(node, "pads", said.get("pads", [0])),
        "dilation": _one(node, "dilations", said.get("dilations", [1])), "groups": said.get("group", 1),
        "offset_groups": said.get("offset_group", 1),
    }  # fmt: skip
    features, _, kh, kw = next(list(t.dims) for t in graph.initializer if t.name == weight)
    made: list[NodeProto] = []
    if not bias:
        bias = f"{name}_bias"
        graph.initializer.append(helper.make_tensor(bias, FLOAT, [features], [0.0] * features))
    if not mask:
        mask = f"{name}_mask"
        made = _ones(graph, offset, steps["offset_groups"] * kh * kw, mask)
    inputs = [data, offset, mask, weight, bias]
    return [*made, helper.make_node(OP, inputs, [name], node.name, domain=DOMAIN, **steps, **PLUGIN)]


def _one(node: NodeProto, name: str, values: list[int]) -> int:
    if len(set(values)) != 1:
        raise ExportError(
            f"export: the plugin's DeformConv2d has one number for both axes, got {name} {values} in {node.name}; take "
            "--variant standard or gridsample"
        )
    return values[0]


def _ones(graph: onnx.GraphProto, like: str, channels: int, name: str) -> list[NodeProto]:
    """A map of ones with so many channels, of the batch and size of another."""
    one, many, batch, area, shape = (f"{name}_{part}" for part in ("one", "channels", "batch", "area", "shape"))
    graph.initializer.append(helper.make_tensor(one, FLOAT, [], [1.0]))
    graph.initializer.append(helper.make_tensor(many, INT64, [1], [channels]))
    return [
        helper.make_node("Shape", [like], [batch], batch, start=0, end=1),
        helper.make_node("Shape", [like], [area], area, start=2),
        helper.make_node("Concat", [batch, many, area], [shape], shape, axis=0),
        helper.make_node("Expand", [one, shape], [name], name),
    ]


def _standard_nodes(node: NodeProto, half: bool) -> list[NodeProto]:
    steps, name = {**STEPS, **attributes_of(node)}, node.output[0]
    inputs = dict(zip(INPUTS, node.input, strict=True))
    before, after, result = [], [], name
    if half:
        for key in ("input", "weight", "bias"):
            full = f"{name}_{key}_full"
            before.append(cast_node(inputs[key], full, FLOAT))
            inputs[key] = full
        result = f"{name}_full"
        after = [cast_node(result, name, HALF)]
    standard = helper.make_node(
        "DeformConv", [inputs[key] for key in ("input", "weight", "offset", "bias", "mask")], [result], node.name,
        strides=[steps["stride"]] * 2, pads=[steps["padding"]] * 4, dilations=[steps["dilation"]] * 2,
        group=steps["groups"], offset_group=steps["offset_groups"],
    )  # fmt: skip
    return [*before, standard, *after]


def cast_node(value: str, result: str, kind: int) -> NodeProto:
    """A value in another type."""
    return helper.make_node("Cast", [value], [result], result, to=kind)


def _infer(context: Any) -> None:
    """Type and shape of a DeformConv2d's output, for ONNX's inference."""
    data, offset, _, weight, _ = (context.get_input_type(k).tensor_type for k in range(len(INPUTS)))
    result = onnx.TypeProto()
    result.tensor_type.elem_type = data.elem_type
    if all(known.HasField("shape") and len(known.shape.dim) == 4 for known in (data, offset, weight)):
        dims = (data.shape.dim[0], weight.shape.dim[0], *offset.shape.dim[2:])
        result.tensor_type.shape.dim.extend(dims)
    context.set_output_type(0, result)


def _register() -> None:
    """Tell ONNX's checker of the node: in this process, once."""
    data, single = "T", "tensor(float)"
    kinds = {"input": data, "offset": single, "mask": single, "weight": data, "bias": data}
    schema = OpSchema(
        OP, DOMAIN, VERSION, "Modulated deformable convolution; layouts as those of DeformConv.",
        inputs=[OpSchema.FormalParameter(name, kinds[name]) for name in INPUTS],
        outputs=[OpSchema.FormalParameter("output", data)],
        type_constraints=[(data, ["tensor(float)", "tensor(float16)"], "single or half precision")],
        attributes=[
            *(OpSchema.Attribute(name, helper.make_attribute(name, value)) for name, value in STEPS.items()),
            *(OpSchema.Attribute(name, helper.make_attribute(name, value)) for name, value in PLUGIN.items()),
        ],
    )  # fmt: skip
    schema.set_type_and_shape_inference_function(_infer)
    onnx.defs.register_schema(schema)


if not onnx.defs.has(OP, DOMAIN):
    _register()
