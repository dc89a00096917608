"""The wavelet's steps against their formulas in float64; its laws: the way back, sums of squares, constants, shifts."""

from __future__ import annotations

import numpy as np
import pytest
import reference_wavelet as oracle
from hypothesis import given, settings
from hypothesis import strategies as st

from pyfocus import _C

SIZES = [(1, 1), (1, 9), (2, 3), (5, 4), (17, 31), (33, 258), (34, 515)]
# Worst over this file 2.3e-7 on values in [-0.5, 0.5]: float32 rounding of two passes of 6 complex taps.
CLOSE = {"rtol": 2e-6, "atol": 1e-6}


def low(size):
    return (size[0] + 1) // 2, (size[1] + 1) // 2


def noise(shape, seed=0):
    return np.random.default_rng(seed).random(shape, np.float32) - np.float32(0.5)


def parts(values):
    """Complex planes as real ones: the real parts first, on the axis of planes."""
    return np.ascontiguousarray(np.concatenate([values.real, values.imag], axis=-3), np.float32)


def whole(planes):
    real, imaginary = np.split(planes, 2, axis=-3)
    return real + 1j * imaginary.astype(float)


def measure(fine, planes, **how):
    size = low(fine.shape[-2:])
    coarse, energy = np.full((2 * planes, *size), np.nan, np.float32), np.full(size, np.nan, np.float32)
    _C.wavelet_measure(fine, coarse, energy, **how)
    return coarse, energy


def bands_of(fine, planes):
    """One frame folded alone with weight 1: its bands."""
    size = low(fine.shape[-2:])
    sums, weight, one = np.zeros((3, 2 * planes, *size), np.float32), np.zeros(size, np.float32), np.ones(size, "f4")
    _C.wavelet_fold(fine, one, np.zeros_like(one), one, 8, sums, weight)
    np.testing.assert_array_equal(weight, one)
    return sums, weight


def there_and_back(fine, planes):
    coarse = measure(fine, planes)[0]
    out = np.full_like(fine, np.nan)
    _C.wavelet_merge(coarse, *bands_of(fine, planes), out)
    return out


# --- values ------------------------------------------------------------


def test_the_filters_are_orthonormal_and_have_two_vanishing_moments():
    for one in (oracle.LOW, oracle.HIGH):
        for step in range(3):
            for other in (oracle.LOW, oracle.HIGH):
                product = np.sum(one[2 * step :] * other[: 6 - 2 * step].conj())
                assert abs(product - (one is other and step == 0)) < 1e-15
    n = np.arange(6)
    assert abs(oracle.HIGH.sum()) < 1e-15 and abs((oracle.HIGH * n).sum()) < 1e-14
    assert abs(oracle.LOW.sum() - 2**0.5) < 1e-15


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("complex_input", [False, True])
@pytest.mark.parametrize("planes", [1, 3])
def test_split_is_the_formula(size, planes, complex_input):
    fine = noise((planes * (1 + complex_input), *size))
    want, bands = oracle.split(whole(fine) if complex_input else fine)
    coarse, energy = measure(fine, planes)
    np.testing.assert_allclose(coarse, parts(want), **CLOSE)
    np.testing.assert_allclose(energy, (np.abs(bands) ** 2).mean(axis=(0, 1)), **CLOSE)
    np.testing.assert_allclose(bands_of(fine, planes)[0], parts(bands), **CLOSE)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("complex_output", [False, True])
def test_merge_is_the_adjoint_of_weighted_means(size, complex_output):
    coarse, sums, weight = noise((4, *low(size))), noise((3, 4, *low(size)), 1), np.abs(noise(low(size), 2))
    weight += np.float32(0.1)
    weight[0, 0] = 0  # nothing seen: no detail
    mean = sums / np.where(weight > 0, weight, 1).astype(float) * (weight > 0)
    want = oracle.merge(whole(coarse), whole(mean), size)
    out = np.full((2 * (1 + complex_output), *size), np.nan, np.float32)
    _C.wavelet_merge(coarse, sums, weight, out)
    np.testing.assert_allclose(out, parts(want) if complex_output else want.real, rtol=5e-6, atol=5e-6)  # worst 1.2e-6


@pytest.mark.parametrize("power", [4, 8])
@pytest.mark.parametrize("complex_input", [False, True])
def test_fold_is_the_formula(power, complex_input):
    size, grid = (19, 270), (10, 135)
    fine = noise((2 * (1 + complex_input), *size))
    rating, before = np.abs(noise(grid, 1)), np.abs(noise(grid, 2))
    rating[:2], before[1:3] = 0, 0
    peak = np.maximum(rating, before)
    sums, weight = noise((3, 4, *grid), 3), np.abs(noise(grid, 4))
    top = np.where(peak > 0, peak, 1).astype(float)
    now, keep = (rating / top) ** power, (before / top) ** power
    bands = parts(oracle.split(whole(fine) if complex_input else fine)[1])
    want, total = sums * keep + now * bands, weight * keep + now
    _C.wavelet_fold(fine, rating, before, peak, power, sums, weight)
    np.testing.assert_allclose(sums, want, rtol=0, atol=3e-6)  # worst 4e-7
    np.testing.assert_allclose(weight, total, rtol=3e-6, atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
def test_pool_spread_and_valid_are_the_formulas(size):
    fine, coarse = noise(size), noise(low(size), 1)
    out, back = np.full(low(size), np.nan, np.float32), np.full(size, np.nan, np.float32)
    _C.wavelet_pool(fine, out, 8.0, coarse)
    np.testing.assert_allclose(out, coarse + 8 * oracle.pool(fine), **CLOSE)
    _C.wavelet_spread(coarse, back, 0.5)
    np.testing.assert_allclose(back, 0.5 * oracle.spread(coarse, size), **CLOSE)
    kept = fine.copy()
    _C.wavelet_spread(coarse, fine, 0.5, fine)  # in place
    np.testing.assert_array_equal(fine, kept + back)
    valid = (np.random.default_rng(2).random(size) > 0.4).astype(np.uint8)
    seen = np.full(low(size), 7, np.uint8)
    _C.wavelet_valid(valid, seen)
    np.testing.assert_array_equal(seen, oracle.valid_below(valid))


# --- laws --------------------------------------------------------------

sizes = st.tuples(st.integers(1, 40), st.integers(1, 300))


@settings(max_examples=30, deadline=None)
@given(sizes, st.integers(1, 3), st.booleans(), st.integers(0, 99))
def test_there_and_back_is_the_same(size, planes, complex_input, seed):
    fine = noise((planes * (1 + complex_input), *size), seed)
    np.testing.assert_allclose(there_and_back(fine, planes), fine, rtol=0, atol=1.5e-6)  # worst 1.8e-7


@settings(max_examples=30, deadline=None)
@given(st.tuples(st.integers(1, 20), st.integers(1, 150)), st.integers(1, 3), st.booleans(), st.integers(0, 99))
def test_sums_of_squares_stay_up_to_the_border(half, planes, complex_input, seed):
    """Parseval's law, also where the picture ends: the mirror makes no coefficients of its own. Even sizes."""
    fine = noise((planes * (1 + complex_input), 2 * half[0], 2 * half[1]), seed)
    coarse, energy = measure(fine, planes)
    there = float(np.sum(coarse.astype(float) ** 2) + 3 * planes * energy.sum(dtype=float))
    assert there == pytest.approx(float(np.sum(fine.astype(float) ** 2)), rel=2e-6)


@settings(max_examples=20, deadline=None)
@given(sizes, st.floats(-100, 100, width=32))
def test_a_constant_has_no_detail(size, value):
    coarse, energy = measure(np.full((1, *size), value, np.float32), 1)
    tolerance = 4e-6 * abs(value) + 1e-30
    np.testing.assert_allclose(coarse[0], 2 * value, rtol=0, atol=tolerance)
    np.testing.assert_allclose(coarse[1], 0, rtol=0, atol=tolerance)
    assert energy.max() <= tolerance**2


def test_a_ramp_has_none_inside():
    y, x = np.mgrid[:40, :50].astype(np.float32)
    energy = measure((0.01 * x - 0.02 * y)[None], 1)[1]
    assert energy[1:-1, 1:-1].max() < 1e-12 < energy[0].max()


def test_a_step_of_two_samples_moves_the_coefficients_by_one():
    fine = noise((1, 40, 60))
    one, other = measure(fine, 1), measure(np.ascontiguousarray(fine[:, 2:, 4:]), 1)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a[..., 3:-2, 4:-2], b[..., 2:-2, 2:-2])


def test_white_noise_is_as_strong_on_every_level():
    fine, planes = np.random.default_rng(3).standard_normal((1, 512, 512)).astype(np.float32), 1
    for level in range(3):
        fine, energy = measure(fine, planes)
        assert energy.mean() == pytest.approx(1, rel=0.03), level


def test_every_instruction_set_and_number_of_threads_gives_the_same_bits():
    fine, rating = noise((6, 67, 531)), np.abs(noise((34, 266), 1))
    got = set()
    for level in (2, 3, 0):
        _C.set_isa(level)
        for threads in (1, 3):
            coarse, energy = measure(fine, 3, threads=threads)
            sums, weight = noise((3, 6, 34, 266), 2), rating.copy()
            _C.wavelet_fold(fine, rating, rating[::-1].copy(), rating + 1, 8, sums, weight, threads=threads)
            out, up, down = np.empty_like(fine), np.empty((67, 531), np.float32), np.empty_like(rating)
            _C.wavelet_merge(coarse, sums, weight, out, threads=threads)
            _C.wavelet_spread(energy, up, threads=threads)
            _C.wavelet_pool(up, down, threads=threads)
            got.add(tuple(a.tobytes() for a in (coarse, energy, sums, weight, out, up, down)))
    assert len(got) == 1


# --- errors ------------------------------------------------------------

F = np.zeros


@pytest.mark.parametrize(
    ("name", "arguments", "text"),
    [
        ("measure", (F((3, 8, 8)), F((6, 4, 4), "f4"), F((4, 4), "f4")), "fine must be float32, got float64"),
        ("measure", (F((8, 8), "f4"), F((2, 4, 4), "f4"), F((4, 4), "f4")), "fine must have 3 dimensions, got 2"),
        ("measure", (F((3, 8, 8), "f4"), F((3, 4, 4), "f4"), F((4, 4), "f4")), "low must have an even number of pl"),
        ("measure", (F((2, 8, 8), "f4"), F((6, 4, 4), "f4"), F((4, 4), "f4")), "fine must have 3 planes, or 6 with"),
        ("measure", (F((3, 8, 8), "f4"), F((6, 4, 5), "f4"), F((4, 4), "f4")), r"low must be 6 plane\(s\) of 4 x 4"),
        ("measure", (F((3, 8, 8), "f4"), F((6, 4, 4), "f4"), F((4, 5), "f4")), r"energy must be 1 plane\(s\) of 4 x"),
        ("measure", (F((3, 0, 8), "f4"), F((6, 0, 4), "f4"), F((0, 4), "f4")), "fine must not be empty"),
        ("measure", (F((3, 8, 16), "f4")[:, :, ::2], F((6, 4, 4), "f4"), F((4, 4), "f4")), "fine must be contiguous"),
        (
            "fold",
            (F((1, 8, 8), "f4"), *[F((4, 4), "f4")] * 3, 6, F((3, 2, 4, 4), "f4"), F((4, 4), "f4")),
            "power must be 4 or 8, got 6",
        ),
        (
            "fold",
            (F((1, 8, 8), "f4"), *[F((4, 4), "f4")] * 3, 8, F((2, 2, 4, 4), "f4"), F((4, 4), "f4")),
            r"sums must be \(3, 2, 4, 4\), got \(2, 2, 4, 4\)",
        ),
        (
            "fold",
            (F((1, 8, 8), "f4"), F((4, 3), "f4"), *[F((4, 4), "f4")] * 2, 8, F((3, 2, 4, 4), "f4"), F((4, 4), "f4")),
            "rating must be",
        ),
        (
            "merge",
            (F((2, 4, 4), "f4"), F((3, 2, 4, 4), "f4"), F((4, 4), "f4"), F((1, 9, 8), "f4")),
            r"low must be 2 plane\(s\) of 5 x 4, got 2 of 4 x 4",
        ),
        ("pool", (F((8, 8), "f4"), F((4, 5), "f4")), r"destination must be 1 plane\(s\) of 4 x 4, got 1 of 4 x 5"),
        ("spread", (F((5, 4), "f4"), F((8, 8), "f4")), r"source must be 1 plane\(s\) of 4 x 4, got 1 of 5 x 4"),
        ("valid", (F((8, 8), "f4"), F((4, 4), "u1")), "source must be uint8, got float32"),
        ("valid", (F((8, 8), "u1"), F((4, 4), "f4")), "destination must be uint8, got float32"),
    ],
)
def test_wrong_arrays_are_named(name, arguments, text):
    with pytest.raises(ValueError, match=f"^wavelet_{name}: {text}"):
        getattr(_C, f"wavelet_{name}")(*arguments)


def test_read_only_outputs_are_refused():
    out = F((4, 4), "f4")
    out.setflags(write=False)
    with pytest.raises(ValueError, match="wavelet_pool: destination is written to, got a read-only array"):
        _C.wavelet_pool(F((8, 8), "f4"), out)
