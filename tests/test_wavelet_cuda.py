"""The wavelet's steps on the device beside the CPU and the formulas in float64, and the whole fold there."""

from __future__ import annotations

import numpy as np
import pytest
import reference_wavelet as oracle
from test_pyramid_cuda import bracket

from pyfocus import _C
from pyfocus.arrays import DeviceArrays
from pyfocus.errors import ArgumentError
from pyfocus.fuse import Fused
from pyfocus.wavelet import WaveletFuser
from test_device import on_device, on_host

pytestmark = pytest.mark.cuda

SIZES = [(1, 1), (1, 9), (2, 3), (19, 70), (34, 67)]
# The emulated device gives the CPU's bits. A real one contracts products and sums: values in [-0.5, 0.5], 2 x 6 taps.
CLOSE = {"rtol": 3e-6, "atol": 2e-6}


def low(size):
    return (size[0] + 1) // 2, (size[1] + 1) // 2


def noise(shape, seed=0):
    return np.random.default_rng(seed).random(shape, np.float32) - np.float32(0.5)


def both(name, inputs, outputs, *tail):
    """Calls the op on the CPU and on the device; the results of each. Outputs are copied first."""
    here, there = [out.copy() for out in outputs], [on_device(out) for out in outputs]
    getattr(_C, name)(*inputs, *here, *tail)
    brought = [on_device(a) if isinstance(a, np.ndarray) else a for a in (*inputs, *tail)]
    getattr(_C, name)(*brought[: len(inputs)], *there, *brought[len(inputs) :])
    there = [on_host(out) for out in there]
    for one, other in zip(here, there, strict=True):
        np.testing.assert_allclose(other, one, **CLOSE)
    return there


def whole(planes):
    real, imaginary = np.split(planes, 2, axis=-3)
    return real + 1j * imaginary.astype(float)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("planes", "complex_input"), [(1, False), (3, False), (2, True)])
def test_measure(size, planes, complex_input):
    fine = noise((planes * (1 + complex_input), *size))
    nothing = np.full((2 * planes, *low(size)), np.nan, np.float32), np.full(low(size), np.nan, np.float32)
    coarse, energy = both("wavelet_measure", (fine,), nothing)
    want, bands = oracle.split(whole(fine) if complex_input else fine)
    np.testing.assert_allclose(whole(coarse), want, rtol=3e-6, atol=2e-6)
    np.testing.assert_allclose(energy, (np.abs(bands) ** 2).mean(axis=(0, 1)), **CLOSE)


@pytest.mark.parametrize("power", [4, 8])
@pytest.mark.parametrize("complex_input", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_fold(power, complex_input, size):
    fine, grid = noise((2 * (1 + complex_input), *size)), low(size)
    rating, before = np.abs(noise(grid, 1)), np.abs(noise(grid, 2))
    rating[:, :1], before[:, :1] = 0, 0  # seen by nobody
    peak = np.maximum(rating, before)
    sums = noise((3, 4, *grid), 3), np.abs(noise(grid, 4))
    got = both("wavelet_fold", (fine, rating, before, peak, power), sums)
    top = np.where(peak > 0, peak, 1).astype(float)
    now, keep = (rating / top) ** power, (before / top) ** power
    bands = oracle.split(whole(fine) if complex_input else fine)[1]
    np.testing.assert_allclose(whole(got[0]), whole(sums[0]) * keep + now * bands, rtol=0, atol=5e-6)
    np.testing.assert_allclose(got[1], sums[1] * keep + now, rtol=5e-6, atol=1e-7)


@pytest.mark.parametrize("complex_output", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_merge(complex_output, size):
    coarse, sums, weight = noise((4, *low(size))), noise((3, 4, *low(size)), 1), np.abs(noise(low(size), 2))
    weight += np.float32(0.2)
    nothing = np.full((2 * (1 + complex_output), *size), np.nan, np.float32)
    (got,) = both("wavelet_merge", (coarse, sums, weight), (nothing,))
    want = oracle.merge(whole(coarse), whole(sums) / weight.astype(float), size)
    np.testing.assert_allclose(whole(got) if complex_output else got, want if complex_output else want.real, atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_pool_spread_and_valid(size):
    fine, coarse = noise(size), noise(low(size), 1)
    (got,) = both("wavelet_pool", (fine,), (np.full_like(coarse, np.nan),), 8.0, coarse)
    np.testing.assert_allclose(got, coarse + 8 * oracle.pool(fine), **CLOSE)
    (got,) = both("wavelet_spread", (coarse,), (np.full_like(fine, np.nan),), 0.5)
    np.testing.assert_allclose(got, 0.5 * oracle.spread(coarse, size), **CLOSE)
    there = on_device(fine)
    _C.wavelet_spread(on_device(coarse), there, 0.5, there)  # in place
    np.testing.assert_allclose(on_host(there), fine + got, **CLOSE)
    valid = (np.random.default_rng(2).random(size) > 0.4).astype(np.uint8)
    (seen,) = both("wavelet_valid", (valid,), (np.full(low(size), 7, np.uint8),))
    np.testing.assert_array_equal(seen, oracle.valid_below(valid))


def test_wrong_places_are_named():
    here, there = np.zeros((4, 4), np.float32), _C.DeviceArray((4, 4))
    with pytest.raises(ArgumentError, match="wavelet_pool: destination must be on the device of the first array, cuda"):
        _C.wavelet_pool(_C.DeviceArray((8, 8)), here)
    with pytest.raises(ArgumentError, match="wavelet_measure: fine must be contiguous"):
        _C.wavelet_measure(_C.DeviceArray((1, 4, 6)).transpose([0, 2, 1]), there, there)


# --- the whole fold ----------------------------------------------------


def fuse_there(frames, masks, arrays, move_after=None, spill_after=None) -> tuple[Fused, np.ndarray]:
    fuser = WaveletFuser(arrays=arrays)
    for k, (frame, mask) in enumerate(zip(frames, masks, strict=True)):
        fuser.push(frame, mask)
        if k == spill_after:
            fuser.spill()
        if k == move_after:
            fuser.move_to_host()
    preview = arrays.to_host(fuser.preview()) if move_after is None else fuser.preview()
    fused = fuser.finish()
    image = fused.image if isinstance(fused.image, np.ndarray) else arrays.to_host(fused.image)
    return Fused(image, fused.depth, fused.confidence), preview


@pytest.mark.parametrize("masked", [False, True])
def test_the_fold_is_the_hosts_and_the_formula(masked):
    frames, masks = bracket(masked)
    frames, masks = frames[:3], masks[:3]
    there, preview = fuse_there(frames, masks, DeviceArrays())
    np.testing.assert_array_equal(preview, there.image)
    fuser = WaveletFuser()
    for frame, mask in zip(frames, masks, strict=True):
        fuser.push(frame, mask)
    here = fuser.finish()
    want = oracle.wavelet(frames, masks)
    for one, other, exact, worst in zip(
        (there.image, there.depth, there.confidence), (here.image, here.depth, here.confidence), want,
        (5e-6, 2e-5, 2e-5), strict=True,
    ):  # fmt: skip
        np.testing.assert_allclose(one, other, rtol=0, atol=worst)
        np.testing.assert_allclose(one, exact, rtol=0, atol=worst)


def test_a_device_that_runs_short_hands_over_and_leaves_no_memory():
    before = _C.device_in_use(), _C.mapped_in_use()
    frames, masks = bracket(True)
    frames, masks = frames[:3], masks[:3]
    plain = fuse_there(frames, masks, DeviceArrays())[0]
    for how in ({"spill_after": 0}, {"spill_after": 0, "move_after": 1}):
        other = fuse_there(frames, masks, DeviceArrays(), **how)[0]
        np.testing.assert_allclose(other.image, plain.image, rtol=0, atol=5e-6)
        np.testing.assert_allclose(other.depth, plain.depth, rtol=0, atol=2e-5)
    assert (_C.device_in_use(), _C.mapped_in_use()) == before
