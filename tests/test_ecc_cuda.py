"""ecc and its loop on the device, beside the CPU and the float64 oracle; fits of pictures that lie there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import reference_ecc as oracle
from test_ecc import MOTIONS, WHOLE, corners_apart, look_alike, matrix_of, smooth, sums

from pyfocus import _C
from pyfocus.arrays import DeviceArrays
from pyfocus.ecc import maximise, trimmed
from pyfocus.errors import ArgumentError
from test_device import on_device, on_host

pytestmark = pytest.mark.cuda
SIZES = [((2, 2), (2, 2)), ((5, 3), (7, 9)), ((33, 65), (40, 62)), ((50, 131), (47, 140))]


def device_sums(
    fixed: np.ndarray, moving: np.ndarray, matrix: np.ndarray, parameters: int, mask: Any = None, row_step: int = 1
) -> np.ndarray:
    batch, count = matrix.shape[:-2], _C.ecc_sum_count(parameters)
    chunks = _C.ecc_chunk_count(*fixed.shape[-2:], row_step, True)
    workspace, out = _C.DeviceArray((*batch, chunks, count), "float64"), _C.DeviceArray((*batch, count), "float64")
    _C.device_fill(workspace, 0xFF), _C.device_fill(out, 0xFF)
    mask = None if mask is None else on_device(mask)
    _C.ecc(on_device(fixed), on_device(moving), on_device(matrix), parameters, workspace, out, mask, row_step)
    return on_host(out)


def close(got: np.ndarray, want: np.ndarray, other: np.ndarray) -> None:
    assert got[-1] == want[-1] == other[-1]  # the very same pixels
    scale = np.abs(want).max()
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-6 * scale + 1e-9)
    np.testing.assert_allclose(got, other, rtol=1e-5, atol=1e-6 * scale + 1e-9)


@pytest.mark.parametrize("parameters", [6, 8])
@pytest.mark.parametrize(
    ("size", "other"), [((2, 2), (2, 2)), ((5, 3), (7, 9)), ((33, 65), (40, 62)), ((50, 131), (47, 140))]
)
@pytest.mark.parametrize("masked", [False, True])
def test_sums_are_the_cpus_and_the_oracles(
    parameters: int, size: tuple[int, int], other: tuple[int, int], masked: bool
) -> None:
    fixed, moving, matrix = smooth(size, 1), smooth(other, 2), matrix_of(parameters, 3)
    mask = (np.random.default_rng(4).random(size) < 0.7).astype(np.uint8) if masked else None
    if mask is not None:
        fixed[mask == 0] = np.nan  # a masked pixel may hold anything
    got = device_sums(fixed, moving, matrix, parameters, mask)
    want = oracle.sums(fixed, moving, matrix, parameters, mask)
    close(got, want, sums(fixed, moving, matrix, parameters, mask))


@pytest.mark.parametrize("parameters", [6, 8])
@pytest.mark.parametrize("shift", [(40.25, 0), (-40.5, 3), (0, 19.75), (200, 0), (0, -500), (1e12, 0), (0, np.nan)])
def test_pixels_that_fall_outside_do_not_count(parameters: int, shift: tuple[float, float]) -> None:
    fixed, moving, matrix = smooth((37, 90), 5), smooth((37, 90), 6), np.eye(3)
    matrix[:2, 2] = shift
    got = device_sums(fixed, moving, matrix, parameters)
    if not np.abs(matrix).max() < 100:
        assert not got.any()
    else:
        close(got, oracle.sums(fixed, moving, matrix, parameters, None), sums(fixed, moving, matrix, parameters))


@pytest.mark.parametrize("step", [2, 3])
def test_a_row_step_is_a_mask_of_rows(step: int) -> None:
    fixed, moving, matrix = smooth((53, 70), 1), smooth((53, 70), 2), matrix_of(8, 3)
    rows = np.zeros((53, 70), np.uint8)
    rows[::step] = 1
    got = device_sums(fixed, moving, matrix, 8, row_step=step)
    close(got, oracle.sums(fixed, moving, matrix, 8, rows), sums(fixed, moving, matrix, 8, rows))


def test_identity_counts_every_pixel_and_the_same_bytes_come_twice() -> None:
    image = smooth((48, 96), 7)
    whole = device_sums(image, image, np.eye(3), 6)
    assert whole[-1] == image.size and whole[-2] == whole[-3] == whole[-4]  # i't, t't, i'i
    np.testing.assert_array_equal(device_sums(image, image, np.eye(3), 6), whole)


@pytest.mark.parametrize("parameters", [6, 8])
def test_pairs_of_a_batch_are_single_pairs(parameters: int) -> None:
    fixed = np.stack([smooth((35, 70), k) for k in range(3)])
    moving = np.stack([smooth((40, 66), 5 + k) for k in range(3)])
    mask = (np.random.default_rng(4).random(fixed.shape) < 0.8).astype(np.uint8)
    matrices = np.stack([matrix_of(parameters, k) for k in range(3)])
    got = device_sums(fixed, moving, matrices, parameters, mask)
    shared = device_sums(fixed[1], moving, matrices, parameters, mask[2])
    for k in range(3):
        single = device_sums(fixed[k], moving[k], matrices[k], parameters, mask[k])
        np.testing.assert_array_equal(got[k], single)
        single = device_sums(fixed[1], moving[k], matrices[k], parameters, mask[2])
        np.testing.assert_array_equal(shared[k], single)


def device_run(fixed: np.ndarray, moving: np.ndarray, state: np.ndarray, motion: int, *steps: int) -> np.ndarray:
    count, begin, there = _C.ecc_sum_count(8 if motion == 3 else 6), 0, on_device(state)
    workspace = _C.DeviceArray((*state.shape[:-1], _C.ecc_chunk_count(*fixed.shape[-2:], 1, True), count), "float64")
    for most in steps:
        _C.ecc_maximise(on_device(fixed), on_device(moving), there, motion, most, workspace, begin=begin)
        begin += most
    return on_host(there)


@pytest.mark.parametrize("motion", MOTIONS)
def test_fits_are_the_cpus(motion: Any) -> None:
    fixed, moving, true = look_alike((96, 130), motion, 2)
    mask = np.ones(fixed.shape, np.uint8)
    mask[20:60, 30:70] = 0
    here = maximise(fixed, moving, np.eye(3), motion, 1, mask=mask)
    there = maximise(
        on_device(fixed), on_device(moving), np.eye(3), motion, 1, mask=on_device(mask), arrays=DeviceArrays()
    )
    assert here is not None and there is not None and there.converged
    assert (here.iterations, here.converged) == (there.iterations, there.converged)
    assert corners_apart(here.matrix, there.matrix, fixed.shape) < 2e-6  # 1.0e-6 px measured, 2e-7 without a mask
    assert there.correlation == pytest.approx(here.correlation, abs=2e-6)  # 8e-7 measured
    assert corners_apart(there.matrix, true, fixed.shape) < 0.15


def test_a_batch_is_its_pairs_the_same_bytes_come_twice_and_steps_go_on() -> None:
    pairs = [look_alike((40, 64), "similarity", seed) for seed in (1, 2, 3)]
    fixed, moving = (np.stack([pair[k] for pair in pairs]) for k in (0, 1))
    moving[1] = 0.5  # flat: this pair ends at once, the others go on
    state = np.full((3, _C.ECC_STATE_SIZE), np.nan)
    state[:, :9] = np.eye(3).ravel()
    together = device_run(fixed, moving, state, 1, 8)
    np.testing.assert_array_equal(together[:, 11:14], [[1, 0, 1], [0, 1, 1], [1, 0, 1]])
    np.testing.assert_array_equal(device_run(fixed, moving, state, 1, 8), together)
    for k in range(3):
        np.testing.assert_array_equal(device_run(fixed[k], moving[k], state[k], 1, 8), together[k])
        np.testing.assert_array_equal(device_run(fixed[k], moving[k], state[k], 1, 2, 6), together[k])


@pytest.mark.parametrize("kind", ["flat", "flat moving", "nan", "inf", "nothing shared", "empty mask", "no start"])
def test_no_answer_where_there_is_none(kind: str) -> None:
    a, b, matrix, mask = smooth((40, 64), 1), smooth((40, 64), 1), np.eye(3), None
    if kind == "flat":
        a[:] = 0.3
    elif kind == "flat moving":
        b[:] = 0.3
    elif kind in ("nan", "inf"):
        b[10, 10] = float(kind)
    elif kind == "nothing shared":
        matrix[0, 2] = 500
    elif kind == "no start":
        matrix[1, 1] = np.nan
    else:
        mask = on_device(np.zeros((40, 64), np.uint8))
    found = maximise(on_device(a), on_device(b), matrix, "similarity", 1, mask=mask, most=2, arrays=DeviceArrays())
    assert found is None


def test_steps_end_like_the_cpus_where_pictures_do_not_fit() -> None:
    for seed, motion in enumerate(MOTIONS):
        fixed, moving = smooth((40, 60), seed, 4.0), smooth((44, 56), seed + 50, 4.0)
        start = matrix_of(6, seed)
        here = maximise(fixed, moving, start, motion, 1, most=5)
        there = maximise(on_device(fixed), on_device(moving), start, motion, 1, most=5, arrays=DeviceArrays())
        assert here is not None and there is not None
        assert (here.iterations, here.converged) == (there.iterations, there.converged)
        np.testing.assert_allclose(there.matrix, here.matrix, rtol=0, atol=1e-3)  # chaotic far from a maximum


def test_trimmed_fits_are_the_cpus() -> None:
    fixed, moving, _ = look_alike((60, 90), "similarity", 5)
    moving[20:50, 10:40] = look_alike((60, 90), "similarity", 6)[1][20:50, 10:40]
    levels: list[list[Any]] = [[], []]
    for pictures, finest in zip(levels, (fixed, moving), strict=True):
        half = np.empty((30, 45), np.float32)
        _C.pyramid_down(finest, half)
        pictures += [finest, half]
    whole = maximise(fixed, moving, np.eye(3), "similarity", 1)
    assert whole is not None
    here = trimmed((levels[0], levels[1]), 0, whole, "similarity", 1)
    there_levels = [[on_device(level) for level in pictures] for pictures in levels]
    there = trimmed((there_levels[0], there_levels[1]), 0, whole, "similarity", 1, arrays=DeviceArrays())
    assert here.iterations == there.iterations > whole.iterations
    assert corners_apart(here.matrix, there.matrix, fixed.shape) < 1e-4  # a pixel at the quantile may change sides


def test_bad_arguments_say_which() -> None:
    good: dict[str, Any] = {
        "fixed": on_device(np.ones((20, 8), np.float32)), "moving": on_device(np.ones((20, 8), np.float32)),
        "matrix": on_device(np.eye(3)), "parameters": 6, "workspace": on_device(np.empty((2, 45))),
        "sums": on_device(np.empty(45)), "mask": None,
    }  # fmt: skip
    _C.ecc(*good.values())
    elsewhere = "must be on the device of the first array, cuda:0, got cpu:0"
    for change, text in (
        ({"fixed": np.ones((20, 8), np.float32)}, f"fixed {elsewhere}"),
        ({"moving": np.ones((20, 8), np.float32)}, f"moving {elsewhere}"),
        ({"mask": np.ones((20, 8), np.uint8)}, f"mask {elsewhere}"),
        ({"workspace": np.empty((2, 45))}, f"workspace {elsewhere}"),
        ({"sums": np.empty(45)}, f"sums {elsewhere}"),
        ({"matrix": np.eye(3)}, "fixed must be on the device of the first array, cpu:0, got cuda:0"),
        ({"workspace": on_device(np.empty((3, 45)))}, "workspace must have size 2 on axis 0, got 3"),
        ({"fixed": on_device(np.ones((20, 8)))}, "fixed must be float32, got float64"),
    ):
        with pytest.raises(ArgumentError, match=f"ecc: {text}"):
            _C.ecc(*{**good, **change}.values())
    whole = {**WHOLE, "state": on_device(WHOLE["state"])}
    for change, text in (
        ({}, f"fixed {elsewhere}"),
        ({"fixed": good["fixed"], "moving": good["moving"]}, f"workspace {elsewhere}"),
    ):
        with pytest.raises(ArgumentError, match=f"ecc_maximise: {text}"):
            _C.ecc_maximise(*{**whole, **change}.values())
