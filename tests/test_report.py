"""The report of a run: complete, plain enough for JSON, and true in its numbers."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyfocus.burst import Meta
from pyfocus.fuse import Fused
from pyfocus.register import Registration
from pyfocus.report import finite, left_out_warnings, peak_memory_mb, stack_report, summary, too_many_left_out
from pyfocus.stacker import Stacked


def stacked(frames: int = 4, left_out: int = 0, meta: Meta | None = None) -> Stacked:
    """A result of ``frames`` frames 40 x 60 px, the last ``left_out`` of them not used, cropped by 2 px all around."""
    names = [f"IMG_{k}.tif" for k in range(frames)]
    used = np.arange(frames) < frames - left_out
    maps = np.stack([np.eye(3)] * frames)
    maps[:, 0, 2] = np.arange(frames)
    found = Registration(
        transforms=maps, reference=0, size=(40, 60), motion="similarity", registered=used,
        correlation=np.where(used, 0.9, 0.25), iterations=np.full(frames, 7), converged=used, names=tuple(names),
    )  # fmt: skip
    image = np.zeros((3, 36, 56), np.float32)
    missing = [n for n, u in zip(names, used, strict=True) if not u]
    return Stacked(Fused(image), meta or Meta(), names, (2, 2, 38, 58), registration=found, left_out=missing)


def report(result: Stacked, outputs: list[Path] | None = None) -> dict[str, Any]:
    """The report as JSON brings it back."""
    made = stack_report(
        result, version="1.2.3", inputs=[Path("a.tif")], outputs=outputs or [], threads=3,
        seconds={"register": 0.12345, "total": 2.0}, warnings=["mind the gap"],
    )  # fmt: skip
    return dict(json.loads(json.dumps(made, allow_nan=False)))


def test_report_is_complete(tmp_path: Path) -> None:
    (tmp_path / "o.tif").write_bytes(bytes(1234))
    found = report(stacked(left_out=1), [tmp_path / "o.tif"])
    assert found["version"] == "1.2.3" and found["inputs"] == ["a.tif"] and found["threads"] == 3
    assert found["outputs"] == [{"path": str(tmp_path / "o.tif"), "bytes": 1234}]
    assert found["frames_used"] == 3 and found["left_out"] == ["IMG_3.tif"] and found["reference"] == "IMG_0.tif"
    assert found["crop"] == [2, 2, 38, 58] and (found["width"], found["height"]) == (56, 36)
    assert found["seconds"] == {"register": 0.123, "total": 2.0} and found["warnings"] == ["mind the gap"]
    assert found["frames"][2] == {
        "name": "IMG_2.tif", "registered": True, "correlation": 0.9, "iterations": 7, "converged": True,
        "corner_displacement_px": 2.0,
    }  # fmt: skip
    assert found["frames"][3]["corner_displacement_px"] is None and not found["frames"][3]["registered"]


def test_report_without_registration() -> None:
    found = report(replace(stacked(), registration=None))
    assert found["reference"] is None and found["frames"][0]["registered"]
    assert found["frames"][0]["correlation"] is None and len(found["frames"]) == 4


def test_size_is_of_the_upright_picture() -> None:
    found = report(stacked(meta=Meta(orientation=6)))
    assert (found["width"], found["height"]) == (36, 56)


@pytest.mark.parametrize(
    ("frames", "left_out", "many"),
    [(4, 0, False), (4, 1, False), (4, 2, True), (5, 1, False), (7, 2, True), (1, 0, False)],
)
def test_more_than_a_quarter(frames: int, left_out: int, many: bool) -> None:
    assert too_many_left_out(stacked(frames, left_out)) is many


def test_a_frame_left_out_is_named_with_its_correlation() -> None:
    lines = left_out_warnings(stacked(5, 2))
    assert len(lines) == 2 and "IMG_3.tif" in lines[0] and "0.25" in lines[0] and "Try " in lines[0]
    result = stacked(5, 1)
    assert result.registration is not None
    unknown = replace(result.registration, correlation=np.full(5, np.nan))
    assert "no correlation" in left_out_warnings(replace(result, registration=unknown))[0]
    assert left_out_warnings(stacked()) == []


def test_summary_says_the_result(tmp_path: Path) -> None:
    (tmp_path / "o.tif").write_bytes(bytes(2_500_000))
    (tmp_path / "d.png").write_bytes(bytes(900))
    lines = summary(report(stacked(left_out=1), [tmp_path / "o.tif", tmp_path / "d.png"]))
    assert lines[0].endswith("o.tif  (2.5 MB)") and lines[1].endswith("d.png  (0.9 kB)")
    assert lines[2] == "56 x 36 px from 3 of 4 frames, rgb domain, reference IMG_0.tif"
    assert "register 0.1 s" in lines[3] and "2.0 s in all" in lines[3]


def test_numbers() -> None:
    assert finite(math.nan) is None and finite(math.inf) is None and finite(np.float32(0.5)) == 0.5
    assert 10 < peak_memory_mb() < 1e5
