"""Models exported once for several tests: traced and translated, then specialised to what a test asks for.

ONNX Runtime before 1.25, all that there is for Python 3.10, has no DeformConv: there tests run *gridsample* in it and
ask it to refuse the rest.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch

from pyfocus.export import to_onnx
from pyfocus.export.graphs import Graph, graphs_of
from pyfocus.nn.checkpoint import save_model
from pyfocus.nn.stream import FocusDeepStream

KNOWS_DEFORM = tuple(map(int, onnxruntime.__version__.split(".")[:2])) >= (1, 25)
OWN = "standard" if KNOWS_DEFORM else "gridsample"  # the variant for the ONNX Runtime that is here
needs_deform = pytest.mark.skipif(
    not KNOWS_DEFORM, reason=f"ONNX Runtime {onnxruntime.__version__} has no DeformConv, 1.25 is the first that has"
)


def write_tiny(path: Path) -> Path:
    """A tiny network off its beginning, where offsets are zero and heads alike."""
    torch.manual_seed(1)
    net = FocusDeepStream("tiny")
    with torch.no_grad():
        for value in net.parameters():
            value.add_(0.03 * torch.randn_like(value))
    save_model(path, net, {})
    return path


class Translated:
    """A network's graphs, each traced once and translated with and without DeformConv, and files made of them."""

    def __init__(self, net: Any, folder: Path, tile: tuple[int, int] | None = None, part: str = "") -> None:
        self.folder = folder
        self.graphs = [g for g in graphs_of(net, {}, tile, "standard") if part in ("", g.facts.part)]
        self._programs = {graph.facts.part: to_onnx.trace(graph) for graph in self.graphs}
        self._models: dict[tuple[str, bool], onnx.ModelProto] = {}

    def model(self, graph: Graph, variant: str, precision: str) -> onnx.ModelProto:
        """A new model of a graph."""
        part = graph.facts.part
        sampled = variant == "gridsample" and part != "finish"  # which has no deformable convolution
        wanted = replace(graph, facts=replace(graph.facts, variant=variant, precision=precision))
        if (part, sampled) not in self._models:
            self._models[part, sampled] = to_onnx.translate(wanted, self._programs[part])
        model = onnx.ModelProto()
        model.CopyFrom(self._models[part, sampled])
        return to_onnx.specialise(model, wanted.facts)

    def files(self, variant: str, precision: str) -> Path:
        """The folder with the files of a variant and precision."""
        folder = self.folder / f"{variant}-{precision}"
        if not folder.exists():
            folder.mkdir(parents=True)
            for graph in self.graphs:
                onnx.save(self.model(graph, variant, precision), folder / f"{graph.facts.part}.onnx")
        return folder
