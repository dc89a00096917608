"""The pyramid's steps on the device beside the CPU and the formulas in float64, and the whole Laplacian fold there."""

from __future__ import annotations

import numpy as np
import pytest

import reference
from pyfocus import _C
from pyfocus.arrays import DeviceArrays
from pyfocus.errors import ArgumentError
from pyfocus.fuse import Fused
from pyfocus.laplacian import Laplacian
from test_device import on_device, on_host

pytestmark = pytest.mark.cuda

SIZES = [(1, 1), (1, 9), (2, 3), (5, 4), (67, 131), (70, 132), (129, 65)]
# The emulated device gives the CPU's bits. A real one contracts products and sums: values in [-0.5, 0.5], sums of 25.
CLOSE = {"rtol": 2e-6, "atol": 3e-7}


def low(size):
    return (size[0] + 1) // 2, (size[1] + 1) // 2


def noise(shape, seed=0):
    return np.random.default_rng(seed).random(shape, np.float32) - np.float32(0.5)


def both(name, inputs, outputs, tail=(), **how):
    """Calls the op on the CPU and on the device; the results of each, NumPy arrays.

    ``inputs`` and ``outputs``: arrays, numbers or None in the order of the call; outputs are copied first.
    """
    here = [out.copy() for out in outputs]
    getattr(_C, name)(*inputs, *here, *tail, **how)
    there = [on_device(out) for out in outputs]
    brought = [on_device(a) if isinstance(a, np.ndarray) else a for a in (*inputs, *tail)]
    given = {k: on_device(v) if isinstance(v, np.ndarray) else v for k, v in how.items()}
    getattr(_C, name)(*brought[: len(inputs)], *there, *brought[len(inputs) :], **given)
    return here, [on_host(out) for out in there]


def agree(here, there, **tolerance):
    for one, other in zip(here, there, strict=True):
        np.testing.assert_allclose(other, one, **(tolerance or CLOSE))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("planes", [1, 3])
def test_down_up_and_smooth(size, planes):
    fine, coarse = noise((planes, *size)), noise((planes, *low(size)), 1)
    for name, source, out, want in (
        ("pyramid_down", fine, coarse, reference.down(fine)),
        ("pyramid_up", coarse, fine, reference.up(coarse, size)),
        ("pyramid_smooth", fine, np.empty_like(fine), reference.smooth(fine)),
    ):
        here, there = both(name, (source,), (np.full_like(out, np.nan),))
        agree(here, there)
        np.testing.assert_allclose(there[0], want, **CLOSE)


def test_add_and_gain():
    fine, coarse = noise((2, 67, 131)), noise((2, 34, 66), 1)
    agree(*both("pyramid_down", (fine,), (np.empty_like(coarse),), add=coarse))
    agree(*both("pyramid_up", (coarse,), (np.empty_like(fine),), gain=-3.0, add=fine), rtol=2e-6, atol=1e-6)
    there = on_device(fine)
    _C.pyramid_up(on_device(coarse), there, 0.25, there)  # in place
    np.testing.assert_allclose(on_host(there), fine + 0.25 * reference.up(coarse, (67, 131)), **CLOSE)
    there = on_device(coarse)
    _C.pyramid_down(on_device(fine), there, there)
    np.testing.assert_allclose(on_host(there), coarse + reference.down(fine), **CLOSE)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("planes", [1, 2, 4])
def test_measure_and_energy(size, planes):
    fine = noise((planes, *size))
    nothing = np.full((planes, *low(size)), np.nan, np.float32), np.full(low(size), np.nan, np.float32)
    here, there = both("pyramid_measure", (fine,), nothing)
    agree(here[:1], there[:1])
    agree(here[1:], there[1:], rtol=3e-6, atol=1e-13)
    np.testing.assert_allclose(there[1], reference.energy(fine, reference.down(fine)), rtol=5e-6, atol=1e-13)
    coarse = noise((planes, *low(size)), 1)
    here, there = both("pyramid_energy", (fine, coarse), nothing[1:])
    agree(here, there, rtol=3e-6)
    np.testing.assert_allclose(there[0], reference.energy(fine, coarse), rtol=5e-6)


@pytest.mark.parametrize("size", SIZES)
def test_valid(size):
    valid = (np.random.default_rng(2).random(size) > 0.04).astype(np.uint8)
    here, there = both("pyramid_valid", (valid,), (np.empty(low(size), np.uint8),))
    np.testing.assert_array_equal(there[0], here[0])
    np.testing.assert_array_equal(there[0], reference.valid_below(valid))


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (33, 132), (35, 129)])
@pytest.mark.parametrize(("masked", "pooled", "planes"), [(False, False, 3), (True, True, 1), (False, True, 4)])
def test_rate(size, masked, pooled, planes):
    energy, before, coarse = np.abs(noise(size)), np.abs(noise(size, 1)), noise((planes, *size), 2)
    valid = (np.random.default_rng(3).random(size) > 0.3).astype(np.uint8) if masked else None
    coarser = np.abs(noise(low(size), 4)) if pooled else None
    nothing = np.full(size, np.nan, np.float32)
    inputs = (energy, coarse, valid, 0.5, 0.01, before)
    here, there = both("pyramid_rate", inputs, (nothing, nothing), (coarser, 0.1))
    agree(here, there)
    want = energy + 0.5 * np.maximum(coarse.mean(axis=0, dtype=float), 0) + 0.01
    want = want + 0.1 * reference.up(coarser, size) if pooled else want
    np.testing.assert_allclose(there[0], want * valid if masked else want, **CLOSE)
    np.testing.assert_array_equal(there[1], np.maximum(before, there[0]))


@pytest.mark.parametrize("power", [1, 2, 4, 6, 8])
@pytest.mark.parametrize(("planes", "size"), [(1, (1, 1)), (2, (2, 3)), (4, (19, 131)), (3, (33, 264))])
def test_fold_and_collapse(power, planes, size):
    fine, coarse = noise((planes, *size)), noise((planes, *low(size)), 1)
    rating, before = np.abs(noise(low(size), 2)), np.abs(noise(low(size), 3))
    rating[:, :2], before[:, :2] = 0, 0  # seen by nobody
    peak = np.maximum(rating, before)
    sums = noise((planes, *size), 4), np.abs(noise(size, 5)) + np.float32(0.1)
    here, there = both("pyramid_fold", (fine, coarse, rating, before, peak, power), sums)
    agree(here, there, rtol=5e-6, atol=2e-6)
    top = reference.up(peak, size)
    top = np.where(top > 0, top, 1)
    weight, keep = (reference.up(rating, size) / top) ** power, (reference.up(before, size) / top) ** power
    want = sums[0] * keep + weight * (fine - reference.up(coarse, size))
    np.testing.assert_allclose(there[0], want, rtol=0, atol=5e-6)
    np.testing.assert_allclose(there[1], sums[1] * keep + weight, rtol=5e-6, atol=1e-7)
    inputs = (*here, coarse)
    here, there = both("pyramid_collapse", inputs, (np.full_like(fine, np.nan),))
    agree(here, there, rtol=2e-6, atol=2e-6)
    numerator = on_device(inputs[0])
    _C.pyramid_collapse(numerator, on_device(inputs[1]), on_device(coarse), numerator)  # in place
    np.testing.assert_array_equal(on_host(numerator), there[0])


@pytest.mark.parametrize("size", [(1, 1), (19, 31)])
def test_base_depth_and_mean(size):
    coarse, rating, before = noise((3, *size)), np.abs(noise(size, 1)), np.abs(noise(size, 2))
    rating[0], before[-1] = 0, 0
    base, weight = noise((3, *size), 3), np.abs(noise(size, 4)) + np.float32(0.1)
    agree(*both("pyramid_base", (coarse, rating), (base, weight)))
    agree(*both("pyramid_mean", (base, weight), (np.empty_like(base),)))
    sums = noise(size, 5), np.abs(noise(size, 6)), np.abs(noise(size, 7)), np.full(size, 2, np.int32)
    here, there = both("pyramid_depth", (rating, np.maximum(rating, before), before, 2.5), sums)
    agree(here, there, rtol=5e-6, atol=1e-6)
    np.testing.assert_array_equal(there[3], 2 + (rating > 0))


def test_odd_widths_and_shifted_rows_are_read_one_by_one():
    """Rows that do not start at multiples of 16 bytes: parts of a larger array."""
    all_of = on_device(noise((3 * 4 * 6 + 1,)))
    shifted = all_of.part(1, 73).reshape([3, 4, 6])
    wide = all_of.part(1, 1 + 64).reshape([8, 8])
    out = _C.DeviceArray((4, 8))
    _C.pyramid_up(on_device(noise((2, 4), 1)), out, 1.0, wide.part(2, 6))
    want = noise((73,))[1:65].reshape(8, 8)[2:6] + reference.up(noise((2, 4), 1), (4, 8))
    np.testing.assert_allclose(on_host(out), want, **CLOSE)
    small = _C.DeviceArray((3, 2, 3))
    _C.pyramid_down(shifted, small)
    np.testing.assert_allclose(on_host(small), reference.down(noise((73,))[1:].reshape(3, 4, 6)), **CLOSE)


def test_wrong_places_are_named():
    here, there = np.zeros((4, 4), np.float32), _C.DeviceArray((4, 4))
    with pytest.raises(ArgumentError, match="pyramid_base: rating must be on the device of the first array, cuda:0"):
        _C.pyramid_base(there, here, there, there)
    with pytest.raises(ArgumentError, match="pyramid_measure: fine must be contiguous"):
        _C.pyramid_measure(_C.DeviceArray((4, 6)).transpose([1, 0]), there, there)
    with pytest.raises(ArgumentError, match="planes must be a NumPy array, got DeviceArray"):
        Laplacian().push(_C.DeviceArray((3, 16, 16)))
    with pytest.raises(ArgumentError, match=r"planes must be \(1..4, H, W\) float32, got \(3, 16, 16\) uint16"):
        Laplacian(arrays=DeviceArrays()).push(_C.DeviceArray((3, 16, 16), "uint16"))


# --- the whole fold ----------------------------------------------------


def bracket(masked):
    random = np.random.default_rng(1)
    scene = random.random((3, 67, 90))
    blurred = reference.smooth(reference.smooth(scene))
    near = np.arange(90) < 45
    frames = [np.where(near, scene, blurred), blurred, np.where(near, blurred, scene), 0.3 * scene + 0.7 * blurred]
    planes = np.stack(frames).astype(np.float32)
    masks = np.ones((4, 67, 90), np.uint8)
    masks[1, :, :9], masks[2, 20:40, 30:50] = 0, 0
    return planes, list(masks) if masked else [None] * 4


def fuse_there(frames, masks, upload=True) -> tuple[Fused, np.ndarray]:
    arrays = DeviceArrays()
    fuser = Laplacian(arrays=arrays)
    for frame, mask in zip(frames, masks, strict=True):
        if upload:
            frame, mask = on_device(frame), None if mask is None else on_device(mask)
        fuser.push(frame, mask)
    preview = arrays.to_host(fuser.preview())
    fused = fuser.finish()
    return Fused(arrays.to_host(fused.image), fused.depth, fused.confidence), preview


@pytest.mark.parametrize("masked", [False, True])
def test_the_fold_is_the_hosts_and_the_formula(masked):
    frames, masks = bracket(masked)
    there, preview = fuse_there(frames, masks)
    np.testing.assert_array_equal(preview, there.image)
    fuser = Laplacian()
    for frame, mask in zip(frames, masks, strict=True):
        fuser.push(frame, mask)
    here = fuser.finish()
    image, depth, confidence = reference.laplacian(frames, masks)
    for one, other, want, worst in (
        (there.image, here.image, image, 2e-6),
        (there.depth, here.depth, depth, 1e-5),
        (there.confidence, here.confidence, confidence, 1e-5),
    ):
        np.testing.assert_allclose(one, other, rtol=0, atol=worst)
        np.testing.assert_allclose(one, want, rtol=0, atol=worst)


def test_the_same_frames_give_the_same_bytes_and_leave_no_memory():
    before = _C.device_in_use()
    frames, masks = bracket(True)
    one, other = fuse_there(frames[:2], masks[:2])[0], fuse_there(frames[:2], masks[:2], upload=False)[0]
    for field in ("image", "depth", "confidence"):
        assert getattr(one, field).tobytes() == getattr(other, field).tobytes()
    assert _C.device_in_use() == before
