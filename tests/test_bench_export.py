"""The exported network's benchmark: bars by hand, a table with a line for every row, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture(autouse=True)
def beside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmarks import each other by their names."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def row(part: str, runtime: str, of_torch: float, work: float | None) -> dict[str, Any]:
    return {
        "part": part, "runtime": runtime, "ms_per_megapixel": 900.0, "low_ms": 200.0, "high_ms": 300.0,
        "of_torch": of_torch, "gflop_per_megapixel": work, "gflop_s": work,
    }  # fmt: skip


def apart(runtime: str, depth: float, decibels: float) -> dict[str, Any]:
    return {
        "runtime": runtime, "image_largest": 2e-6, "image_mean": 1e-7, "psnr_db": decibels, "depth_largest": depth,
        "confidence_largest": 3e-6,
    }  # fmt: skip


def results(standard: float, depth: float, decibels: float) -> dict[str, Any]:
    return {
        "rows": [row("a frame", "torch eager", 1.0, 41.0), row("a frame", "standard", standard, 41.0),
                 row("a frame in tiles", "gridsample", 2.0, None)],
        "differences": [apart("standard", depth, 140.0), apart("mixed", 1e-3, decibels)],
        "memory": {"standard": {"a frame": 450.0}, "torch eager": None},
        "settings": {"side": 512, "tiles_side": 1024, "runs": 5, "threads": 2, "weights": "focusdeep-lite.pt"},
        "failed": [{"what": "export gridsample", "why": "no"}],
    }  # fmt: skip


def test_bars() -> None:
    import bench_export

    met = bench_export.bars(results(0.8, 5e-5, 80.0))
    assert [bar["value"] for bar in met] == [0.8, 5e-5, 80.0] and all(bar["met"] for bar in met)
    missed = bench_export.bars(results(1.1, 2e-4, 59.0))
    assert not any(bar["met"] for bar in missed)


def test_the_table_has_a_line_for_every_row() -> None:
    import bench_export

    given = results(1.1, 2e-4, 80.0)
    said = bench_export.text({**given, "bars": bench_export.bars(given)})
    assert "| a frame | standard | 41 | 900 | 200 to 300 | 1.10 | 41.0 | 450 |" in said
    assert "| a frame in tiles | gridsample |  | 900 | 200 to 300 | 2.00 |  |  |" in said
    assert "| ONNX Runtime / torch, a frame | 1.1 | at most 1 | missed |" in said
    assert "| mixed: PSNR, dB | 80.0 | at least 60 | met |" in said and "failed: export gridsample: no" in said


def test_what_is_refused() -> None:
    import bench_export

    for words in (["No such variant"], ["--side", "100"], ["--tiles-side", "32"]):
        with pytest.raises(SystemExit):
            bench_export.main(words)


def test_the_frames_have_noise_of_the_variance_that_is_told() -> None:
    for name in ("torch", "onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    import export_runs

    frames = export_runs.burst(96)
    assert [frame.shape for frame in frames] == [(1, 3, 96, 96)] * export_runs.FRAMES
    shot, read = export_runs.NOISE
    smooth = frames[0][0, 1, :, 80:]  # far from the first frame's focus: neighbours differ by noise alone
    spread = np.var(np.diff(smooth, axis=0)) / 2
    assert spread == pytest.approx(shot * smooth.mean() + read, rel=0.15)
