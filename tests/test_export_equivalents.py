"""Nodes that stand for others: blocks as channels, means as convolutions; against NumPy from the formula."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from onnx import TensorProto, helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402
from onnxscript.tensor import Tensor  # noqa: E402

from pyfocus.export import equivalents  # noqa: E402


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("factor", [2, 3])
def test_blocks_of_pixels_are_channels(channels, factor):
    x = np.random.default_rng(0).random((2, channels, 4 * factor, 5 * factor), np.float32)
    wanted = np.stack(
        [x[:, c, y::factor, z::factor] for c in range(channels) for y in range(factor) for z in range(factor)], 1
    )
    np.testing.assert_array_equal(equivalents.as_blocks(Tensor(x), factor).value, wanted)


def pool_model(channels: Any, size: tuple[Any, Any], **attributes: Any) -> Any:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("AveragePool", ["x"], ["y"], "pool", **attributes)], "pools",
        [value("x", TensorProto.FLOAT, ["batch", channels, *size])],
        [value("y", TensorProto.FLOAT, ["batch", channels, None, None])],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def means(x: np.ndarray, kernel: tuple[int, int], pads: list[int], counted: bool) -> np.ndarray:
    """Of every window in float64: of the pixels that are there, or with zeros past the border."""
    top, left, bottom, right = pads
    edges = [(0, 0), (0, 0), (top, bottom), (left, right)]
    padded, there = np.pad(x.astype(np.float64), edges), np.pad(np.ones_like(x, np.float64), edges)
    views = [np.lib.stride_tricks.sliding_window_view(a, kernel, (2, 3)) for a in (padded, there)]
    total, count = (view.sum((-2, -1)) for view in views)
    return total / (count if counted else kernel[0] * kernel[1])


@pytest.mark.parametrize("size", [("rows", "columns"), (7, 9)])
@pytest.mark.parametrize(
    ("kernel", "pads", "include"),
    [((3, 3), [1, 1, 1, 1], 0), ((3, 3), [1, 1, 1, 1], 1), ((5, 5), [0] * 4, 0), ((3, 2), [1, 0, 2, 1], 0)],
)
def test_means_are_convolutions(kernel, pads, include, size):
    model = pool_model(4, size, kernel_shape=kernel, pads=pads, count_include_pad=include, strides=[1, 1])
    x = np.random.default_rng(1).normal(size=(2, 4, 7, 9)).astype(np.float32)
    before = ReferenceEvaluator(model).run(None, {"x": x})[0]
    equivalents.pools_to_convolutions(model)
    onnx.checker.check_model(model, full_check=True)
    kinds = [node.op_type for node in model.graph.node]
    assert "AveragePool" not in kinds and kinds.count("Conv") == (2 if any(pads) and not include else 1)
    after = ReferenceEvaluator(model).run(None, {"x": x})[0]
    wanted = means(x, kernel, pads, bool(any(pads) and not include))
    np.testing.assert_allclose(after, wanted, rtol=0, atol=1e-6)  # measured 2e-7
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "attributes",
    [
        {"strides": [2, 2]},
        {"strides": [1, 1], "ceil_mode": 1},
        {"auto_pad": "SAME_UPPER"},
        {"strides": [1, 1], "dilations": [2, 2]},
    ],
)
def test_other_means_stay(attributes):
    model = pool_model(4, (8, 8), kernel_shape=[2, 2], **attributes)
    equivalents.pools_to_convolutions(model)
    assert [node.op_type for node in model.graph.node] == ["AveragePool"]
    unknown = pool_model("channels", (8, 8), kernel_shape=[3, 3])
    equivalents.pools_to_convolutions(unknown)
    assert [node.op_type for node in unknown.graph.node] == ["AveragePool"]


def test_the_shipped_network_has_none_of_either(exported_lite):
    for precision in ("fp32", "mixed"):
        graph = onnx.load(exported_lite("standard", precision) / "step.onnx").graph
        slow = [node for node in graph.node if node.op_type == "AveragePool"]
        assert all(list(helper.get_node_attr_value(node, "strides")) == [2, 2] for node in slow)
        assert not any(node.op_type == "Transpose" for node in graph.node)
        assert sum(node.op_type == "SpaceToDepth" for node in graph.node) == 3
