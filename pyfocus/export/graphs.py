"""Networks as the graphs that are exported: flat inputs and outputs with names, and sizes that may change.

A folding network is two graphs, so that a program in any language streams hundreds of frames in constant memory:

    state = zeros                                   shapes in the metadata
    state = step(state, frame, index, noise, white_balance, valid)      once per frame
    image, depth, confidence = finish(state without what only steps need, noise, white_balance)
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .. import __version__
from ..errors import ArgumentError
from ..nn import focusdeep, unet
from ..nn.burst_fuser import HALO_PX
from ..nn.layers import NormedConv2d
from ..nn.stream import STATE_STRIDES, FocusDeepStream, StreamState
from .facts import NEW, OLD, Facts, Part

OPSET = 20  # the lowest with DeformConv and GridSample on volumes; TensorRT 10 reads no later one
NOISE = "shot and read: a raw sample x has variance shot * x + read"
LARGEST = 8192  # batch, and steps of height and width
STATE = tuple(OLD + field for field in StreamState._fields)
STEP_INPUTS = (*STATE, "frame", "index", "noise", "white_balance", "valid")
STEP_ONLY = 2  # of the state: the features of the frame before, and the count
FINISH_INPUTS = (*STATE[STEP_ONLY:], "noise", "white_balance")
FINISH_OUTPUTS = ("image", "depth", "confidence")
BURST_STEPS = {"FocusDeep": focusdeep.STEP, "UNet": unet.STEP}  # what they mirror other sizes to


@dataclass(frozen=True)
class Graph:
    """A module to trace with example inputs, the sizes of each that may change, names, and what to say of it."""

    module: nn.Module
    inputs: dict[str, Tensor]
    sizes: tuple[dict[int, Any], ...]
    outputs: tuple[str, ...]
    facts: Facts


class Step(nn.Module):
    """One step of a folding network, its state as tensors one by one."""

    def __init__(self, net: FocusDeepStream) -> None:
        super().__init__()
        self.net = net

    def forward(
        self, previous: Tensor, count: Tensor, sharp: Tensor, smooth: Tensor, depth: Tensor, features: Tensor,
        frame: Tensor, index: Tensor, noise: Tensor, white_balance: Tensor, valid: Tensor,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """The new state."""
        state = StreamState(previous, count, sharp, smooth, depth, features)
        return tuple(self.net.step(state, frame, index, noise, white_balance, valid))


class Finish(nn.Module):
    """The picture from the state."""

    def __init__(self, net: FocusDeepStream) -> None:
        super().__init__()
        self.net = net

    def forward(
        self, sharp: Tensor, smooth: Tensor, depth: Tensor, features: Tensor, noise: Tensor, white_balance: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Picture, depth and confidence."""
        state = StreamState(sharp, sharp, sharp, smooth, depth, features)  # the first two are not looked at
        result = self.net.finish(state, noise, white_balance)
        return result.image, result.depth, result.confidence


def graphs_of(
    net: nn.Module, model: dict[str, Any], tile: tuple[int, int] | None, variant: str, precision: str = "fp32"
) -> list[Graph]:
    """The graphs that a network is exported as. ``model``: the facts of its file. Raises ArgumentError."""
    name = type(net).__name__
    step = net.step_px if isinstance(net, FocusDeepStream) else BURST_STEPS[name]
    if tile is not None and (min(tile) < step or any(n % step for n in tile)):
        raise ArgumentError(f"export: tile must be multiples of {step} for {name}, got {tile[0]} x {tile[1]}")
    said: dict[str, Any] = {
        "network": name, "variant": variant, "precision": precision, "weights": hash_weights(net), "layout": "NCHW",
        "step_px": step, "tile": tuple(tile or ()), "opset": OPSET, "exporter": f"pyfocus {__version__}, torch "
        f"{torch.__version__}",
    }  # fmt: skip
    plain = without_norms(net)
    if isinstance(plain, FocusDeepStream):
        return _stream_graphs(plain, said, tile)
    return [_burst_graph(plain, said, tile, model)]


def without_norms(net: nn.Module) -> nn.Module:
    """A copy for evaluation, with plain weights for gains and directions, which every run would work out anew."""
    plain = copy.deepcopy(net).eval()
    for part in list(plain.modules()):
        for name, layer in part.named_children():
            if isinstance(layer, NormedConv2d):
                setattr(part, name, _plain(layer))
    return plain


def _plain(layer: NormedConv2d) -> nn.Conv2d:
    outputs, inputs, size, _ = layer.direction.shape
    conv = nn.Conv2d(inputs, outputs, size, layer.stride, size // 2)
    with torch.no_grad():
        conv.weight.copy_(layer.weight())
        assert conv.bias is not None
        conv.bias.copy_(layer.bias)
    return conv.eval()


def hash_weights(net: nn.Module) -> str:
    """SHA-256 over names, shapes and values of all weights."""
    digest = hashlib.sha256()
    for key, value in sorted(net.state_dict().items()):
        digest.update(f"{key} {tuple(value.shape)} {value.dtype}\n".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


class _Sizes:
    """Batch, height and width that may change; with a tile, the batch alone."""

    names: ClassVar = ("batch", "rows", "columns")

    def __init__(self, step: int, tile: tuple[int, int] | None) -> None:
        self.step, self.tile = step, tile
        self.size = tile or (6 * step, 8 * step)  # what is traced with
        self.batch, self.rows, self.columns = (torch.export.Dim(name, min=1, max=LARGEST) for name in self.names)

    def of(self, stride: int = 0, at: int = 2) -> dict[int, Any]:
        """Of a map with so many pixels of the frame per pixel, whose height is axis ``at``; 0: of no map."""
        if not stride or self.tile:
            return {0: self.batch}
        per = self.step // stride
        rows, columns = (size if per == 1 else per * size for size in (self.rows, self.columns))
        return {0: self.batch, at: rows, at + 1: columns}


def _stream_graphs(net: FocusDeepStream, said: dict[str, Any], tile: tuple[int, int] | None) -> list[Graph]:
    sizes = _Sizes(net.step_px, tile)
    height, width = sizes.size
    state = dict(zip(STATE, net.init_state(2, height, width), strict=True))
    strides = dict(zip(STATE, STATE_STRIDES, strict=True))
    said |= {
        "channels": "R G B of the camera", "colour_space": "linear camera RGB", "encoding": "linear", "kind": "rgb",
        "normalisation": "0 is black, 1 is white, not white-balanced; noise may go below 0", "frames": 0, "scale": 1,
        "state": tuple((key, int(value.shape[1]), strides[key]) for key, value in state.items()), "noise": NOISE,
    }  # fmt: skip
    inputs = {
        **state, "frame": torch.full((2, 3, height, width), 0.5), "index": torch.zeros(2),
        "noise": torch.full((2, 2), 1e-4), "white_balance": torch.ones(2, 3), "valid": torch.ones(2, 1, height, width),
    }  # fmt: skip
    strides |= {"frame": 1, "valid": 1}

    def graph(part: Part, module: nn.Module, names: Sequence[str], outputs: tuple[str, ...], halo: int) -> Graph:
        dynamic = tuple(sizes.of(strides.get(key, 0)) for key in names)
        facts = Facts(part=part, inputs=tuple(names), halo_px=halo, **said)
        return Graph(module, {key: inputs[key] for key in names}, dynamic, outputs, facts)

    return [
        graph("step", Step(net), STEP_INPUTS, tuple(NEW + key for key in StreamState._fields), net.step_halo_px),
        graph("finish", Finish(net), FINISH_INPUTS, FINISH_OUTPUTS, net.finish_halo_px),
    ]


def _burst_graph(net: Any, said: dict[str, Any], tile: tuple[int, int] | None, model: dict[str, Any]) -> Graph:
    sizes = _Sizes(said["step_px"], tile)
    encoding = model.get("encoding") or ("srgb" if net.kind == "rgb" else "linear")
    name = type(net).__name__
    facts = Facts(
        part="burst", inputs=("frames",), halo_px=HALO_PX[name], frames=net.frames, scale=getattr(net, "scale", 1),
        channels={"rgb": "R G B", "rggb": "R G1 G2 B", "mosaic": "mosaic, red first"}[net.kind], encoding=encoding,
        colour_space="sRGB" if encoding == "srgb" else "linear camera RGB", kind=net.kind, state=(), noise="",
        normalisation="0 is black, 1 is white" + (", white-balanced" if encoding == "srgb" else ""), **said,
    )  # fmt: skip
    frames = torch.full((2, net.frames, net.channels, *sizes.size), 0.5)
    return Graph(net, {"frames": frames}, (sizes.of(1, at=3),), ("image",), facts)
