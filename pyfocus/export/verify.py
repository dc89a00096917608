"""Whether runtimes agree: the same burst through torch, ONNX's reference evaluator and ONNX Runtime, compared.

Any two models can be compared: a checkpoint (.pt, run in torch), what was exported of it, or engines where they run; a
folder or a file. ONNX Runtime has no node of our domain: it runs files with it as *standard* ones, DeformConv put back.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ArgumentError, ReadError
from ..io.atomic import PathLike
from .exported import PARTS, Exported
from .facts import Facts
from .onnx_metadata import facts_of, read_file
from .session import open_exported

Array = npt.NDArray[np.float32]
Results = dict[str, Array]
RUNTIMES = ("ONNX Runtime", "the reference evaluator")  # of what was exported
SEED = 5
FRAMES = 3
ALIKE_DB = 200.0  # in the place of infinity, for results that are equal


@dataclass(frozen=True)
class Limit:
    """How far results may be apart: at most, on average, and the picture's PSNR with white as its peak."""

    largest: float
    mean: float
    psnr_db: float


# Of pictures whose white is 1, of depth in frames and of confidence, by the coarser precision of the two models.
LIMITS = {"fp32": Limit(1e-4, 1e-5, 80.0), "mixed": Limit(2e-2, 2e-3, 60.0)}


@dataclass(frozen=True)
class Difference:
    """How far ``what`` ("image", "depth", "confidence") of ``other`` is from that of ``base``.

    ``psnr_db``: with a peak of 1, 200 for what is equal. ``precision``: the coarser one of the two models.
    """

    what: str
    base: str
    other: str
    largest: float
    mean: float
    psnr_db: float
    precision: str

    @property
    def wrong(self) -> str:
        """What is past its limit, in words; nothing when all is within."""
        limit, text = LIMITS[self.precision], ""
        if not self.largest <= limit.largest:
            text = f"{self.largest:.2g} at most, {limit.largest:.0e} allowed"
        elif not self.mean <= limit.mean:
            text = f"{self.mean:.2g} on average, {limit.mean:.0e} allowed"
        elif self.what == "image" and not self.psnr_db >= limit.psnr_db:
            text = f"{self.psnr_db:.1f} dB, {limit.psnr_db:.0f} dB needed"
        return text and f"{self.what} of {self.other} differs from {self.base} by {text} in {self.precision}"


@dataclass(frozen=True)
class Burst:
    """Frames (1, N, C, H, W), and what folding networks are told: shot and read (1, 2), white balance (1, 3)."""

    frames: Array
    noise: Array
    balance: Array


def small_burst(facts: Facts, steps: tuple[int, int] = (2, 3), frames: int = FRAMES) -> Burst:
    """A seeded burst of noise over a smooth scene, of so many steps of the network's, or of the tile that it takes.

    ``frames`` of a network that takes any number.
    """
    random = np.random.default_rng(SEED)
    height, width = facts.tile or tuple(n * facts.step_px for n in steps)
    count, channels = facts.frames or frames, {"rgb": 3, "rggb": 4, "mosaic": 1}[facts.kind]
    y, x = np.mgrid[:height, :width]
    scene = 0.4 + 0.3 * np.sin(0.3 * x + 0.2 * y) * np.cos(0.15 * y)
    noisy = scene + random.normal(0, 0.05, (1, count, channels, height, width))
    return Burst(noisy.astype(np.float32), np.array([[1e-3, 1e-6]], np.float32), np.array([[1.9, 1, 1.5]], np.float32))


def compare(
    base: PathLike, other: PathLike, burst: Burst | None = None, runtimes: Sequence[str] = RUNTIMES
) -> list[Difference]:
    """Differences of every result between two models in all of ``runtimes`` that can run them; ``base`` is the first.

    Raises ReadError for a file that is no model, ArgumentError for models that take different bursts.
    """
    runners = [*_runners(base, runtimes), *_runners(other, runtimes)]
    facts = [runner.facts for runner in runners if runner.facts]
    if not facts:
        raise ArgumentError(f"verify: one of {base} and {other} must be an exported model (a folder, or .onnx)")
    precision = "mixed" if any(one.precision == "mixed" for one in facts) else "fp32"
    shown = burst or small_burst(facts[0])
    results = [(runner.name, runner.run(shown)) for runner in runners]
    (first, truth), rest = results[0], results[1:]
    found = []
    for name, result in rest:
        for what in truth:
            if result.get(what) is None or result[what].shape != truth[what].shape:
                raise ArgumentError(f"verify: {base} and {other} are of different networks: no {what} of one size")
            difference = np.abs(result[what].astype(np.float64) - truth[what])
            told = (float(difference.max()), float(difference.mean()), _psnr_db(difference), precision)
            found.append(Difference(what, first, name, *told))
    return found


def _psnr_db(difference: npt.NDArray[np.float64]) -> float:
    square = float(np.mean(difference * difference))
    return ALIKE_DB if square == 0 else min(ALIKE_DB, -10 * float(np.log10(square)))


@dataclass(frozen=True)
class _Runner:
    name: str
    facts: Facts | None
    run: Callable[[Burst], Results]


def _runners(path: PathLike, runtimes: Sequence[str]) -> list[_Runner]:
    """Torch for a checkpoint, TensorRT for engines, ONNX Runtime and the reference evaluator for what was exported."""
    named = Path(path)
    if named.suffix == ".pt":
        return [_Runner("torch", None, partial(_in_torch, path))]
    if named.suffix == ".engine" or (any(named.glob("*.engine")) and not any(named.glob("*.onnx"))):
        from .engines import open_engines

        engines = open_engines(path)
        return [_Runner(str(engines.runtime), engines.facts, partial(run_exported, engines))]
    exported = _open(path) if RUNTIMES[0] in runtimes else _described(path)
    models = {RUNTIMES[0]: exported, RUNTIMES[1]: _evaluated(exported, path)}
    return [_Runner(name, exported.facts, partial(run_exported, models[name])) for name in runtimes]


def _open(path: PathLike) -> Exported:
    """In ONNX Runtime, files with nodes of our domain as standard ones. Raises ReadError."""
    named = Path(path)
    files = sorted(named.glob("*.onnx") if named.is_dir() else named.parent.glob("*.onnx"))
    first = next((file for file in files if named.is_dir() or file == named), named)
    if not first.is_file() or facts_of(first, first.read_bytes()).variant != "plugin":
        return open_exported(path)
    import onnx

    from .evaluator import read_model
    from .nodes import to_standard

    with tempfile.TemporaryDirectory(prefix="pyfocus-") as folder:
        for file in files:
            model = read_model(file)
            to_standard(model)
            onnx.save(model, Path(folder) / file.name)
        return open_exported(folder if named.is_dir() else Path(folder) / named.name)


def _described(path: PathLike) -> Exported:
    """The files by what they say of themselves, without a runtime. Raises ReadError."""
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    files = {part: folder / f"{part}.onnx" for part in PARTS if (folder / f"{part}.onnx").exists()}
    if not files:
        raise ReadError(f"{path}: holds no step.onnx or burst.onnx; name what pyfocus-export onnx wrote")
    said = {part: read_file(file)[0] for part, file in files.items()}
    return Exported(next(iter(said.values())), {part: facts.halo_px for part, facts in said.items()}, files, {})


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


def _evaluated(exported: Exported, path: PathLike) -> Exported:
    """The same graphs in ONNX's own evaluator, which is slow and written from the standard."""
    from .evaluator import open_evaluator

    folder = Path(path) if Path(path).is_dir() else Path(path).parent

    def run_with(file: Path) -> Callable[[dict[str, Any]], list[Any]]:
        evaluator = open_evaluator(folder / file.name)
        return lambda inputs: list(evaluator.run(None, inputs))

    return exported.run_by(run_with)
