"""The benchmark of exported models: a row of a runtime that is here, and a reason for each that is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import exported_stub as stub

from pyfocus.export import flavours, session

SCRIPTS = Path(__file__).resolve().parent.parent / "benchmarks" / "gpu"


@pytest.fixture
def exported(monkeypatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import exported

    return exported


@pytest.fixture
def found() -> dict[str, Any]:
    return {"exported": [], "skipped": [], "errors": []}


def test_a_row_of_a_runtime_that_is_here(exported, found, tmp_path):
    model = session.open_exported(stub.write_stream(tmp_path / "stream"), threads=1)
    exported.attempt(found, "here", 64, lambda: (exported.bound(model, 64), {"build_s": 2.0}), 3)
    (row,) = found["exported"]
    assert row["name"] == "here" and row["build_s"] == 2.0 and 0 < row["low_ms"] <= row["ms"] <= row["high_ms"]
    assert row["ms_per_megapixel"] == pytest.approx(row["ms"] / 64**2 * 1e6, rel=0.2)
    assert found["skipped"] == found["errors"] == []


def test_what_is_missing_is_listed_and_what_fails_is_an_error(exported, found, monkeypatch):
    def missing() -> Any:
        raise exported.Missing("not\ninstalled")

    exported.attempt(found, "missing", 64, missing, 1)
    exported.attempt(found, "failing", 64, lambda: 1 // 0, 1)
    monkeypatch.setattr(exported, "BUDGET_S", -1)
    exported.attempt(found, "late", 64, missing, 1)
    assert found["skipped"] == [{"what": "missing", "why": "not installed"}, {"what": "late", "why": "no time left"}]
    assert len(found["errors"]) == 1 and found["errors"][0].startswith("failing: ") and found["exported"] == []


def test_engines_are_not_tried_without_a_card(exported, found):
    if flavours.driver_trouble() == "":
        pytest.skip("there is a driver")
    exported.in_runtimes(64, 1, found)
    assert [entry["what"] for entry in found["skipped"]][1:] == [
        f"{flavours.FLAVOURS[flavour].title}, {variant}, {precision}"
        for flavour, variant, precision in exported.ENGINES
    ]
    assert all("no CUDA device 0" in entry["why"] for entry in found["skipped"][1:]) and found["errors"] == []
