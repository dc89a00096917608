"""The whole way on shared material: brackets with truth against their bars, and every real stack.

Bars: at or above the best other tool on easy, align and raw, within 1 dB of it on the others.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import pyfocus

BARS = {
    "easy": 41.21, "align": 32.89, "raw": 35.12,
    "flicker": 41.92 - 1, "noisy": 31.23 - 1, "halo": 27.02 - 1, "long": 32.28 - 1, "raw_noisy": 26.63 - 1,
}  # fmt: skip
STACKS = {"pcb": 7, "mineral": 14, "dslr": 7, "algae": 5, "scorpion": 4}


@pytest.fixture(scope="module")
def judge(shared: Path) -> ModuleType:
    """The shared script that scores any tool's result."""
    spec = importlib.util.spec_from_file_location("score", shared / "tools" / "score.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("scene", BARS)
def test_bracket_reaches_its_bar(scene: str, shared: Path, judge: ModuleType, tmp_path: Path):
    folder = shared / "data" / "brackets" / scene
    result = pyfocus.stack(pyfocus.read_burst(folder / "frames", domain="auto"))
    assert result.left_out == []
    out = pyfocus.write_image(tmp_path / "out.tif", result.image(), meta=result.meta)
    found = judge.score(judge.load(out), judge.load(folder / "truth.tif"))
    assert found["psnr"] >= BARS[scene], found
    assert found["coverage"] > 0.95


@pytest.mark.parametrize("scene", ["raw", "raw_noisy"])
def test_fused_mosaics_reach_the_bar_too(scene: str, shared: Path, judge: ModuleType, tmp_path: Path):
    folder = shared / "data" / "brackets" / scene
    result = pyfocus.stack(pyfocus.read_burst(folder / "frames", domain="raw"), domain="raw")
    out = pyfocus.write_image(tmp_path / "out.tif", result.image(), meta=result.meta)
    assert judge.score(judge.load(out), judge.load(folder / "truth.tif"))["psnr"] >= BARS[scene]


@pytest.mark.parametrize("name", STACKS)
def test_real_stack_comes_out_whole_and_sharp(name: str, shared: Path):
    burst = pyfocus.read_burst(shared / "data" / "stacks" / name)
    result = pyfocus.stack(burst, depth=False)
    assert len(burst) == STACKS[name] and result.left_out == []
    assert result.registration is not None and result.registration.correlation.min() > 0.85
    image = result.image(8)
    height, width = burst[0].size
    assert image.shape[0] > 0.95 * height and image.shape[1] > 0.95 * width
    # sharper, over the whole picture, than any one frame (at a quarter of the size, where a camera's grain is gone)
    assert detail(image) > max(detail(frame.data) for frame in burst)


def detail(image: np.ndarray) -> float:
    """Mean absolute second difference of the green channel's 4 x 4 means: how much of a picture is sharp."""
    green = image[..., 1].astype(np.float32) if image.ndim == 3 else image.astype(np.float32)
    height, width = green.shape[0] // 4, green.shape[1] // 4
    small = green[: 4 * height, : 4 * width].reshape(height, 4, width, 4).mean(axis=(1, 3))
    return float(np.abs(small[:, 2:] - 2 * small[:, 1:-1] + small[:, :-2]).mean())
