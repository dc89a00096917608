"""Graphs with our plugin's node, taken by TensorRT-RTX: ``python tests/tensorrt_plugin_graph.py JOBS``, JSON both ways.

In a process of its own, which TensorRT ends on some failures. JOBS: by name, attributes of the node; half; inputs, name
to shape (0: dynamic, 16 to 96); weight, its shape. For each a line "job NAME", and in the end one with the answer: the
creator and its fields, whether it parsed, the layer's kind, output and type, and the engine's bytes, 0 for none.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from pyfocus.export.plugin import load_plugin, ready_for_plugins


def graph(job: dict[str, Any]) -> bytes:
    """A file with the one node; in half, casts around it: inputs and output are float32."""
    random = np.random.default_rng(1)
    kind = np.float16 if job["half"] else np.float32
    weight = random.normal(size=job["weight"]).astype(kind)
    constants = {"weight": weight, "bias": random.normal(size=weight.shape[0]).astype(kind)}
    nodes = [
        helper.make_node(
            "DeformConv2d", ["x_half" if job["half"] else "x", "offset", "mask", "weight", "bias"],
            ["y_half" if job["half"] else "y"], "deform", domain="pyfocus", plugin_version="1",
            plugin_namespace="pyfocus", **job["attributes"],
        )
    ]  # fmt: skip
    if job["half"]:
        nodes.insert(0, helper.make_node("Cast", ["x"], ["x_half"], to=TensorProto.FLOAT16))
        nodes.append(helper.make_node("Cast", ["y_half"], ["y"], to=TensorProto.FLOAT))
    described = [
        helper.make_tensor_value_info(
            name, TensorProto.FLOAT, [n or f"{name}_{k}" for k, n in enumerate(shape)]
        )
        for name, shape in job["inputs"].items()
    ]  # fmt: skip
    model = helper.make_model(
        helper.make_graph(
            nodes, "one", described, [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * 4)],
            [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("pyfocus", 1)], ir_version=10,
    )  # fmt: skip
    return bytes(model.SerializeToString())


def take(job: dict[str, Any]) -> dict[str, Any]:
    """What TensorRT-RTX makes of it."""
    import tensorrt_rtx as trt

    log = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(log)
    load_plugin(trt)
    registry = trt.get_plugin_registry()
    (creator,) = (c for c in registry.all_creators if c.name == "DeformConv2d")
    answer: dict[str, Any] = {
        "creator": [creator.name, creator.plugin_version, creator.plugin_namespace],
        "fields": [field.name for field in creator.field_names],
        "bytes": 0,
    }
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, log)
    answer["parsed"] = parser.parse(graph(job))
    if not answer["parsed"]:
        return answer
    layers = {network.get_layer(k).name: network.get_layer(k) for k in range(network.num_layers)}
    answer["kind"] = str(layers["deform"].type)
    answer["output"] = list(layers["deform"].get_output(0).shape)
    answer["type"] = str(layers["deform"].get_output(0).dtype)
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    for name, shape in job["inputs"].items():
        profile.set_shape(name, *([n or size for n in shape] for size in (16, 32, 96)))
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    answer["bytes"] = engine.nbytes if engine is not None else 0
    return answer


if __name__ == "__main__":
    ready_for_plugins()
    for name, one in json.loads(sys.argv[1]).items():
        print(f"job {name}", flush=True)
        print(json.dumps(take(one)), flush=True)
