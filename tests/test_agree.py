"""agree: residuals and masks beside NumPy, on the host and on the device."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pyfocus import _C
from pyfocus.errors import ArgumentError
from test_device import on_device, on_host

RANDOM = np.random.default_rng(11)
SIZES = [(1, 1), (7, 5), (67, 131), (40, 258)]


def pictures(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    return RANDOM.random(size, np.float32), RANDOM.random(size, np.float32)


@pytest.mark.parametrize("size", SIZES)
def test_residuals_are_numpys(size: tuple[int, int]) -> None:
    warped, fixed = pictures(size)
    want = np.abs(warped * np.float32(1.7) + np.float32(-0.3) - fixed)
    got = np.full(size, np.nan, np.float32)
    _C.agree_residual(warped, fixed, 1.7, -0.3, got)
    np.testing.assert_array_equal(got, want)
    _C.agree_residual(warped, fixed, 1.7, -0.3, warped)  # in place
    np.testing.assert_array_equal(warped, want)


def halves(size: tuple[int, int]) -> tuple[int, int]:
    return (size[0] + 1) // 2, (size[1] + 1) // 2


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("half", [False, True])
def test_masks_are_numpys(size: tuple[int, int], half: bool) -> None:
    difference = pictures(halves(size) if half else size)[0]
    difference.flat[0] = np.nan
    threshold = float(np.nanquantile(difference, 0.7)) if difference.size > 1 else 0.5  # a value that is there
    want = (difference <= threshold).view(np.uint8)
    if half:
        want = want.repeat(2, axis=0).repeat(2, axis=1)[: size[0], : size[1]]
    got = np.full(size, 7, np.uint8)
    _C.agree_mask(difference, threshold, got)
    np.testing.assert_array_equal(got, want)
    assert not got[0, 0]  # NaN agrees with nothing


def test_a_threshold_between_two_floats_is_not_rounded_up() -> None:
    low, high = np.float32(0.3), np.nextafter(np.float32(0.3), np.float32(1))
    mask = np.empty((1, 2), np.uint8)
    _C.agree_mask(np.array([[low, high]]), 0.25 * float(low) + 0.75 * float(high), mask)
    np.testing.assert_array_equal(mask, [[1, 0]])


PICTURE = np.ones((4, 6), np.float32)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"warped": PICTURE.astype(np.float64)}, "warped must be float32, got float64"),
        ({"warped": PICTURE[None]}, "warped must have 2 dimensions, got 3"),
        ({"warped": np.ones((4, 12), np.float32)[:, ::2]}, "warped must be contiguous"),
        ({"fixed": np.ones((4, 5), np.float32)}, "fixed must have size 6 on axis 1, got 5"),
        ({"destination": np.ones((5, 6), np.float32)}, "destination must have size 4 on axis 0, got 5"),
        ({"destination": np.ones((4, 6), np.uint8)}, "destination must be float32, got uint8"),
    ],
)
def test_bad_residuals_say_which(change: dict[str, Any], text: str) -> None:
    good = {
        "warped": PICTURE,
        "fixed": PICTURE,
        "gain": 1.0,
        "offset": 0.0,
        "destination": np.empty((4, 6), np.float32),
    }
    with pytest.raises(ArgumentError, match=f"agree_residual: {text}"):
        _C.agree_residual(**{**good, **change})


@pytest.mark.parametrize(
    ("difference", "destination", "text"),
    [
        (PICTURE.astype(np.float64), np.empty((4, 6), np.uint8), "difference must be float32, got float64"),
        (PICTURE, np.empty((4, 6), np.float32), "destination must be uint8, got float32"),
        (PICTURE, np.empty((4, 12), np.uint8), "destination's size or half of it, 2 x 6, got 4 x 6"),
        (PICTURE, np.empty((9, 12), np.uint8), "destination's size or half of it, 5 x 6, got 4 x 6"),
    ],
)
def test_bad_masks_say_which(difference: np.ndarray, destination: np.ndarray, text: str) -> None:
    with pytest.raises(ArgumentError, match=f"agree_mask: .*{text}"):
        _C.agree_mask(difference, 0.5, destination)


@pytest.mark.cuda
@pytest.mark.parametrize("size", SIZES)
def test_the_device_agrees(size: tuple[int, int]) -> None:
    warped, fixed = pictures(size)
    here, there = np.empty(size, np.float32), _C.DeviceArray(size)
    _C.agree_residual(warped, fixed, 1.7, -0.3, here)
    _C.agree_residual(on_device(warped), on_device(fixed), 1.7, -0.3, there)
    np.testing.assert_allclose(on_host(there), here, rtol=0, atol=3e-7)
    for shape in (size, halves(size)):
        difference = pictures(shape)[0]
        difference.flat[0] = np.nan
        mask, there = np.empty(size, np.uint8), _C.DeviceArray(size, "uint8")
        _C.agree_mask(difference, 0.4, mask)
        _C.agree_mask(on_device(difference), 0.4, there)
        np.testing.assert_array_equal(on_host(there), mask)


@pytest.mark.cuda
def test_arrays_lie_together() -> None:
    there, mask = on_device(PICTURE), np.empty((4, 6), np.uint8)
    elsewhere = "must be on the device of the first array, cuda:0, got cpu:0"
    for call, text in (
        (lambda: _C.agree_residual(there, PICTURE, 1.0, 0.0, there), f"agree_residual: fixed {elsewhere}"),
        (lambda: _C.agree_residual(there, there, 1.0, 0.0, PICTURE), f"agree_residual: destination {elsewhere}"),
        (lambda: _C.agree_mask(there, 0.5, mask), f"agree_mask: destination {elsewhere}"),
    ):
        with pytest.raises(ArgumentError, match=text):
            call()
