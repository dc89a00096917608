"""The pyramid's steps against their formulas in float64 and against OpenCV; laws of constants, ramps and energy."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reference
from pyfocus import _C
from pyfocus.laplacian import _WHITE_NOISE

SIZES = [(1, 1), (1, 9), (2, 2), (2, 3), (5, 4), (17, 31), (33, 65), (64, 64), (67, 259), (70, 515), (131, 530)]
# Worst over this file 6.6e-8 on values in [-0.5, 0.5]: float32 rounding of sums of 25 terms.
CLOSE = {"rtol": 1e-6, "atol": 3e-7}


def low(size):
    return (size[0] + 1) // 2, (size[1] + 1) // 2


def noise(shape, seed=0):
    return np.random.default_rng(seed).random(shape, np.float32) - np.float32(0.5)


def down(a, **how):
    out = np.empty((*a.shape[:-2], *low(a.shape[-2:])), np.float32)
    _C.pyramid_down(a, out, **how)
    return out


def up(a, size, **how):
    out = np.empty((*a.shape[:-2], *size), np.float32)
    _C.pyramid_up(a, out, **how)
    return out


def smooth(a):
    out = np.empty_like(a)
    _C.pyramid_smooth(a, out)
    return out


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("planes", [None, 1, 3])
def test_down_up_and_smooth_are_the_formulas(size, planes):
    lead = () if planes is None else (planes,)
    fine, coarse = noise((*lead, *size)), noise((*lead, *low(size)), 1)
    np.testing.assert_allclose(down(fine), reference.down(fine), **CLOSE)
    np.testing.assert_allclose(up(coarse, size), reference.up(coarse, size), **CLOSE)
    np.testing.assert_allclose(smooth(fine), reference.smooth(fine), **CLOSE)


def test_add_and_gain():
    fine, coarse = noise((2, 40, 51)), noise((2, 20, 26), 1)
    out = coarse.copy()
    _C.pyramid_down(fine, out, add=out)
    np.testing.assert_allclose(out, coarse + reference.down(fine), **CLOSE)
    np.testing.assert_array_equal(down(fine, add=coarse), out)
    out = fine.copy()
    _C.pyramid_up(coarse, out, 0.25, add=out)
    np.testing.assert_allclose(out, fine + 0.25 * reference.up(coarse, (40, 51)), **CLOSE)
    np.testing.assert_array_equal(up(coarse, (40, 51), gain=0.25, add=fine), out)
    np.testing.assert_allclose(
        up(coarse, (40, 51), gain=-3.0), -3 * reference.up(coarse, (40, 51)), rtol=1e-6, atol=3e-6
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("planes", [1, 4])
def test_energy_is_the_formula(size, planes):
    fine, coarse = noise((planes, *size)), noise((planes, *low(size)), 1)
    out = np.empty(low(size), np.float32)
    _C.pyramid_energy(fine, coarse, out)
    np.testing.assert_allclose(out, reference.energy(fine, coarse), rtol=3e-6, atol=0)  # worst 2.8e-7


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("planes", [1, 3])
def test_measure_is_down_and_energy(size, planes):
    fine = noise((planes, *size))
    coarse, energy = np.empty((planes, *low(size)), np.float32), np.empty(low(size), np.float32)
    _C.pyramid_measure(fine, coarse, energy)
    np.testing.assert_array_equal(coarse, down(fine))
    want = np.empty_like(energy)
    _C.pyramid_energy(fine, coarse, want)
    np.testing.assert_array_equal(energy, want)


@pytest.mark.parametrize("size", SIZES)
def test_valid_is_the_formula(size):
    valid = (np.random.default_rng(2).random(size) > 0.04).astype(np.uint8)
    out = np.empty(low(size), np.uint8)
    _C.pyramid_valid(valid, out)
    np.testing.assert_array_equal(out, reference.valid_below(valid))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (35, 41), (3, 530)])
def test_rate_is_the_formula(size, masked, pooled):
    energy, before, coarse = np.abs(noise(size)), np.abs(noise(size, 1)), noise((3, *size), 2)
    valid = (np.random.default_rng(3).random(size) > 0.3).astype(np.uint8) if masked else None
    coarser = np.abs(noise(low(size), 4)) if pooled else None
    want = energy + 0.5 * np.maximum(coarse.mean(axis=0, dtype=float), 0) + 0.01
    want = want + 0.1 * reference.up(coarser, size) if pooled else want
    want = want * valid if masked else want
    rate, top = np.empty_like(energy), np.empty_like(energy)
    _C.pyramid_rate(energy, coarse, valid, 0.5, 0.01, before, rate, top, coarser, 0.1)
    np.testing.assert_allclose(rate, want, **CLOSE)
    np.testing.assert_array_equal(top, np.maximum(before, rate))
    _C.pyramid_rate(energy, coarse, valid, 0.5, 0.01, before, energy, top, coarser, 0.1)  # in place
    np.testing.assert_array_equal(energy, rate)


def test_base_and_mean_are_the_formulas():
    coarse, rating = noise((3, 33, 41)), np.abs(noise((33, 41), 1))
    rating[:5] = 0  # nothing seen: the light keeps a weight of 1e-12
    base, weight = np.zeros_like(coarse), np.zeros_like(rating)
    for _ in range(2):
        _C.pyramid_base(coarse, rating, base, weight)
    np.testing.assert_allclose(weight, 2 * (rating + 1e-12), rtol=1e-6)
    np.testing.assert_allclose(base, 2 * (rating + 1e-12) * coarse.astype(float), rtol=1e-6)
    _C.pyramid_mean(base, weight, base)
    np.testing.assert_allclose(base, coarse, rtol=1e-6)


def test_depth_is_the_formula():
    rating, before = np.abs(noise((33, 41))), np.abs(noise((33, 41), 1))
    rating[3:5], before[4:6] = 0, 0
    peak = np.maximum(rating, before)
    index, weight = noise((33, 41), 2), np.abs(noise((33, 41), 3))
    total, seen = np.abs(noise((33, 41), 4)), np.full((33, 41), 2, np.int32)
    top = np.maximum(peak, 1e-30).astype(float)
    now, keep = (rating / top) ** 8, (before / top) ** 8
    want = index * keep + 2.5 * now, weight * keep + now, total + rating, seen + (rating > 0)
    _C.pyramid_depth(rating, peak, before, 2.5, index, weight, total, seen)
    for got, expected in zip((index, weight, total, seen), want, strict=True):
        np.testing.assert_allclose(got, expected, rtol=3e-6, atol=1e-6)  # worst 4.8e-7


@pytest.mark.parametrize("power", [1, 2, 4, 6, 8])
def test_fold_and_collapse_are_the_formulas(power):
    size, (h, w) = (37, 300), low((37, 300))
    fine, coarse = noise((3, *size)), noise((3, h, w), 1)
    rating, before = np.abs(noise((h, w), 2)), np.abs(noise((h, w), 3))
    peak = np.maximum(rating, before)
    numerator, denominator = noise((3, *size), 4), np.abs(noise(size, 5)) + np.float32(0.1)
    top = reference.up(peak, size)
    weight, keep = (reference.up(rating, size) / top) ** power, (reference.up(before, size) / top) ** power
    detail = fine - reference.up(coarse, size)
    want, total = numerator * keep + weight * detail, denominator * keep + weight
    _C.pyramid_fold(fine, coarse, rating, before, peak, power, numerator, denominator)
    np.testing.assert_allclose(numerator, want, rtol=0, atol=5e-6)  # worst 9.2e-7
    np.testing.assert_allclose(denominator, total, rtol=5e-6)  # worst 2.5e-6, at power 8
    out = np.empty_like(numerator)
    _C.pyramid_collapse(numerator, denominator, coarse, out)
    np.testing.assert_allclose(
        out, numerator / denominator.astype(float) + reference.up(coarse, size), rtol=1e-6, atol=2e-6
    )  # worst 3.9e-7
    _C.pyramid_collapse(numerator, denominator, coarse, numerator)  # in place
    np.testing.assert_array_equal(numerator, out)


def test_nothing_folded_collapses_to_the_coarse_level():
    out, coarse = np.empty((1, 20, 20), np.float32), noise((1, 10, 10))
    zero = np.zeros((20, 20), np.float32)
    _C.pyramid_collapse(zero[None], zero, coarse, out)
    np.testing.assert_allclose(out, reference.up(coarse, (20, 20)), **CLOSE)
    peak = np.zeros((10, 10), np.float32)  # no frame was valid here: no weight, and no division by zero
    numerator, denominator = zero[None].copy(), zero.copy()
    _C.pyramid_fold(noise((1, 20, 20)), coarse, peak, peak, peak, 8, numerator, denominator)
    assert not numerator.any() and not denominator.any()


def test_opencv_agrees_away_from_the_border():
    fine, coarse = noise((66, 90)), noise((33, 45), 1)
    inner = np.s_[2:-2, 2:-2]  # worst 9e-8
    np.testing.assert_allclose(down(fine)[inner], cv2.pyrDown(fine)[inner], rtol=0, atol=1e-6)
    np.testing.assert_allclose(
        up(coarse, (66, 90))[inner], cv2.pyrUp(coarse, dstsize=(90, 66))[inner], rtol=0, atol=1e-6
    )
    kernel = (reference.BINOMIAL * 1.0).astype(np.float32)
    np.testing.assert_allclose(
        smooth(fine), cv2.sepFilter2D(fine, -1, kernel, kernel, borderType=cv2.BORDER_REFLECT_101), rtol=0, atol=1e-6
    )


# --- laws --------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 80), st.integers(1, 80), st.floats(-10, 10, width=32))
def test_a_constant_stays(height, width, value):
    fine = np.full((height, width), value, np.float32)
    tolerance = abs(value) * 2e-6 + 1e-30
    np.testing.assert_allclose(down(fine), value, rtol=0, atol=tolerance)
    np.testing.assert_allclose(up(down(fine), (height, width)), value, rtol=0, atol=tolerance)
    np.testing.assert_allclose(smooth(fine), value, rtol=0, atol=tolerance)


def test_a_ramp_stays_inside():
    y, x = np.mgrid[:60, :80].astype(np.float32)
    ramp = 0.01 * x - 0.02 * y
    small = down(ramp)
    np.testing.assert_allclose(small[1:-1, 1:-1], ramp[::2, ::2][1:-1, 1:-1], rtol=0, atol=1e-6)
    np.testing.assert_allclose(up(small, (60, 80))[4:-4, 4:-4], ramp[4:-4, 4:-4], rtol=0, atol=1e-6)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 99))
def test_one_frame_folded_alone_comes_back(height, width, seed):
    size, (h, w) = (height, width), low((height, width))
    fine = noise((2, *size), seed)
    coarse, rating = down(fine), np.abs(noise((h, w), seed + 1)) + np.float32(0.01)
    numerator, denominator = np.zeros((2, *size), np.float32), np.zeros(size, np.float32)
    _C.pyramid_fold(fine, coarse, rating, np.zeros_like(rating), rating, 4, numerator, denominator)
    _C.pyramid_collapse(numerator, denominator, coarse, numerator)
    np.testing.assert_allclose(numerator, fine, rtol=0, atol=1e-6)  # worst 3.0e-8


def test_detail_of_white_noise_has_the_variance_the_fuser_assumes():
    """The noise floors of the levels follow from the filters: measured on 4 megasamples, within 15 % each."""
    level = np.random.default_rng(7).standard_normal((2048, 2048)).astype(np.float32)
    for expected in _WHITE_NOISE[:5]:
        below = down(level)
        assert np.var(level - up(below, level.shape)) == pytest.approx(expected, rel=0.15)
        level = below


# --- errors ------------------------------------------------------------

F = np.zeros


@pytest.mark.parametrize(
    "name,arguments,text",
    [
        (
            "down",
            (F((3, 8, 8), "f4"), F((3, 4, 5), "f4")),
            r"destination must be 3 plane\(s\) of 4 x 4, got 3 of 4 x 5",
        ),
        ("down", (F((8, 8)), F((4, 4), "f4")), "source must be float32, got float64"),
        ("down", (F(8, "f4"), F(4, "f4")), r"source must be \(h, w\) or \(C, h, w\), got 1 dimensions"),
        ("down", (F((8, 16), "f4")[:, ::2], F((4, 4), "f4")), "source must be contiguous"),
        ("down", (F((0, 8), "f4"), F((0, 4), "f4")), "source must not be empty"),
        ("up", (F((5, 4), "f4"), F((8, 8), "f4")), r"source must be 1 plane\(s\) of 4 x 4, got 1 of 5 x 4"),
        ("smooth", (F((5, 4), "f4"), F((5, 5), "f4")), r"destination must be 1 plane\(s\) of 5 x 4"),
        ("energy", (F((1, 8, 8), "f4"), F((2, 4, 4), "f4"), F((4, 4), "f4")), r"coarse must be 1 plane\(s\)"),
        ("energy", (F((1, 8, 8), "f4"), F((1, 4, 4), "f4"), F((4, 3), "f4")), r"energy must be 1 plane\(s\) of 4 x 4"),
        ("valid", (F((8, 8), "u1"), F((4, 4), "f4")), "destination must be uint8, got float32"),
        ("valid", (F((8, 8), "f4"), F((4, 4), "u1")), "source must be uint8, got float32"),
        ("valid", (F((8, 8), "u1"), F((3, 4), "u1")), r"destination must be 1 plane\(s\) of 4 x 4"),
        (
            "down",
            (F((8, 8), "f4"), F((4, 4), "f4"), F((4, 5), "f4")),
            r"add must be 1 plane\(s\) of 4 x 4, got 1 of 4 x 5",
        ),
        ("measure", (F((1, 8, 8), "f4"), F((1, 4, 5), "f4"), F((4, 4), "f4")), r"coarse must be 1 plane\(s\) of 4 x 4"),
        ("base", (F((3, 4, 4), "f4"), F((4, 5), "f4"), F((3, 4, 4), "f4"), F((4, 4), "f4")), "rating must be"),
        ("mean", (F((3, 4, 4), "f4"), F((4, 4), "f4"), F((2, 4, 4), "f4")), r"destination must be 3 plane\(s\)"),
        ("depth", (*[F((4, 4), "f4")] * 3, 0.0, *[F((4, 4), "f4")] * 4), "seen must be int32, got float32"),
        ("collapse", (F((1, 8, 8), "f4"), F((8, 7), "f4"), F((1, 4, 4), "f4"), F((1, 8, 8), "f4")), "denominator must"),
    ],
)
def test_wrong_arrays_are_named(name, arguments, text):
    with pytest.raises(ValueError, match=f"^pyramid_{name}: {text}"):
        getattr(_C, f"pyramid_{name}")(*arguments)


def test_smooth_refuses_to_work_in_place():
    plane = noise((9, 9))
    with pytest.raises(ValueError, match="pyramid_smooth: destination must not be the source itself"):
        _C.pyramid_smooth(plane, plane)


def test_wrong_values_are_named():
    small, fine = F((4, 4), "f4"), F((1, 8, 8), "f4")
    with pytest.raises(ValueError, match="pyramid_rate: slope and floor must not be negative, got -1 and 0"):
        _C.pyramid_rate(small, small[None], None, -1.0, 0.0, small, small.copy(), small.copy())
    with pytest.raises(ValueError, match="pyramid_fold: power must be 1, 2, 4, 6 or 8, got 3"):
        _C.pyramid_fold(fine, small[None], small, small, small, 3, fine.copy(), fine[0].copy())
    with pytest.raises(ValueError, match="pyramid_rate: valid must be uint8"):
        _C.pyramid_rate(small, small[None], small, 0.0, 0.0, small, small.copy(), small.copy())
    with pytest.raises(ValueError, match=r"pyramid_rate: coarser must be 1 plane\(s\) of 2 x 2"):
        _C.pyramid_rate(small, small[None], None, 0.0, 0.0, small, small.copy(), small.copy(), small)
