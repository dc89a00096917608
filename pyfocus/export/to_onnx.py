"""A checkpoint to ONNX files: traced, translated, described, checked, and put in place whole or not at all."""

from __future__ import annotations

import logging
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch

from ..errors import ArgumentError, ExportError, WriteError
from ..io.atomic import PathLike
from ..nn.checkpoint import load_model
from . import deform, equivalents, half, nodes
from .facts import PRECISIONS, VARIANTS, Facts
from .graphs import OPSET, Graph, graphs_of
from .verify import Difference, compare, small_burst

Tell = Callable[[str], None]


def export_onnx(
    checkpoint: PathLike,
    folder: PathLike,
    *,
    variant: str = "standard",
    precision: str = "fp32",
    frames: int | None = None,
    tile: tuple[int, int] | None = None,
    verify: bool = False,
    overwrite: bool = False,
    tell: Tell | None = None,
) -> tuple[list[Path], list[Difference]]:
    """Write a model's graphs into ``folder``, which is made; the files, and what was found if they were verified.

    ``step.onnx`` and ``finish.onnx`` of a network that folds, ``burst.onnx`` of another. ``variant``: "standard",
    "gridsample" or "plugin", see :mod:`pyfocus.export.deform`. ``precision``: "fp32" or "mixed", see
    :mod:`pyfocus.export.half`. ``frames``: that the model must take; None: as it does. ``tile``: the one size (H, W) of
    inputs; None: any that the network takes. ``verify``: also run them, and write nothing when they do not give what
    torch gives. ``tell`` is told what comes next. Raises ReadError, ArgumentError, ExportError, WriteError.
    """
    if variant not in VARIANTS:
        raise ArgumentError(f"export_onnx: variant must be one of {', '.join(VARIANTS)}, got {variant!r}")
    if precision not in PRECISIONS:
        raise ArgumentError(f"export_onnx: precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    say = tell or (lambda text: None)
    net, model = load_model(checkpoint)
    takes = getattr(net, "frames", 0)
    if frames is not None and takes not in (0, frames):
        raise ArgumentError(f"export_onnx: {type(net).__name__} of {checkpoint} takes {takes} frames, got {frames}")
    graphs = graphs_of(net, model, tile, variant, precision)
    target = Path(folder)
    files = [target / f"{graph.facts.part}.onnx" for graph in graphs]
    _check_folder(target, files, overwrite)
    try:
        with tempfile.TemporaryDirectory(prefix=".export-", dir=target) as made:
            for graph, file in zip(graphs, files, strict=True):
                say(f"{file.name}: tracing {type(net).__name__}")
                onnx.save(to_model(graph), Path(made) / file.name)
            found = []
            if verify:
                say("verifying")
                found = compare(checkpoint, made, small_burst(graphs[0].facts))
                _insist(found, folder)
            for file in files:
                os.replace(Path(made) / file.name, file)
    except OSError as error:
        raise WriteError(f"{folder}: cannot be written: {error.strerror or error}") from error
    return files, found


def to_model(graph: Graph) -> onnx.ModelProto:
    """The ONNX model of a graph, with its metadata. Raises ExportError."""
    return specialise(translate(graph, trace(graph)), graph.facts)


def trace(graph: Graph) -> torch.export.ExportedProgram:
    """A graph's program, one for all variants and precisions. Raises ExportError."""
    with _tracing(graph.facts):
        return torch.export.export(graph.module, tuple(graph.inputs.values()), dynamic_shapes=graph.sizes)


def translate(graph: Graph, program: torch.export.ExportedProgram) -> onnx.ModelProto:
    """A graph's program in ONNX's operators: DeformConv, or what *gridsample* has instead. Raises ExportError."""
    with _tracing(graph.facts):
        if graph.facts.variant == "gridsample":
            program = program.run_decompositions({deform.OPERATOR: deform.as_samples})
        translated = torch.onnx.export(
            program, dynamo=True, opset_version=OPSET, external_data=False, verbose=False,
            input_names=list(graph.inputs), output_names=list(graph.outputs),
            custom_translation_table={
                deform.OPERATOR: deform.as_node, equivalents.UNSHUFFLE: equivalents.as_blocks,
            },
        )  # fmt: skip
        model: onnx.ModelProto = translated.model_proto
    return model


def specialise(model: onnx.ModelProto, facts: Facts) -> onnx.ModelProto:
    """A translated model with the nodes and types that the facts say, described and checked. Raises ExportError."""
    if facts.variant == "plugin":
        nodes.to_plugin(model)
    if facts.precision == "mixed":
        half.mix(model)
    _describe(model, facts)
    equivalents.pools_to_convolutions(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def _describe(model: onnx.ModelProto, facts: Facts) -> None:
    """Metadata in, the tracer's notes out; sizes called batch, rows and columns."""
    del model.metadata_props[:]
    for key, text in facts.texts().items():
        model.metadata_props.add(key=key, value=text)
    model.producer_name, model.producer_version, model.doc_string = "pyfocus", "", ""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    first = model.graph.input[-1 if facts.part == "step" else 0].type.tensor_type.shape.dim
    symbols = [re.search(r"[A-Za-z_]\w*", d.dim_param) for d in (first[0], *list(first)[-2:])]
    names = {found[0]: name for found, name in zip(symbols, ("batch", "rows", "columns"), strict=True) if found}
    for value in (*model.graph.input, *model.graph.output):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param:  # setting it takes a number away
                size.dim_param = re.sub(r"[A-Za-z_]\w*", lambda found: names.get(found[0], found[0]), size.dim_param)
    del model.graph.value_info[:]  # of sizes that the names above do not cover


def _check_folder(folder: Path, files: list[Path], overwrite: bool) -> None:
    """That the files can be written there. Raises WriteError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"{folder}: cannot be made: {error.strerror or error}") from error
    for file in files:
        if os.path.lexists(file) and not overwrite:
            raise WriteError(f"{file}: exists already; choose another folder or allow overwriting (--overwrite)")


def _insist(found: list[Difference], folder: PathLike) -> None:
    """Raises ExportError when anything differs by more than the limits."""
    for one in found:
        if one.wrong:
            raise ExportError(f"{folder}: nothing was written: {one.wrong}")


@contextmanager
def _tracing(facts: Facts) -> Iterator[None]:
    """Quietly, without gradients; what torch, onnxscript and onnx_ir raise, each of its own kind, as ExportError."""
    with _silence(), torch.no_grad():
        try:
            yield
        except Exception as error:
            raise ExportError(
                f"export: {facts.network} could not be traced for {facts.part}.onnx with torch {torch.__version__}: "
                f"{(str(error).splitlines() or [type(error).__name__])[0]}"
            ) from error


@contextmanager
def _silence() -> Iterator[None]:
    """Without the exporter's talk of packages that are not there and functions that will be."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
