"""The networks' benchmark: arithmetic counted against counts by hand, rows that are complete, a table of them."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture(autouse=True)
def beside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmarks import each other by their names; on one thread, which is enough here."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_arithmetic_is_counted() -> None:
    from network_cases import counted

    from pyfocus.nn import deform_conv2d

    x, weight = torch.rand(2, 8, 6, 7), torch.rand(16, 4, 3, 3)
    convolution = torch.nn.Conv2d(8, 16, 3, padding=1, groups=2)
    products = 2 * (2 * 16 * 4 * 9 * 6 * 7)  # a multiplication and an addition each
    with torch.no_grad():
        assert counted(lambda: convolution(x)) == products
        offset, mask = torch.zeros(2, 2 * 18, 6, 7), torch.ones(2, 2 * 9, 6, 7)
        sampled = 8 * (2 * 8 * 9 * 6 * 7)
        more = {"padding": 1, "groups": 2, "offset_groups": 2}
        assert counted(lambda: deform_conv2d(x, weight, offset, mask, **more)) == products + sampled


def test_a_row_has_everything() -> None:
    from network_cases import CASES, measure

    (case,) = (case for case in CASES if case.name == "FocusDeepStream lite, a frame")
    row = measure(case, 32, 1, 2)
    assert row["megapixels"] == pytest.approx(32 * 32 / 1e6, abs=1e-4) and row["frames"] == 1
    assert 0 < row["low_ms"] <= row["ms"] <= row["high_ms"] and row["peak_bytes"] > 0 and row["of_plain"] > 0
    work = row["frames"] * 32 * 32 / 1e6
    assert row["ms_per_megapixel_frame"] == pytest.approx(row["ms"] / work, rel=0.01)
    per_pixel = row["gflop_per_megapixel_frame"] * 1e3
    assert 1e4 < per_pixel < 1e6  # 1.1 million parameters, most of them at a quarter of the size and less
    assert row["gflop_s"] / row["plain_gflop_s"] == pytest.approx(row["of_plain"], rel=0.02)


def test_every_network_has_a_name_and_the_table_a_line_for_each() -> None:
    import bench_nn
    from network_cases import CASES

    assert set(bench_nn._NAMES) == {case.name for case in CASES} and len(bench_nn._NAMES) == len(CASES)
    row = {
        "name": "Net", "parameters": 1_500_000, "gflop_per_megapixel_frame": 1200.0, "ms_per_megapixel_frame": 34.0,
        "gflop_s": 40.0, "plain_gflop_s": 80.0, "of_plain": 0.5, "peak_mb_per_megapixel": 900.0,
        "peak_mb_per_megapixel_frame": 30.0,
    }  # fmt: skip
    settings = {"runs": 5, "threads": 2, "frames": 30, "side": 64, "stream_side": 512}
    results = {"networks": [row], "failed": [{"name": "Other", "why": "no"}], "settings": settings}
    said = bench_nn.text(results)
    assert "| Net | 1.50 M | 1200 | 34 | 40.0 | 80.0 | 50 % | 900 | 30 |" in said and "failed: Other: no" in said
    with pytest.raises(SystemExit):
        bench_nn.main(["No such network"])
