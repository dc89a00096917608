"""The deformable convolution's node in its variants and mixed precision, on graphs of a few nodes."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pyfocus.errors import ExportError, ReadError

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from export_cases import KNOWS_DEFORM  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

from pyfocus.export import deform, half, nodes, to_onnx  # noqa: E402
from pyfocus.export.evaluator import deform_conv, evaluator_of, open_evaluator  # noqa: E402
from pyfocus.export.facts import Facts  # noqa: E402
from pyfocus.export.graphs import Graph  # noqa: E402
from pyfocus.nn.ops import deform_conv2d  # noqa: E402

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
# groups, offset groups, stride, padding, dilation, mask, bias
CASES = (
    (1, 2, 1, 1, 1, True, True), (2, 1, 2, 1, 1, False, False), (2, 4, 1, 2, 2, True, False),
    (1, 1, 1, 0, 1, False, True),
)  # fmt: skip


def tensors(
    groups: int, offset_groups: int, stride: int, padding: int, dilation: int, masked: bool, biased: bool
) -> Any:  # fmt: skip
    """input, offset, mask, weight, bias of a deformable convolution whose offsets leave the picture."""
    random = np.random.default_rng(7)
    height, width = ((n + 2 * padding - 2 * dilation - 1) // stride + 1 for n in (7, 9))

    def normal(*shape: int, scale: float = 1) -> Any:
        return (scale * random.normal(size=shape)).astype(np.float32)

    return (
        normal(2, 8, 7, 9), normal(2, offset_groups * 18, height, width, scale=3),
        random.random((2, offset_groups * 9, height, width), np.float32) if masked else None,
        normal(6, 8 // groups, 3, 3), normal(6) if biased else None,
    )  # fmt: skip


def one_node(case: Any) -> tuple[Any, dict[str, Any]]:
    """A model of a single DeformConv, and what it takes."""
    groups, offset_groups, stride, padding, dilation, masked, biased = case
    x, offset, mask, weight, bias = tensors(*case)
    names = ["x", "weight", "offset", "bias" if biased else "", "mask" if masked else ""]
    node = helper.make_node(
        "DeformConv", names, ["y"], "moved", strides=[stride] * 2, pads=[padding] * 4, dilations=[dilation] * 2,
        group=groups, offset_group=offset_groups, kernel_shape=[3, 3],
    )  # fmt: skip
    feed = {"x": x, "offset": offset} | ({"mask": mask} if masked else {})
    held = {"weight": weight} | ({"bias": bias} if biased else {})
    return model_of([node], {key: value.shape for key, value in feed.items()}, {"y": [None] * 4}, **held), feed


def model_of(made: list[Any], inputs: dict[str, Any], outputs: dict[str, Any], **held: Any) -> Any:
    def value(name: str, shape: Any) -> Any:
        return helper.make_tensor_value_info(name, FLOAT, shape)

    graph = helper.make_graph(
        made, "few", [value(*pair) for pair in inputs.items()], [value(*pair) for pair in outputs.items()],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in held.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def agrees_in_runtime(model: Any, feed: dict[str, Any], truth: Any, atol: float) -> None:
    """ONNX Runtime gives the same; one that has no DeformConv says so."""
    data = model.SerializeToString()
    if KNOWS_DEFORM or all(node.op_type != "DeformConv" for node in model.graph.node):
        np.testing.assert_allclose(onnxruntime.InferenceSession(data).run(None, feed)[0], truth, rtol=0, atol=atol)
        return
    with pytest.raises(Exception, match=r"NOT_IMPLEMENTED.*DeformConv"):
        onnxruntime.InferenceSession(data)


def torch_s(case: Any) -> Any:
    groups, offset_groups, stride, padding, dilation, *_ = case
    x, offset, mask, weight, bias = (None if a is None else torch.from_numpy(a) for a in tensors(*case))
    steps = {"stride": stride, "padding": padding, "dilation": dilation}
    return deform_conv2d(x, weight, offset, mask, bias, **steps, groups=groups, offset_groups=offset_groups).numpy()


# --- the nodes ---------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_variants_of_the_node_agree(case):
    model, feed = one_node(case)
    truth = torch_s(case)
    agrees_in_runtime(model, feed, truth, 2e-5)  # measured 4e-6
    own = evaluator_of(model).run(None, feed)[0]
    np.testing.assert_allclose(own, truth, atol=2e-5)
    nodes.to_plugin(model)
    onnx.checker.check_model(model, full_check=True)
    node = model.graph.node[-1]
    assert (node.op_type, node.domain, len(node.input), list(node.output)) == ("DeformConv2d", "pyfocus", 5, ["y"])
    assert all(node.input) and node.input[0] == "x" and node.input[1] == "offset" and node.input[3] == "weight"
    assert nodes.attributes_of(node) == {
        "stride": case[2], "padding": case[3], "dilation": case[4], "groups": case[0], "offset_groups": case[1],
        "plugin_version": b"1", "plugin_namespace": b"pyfocus",
    }  # fmt: skip
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": 20, "pyfocus": 1}
    np.testing.assert_array_equal(evaluator_of(model).run(None, feed)[0], own)
    nodes.to_standard(model)
    onnx.checker.check_model(model, full_check=True)
    assert {entry.domain for entry in model.opset_import} == {""}
    agrees_in_runtime(model, feed, truth, 2e-5)


@pytest.mark.parametrize("case", CASES[:2])
def test_the_evaluator_s_own_loops_agree(case):
    groups, offset_groups, stride, padding, dilation, *_ = case
    x, offset, mask, weight, bias = tensors(*case)
    small = (slice(0, 1), slice(None), slice(0, 4), slice(0, 5))
    x, (height, width) = x[small], ((n + 2 * padding - 2 * dilation - 1) // stride + 1 for n in (4, 5))
    offset, mask = (None if a is None else a[:1, :, :height, :width] for a in (offset, mask))
    model, _ = one_node(case)
    feed = {"x": x, "offset": offset} | ({} if mask is None else {"mask": mask})
    truth = ReferenceEvaluator(model).run(None, feed)[0]
    steps = [(n, n) for n in (stride, padding, dilation)]
    got = deform_conv(x, offset, mask, weight, bias, *steps, groups, offset_groups)
    np.testing.assert_allclose(got, truth, atol=2e-5)


def test_the_plugin_s_node_with_data_in_half():
    model, feed = one_node(CASES[0])
    nodes.to_plugin(model)
    half.mix(model)
    onnx.checker.check_model(model, full_check=True)
    types = nodes.types_of(model)
    node = next(node for node in model.graph.node if node.domain)
    assert [types[name] for name in (*node.input, *node.output)] == [HALF, FLOAT, FLOAT, HALF, HALF, HALF]
    got = evaluator_of(model).run(None, feed)[0]
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, torch_s(CASES[0]), atol=0.03)  # of values up to 20; measured 0.01
    nodes.to_standard(model)
    onnx.checker.check_model(model, full_check=True)
    agrees_in_runtime(model, feed, got, 0.02)  # one step of half between 8 and 16 is 0.008


def test_the_checker_knows_the_node():
    for change, text in (
        (lambda node: node.input.pop(), "input size 4"),
        (lambda node: node.attribute.append(helper.make_attribute("reach", 3)), "reach"),
        (lambda node: setattr(node, "op_type", "DeformConv3d"), "DeformConv3d"),
    ):
        model, _ = one_node(CASES[0])
        nodes.to_plugin(model)
        change(model.graph.node[-1])
        with pytest.raises(onnx.checker.ValidationError, match=text):
            onnx.checker.check_model(model, check_custom_domain=True)
    model, _ = one_node(CASES[0])
    nodes.to_plugin(model)
    model.graph.node.insert(0, helper.make_node("Cast", ["offset"], ["rounded"], to=HALF))
    model.graph.node[-1].input[1] = "rounded"
    with pytest.raises(onnx.shape_inference.InferenceError, match="offset"):
        onnx.checker.check_model(model, full_check=True)


def test_shapes_are_inferred_through_the_node():
    model, _ = one_node(CASES[1])
    nodes.to_plugin(model)
    model.graph.node.append(helper.make_node("Relu", ["y"], ["z"]))
    model.graph.output[0].name = "z"
    known = {value.name: value.type.tensor_type for value in onnx.shape_inference.infer_shapes(model).graph.value_info}
    assert [dim.dim_value for dim in known["y"].shape.dim] == [2, 6, 4, 5] and known["y"].elem_type == FLOAT


def test_what_the_plugin_cannot_say_is_refused():
    model, _ = one_node(CASES[0])
    node = model.graph.node[0]
    next(a for a in node.attribute if a.name == "strides").ints[:] = [1, 2]
    with pytest.raises(ExportError, match=r"one number for both axes, got strides \[1, 2\] in moved; take --variant"):
        nodes.to_plugin(model)


def test_no_file_for_the_evaluator(tmp_path):
    (tmp_path / "short.onnx").write_bytes(b"no model")
    with pytest.raises(ReadError, match=r"short\.onnx: is cut short, damaged or no ONNX model") as caught:
        open_evaluator(tmp_path / "short.onnx")
    assert "\n" not in str(caught.value)


# --- mixed precision ---------------------------------------------------


def chain() -> Any:
    """Two convolutions with what lies between, a branch in single precision, and a shape that is looked at."""
    random = np.random.default_rng(2)
    make = helper.make_node
    made = [
        make("Conv", ["x", "first", "bias"], ["a"], pads=[1] * 4), make("LeakyRelu", ["a"], ["b"], alpha=0.1),
        make("Tanh", ["a"], ["c"]), make("Shape", ["b"], ["shape"]), make("Concat", ["b", "x"], ["d"], axis=1),
        make("Conv", ["d", "second"], ["e"], pads=[1] * 4), make("Reshape", ["e", "shape"], ["f"]),
        make("Add", ["f", "bias_map"], ["g"]), make("Conv", ["g", "first"], ["y"], pads=[1] * 4),
        make("Mul", ["c", "scale"], ["z"]),
    ]  # fmt: skip
    held = {
        "first": random.normal(size=(4, 4, 3, 3)), "second": random.normal(size=(4, 8, 3, 3)) / 8,
        "bias": random.normal(size=4), "bias_map": random.normal(size=(1, 4, 1, 1)), "scale": np.array(0.5),
    }  # fmt: skip
    held = {key: value.astype(np.float32) for key, value in held.items()}
    shape = ["batch", 4, "rows", "columns"]
    return model_of(made, {"x": shape}, {"y": shape, "z": shape, "a": shape}, **held)


def test_what_is_in_half():
    model = chain()
    feed = {"x": np.random.default_rng(4).random((1, 4, 6, 5), np.float32)}
    truth = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feed)
    half.mix(model)
    onnx.checker.check_model(model, full_check=True)
    types = nodes.types_of(model)
    kinds = {node.op_type: types[node.output[0]] for node in model.graph.node if node.op_type != "Cast"}
    halves = {name for name, kind in kinds.items() if kind == HALF}
    assert halves == {"Conv", "LeakyRelu", "Concat", "Reshape", "Add"}
    assert kinds["Tanh"] == kinds["Mul"] == FLOAT
    assert {t.name: t.data_type for t in model.graph.initializer} == {
        "first": HALF, "second": HALF, "bias": HALF, "bias_map": HALF, "scale": FLOAT,
    }  # fmt: skip
    assert [types[value.name] for value in (*model.graph.input, *model.graph.output)] == [FLOAT] * 4
    shape = next(node for node in model.graph.node if node.op_type == "Shape")
    assert types[shape.input[0]] == HALF  # looked at, not cast
    assert sum(node.op_type == "Cast" for node in model.graph.node) == 3  # x in, a and y out
    for got, value in zip(evaluator_of(model).run(None, feed), truth, strict=True):
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, value, atol=0.02 * np.abs(value).max())


def test_a_weight_in_both_precisions_is_there_twice():
    model = chain()
    model.graph.node.append(helper.make_node("Exp", ["first"], ["w"]))
    model.graph.output.append(helper.make_tensor_value_info("w", FLOAT, [4, 4, 3, 3]))
    half.mix(model)
    onnx.checker.check_model(model, full_check=True)
    held = {t.name: t.data_type for t in model.graph.initializer}
    assert (held["first"], held["first_half"]) == (FLOAT, HALF)


def test_weights_past_half_are_refused():
    model = chain()
    weight = next(t for t in model.graph.initializer if t.name == "second")
    weight.CopyFrom(numpy_helper.from_array(np.full((4, 8, 3, 3), 7e4, np.float32), "second"))
    with pytest.raises(ExportError, match=r"second has values that half precision cannot hold \(up to 7e\+04.*fp32"):
        half.mix(model)


# --- traced ------------------------------------------------------------


class Shift(torch.nn.Module):
    """A deformable convolution alone, without mask and bias."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(4, 4, 3, 3))

    def forward(self, x, offset):
        return deform_conv2d(x, self.weight, offset, padding=1, offset_groups=2)


def plain_facts(**changes: Any) -> Facts:
    texts = dict.fromkeys(
        ("network", "variant", "precision", "weights", "layout", "channels", "normalisation", "colour_space",
         "encoding", "kind", "noise", "exporter"), "",
    )  # fmt: skip
    rest = {"inputs": ("x", "offset"), "step_px": 1, "halo_px": 0, "tile": (), "frames": 1, "scale": 1, "state": ()}
    return Facts(**{**texts, **rest, "part": "burst", "opset": 20, "network": "Shift", **changes})


def test_one_program_for_all_variants():
    torch.manual_seed(0)
    module, x, offset = Shift(), torch.randn(2, 4, 6, 8), 2 * torch.randn(2, 36, 6, 8)
    batch, rows, columns = (torch.export.Dim(name, min=1, max=64) for name in ("batch", "rows", "columns"))
    sizes = ({0: batch, 2: rows, 3: columns},) * 2
    graph = Graph(module, {"x": x, "offset": offset}, sizes, ("y",), plain_facts())
    program = to_onnx.trace(graph)
    x, offset = torch.randn(1, 4, 7, 5), 2 * torch.randn(1, 36, 7, 5)
    feed, truth = {"x": x.numpy(), "offset": offset.numpy()}, module(x, offset).detach()
    for variant, there in (("standard", "DeformConv"), ("gridsample", "GridSample"), ("plugin", "DeformConv2d")):
        said = replace(graph, facts=replace(graph.facts, variant=variant))
        model = to_onnx.specialise(to_onnx.translate(said, program), said.facts)
        found = {node.op_type for node in model.graph.node} & {"DeformConv", "GridSample", "DeformConv2d"}
        assert found == {there}
        np.testing.assert_allclose(evaluator_of(model).run(None, feed)[0], truth, atol=2e-5)
        if variant == "plugin":
            nodes.to_standard(model)
        agrees_in_runtime(model, feed, truth, 2e-5)


def test_deformable_convolution_as_samples():
    for case in CASES:
        groups, offset_groups, stride, padding, dilation, *_ = case
        given = [None if a is None else torch.from_numpy(a) for a in tensors(*case)]
        x, offset, mask, weight, bias = given
        steps = ([n, n] for n in (stride, padding, dilation))
        got = deform.as_samples(x, weight, offset, mask, bias, *steps, groups, offset_groups)
        np.testing.assert_allclose(got, torch_s(case), atol=1e-4)


def test_a_network_that_cannot_be_traced():
    class Stops(torch.nn.Module):
        def forward(self, x):
            return x[: int(x.sum())]

    graph = Graph(Stops(), {"x": torch.ones(3)}, ({},), ("y",), plain_facts(network="Stops"))
    with pytest.raises(ExportError, match=r"Stops could not be traced for burst\.onnx with torch") as caught:
        to_onnx.to_model(graph)
    assert not re.search(r"\n", str(caught.value))
