"""The shipped network in torch and as exported: what each is given, one after another in turns, and what it gives.

Bare: one step over a whole frame, and the finish, called as a program of one's own would. In tiles: the fuser that
``pyfocus stack`` uses, with its own size of tiles. All in one process with as many threads.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from network_cases import _begin, _peak, counted

from pyfocus.export import session
from pyfocus.export.to_onnx import export_onnx
from pyfocus.nn.checkpoint import load_model
from pyfocus.nn.fusers import StreamFuser

Array = npt.NDArray[np.float32]
Row = dict[str, Any]
TORCH = "torch eager"
VARIANTS = {"standard": ("standard", "fp32"), "gridsample": ("gridsample", "fp32"), "mixed": ("standard", "mixed")}
BARE, TILED = ("a frame", "the end"), ("a frame in tiles", "the end in tiles")
NOISE, BALANCE, FRAMES = (1e-3, 1e-6), (1.9, 1.0, 1.5), 3
HOST = torch.device("cpu")


class Settings(NamedTuple):
    """Of one run: frames of ``side`` x ``side`` bare and of ``tiles_side`` in tiles, runs that count, threads."""

    side: int
    tiles_side: int
    runs: int
    threads: int


class Network(Protocol):
    """A network that folds, in some runtime."""

    def zeros(self, side: int) -> Any:
        """Nothing folded yet."""

    def step(self, state: Any, frame: Array, place: int) -> Any:
        """The state with one frame (1, 3, H, W) more."""

    def finish(self, state: Any) -> dict[str, Array]:
        """Picture, depth and confidence."""

    def fuser(self) -> Any:
        """The same in tiles."""


class InTorch:
    """As it is trained."""

    def __init__(self, checkpoint: Path, threads: int) -> None:
        self.net: Any = load_model(checkpoint)[0].eval()
        self.threads = threads
        self.told = torch.tensor([NOISE]), torch.tensor([BALANCE])

    def zeros(self, side: int) -> Any:
        return self.net.init_state(1, side, side)

    def step(self, state: Any, frame: Array, place: int) -> Any:
        return self.net.step(state, torch.from_numpy(frame), torch.tensor([float(place)]), *self.told)

    def finish(self, state: Any) -> dict[str, Array]:
        result = self.net.finish(state, *self.told)
        return {what: getattr(result, what).numpy() for what in ("image", "depth", "confidence")}

    def fuser(self) -> Any:
        return StreamFuser(self.net, noise=NOISE, threads=self.threads)


class InOnnxRuntime:
    """As exported, on the CPU."""

    def __init__(self, folder: Path, threads: int) -> None:
        self.folder, self.threads = folder, threads
        self.exported = session.open_exported(folder, "cpu", threads)
        self.told = {"noise": np.array([NOISE], np.float32), "white_balance": np.array([BALANCE], np.float32)}

    def zeros(self, side: int) -> Any:
        return self.exported.zeros(side, side)

    def step(self, state: Any, frame: Array, place: int) -> Any:
        seen = np.ones((1, 1, *frame.shape[2:]), np.float32)
        more = {"frame": frame, "index": np.array([place], np.float32), "valid": seen}
        return self.exported.step({**state, **self.told, **more})

    def finish(self, state: Any) -> dict[str, Array]:
        image, depth, confidence = self.exported.finish({**state, **self.told})
        return {"image": image, "depth": depth, "confidence": confidence}

    def fuser(self) -> Any:
        return session.load(self.folder, noise=NOISE, threads=self.threads)


def export(checkpoint: Path, folder: Path, name: str) -> None:
    """Write the graphs of a variant into ``folder``."""
    variant, precision = VARIANTS[name]
    export_onnx(checkpoint, folder, variant=variant, precision=precision, overwrite=True)


def burst(side: int) -> list[Array]:
    """Frames (1, 3, side, side) of a texture that comes into focus and goes, with noise; the seed is fixed."""
    random = np.random.default_rng(2)
    y, x = np.mgrid[:side, :side]
    texture = np.sin(1.1 * x + 0.3 * y) * np.cos(0.9 * y) + 0.5 * np.sin(0.05 * x * y / side)
    frames = []
    for k in range(FRAMES):
        sharp = 0.25 * np.exp(-(((x / side - k / 2) / 0.3) ** 2))
        clean = 0.35 + np.array([0.05, 0, -0.05])[:, None, None] + sharp * texture
        noisy = clean + random.normal(size=clean.shape) * np.sqrt(NOISE[0] * np.maximum(clean, 0) + NOISE[1])
        frames.append(np.ascontiguousarray(noisy[None], np.float32))
    return frames


def calls_of(network: Network, settings: Settings) -> dict[str, Callable[[], object]]:
    """What is measured, by its name. Frames after the first: it alone has nothing to align to."""
    frames, large = burst(settings.side), burst(settings.tiles_side)
    state = network.step(network.zeros(settings.side), frames[0], 0)
    fuser = network.fuser()
    fuser.push(large[0][0])
    return {
        BARE[0]: lambda: network.step(state, frames[1], 1), BARE[1]: lambda: network.finish(state),
        TILED[0]: lambda: fuser.push(large[1][0]), TILED[1]: fuser.preview,
    }  # fmt: skip


def measure(networks: dict[str, Network], settings: Settings) -> list[Row]:
    """A row for every network and call: in turns, one that does not count and then ``runs``."""
    rows = []
    with torch.no_grad():
        calls = {name: calls_of(network, settings) for name, network in networks.items()}
        work = {part: counted(calls[TORCH][part]) for part in BARE}
        for part in (*BARE, *TILED):
            times: dict[str, list[float]] = {name: [] for name in networks}
            for _ in range(settings.runs + 1):
                for name in networks:
                    started = time.perf_counter()
                    calls[name][part]()
                    times[name].append(time.perf_counter() - started)
            megapixels = (settings.side if part in BARE else settings.tiles_side) ** 2 / 1e6
            rows += [_row(part, name, times, megapixels, work.get(part)) for name in networks]
    return rows


def _row(part: str, name: str, times: dict[str, list[float]], megapixels: float, work: int | None) -> Row:
    counted_times, base = times[name][1:], statistics.median(times[TORCH][1:])
    seconds = statistics.median(counted_times)
    return {
        "part": part,
        "runtime": name,
        "ms_per_megapixel": round(1e3 * seconds / megapixels, 1),
        "low_ms": round(1e3 * min(counted_times), 2),
        "high_ms": round(1e3 * max(counted_times), 2),
        "of_torch": round(seconds / base, 3),
        "of_torch_at_best": round(min(counted_times) / min(times[TORCH][1:]), 3),
        "gflop_per_megapixel": None if work is None else round(work / 1e9 / megapixels, 1),
        "gflop_s": None if work is None else round(work / 1e9 / seconds, 1),
    }


def memory(network: Network, settings: Settings) -> dict[str, float]:
    """The largest resident set during the first call of each, in MB (10⁶) per megapixel, beyond what lay there before.

    The state counts, in what makes it; weights do not.
    """
    frames, large = burst(settings.side), burst(settings.tiles_side)
    kept: list[Any] = [network.fuser()]
    first = (
        lambda: kept.append(network.step(network.zeros(settings.side), frames[0], 0)),
        lambda: network.finish(kept[1]),
        lambda: kept[0].push(large[0][0]),
        kept[0].preview,
    )
    peaks = {}
    with torch.no_grad():
        for part, call in zip((*BARE, *TILED), first, strict=True):
            before = _begin(HOST)
            call()
            megapixels = (settings.side if part in BARE else settings.tiles_side) ** 2 / 1e6
            peaks[part] = round(max(0, _peak(HOST) - before) / 1e6 / megapixels, 1)
    return peaks


def differences(networks: dict[str, Network], side: int) -> list[Row]:
    """From torch, after a burst: largest and mean of the picture, its PSNR in dB, largest of depth and confidence."""
    results = {}
    with torch.no_grad():
        for name, network in networks.items():
            state = network.zeros(side)
            for k, frame in enumerate(burst(side)):
                state = network.step(state, frame, k)
            results[name] = network.finish(state)
    rows = []
    for name in [name for name in networks if name != TORCH]:
        apart = {what: np.abs(results[name][what].astype(np.float64) - truth) for what, truth in results[TORCH].items()}
        mean_square = max(float(np.mean(apart["image"] ** 2)), 1e-20)
        largest = {f"{what}_largest": float(x.max()) for what, x in apart.items()}
        more = {"image_mean": float(apart["image"].mean()), "psnr_db": round(-10 * float(np.log10(mean_square)), 1)}
        rows.append({"runtime": name, **largest, **more})
    return rows
