"""Whether runtimes agree: the same burst through torch, ONNX's reference evaluator and ONNX Runtime, compared.

Any two models can be compared: a checkpoint (.pt, run in torch) or what was exported of it, a folder or a file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ArgumentError, ReadError
from ..io.atomic import PathLike
from .facts import Facts
from .session import Exported, open_exported

Array = npt.NDArray[np.float32]
Results = dict[str, Array]
LIMIT = 1e-4  # of pictures whose white is 1, depth in frames and confidence, in single precision
SEED = 5
FRAMES = 3
# Not for the reference evaluator: 51 s for two frames of 16 x 16 and 8 features, of FocusDeep's 64 and 30 frames.
TOO_SLOW = ("FocusDeep",)


@dataclass(frozen=True)
class Difference:
    """How far ``what`` ("image", "depth", "confidence") of ``other`` is from that of ``base``."""

    what: str
    base: str
    other: str
    largest: float
    mean: float


@dataclass(frozen=True)
class Burst:
    """Frames (1, N, C, H, W), and what folding networks are told: shot and read (1, 2), white balance (1, 3)."""

    frames: Array
    noise: Array
    balance: Array


def small_burst(facts: Facts, steps: tuple[int, int] = (2, 3)) -> Burst:
    """A seeded burst of noise over a smooth scene, of so many steps of the network's, or of the tile that it takes."""
    random = np.random.default_rng(SEED)
    height, width = facts.tile or tuple(n * facts.step_px for n in steps)
    count, channels = facts.frames or FRAMES, {"rgb": 3, "rggb": 4, "mosaic": 1}[facts.kind]
    y, x = np.mgrid[:height, :width]
    scene = 0.4 + 0.3 * np.sin(0.3 * x + 0.2 * y) * np.cos(0.15 * y)
    frames = scene + random.normal(0, 0.05, (1, count, channels, height, width))
    return Burst(frames.astype(np.float32), np.array([[1e-3, 1e-6]], np.float32), np.array([[1.9, 1, 1.5]], np.float32))


def compare(base: PathLike, other: PathLike, burst: Burst | None = None) -> list[Difference]:
    """Differences of every result between two models in all runtimes that can run them; ``base`` is the first.

    Raises ReadError for a file that is no model, ArgumentError for models that take different bursts.
    """
    runners = [*_runners(base), *_runners(other)]
    shown = burst or small_burst(next((r.facts for r in runners if r.facts), None) or _facts_missing(base, other))
    results = [(runner.name, runner.run(shown)) for runner in runners]
    (first, truth), rest = results[0], results[1:]
    found = []
    for name, result in rest:
        for what in truth:
            if result.get(what) is None or result[what].shape != truth[what].shape:
                raise ArgumentError(f"verify: {base} and {other} are of different networks: no {what} of one size")
            difference = np.abs(result[what].astype(np.float64) - truth[what])
            found.append(Difference(what, first, name, float(difference.max()), float(difference.mean())))
    return found


@dataclass(frozen=True)
class _Runner:
    name: str
    facts: Facts | None
    run: Callable[[Burst], Results]


def _runners(path: PathLike) -> list[_Runner]:
    """Torch for a checkpoint; ONNX Runtime and the reference evaluator for what was exported."""
    if str(path).endswith(".pt"):
        return [_Runner("torch", None, lambda burst: _in_torch(path, burst))]
    exported = open_exported(path)
    runners = [_Runner("ONNX Runtime", exported.facts, lambda burst: run_exported(exported, burst))]
    if exported.facts.network not in TOO_SLOW:
        run = _evaluated(exported)
        runners.append(_Runner("the reference evaluator", exported.facts, lambda burst: run_exported(run, burst)))
    return runners


def _facts_missing(base: PathLike, other: PathLike) -> Facts:
    raise ArgumentError(f"verify: one of {base} and {other} must be an exported model (a folder, or .onnx)")


def run_exported(exported: Exported, burst: Burst) -> Results:
    """A burst through exported graphs, whole, without tiles."""
    if exported.facts.part == "burst":
        return {"image": exported.burst({"frames": burst.frames})[0]}
    height, width = burst.frames.shape[3:]
    state = exported.zeros(height, width)
    told = {"noise": burst.noise, "white_balance": burst.balance}
    for k in range(burst.frames.shape[1]):
        inputs = {
            "frame": burst.frames[:, k], "index": np.array([k], np.float32), **told,
            "valid": np.ones((1, 1, height, width), np.float32),
        }  # fmt: skip
        state = exported.step({**state, **inputs})
    image, depth, confidence = exported.finish({**state, **told})
    return {"image": image, "depth": depth, "confidence": confidence}


def _in_torch(path: PathLike, burst: Burst) -> Results:
    import torch

    from ..nn.checkpoint import load_model

    net: Any = load_model(path)[0]
    frames, noise, balance = (torch.from_numpy(x) for x in (burst.frames, burst.noise, burst.balance))
    with torch.no_grad():
        if not hasattr(net, "step"):
            return {"image": net(frames).numpy()}
        state = net.init_state(1, *burst.frames.shape[3:])
        for k in range(frames.shape[1]):
            state = net.step(state, frames[:, k], torch.tensor([float(k)]), noise, balance)
        result = net.finish(state, noise, balance)
    return {key: getattr(result, key).numpy() for key in ("image", "depth", "confidence")}


def _evaluated(exported: Exported) -> Exported:
    """The same graphs in ONNX's own evaluator, which is slow and written from the standard."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    def run_with(file: Path) -> Callable[[dict[str, Any]], list[Any]]:
        try:
            evaluator = ReferenceEvaluator(onnx.load(file))
        except Exception as error:
            raise ReadError(f"{file}: ONNX's reference evaluator cannot read it: {error}") from error
        return lambda inputs: list(evaluator.run(None, inputs))

    return exported.run_by(run_with)
