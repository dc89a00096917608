"""Engines run: TensorRT's and TensorRT-RTX's, in the memory of the card they were built for, as fusers.

    load("engines")        a folder with step.engine and finish.engine, or burst.engine, each with its .json
    load("step.engine")    the same by one of its files

Neither torch nor ONNX Runtime is needed. Everything is checked before TensorRT sees the file: it ends the process over
some that it does not like, and without a driver.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import AnyArray, Arrays, DeviceArrays
from ..errors import ArgumentError, ReadError, ResourceError
from ..fuse import Fuser
from ..networks import Noise, Runtime
from . import burst_fuser, stream_fuser
from .binding import address_of
from .engine_file import SUFFIX, EngineFacts, read_engine
from .exported import PARTS, Array, Exported, assemble, next_name
from .facts import Facts
from .flavours import RTX, Card, card, enter, load_module, logger, runs_on
from .fusers import fuser_of
from .plugin import load_plugin


def load(
    path: str | os.PathLike[str],
    *,
    device: str = "cpu",
    threads: int = 0,
    noise: Noise | None = None,
    memory: int | None = None,
    tile_px: int | None = None,
    folder: str | os.PathLike[str] | None = None,
    at_once: int | None = None,
) -> Fuser:
    """The fuser of a model's engines: their folder, or one of them.

    ``device``: "cuda", "cuda:1"; with "cpu" and "auto", which are meant for everything else, engines run on the first
    card. ``tile_px``, ``at_once``: None for what suits, as far as the engine's largest shapes allow. The others as for
    :func:`pyfocus.export.session.load`. Raises ReadError for files that are no engines of ours, do not belong together
    or are for another TensorRT or card, ResourceError without TensorRT or a card.
    """
    exported = open_engines(path, device)
    usual = burst_fuser.TILE_PX if exported.facts.part == "burst" else stream_fuser.TILE_PX
    tile_px = tile_px or min(usual, largest_tile_px(exported))
    return fuser_of(
        exported, noise=noise, threads=threads, memory=memory, tile_px=tile_px, folder=folder, at_once=at_once
    )


def open_engines(path: str | os.PathLike[str], device: str = "cuda") -> Exported:
    """All engines of a model, ready to run on one card and one stream. Raises ReadError, ResourceError."""
    files = _files(Path(path))
    found = [read_engine(file) for file in files]
    first = found[0][0]
    if any((facts.flavour, facts.runtime) != (first.flavour, first.runtime) for facts, _ in found):
        raise ReadError(f"{path}: its engines were built by different versions; build them again in one go")
    trt = load_module(first.made_by)
    number = _number(device)
    for file, (facts, _) in zip(files, found, strict=True):
        _check_version(file, facts, str(trt.__version__))
    here = card(number)
    for file, (facts, _) in zip(files, found, strict=True):
        _check_card(file, facts, here)
    if first.facts.variant == "plugin":
        load_plugin(trt)
    arrays = DeviceArrays(number)
    engines = [Engine(file, facts, data, trt, arrays) for file, (facts, data) in zip(files, found, strict=True)]
    return assemble(Path(path), engines)


def largest_tile_px(exported: Exported) -> int:
    """The largest tile that every engine takes with its halos. Raises ReadError where not even one step is left."""
    step, most = exported.facts.step_px, []
    for part, runner in exported.runners.items():
        assert isinstance(runner, Engine)
        largest = runner.engine_facts.largest_px()
        most.append(largest if exported.facts.tile else (largest - 2 * exported.halos[part]) // step * step)
        if most[-1] < step:
            raise ReadError(
                f"{runner.path}: takes windows up to {largest} px, of which halos of {exported.halos[part]} px leave "
                "nothing for a tile; build it with larger --max-shapes"
            )
    return min(most)


class Engine:
    """One engine in TensorRT; see :class:`pyfocus.export.exported.Runner`. One thread at a time may use it.

    Which kernels run was decided when it was built, or for TensorRT-RTX when it was opened: the same engine, card and
    shapes give the same bits as far as those kernels do.
    """

    def __init__(self, path: Path, facts: EngineFacts, data: bytes, trt: Any, arrays: DeviceArrays) -> None:
        self.path, self.engine_facts, self.facts = path, facts, facts.facts
        self.arrays: Arrays = arrays
        self._device = arrays.device
        self.most_at_once = facts.profiles[self.facts.inputs[0]][2][0]
        self.runtime = Runtime(facts.made_by.title, facts.runtime, f"cuda:{arrays.device}")
        enter(arrays.device)
        self._log = logger(trt)
        self._trt_runtime = trt.Runtime(self._log)  # which must outlive the engine
        self._engine = self._trt_runtime.deserialize_cuda_engine(data)
        if self._engine is None:
            raise ReadError(f"{path}: {self._who()} cannot load it: {self._why('it does not say why')}; build it again")
        self._inputs, self._outputs = self._names(trt)
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise ResourceError(
                f"{path}: {self._who()} cannot get ready to run it: {self._why('it does not say why')}; where the "
                "card's memory is too small, build it with smaller --max-shapes"
            )

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        """All outputs of inputs in the host's memory. Raises ArgumentError for shapes, ResourceError."""
        shapes = self._enter(inputs)
        flat = {name: np.ascontiguousarray(values, np.float32).reshape(-1) for name, values in inputs.items()}
        there = {name: self.arrays.upload(values) for name, values in flat.items()}  # a burst has a dimension too many
        outputs = {name: self.arrays.kept(f"result {name}", shape) for name, shape in shapes.items()}
        self._execute(there, outputs)
        return [self.arrays.to_host(array) for array in outputs.values()]

    def run_bound(self, inputs: Mapping[str, AnyArray], outputs: Mapping[str, AnyArray]) -> None:
        """The same over arrays of ``arrays``, into ``outputs``, which hold the results when this returns."""
        shapes = self._enter(inputs)
        if {name: tuple(array.shape) for name, array in outputs.items()} != shapes:
            wanted = ", ".join(f"{name} {_words(shape)}" for name, shape in shapes.items())
            raise ArgumentError(f"{self.path}: outputs must be {wanted}")
        self._execute(inputs, outputs)
        self.arrays.wait()

    def _enter(self, inputs: Mapping[str, AnyArray]) -> dict[str, tuple[int, ...]]:
        """Tell the shapes of the inputs, and get those of the outputs. Raises ArgumentError."""
        enter(self._device)
        if set(inputs) != set(self.facts.inputs):
            raise ArgumentError(f"{self.path}: takes {', '.join(self.facts.inputs)}, got {', '.join(inputs)}")
        for name, array in inputs.items():
            smallest, _, largest = self.engine_facts.profiles[name]
            shape = tuple(array.shape)
            if len(shape) != len(smallest) or not all(map(_between, smallest, shape, largest)):
                raise ArgumentError(
                    f"{self.path}: {name} must be {_words(smallest)} to {_words(largest)}, got {_words(shape)}; take "
                    "tiles that fit, or build it with other --min-shapes and --max-shapes"
                )
            if name in self._inputs and not self._context.set_input_shape(name, shape):
                raise ResourceError(f"{self.path}: {self._who()} refuses {name}: {self._why(_words(shape))}")
        missing = self._context.infer_shapes()
        shapes = {name: tuple(self._context.get_tensor_shape(name)) for name in self._outputs}
        if missing or any(n < 0 for shape in shapes.values() for n in shape):
            raise ResourceError(f"{self.path}: {self._who()} does not know the shape of its outputs: {self._why('')}")
        return shapes

    def _execute(self, inputs: Mapping[str, AnyArray], outputs: Mapping[str, AnyArray]) -> None:
        """Put the work on the stream. Raises ResourceError."""
        bound = {**{name: inputs[name] for name in self._inputs}, **outputs}
        for name, array in bound.items():
            if not self._context.set_tensor_address(name, address_of(array.__dlpack__())):
                raise ResourceError(f"{self.path}: {self._who()} refuses the memory of {name}: {self._why('')}")
        if not self._context.execute_async_v3(self.arrays.stream):
            raise ResourceError(f"{self.path}: {self._who()} failed: {self._why('it does not say why')}")

    def _names(self, trt: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Inputs and outputs, in order. Raises ReadError for an engine whose tensors are not those of its sidecar.

        Inputs that the graph has and does not look at may be missing.
        """
        names = [self._engine.get_tensor_name(k) for k in range(self._engine.num_io_tensors)]
        inputs = tuple(name for name in names if self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT)
        outputs = outputs_of(self.facts)
        if not set(inputs) <= set(self.facts.inputs) or set(names) - set(inputs) != set(outputs):
            raise ReadError(f"{self.path}: has {', '.join(names)}, which its .json does not fit; build it again")
        if any(self._engine.get_tensor_dtype(name) != trt.float32 for name in names):
            raise ReadError(f"{self.path}: takes or gives other than float32; build it again")
        return inputs, outputs

    def _who(self) -> str:
        return f"{self.runtime.name} {self.runtime.version}"

    def _why(self, otherwise: str) -> str:
        """The library's last words."""
        words: str = self._log.last_words()
        return words or otherwise


def outputs_of(facts: Facts) -> tuple[str, ...]:
    """The outputs of a file's graph, in order."""
    if facts.part == "step":
        return tuple(next_name(name) for name, *_ in facts.state)
    return ("image", "depth", "confidence") if facts.part == "finish" else ("image",)


def _files(named: Path) -> list[Path]:
    """The engines of a model. Raises ReadError."""
    if named.is_dir():
        parts = [part for part in PARTS if (named / f"{part}{SUFFIX}").exists()]
        if not parts:
            raise ReadError(f"{named}: holds no step{SUFFIX} or burst{SUFFIX}; name what pyfocus-export tensorrt wrote")
        named = named / f"{parts[0]}{SUFFIX}"
    part = read_engine(named)[0].facts.part
    if part == "burst":
        return [named]
    other = named.with_name(f"{'finish' if part == 'step' else 'step'}{SUFFIX}")
    if not other.exists():
        raise ReadError(f"{named}: needs {other.name} beside it; build the exported folder, or copy both")
    return [named, other] if part == "step" else [other, named]


def _check_version(file: Path, facts: EngineFacts, version: str) -> None:
    """That an engine is for this TensorRT. Raises ReadError."""
    if facts.runtime != version:
        raise ReadError(
            f"{file}: was built by {facts.made_by.title} {facts.runtime}, which alone runs it, and {version} is "
            f"installed; {_again(facts)}"
        )


def _check_card(file: Path, facts: EngineFacts, here: Card) -> None:
    """That an engine is for this card. Raises ReadError."""
    again = _again(facts)
    if facts.flavour == RTX.name:
        if not runs_on(facts.capabilities, here.capability):
            built = ", ".join(facts.capabilities) or "8.0, 8.6, 8.9, 12.0 and later"
            raise ReadError(
                f"{file}: was built for cards of compute capability {built}, and {here} is here; {again} "
                f"--compute-capability {here.capability}"
            )
    elif facts.card != here:
        raise ReadError(f"{file}: was built on {facts.card} and runs there alone, and {here} is here; {again}")


def _again(facts: EngineFacts) -> str:
    return f"build it again: pyfocus-export {facts.made_by.command}"


def _number(device: str) -> int:
    """Raises ArgumentError for a device that is none."""
    kind, colon, number = device.partition(":")
    if kind not in ("cpu", "cuda", "auto") or (colon and not (kind == "cuda" and number.isdecimal())):
        raise ArgumentError(f"device must be auto, cpu, cuda or cuda:N, got {device!r}")
    return int(number or 0)


def _between(least: int, value: int, most: int) -> bool:
    return least <= value <= most


def _words(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
