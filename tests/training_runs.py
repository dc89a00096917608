"""Small training runs and how they are read: what tests of training share."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from pyfocus.nn.batch import Batch  # noqa: E402
from pyfocus.nn.checkpoint import read_pack  # noqa: E402
from pyfocus.nn.train import RECIPES, changed, train  # noqa: E402

SMALL = ["steps=8", "size_px=32", "batch=2", "validate_every=4", "validation=1", "save_every=2", "log_every=1",
         "warmup_steps=2", "frames=2"]  # fmt: skip
# The same through the command line, whose bursts are simulated: one painted picture, small discs.
PLAIN = [*SMALL, "frames=2,3", "simulation.pool=1", "simulation.blur_px=4"]


class Halves:
    """Bursts of noise pictures, each frame sharp in one half and flat in the other; no painting, no optics."""

    def __init__(self, size: int = 32, kind: str = "rgb", spoilt: Any = ()) -> None:
        self.size, self.kind, self.spoilt, self.asked = size, kind, spoilt, []

    def draw(self, index: int, count: int) -> Batch:
        self.asked.append(index)
        random, n = torch.Generator().manual_seed(index), self.size
        truth = torch.rand(count, 3, n, n, generator=random)
        flat = truth.mean((2, 3), keepdim=True).expand_as(truth)
        left = (torch.arange(n) < n // 2).float()
        frames = torch.stack([truth * left + flat * (1 - left), flat * left + truth * (1 - left)], 1)
        if self.kind == "rggb":
            frames = torch.stack([frames[:, :, c, y::2, x::2] for c, y, x in
                                  ((0, 0, 0), (1, 0, 1), (1, 1, 0), (2, 1, 1))], 2)  # fmt: skip
        if index in self.spoilt:
            frames = frames * math.nan
        depth = (1 - left).expand(count, 1, n, n)
        noise, white = torch.full((count, 2), 1e-6), torch.tensor([[1.6, 1.0, 1.3]]).expand(count, 3)
        index_ = torch.arange(2.0).expand(count, 2)
        return Batch(frames, index_, truth / 2, depth, torch.ones_like(depth), noise, white, self.kind)


def go(folder: Path, *settings: str, name: str = "tiny", **more: Any) -> Any:
    more = {"source": Halves(), "validation": Halves(), **more}
    return train(changed(RECIPES[name], [*SMALL, *settings]), folder, **more)


def weights(folder: Path) -> dict[str, Any]:
    """All numbers that a run has, by name."""
    pack = read_pack(folder / "last.pt", "pyfocus-run", 1)
    moments = {f"{n}.{k}": v for n, one in pack["optimiser"].get("state", {}).items() for k, v in one.items()}
    kept = {f"net.{k}": v for k, v in pack["weights"].items()} | {f"mean.{k}": v for k, v in pack["average"].items()}
    return {**kept, **moments, "step": torch.tensor(pack["step"]), "loss": torch.tensor(pack["smooth"])}


def check_same(one: Path, two: Path) -> None:
    a, b = weights(one), weights(two)
    assert a.keys() == b.keys()
    assert [key for key in a if not torch.equal(a[key], b[key])] == []


def log_of(folder: Path, what: str = "train") -> list[dict[str, Any]]:
    entries = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [entry for entry in entries if entry["what"] == what]
