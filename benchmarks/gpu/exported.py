"""A step of the shipped network in every runtime that is installed: torch, torch.compile, ONNX Runtime, both TensorRTs.

One window of 576 x 576, a tile of 384 with its halos, everything on the card before the clock starts; milliseconds are
those a program waits. Exporting takes onnx and onnxscript. Engines are built here, which is timed as well: of the
standard graph in single precision, of the plugin's in mixed precision, and for TensorRT-RTX of the gridsample graph.
What is not installed, or fails, is listed with the reason.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from clock import Row, main

from pyfocus import _C

SIDE, RUNS = 576, 15
QUICK_SIDE, QUICK_RUNS = 64, 1
BUDGET_S, BEGAN = 150, time.monotonic()  # nothing more is begun after so long
# Flavour, variant and precision of each engine.
ENGINES = (
    ("tensorrt", "standard", "fp32"), ("tensorrt", "plugin", "fp32"), ("tensorrt", "plugin", "mixed"),
    ("tensorrt-rtx", "gridsample", "fp32"), ("tensorrt-rtx", "plugin", "mixed"),
)  # fmt: skip


def work(options: argparse.Namespace, found: Row) -> None:
    """Rows under "exported", torch's first."""
    found["exported"] = []
    side, runs = (QUICK_SIDE, QUICK_RUNS) if options.quick else (SIDE, RUNS)
    for what, part in (("torch", in_torch), ("exported models", in_runtimes)):
        try:
            part(side, runs, found)
        except ImportError as error:
            skip(found, what, f"it does not import: {error}")
        except Exception:
            found["errors"].append(f"{what}: {traceback.format_exc()}")


def in_torch(side: int, runs: int, found: Row) -> None:
    """Eager in both precisions, and compiled."""
    import torch

    from pyfocus.nn.checkpoint import load_model

    if not torch.cuda.is_available():
        skip(found, "torch", "it sees no CUDA device")
        return
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False  # as exported models are run
    net = load_model(shipped())[0].to("cuda").eval()
    facts = (torch.tensor([[1e-3, 1e-6]], device="cuda"), torch.tensor([[2.0, 1.0, 1.6]], device="cuda"))
    frame, index = torch.rand(1, 3, side, side, device="cuda"), torch.ones(1, device="cuda")
    with torch.no_grad():
        state = net.step(net.init_state(1, side, side), frame, index - 1, *facts)
        for name, step, kind in (
            ("torch, eager, float32", net.step, None),
            ("torch, eager, autocast to float16", net.step, torch.float16),
            ("torch.compile, float32", torch.compile(net.step, dynamic=False), None),
        ):

            def call(step: Any = step, kind: Any = kind) -> None:
                with torch.autocast("cuda", kind or torch.float16, enabled=kind is not None):
                    step(state, frame, index, *facts)
                torch.cuda.synchronize()

            attempt(found, name, side, lambda call=call: (call, {}), runs)


def in_runtimes(side: int, runs: int, found: Row) -> None:
    """ONNX Runtime on the card, and engines."""
    from pyfocus.export.flavours import FLAVOURS
    from pyfocus.export.to_onnx import export_onnx

    with tempfile.TemporaryDirectory() as folder:
        exported: dict[tuple[str, str], Path] = {}

        def files(variant: str, precision: str) -> Path:
            if (variant, precision) not in exported:
                exported[variant, precision] = target = Path(folder) / f"{variant}-{precision}"
                export_onnx(shipped(), target, variant=variant, precision=precision)
            return exported[variant, precision]

        name = "ONNX Runtime, CUDA, standard, fp32"
        attempt(found, name, side, lambda: session(lambda: files("standard", "fp32"), side), runs)
        for flavour, variant, precision in ENGINES:
            name = f"{FLAVOURS[flavour].title}, {variant}, {precision}"

            def ready(flavour: str = flavour, variant: str = variant, precision: str = precision) -> Any:
                insist(flavour, variant)  # before the export, which takes longer than to see what is missing
                target = Path(folder) / f"{flavour}-{variant}-{precision}"
                return engine(files(variant, precision), target, flavour, side)

            attempt(found, name, side, ready, runs)


class Missing(Exception):
    """What keeps a runtime from running here, in words."""


def insist(flavour: str, variant: str) -> None:
    """Raises Missing where such engines cannot be built and run here."""
    from pyfocus.errors import ResourceError
    from pyfocus.export.flavours import FLAVOURS, card, load_module, runs_on
    from pyfocus.export.plugin import plugin_library, ready_for_plugins

    if _C.device_archs() == "host":
        raise Missing("the emulated device runs no engines")
    try:
        here = card()
        if variant == "plugin":
            plugin_library()
            ready_for_plugins()
        load_module(FLAVOURS[flavour])
    except ResourceError as error:
        raise Missing(str(error)) from None
    if flavour == "tensorrt-rtx" and not runs_on((), here.capability):
        raise Missing(f"it has no engines for {here}")


def session(files: Callable[[], Path], side: int) -> tuple[Callable[[], None], Row]:
    """A step in ONNX Runtime on the card."""
    import onnxruntime

    from pyfocus.export.session import open_exported

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise Missing("this ONNX Runtime has no CUDA: pyfocus-stack[gpu]")
    return bound(open_exported(files(), "cuda"), side), {}


def engine(files: Path, target: Path, flavour: str, side: int) -> tuple[Callable[[], None], Row]:
    """A step in a new engine, tuned for this size."""
    from pyfocus.export.engines import open_engines
    from pyfocus.export.profiles import Sizes
    from pyfocus.export.to_tensorrt import build_engines

    started = time.perf_counter()
    build_engines(files, target, flavour=flavour, sizes=Sizes(usual=(side, side)), cache=False)
    seconds = time.perf_counter() - started
    size = sum(file.stat().st_size for file in target.glob("*.engine"))
    return bound(open_engines(target), side), {"build_s": round(seconds, 1), "engine_bytes": size}


def bound(exported: Any, side: int) -> Callable[[], None]:
    """A step over arrays that lie where the runtime works."""
    from pyfocus.export.exported import next_name

    runner = exported.runners["step"]
    on, random = runner.arrays, np.random.default_rng(0)
    told = {
        "frame": random.random((1, 3, side, side), np.float32), "index": np.ones(1, np.float32),
        "noise": np.array([[1e-3, 1e-6]], np.float32), "white_balance": np.array([[2, 1, 1.6]], np.float32),
        "valid": np.ones((1, 1, side, side), np.float32),
    }  # fmt: skip
    inputs = {name: on.upload(array) for name, array in {**exported.zeros(side, side), **told}.items()}
    outputs = {next_name(name): on.empty(inputs[name].shape) for name, *_ in exported.facts.state}
    return lambda: runner.run_bound(inputs, outputs)


def attempt(found: Row, name: str, side: int, ready: Callable[[], Any], runs: int) -> None:
    """A row, or why there is none."""
    if time.monotonic() - BEGAN > BUDGET_S:
        skip(found, name, "no time left")
        return
    try:
        call, more = ready()
        started = time.perf_counter()
        call()
        row: Row = {"name": name, "first_s": round(time.perf_counter() - started, 2)}
        times = []
        for _ in range(runs):
            started = time.perf_counter()
            call()
            times.append((time.perf_counter() - started) * 1e3)
    except Missing as error:
        skip(found, name, str(error))
        return
    except Exception:
        found["errors"].append(f"{name}: {traceback.format_exc()}")
        return
    median = statistics.median(times)
    row |= {"ms": round(median, 3), "low_ms": round(min(times), 3), "high_ms": round(max(times), 3)}
    found["exported"].append({**row, "ms_per_megapixel": round(median / (side * side / 1e6), 2), **more})


def skip(found: Row, what: str, why: str) -> None:
    found["skipped"].append({"what": what, "why": " ".join(why.split())[:300]})


def shipped() -> Path:
    """The checkpoint that the package ships."""
    from pyfocus.nn.fusers import SHIPPED, WEIGHTS

    return Path(WEIGHTS / SHIPPED["focusdeep"])


if __name__ == "__main__":
    main(work, __doc__)
