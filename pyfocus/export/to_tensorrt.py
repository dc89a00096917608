"""ONNX files to engines: TensorRT's on the card they are for, TensorRT-RTX's on any machine; all of them or none.

    build_engines("exported", "engines")                            a card, TensorRT 10 or 11
    build_engines("exported", "engines", flavour="tensorrt-rtx")    no card needed

The file decides the precision: networks are strongly typed, and nothing is rounded that the file does not round.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import ArgumentError, ExportError, ReadError, ResourceError, WriteError
from ..io.atomic import PathLike
from . import engine_cache
from .engine_file import SUFFIX, EngineFacts, hash_bytes, sidecar_of
from .engine_process import build_apart
from .exported import PARTS
from .facts import Facts
from .flavours import RTX, TENSORRT, Card, Flavour, card, flavour_named, load_module
from .onnx_metadata import read_file
from .plugin import plugin_library
from .profiles import Profile, Sizes, profiles_of

Tell = Callable[[str], None]
BUILDER = 1  # counted up when the same question is answered by another engine


@dataclass(frozen=True)
class _Source:
    """An ONNX file, where its engine goes, and the shapes of its inputs."""

    path: Path
    engine: Path
    data: bytes
    facts: Facts
    shapes: dict[str, Profile]


@dataclass(frozen=True)
class _Plan:
    """What all engines of one call are built with. ``capabilities`` in order."""

    flavour: Flavour
    workspace: int
    timing_cache: Path | None
    capabilities: tuple[str, ...]
    cache: bool
    runtime: str = ""
    card: Card | None = None


def build_engines(
    source: PathLike,
    target: PathLike,
    *,
    flavour: str = "tensorrt",
    sizes: Sizes | None = None,
    precision: str | None = None,
    workspace: int = 0,
    timing_cache: PathLike | None = None,
    capabilities: Sequence[str] = (),
    cache: bool = True,
    overwrite: bool = False,
    tell: Tell | None = None,
) -> list[Path]:
    """Build the engines of an exported folder, or of one .onnx; the files, each with its .json beside it.

    ``target``: a folder, which is made, or for one .onnx also a name that ends in .engine. ``precision``: that the
    files must have ("fp32", "mixed"), or None. ``workspace``: bytes of device memory that a layer may take, 0 for all.
    ``timing_cache``: a file of TensorRT's measurements, read and written. ``capabilities``: of the cards that a
    TensorRT-RTX engine is for, such as "8.9"; none: its default ones. ``cache``: take an engine that was built of the
    same before, and keep new ones. ``tell`` is told how it goes. Raises ReadError, ArgumentError, ExportError for what
    TensorRT refuses, ResourceError without TensorRT or, unless it is TensorRT-RTX, without a card, WriteError.
    """
    plan = _plan(flavour, workspace, timing_cache, capabilities, cache)
    sources = _sources(Path(source), Path(target), sizes or Sizes())
    for one in sources:
        _check_model(one, plan.flavour, precision)
        _check_target(one, overwrite)
    plan = replace(plan, runtime=str(load_module(plan.flavour).__version__), card=_card_for(plan.flavour))
    folder = sources[0].engine.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".engines-", dir=folder) as made:
            for one in sources:
                _make(one, plan, Path(made).absolute(), tell or (lambda text: None))
            for one in sources:
                for file in (one.engine, sidecar_of(one.engine)):
                    os.replace(Path(made) / file.name, file)
    except OSError as error:
        raise WriteError(f"{target}: cannot be written: {error.strerror or error}") from error
    return [one.engine for one in sources]


# --- what is asked for -------------------------------------------------


def _plan(
    flavour: str, workspace: int, timing_cache: PathLike | None, capabilities: Sequence[str], cache: bool
) -> _Plan:
    """Raises ArgumentError for what does not go together."""
    made_by = flavour_named(flavour)
    if workspace < 0:
        raise ArgumentError(f"build_engines: workspace must be 0 or more bytes, got {workspace}")
    if capabilities and made_by is not RTX:
        raise ArgumentError(
            f"build_engines: {made_by.title} builds for the card at hand; capabilities are for flavour={RTX.name!r}"
        )
    if timing_cache is not None and made_by is not TENSORRT:
        raise ArgumentError(f"build_engines: {made_by.title} measures nothing while it builds; leave timing_cache out")
    numbers = []
    for capability in capabilities:
        major, _, minor = capability.partition(".")
        if not (major.isdecimal() and minor.isdecimal()):
            raise ArgumentError(f"build_engines: capabilities must be such as 8.9, got {capability!r}")
        numbers.append((int(major), int(minor)))
    ordered = tuple(f"{major}.{minor}" for major, minor in sorted(set(numbers)))
    return _Plan(made_by, workspace, Path(timing_cache).absolute() if timing_cache else None, ordered, cache)


def _sources(source: Path, target: Path, sizes: Sizes) -> list[_Source]:
    """The ONNX files and their engines. Raises ReadError, ArgumentError."""
    if source.is_dir():
        files = [file for part in PARTS if (file := source / f"{part}.onnx").is_file()]
        if not files:
            raise ReadError(f"{source}: holds no step.onnx or burst.onnx; name what pyfocus-export onnx wrote")
    elif source.is_file():
        files = [source]
    else:
        raise ReadError(f"{source}: there is no such file or folder; name what pyfocus-export onnx wrote")
    found = []
    for file, engine in zip(files, _targets(source, files, target), strict=True):
        facts, data = read_file(file)
        found.append(_Source(file, engine, data, facts, profiles_of(facts, sizes)))
    return found


def _targets(source: Path, files: list[Path], target: Path) -> list[Path]:
    """Where the engines go. Raises ArgumentError."""
    if target.suffix == SUFFIX and not target.is_dir():
        if source.is_dir():
            raise ArgumentError(f"{target}: must be a folder for the engines of {source}, got a name in {SUFFIX}")
        return [target]
    if source.is_file() and target.suffix and not target.is_dir():
        raise ArgumentError(f"{target}: must be a folder, or end in {SUFFIX}")
    return [target / f"{file.stem}{SUFFIX}" for file in files]


def _check_model(one: _Source, made_by: Flavour, precision: str | None) -> None:
    """Raises ExportError for a file that this TensorRT cannot take, ArgumentError for one of another precision."""
    if precision is not None and one.facts.precision != precision:
        raise ArgumentError(
            f"{one.path}: is {one.facts.precision}, not {precision}: the file decides; export the checkpoint with "
            f"--precision {precision}"
        )
    if made_by is RTX and one.facts.variant == "standard":
        raise ExportError(
            f"{one.path}: has DeformConv nodes, which {RTX.title} does not know; export the checkpoint with --variant "
            "gridsample, or --variant plugin"
        )


def _check_target(one: _Source, overwrite: bool) -> None:
    """Raises WriteError for what is there already."""
    for file in (one.engine, sidecar_of(one.engine)):
        if os.path.lexists(file) and (not overwrite or file.is_dir()):
            raise WriteError(f"{file}: exists already; choose another name or allow overwriting (--overwrite)")


def _card_for(made_by: Flavour) -> Card | None:
    """The card that is built for, where the card at hand is. Raises ResourceError without one."""
    if made_by.builds_without_card:
        return None
    try:
        return card()
    except ResourceError as error:
        raise ResourceError(
            f"{made_by.title} builds on the card that it builds for: {error}; pyfocus-export rtx builds without one"
        ) from None


# --- building ----------------------------------------------------------


def _make(one: _Source, plan: _Plan, folder: Path, tell: Tell) -> None:
    """An engine and its sidecar in ``folder``: the one that was built of the same before, or a new one."""
    plugin = _plugin(one)
    facts = EngineFacts(
        flavour=plan.flavour.name, runtime=plan.runtime, card=plan.card, capabilities=plan.capabilities,
        model=one.path.name, model_sha256=hash_bytes(one.data), facts=one.facts, profiles=one.shapes,
        plugin=hash_bytes(plugin.read_bytes()) if plugin else "", bytes=0, sha256="",
    )  # fmt: skip
    key = engine_cache.key_of({
        "model": facts.model_sha256, "flavour": facts.flavour, "runtime": facts.runtime, "card": str(facts.card or ""),
        "capabilities": facts.capabilities, "profiles": facts.profiles, "plugin": facts.plugin,
        "workspace": plan.workspace, "builder": BUILDER,
    })  # fmt: skip
    file = folder / one.engine.name
    data = engine_cache.cached(key) if plan.cache else None
    if data is None:
        tell(f"{one.path.name}: {plan.flavour.title} {plan.runtime} builds {one.engine.name}")
        data = _build(one, plan, plugin, file, tell)
        if plan.cache and not engine_cache.keep(key, data):
            tell(f"{engine_cache.cache_folder()} cannot be written: the same will be built again next time")
    else:
        tell(f"{one.path.name}: {one.engine.name} was built before: taken from {engine_cache.cache_folder()}")
        file.write_bytes(data)
    facts = replace(facts, bytes=len(data), sha256=hash_bytes(data))
    sidecar_of(file).write_text(facts.text(), encoding="utf-8")


def _plugin(one: _Source) -> Path | None:
    """The plugin library, where the graph needs it. Raises ResourceError when it is not there."""
    return plugin_library() if one.facts.variant == "plugin" else None


def _build(one: _Source, plan: _Plan, plugin: Path | None, file: Path, tell: Tell) -> bytes:
    """Build the engine to ``file``. Raises ExportError, ResourceError."""
    timings = file.with_suffix(".timings") if plan.timing_cache else None
    if timings and plan.timing_cache and plan.timing_cache.is_file():
        timings.write_bytes(plan.timing_cache.read_bytes())
    job = {
        "flavour": plan.flavour.name, "model": str(one.path.absolute()), "engine": str(file), "profiles": one.shapes,
        "workspace": plan.workspace, "plugin": str(plugin or ""), "capabilities": plan.capabilities,
        "timing_cache": str(timings or ""),
    }  # fmt: skip
    build_apart(job, file.parent, f"{one.path}: {plan.flavour.title} {plan.runtime}", tell)
    if timings and plan.timing_cache:
        plan.timing_cache.parent.mkdir(parents=True, exist_ok=True)
        beside = plan.timing_cache.with_name(f".{plan.timing_cache.name}.part")
        beside.write_bytes(timings.read_bytes())  # it may lie on another disk
        os.replace(beside, plan.timing_cache)
        timings.unlink()
    return file.read_bytes()
