"""One engine, built by TensorRT in a process of its own: it may end the process where Python would raise.

The parent writes a job as JSON to standard input and the number of a pipe as the one argument; lines of JSON come back
through the pipe: steps of the work, then either what was built or why not. See :mod:`pyfocus.export.to_tensorrt`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .flavours import LAST_WORDS, flavour_named, load_module, logger
from .plugin import load_plugin, ready_for_plugins

Say = Callable[[dict[str, Any]], bool]  # False: nobody listens any more


class _Refused(Exception):
    """TensorRT does not build it; the text says why."""


def main() -> None:
    """The child's work. Whatever goes wrong is told through the pipe, as far as Python gets to see it."""
    pipe = int(sys.argv[1])

    def say(line: dict[str, Any]) -> bool:
        try:
            os.write(pipe, (json.dumps(line) + "\n").encode())
        except OSError:  # the parent is gone
            return False
        return True

    try:
        say({"done": build(json.load(sys.stdin), say)})
    except _Refused as refused:
        say({"refused": str(refused)})
    except Exception as error:
        say({"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"})


def build(job: dict[str, Any], say: Say) -> dict[str, Any]:
    """Parse ``job["model"]`` and write the engine to ``job["engine"]``; its size. Raises _Refused.

    ``job``: also flavour, profiles by input, workspace (bytes, 0 for all there is), plugin (a library, or ""),
    capabilities, and timing_cache (a file to read if it is there, and to write; or "").
    """
    if job["plugin"] and job["flavour"] == "tensorrt-rtx":
        ready_for_plugins()
    trt = load_module(flavour_named(job["flavour"]))
    log = logger(trt)
    if job["plugin"]:
        load_plugin(trt)
    if job["flavour"] == "tensorrt":
        trt.init_libnvinfer_plugins(log, "")  # among them the one that its parser takes DeformConv for
    builder = trt.Builder(log)
    network = _parsed(trt, builder, log, Path(job["model"]))
    inputs = {network.get_input(k).name for k in range(network.num_inputs)}
    if inputs != set(job["profiles"]):
        raise _Refused(f"takes {', '.join(sorted(inputs))}, its metadata says {', '.join(sorted(job['profiles']))}")
    config = _config(trt, builder, job)
    config.progress_monitor = _monitor(trt, say)
    cache = _timings(config, job["timing_cache"])
    data = builder.build_serialized_network(network, config)
    if data is None:
        raise _Refused(log.last_words() or "it builds nothing, and does not say why")
    with open(job["engine"], "wb") as file:
        file.write(data)
        size = file.tell()
    if cache:
        Path(job["timing_cache"]).write_bytes(bytes(config.get_timing_cache().serialize()))
    return {"bytes": size, "runtime": str(trt.__version__)}


def _parsed(trt: Any, builder: Any, log: Any, model: Path) -> Any:
    """The network of an ONNX file; its types are those of the file. Raises _Refused."""
    # From TensorRT 11 on there are no other networks, and there may be no such flag.
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(model.read_bytes()):
        errors = [parser.get_error(k) for k in range(parser.num_errors)]
        texts = [f"node {e.node_name()} ({e.node_operator()}): {' '.join(e.desc().split())}" for e in errors]
        raise _Refused("; ".join(texts[:LAST_WORDS]) or log.last_words() or "it cannot be parsed")
    return network


def _config(trt: Any, builder: Any, job: dict[str, Any]) -> Any:
    """Shapes, memory and cards. Raises _Refused."""
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    for name, shapes in job["profiles"].items():
        profile.set_shape(name, *map(tuple, shapes))
    if config.add_optimization_profile(profile) < 0:
        raise _Refused(f"the shapes do not fit the file: {job['profiles']}")
    # Single precision is meant as it is written: TF32 would round what convolutions multiply to 11 bits.
    tf32 = getattr(trt.BuilderFlag, "TF32", None)
    if tf32 is not None:
        config.clear_flag(tf32)
    if job["workspace"]:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, job["workspace"])
    if job["capabilities"]:
        known = trt.ComputeCapability.__members__
        names = ["SM" + capability.replace(".", "") for capability in job["capabilities"]]
        for name in names:
            if name not in known:
                there = ", ".join(f"{key[2:-1]}.{key[-1]}" for key in known if key.startswith("SM"))
                raise _Refused(f"it does not build for compute capability {name[2:-1]}.{name[-1]}, but for {there}")
        config.num_compute_capabilities = len(names)
        for k, name in enumerate(names):
            config.set_compute_capability(known[name], k)
    return config


def _timings(config: Any, file: str) -> bool:
    """Take over what an earlier build measured; whether there is something to write afterwards."""
    if not file:
        return False
    before = Path(file).read_bytes() if Path(file).is_file() else b""
    cache = config.create_timing_cache(before)
    if cache is None or not config.set_timing_cache(cache, False):  # of another card or version: begin anew
        config.set_timing_cache(config.create_timing_cache(b""), False)
    return True


def _monitor(trt: Any, say: Say) -> Any:
    """Tells of the outermost phases; stops the work when nobody listens."""

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            if not parent:
                self.steps[phase] = steps

        def phase_finish(self, phase: str) -> None:
            self.steps.pop(phase, None)

        def step_complete(self, phase: str, step: int) -> bool:
            count = self.steps.get(phase)
            return say({"phase": phase, "done": step + 1, "total": count}) if count else True

    return Monitor()
