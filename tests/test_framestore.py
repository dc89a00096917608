"""Frames kept in 16 bits: how near the values stay, where they lie, and what a full disk does."""

from __future__ import annotations

import gc
import os
import resource
from pathlib import Path

import numpy as np
import pytest

from pyfocus.errors import ArgumentError, BurstError, ResourceError
from pyfocus.framestore import FrameStore

STEP = 2.25 / 65535


def frames(count=3, shape=(3, 37, 50), seed=0):
    random = np.random.default_rng(seed)
    return (random.random((count, *shape)) * 1.3 - 0.06).astype(np.float32)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("memory", [0, None])
def test_values_stay_within_half_a_step_of_their_roots(memory, tmp_path):
    given = np.sort(frames(1, (1, 300, 400)).ravel()).reshape(1, 1, 300, 400) * 3  # -0.18 to 3.7
    given[0, 0, 0, :4] = [-5, -0.0625, 4, 9]
    with FrameStore(memory, tmp_path) as store:
        store.push(given[0])
        kept = store.tile(slice(None), slice(None))[0].astype(float)
    wanted = np.clip(given[0].astype(float), -0.0625, 4)
    root = np.sqrt(np.abs(wanted))
    # Half a step, squared out; float32 on the way moves the limit between two codes by up to a hundredth of a step.
    assert np.all(np.abs(kept - wanted) <= 1.02 * root * STEP + STEP**2 / 4 + 1e-9)
    assert np.abs(kept - wanted).max() > 3e-5  # the bound is no wider than need be
    assert kept.min() == pytest.approx(-0.0625) and kept.max() == pytest.approx(4)


def test_zero_is_zero_and_a_mean_keeps_its_light():
    store = FrameStore()
    noise = np.random.default_rng(1).normal(0, 0.003, (1, 400, 400)).astype(np.float32)
    store.push(np.zeros((1, 400, 400), np.float32))
    store.push(noise)
    kept = store.tile(slice(None), slice(None))
    assert not kept[0].any()
    assert abs(kept[1].mean(dtype=float) - noise.mean(dtype=float)) < 1e-8  # no bias at black


def test_tiles_are_parts_of_the_frames_asked_for():
    given, store = frames(4), FrameStore()
    for frame in given:
        store.push(frame)
    part = store.tile(slice(5, 20), slice(7, 50), [2, 0, 2])
    assert part.shape == (3, 3, 15, 43) and part.dtype == np.float32 and len(store) == 4
    np.testing.assert_allclose(part, given[[2, 0, 2], :, 5:20, 7:50], atol=4e-5)
    np.testing.assert_array_equal(store.tile(slice(5, 20), slice(7, 50))[[2, 0, 2]], part)


def test_past_the_limit_frames_lie_in_one_nameless_file_with_the_same_values(tmp_path):
    given, size = frames(5), 2 * 3 * 37 * 50
    store, plain, before = FrameStore(2 * size, tmp_path), FrameStore(), open_files()
    for frame in given:
        store.push(frame)
        plain.push(frame)
    assert store.in_memory_bytes == 2 * size and 3 * size <= store.on_disk_bytes < 3 * (size + 65536)
    assert plain.on_disk_bytes == 0
    everything = (slice(None), slice(None))
    np.testing.assert_array_equal(store.tile(*everything), plain.tile(*everything))
    assert open_files() > before and list(tmp_path.iterdir()) == []
    store.close()
    store.close()
    assert open_files() == before
    with pytest.raises(BurstError, match="the store was closed"):
        store.tile(*everything)
    with pytest.raises(ArgumentError, match="the store was closed"):
        store.push(given[0])


def test_a_forgotten_store_gives_its_file_back(tmp_path):
    before = open_files()
    store = FrameStore(0, tmp_path)
    store.push(frames()[0])
    assert open_files() > before
    del store
    gc.collect()
    assert open_files() == before


def test_spilled_frames_are_not_this_process_s_memory(tmp_path):
    def held() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    frame, store = np.full((3, 500, 700), 0.3, np.float32), FrameStore(0, tmp_path)
    store.push(frame)
    before = held()
    for _ in range(20):
        store.push(frame)
    assert store.on_disk_bytes > 42e6 and held() - before < 10e6


def test_a_full_disk_is_one_error_and_keeps_what_was_there(tmp_path):
    given = frames(3)
    store, limits = FrameStore(0, tmp_path), resource.getrlimit(resource.RLIMIT_FSIZE)
    store.push(given[0])
    resource.setrlimit(resource.RLIMIT_FSIZE, (store.on_disk_bytes + 1000, limits[1]))
    try:
        with pytest.raises(ResourceError, match=r"frame 1 .* does not fit into .*allow more memory, or set TMPDIR"):
            store.push(given[1])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(store) == 1
    np.testing.assert_allclose(store.tile(slice(None), slice(None))[0], given[0], atol=4e-5)
    store.push(given[2])  # there is room again
    np.testing.assert_allclose(store.tile(slice(None), slice(None), [1])[0], given[2], atol=4e-5)
    with pytest.raises(ResourceError, match="No such file"):
        FrameStore(0, tmp_path / "nowhere").push(given[0])


def test_errors():
    store = FrameStore()
    with pytest.raises(ArgumentError, match=r"planes must be \(C, H, W\) float32, got \(4, 5\) float32"):
        store.push(np.zeros((4, 5), np.float32))
    with pytest.raises(ArgumentError, match="float64"):
        store.push(np.zeros((3, 4, 5)))
    store.push(np.zeros((3, 4, 5), np.float32))
    with pytest.raises(BurstError, match=r"frame 1 is \(3, 4, 6\), the first was \(3, 4, 5\)"):
        store.push(np.zeros((3, 4, 6), np.float32))
    with pytest.raises(ArgumentError, match="memory must be 0 bytes or more"):
        FrameStore(-1)
