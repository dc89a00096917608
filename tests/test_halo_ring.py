"""The benchmark's ring beside occlusion borders: where it lies, and what is measured in it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def halo_ring(monkeypatch):
    """The benchmarks import each other by their names."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import halo_ring

    return halo_ring


@pytest.fixture
def judge():
    """One that finds every picture in its place."""
    return SimpleNamespace(
        register=lambda picture, truth: (picture, np.ones(truth.shape[:2], bool), None),
        linear=lambda x: np.clip(x, 0, 1) ** 2, srgb=lambda x: np.sqrt(np.clip(x, 0, 1)),
    )  # fmt: skip


def square_before(ground):
    depth = np.full((120, 160), ground, np.float32)
    depth[40:80, 60:100] = 1
    return depth


@pytest.mark.parametrize("ground", [0.0, 0.5])
def test_the_ring_is_as_wide_as_the_blur_and_on_the_farther_side(halo_ring, ground):
    depth, reach = square_before(ground), 12 * (1 - ground)
    found = halo_ring.ring(depth, 12.0)
    y, x = np.mgrid[:120, :160]
    away = np.hypot(np.maximum(np.maximum(60 - x, x - 99), 0), np.maximum(np.maximum(40 - y, y - 79), 0))
    np.testing.assert_array_equal(found, (away > 0) & (away <= reach))


def test_slopes_and_small_steps_have_no_ring(halo_ring):
    slope = np.tile(np.linspace(0, 1, 160, dtype=np.float32), (120, 1))
    assert not halo_ring.ring(slope, 20.0).any()
    assert not halo_ring.ring(square_before(0.95), 20.0).any()


def test_errors_are_those_of_each_part(halo_ring, judge):
    random = np.random.default_rng(4)
    truth = (0.3 + 0.4 * random.random((120, 160, 3))).astype(np.float32)
    where = halo_ring.ring(square_before(0.0), 8.0)
    picture = truth.copy()
    picture[where] += 0.1
    picture[20:30, 20:30] -= 0.05
    inner = np.s_[7:-7, 7:-7]
    found = halo_ring.errors(picture, truth, where, judge)
    elsewhere = np.square(picture - truth).mean(-1)[inner][~where[inner]]
    np.testing.assert_allclose(found, (0.1, np.sqrt(elsewhere.mean()), where[inner].mean()), rtol=1e-4)


def test_a_gain_costs_nothing(halo_ring, judge):
    random = np.random.default_rng(5)
    truth = (0.3 + 0.4 * random.random((120, 160, 3))).astype(np.float32)
    brighter = np.sqrt(truth**2 * np.array([1.1, 0.9, 1.05])).astype(np.float32)
    found = halo_ring.errors(brighter, truth, halo_ring.ring(square_before(0.0), 8.0), judge)
    assert found.ring < 1e-3 and found.rest < 1e-3


@pytest.mark.parametrize("key", ["blur", "blur_px"])
def test_a_scene_is_read_from_its_folder(halo_ring, tmp_path, key):
    depth = square_before(0.0)
    cv2.imwrite(str(tmp_path / "depth.png"), (depth * 65535).astype(np.uint16))
    (tmp_path / "scene.json").write_text(json.dumps({key: "12.0"}))
    np.testing.assert_array_equal(halo_ring.scene_ring(tmp_path), halo_ring.ring(depth, 12.0))
    (tmp_path / "depth.png").write_bytes(b"no picture")
    with pytest.raises(OSError, match=r"depth\.png is not a grey picture"):
        halo_ring.scene_ring(tmp_path)
