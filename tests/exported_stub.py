"""Small networks as exported files, built node by node: no torch, no DeformConv, so that any runtime reads them.

The folding one sees 6 pixels around in a step and 2 at the end; its halos are 8. The other takes all frames at once.
"""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pyfocus.export.facts import Facts

NOISE = (1e-3, 1e-6)
STATE = (("state_last", 4, 2), ("state_count", 1, 0), ("state_sums", 3, 1))
STEP_INPUTS = ("state_last", "state_count", "state_sums", "frame", "index", "noise", "white_balance", "valid")
FINISH_INPUTS = ("state_sums", "noise", "white_balance")


def weights(*shape: int, seed: int) -> np.ndarray:
    return (np.random.default_rng(seed).normal(0, 0.4, shape)).astype(np.float32)


def facts(part: str, inputs: tuple[str, ...], **changes: Any) -> Facts:
    """Facts of a stub; texts that do not matter are empty."""
    values: dict[str, Any] = {field.name: "" if field.type == "str" else 0 for field in fields(Facts)}
    values |= {
        "network": "Stub", "part": part, "weights": "0" * 64, "variant": "standard", "precision": "fp32",
        "inputs": inputs, "step_px": 8, "halo_px": 8, "tile": (), "state": STATE, "kind": "rgb", "encoding": "linear",
        "scale": 1, "opset": 20,
    }  # fmt: skip
    return Facts(**{**values, **changes})


def save(
    path: Path, said: Facts, nodes: list[Any], inputs: dict[str, Any], outputs: dict[str, Any], **more: Any
) -> None:
    """A model with its metadata. ``inputs`` and ``outputs``: shapes; ``more``: constants by name."""

    def value(name: str, shape: Any) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        nodes, "stub", [value(n, s) for n, s in inputs.items()], [value(n, s) for n, s in outputs.items()],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in more.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    for key, text in said.texts().items():
        model.metadata_props.add(key=key, value=text)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())


def write_stream(folder: Path, tile: tuple[int, int] | None = None, **changes: Any) -> Path:
    """step.onnx and finish.onnx of a folding network, for any size or one ``tile``."""
    folder.mkdir(exist_ok=True)
    rows, columns = tile or ("rows", "columns")
    half = [n // 2 for n in tile] if tile else ["half_rows", "half_columns"]
    node = helper.make_node
    step = [
        node("Reshape", ["white_balance", "gain_shape"], ["gain"]),
        node("Mul", ["frame", "gain"], ["balanced"]),
        node("Conv", ["balanced", "see"], ["x"], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Conv", ["state_last", "mix"], ["before"], pads=[1, 1, 1, 1]),
        node("Add", ["x", "before"], ["both"]),
        node("Tanh", ["both"], ["next_last"]),
        node("ConvTranspose", ["next_last", "weigh"], ["logit"], strides=[2, 2]),
        node("Exp", ["logit"], ["exp"]),
        node("Mul", ["exp", "valid"], ["weight"]),
        node("Add", ["state_count", "one"], ["next_count"]),
        node("Mul", ["weight", "next_count"], ["scaled"]),
        node("Mul", ["scaled", "frame"], ["part"]),
        node("Add", ["state_sums", "part"], ["next_sums"]),
    ]  # fmt: skip
    shapes = {
        "state_last": ["batch", 4, *half], "state_count": ["batch", 1, 1, 1],
        "state_sums": ["batch", 3, rows, columns], "frame": ["batch", 3, rows, columns], "index": ["batch"],
        "noise": ["batch", 2], "white_balance": ["batch", 3], "valid": ["batch", 1, rows, columns],
    }  # fmt: skip
    given = {"tile": tile or (), **changes}
    save(
        folder / "step.onnx", facts("step", STEP_INPUTS, **given), step, {n: shapes[n] for n in STEP_INPUTS},
        {name.replace("state", "next"): shapes[name] for name, *_ in STATE},
        gain_shape=np.array([-1, 3, 1, 1]), see=weights(4, 3, 4, 4, seed=1), mix=weights(4, 4, 3, 3, seed=2),
        weigh=weights(4, 1, 2, 2, seed=3), one=np.ones((1, 1, 1, 1), np.float32),
    )  # fmt: skip
    finish = [
        node("Conv", ["state_sums", "polish"], ["image"], pads=[2, 2, 2, 2]),
        node("ReduceMean", ["state_sums", "channels"], ["depth"], keepdims=1),
        node("Sigmoid", ["depth"], ["confidence"]),
    ]  # fmt: skip
    one = ["batch", 1, rows, columns]
    save(
        folder / "finish.onnx", facts("finish", FINISH_INPUTS, **given), finish, {n: shapes[n] for n in FINISH_INPUTS},
        {"image": ["batch", 3, rows, columns], "depth": one, "confidence": one},
        polish=0.1 * weights(3, 3, 5, 5, seed=4), channels=np.array([1]),
    )  # fmt: skip
    return folder


def write_burst(
    folder: Path, kind: str = "rgb", frames: int = 2, tile: tuple[int, int] | None = None, **changes: Any
) -> Path:
    """burst.onnx: two convolutions over all frames; "rggb" gives twice the size. Halo 16, step 16."""
    folder.mkdir(exist_ok=True)
    channels = {"rgb": 3, "rggb": 4, "mosaic": 1}[kind]
    scale = 2 if kind == "rggb" else 1
    rows, columns = tile or ("rows", "columns")
    node = helper.make_node
    nodes = [
        node("Shape", ["frames"], ["size"], start=3),
        node("Concat", ["flat", "size"], ["shape"], axis=0),
        node("Reshape", ["frames", "shape"], ["x"]),
        node("Conv", ["x", "first"], ["seen"], pads=[2, 2, 2, 2]),
        node("Tanh", ["seen"], ["features"]),
        node("Conv", ["features", "second"], ["image" if scale == 1 else "blocks"], pads=[2, 2, 2, 2]),
    ]  # fmt: skip
    if scale == 2:
        nodes.append(node("DepthToSpace", ["blocks"], ["image"], blocksize=2, mode="CRD"))
    first, second = burst_weights(frames * channels, 3 * scale * scale)
    given = {
        "kind": kind,
        "frames": frames,
        "scale": scale,
        "step_px": 16,
        "halo_px": 16,
        "state": (),
        "tile": tile or (),
    }
    size = [scale * n for n in tile] if tile else ["out_rows", "out_columns"]
    save(
        folder / "burst.onnx", facts("burst", ("frames",), **{**given, **changes}), nodes,
        {"frames": ["batch", frames, channels, rows, columns]}, {"image": ["batch", 3, *size]},
        flat=np.array([-1, frames * channels]), first=first, second=second,
    )  # fmt: skip
    return folder


def burst_weights(inputs: int, outputs: int) -> tuple[np.ndarray, np.ndarray]:
    """Of the two convolutions."""
    return 0.3 * weights(6, inputs, 5, 5, seed=5), 0.3 * weights(outputs, 6, 5, 5, seed=6)


def with_fact(path: Path, key: str, value: Any) -> bytes:
    """The file with one of its facts changed."""
    model = onnx.load(path)
    entry = next(entry for entry in model.metadata_props if entry.key == f"pyfocus.{key}")
    entry.value = value if isinstance(value, str) else json.dumps(value)
    data: bytes = model.SerializeToString()
    return data
