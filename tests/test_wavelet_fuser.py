"""The wavelet fuser: the whole fold against its formula in float64, and the laws a user relies on."""

from __future__ import annotations

import numpy as np
import pytest
import reference_wavelet as oracle
from hypothesis import given, settings
from hypothesis import strategies as st

import pyfocus
from pyfocus.errors import ArgumentError, BurstError
from pyfocus.fuse import Average, Fused
from pyfocus.wavelet import WaveletFuser


def fuse(frames, masks=None, make=WaveletFuser, places=None, **how) -> Fused:
    fuser = make(**how)
    for k, frame in enumerate(frames):
        fuser.push(frame, None if masks is None else masks[k], index=None if places is None else places[k])
    return fuser.finish()


def textured(shape=(3, 70, 90), seed=0):
    return (0.1 + 0.8 * np.random.default_rng(seed).random(shape)).astype(np.float32)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("size", [(64, 96), (91, 67)])
def test_the_fold_is_the_formula(small_bracket, size, masked):
    frames = np.ascontiguousarray(small_bracket.planes()[::2, :, : size[0], 50 : 50 + size[1]])
    frames += np.random.default_rng(1).normal(0, 0.004, frames.shape).astype(np.float32)
    masks = np.ones((3, *size), np.uint8)
    masks[1, :, :6], masks[2, 20:40, 30:50] = 0, 0
    given_masks = list(masks) if masked else [None] * 3
    result = fuse(frames, given_masks, places=[0.0, 2.0, 4.0])
    image, depth, confidence = oracle.wavelet(frames, given_masks, [0.0, 2.0, 4.0])
    # Worst on these scenes: image 5.0e-7, depth 1.6e-6 frames, confidence 1.1e-6 (ratings to the 8th power in float32).
    np.testing.assert_allclose(result.image, image, rtol=0, atol=5e-6)
    np.testing.assert_allclose(result.depth, depth, rtol=0, atol=2e-5)
    np.testing.assert_allclose(result.confidence, confidence, rtol=0, atol=1e-5)


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.tuples(st.integers(1, 60), st.integers(1, 60)))
def test_copies_fuse_to_the_frame(planes, count, size):
    frame = textured((planes, *size))
    result = fuse([frame] * count)
    np.testing.assert_allclose(result.image, frame, rtol=0, atol=4e-6)  # worst 4.8e-7
    assert not result.confidence.any()  # nothing stands out
    np.testing.assert_allclose(result.depth, (count - 1) / 2, rtol=0, atol=1e-5)


def test_the_sharper_frame_wins_and_tells_the_depth(small_bracket):
    frames, truth = small_bracket.planes(), small_bracket.truth.transpose(2, 0, 1)
    result = fuse(frames)
    near, far = small_bracket.near.copy(), ~small_bracket.near
    near[:, 85:], far[:, :115] = False, False  # the plane's edge, where neither frame shows the truth
    inner = near | far
    error = np.abs(result.image - truth)[:, inner].mean()
    best = min(np.abs(f - truth)[:, inner].mean() for f in frames)
    assert error < 0.05 * best and error < 0.05 * np.abs(fuse(frames, make=Average).image - truth)[:, inner].mean()
    assert np.abs(result.depth[far]).max() < 0.2 and np.abs(result.depth[near] - 4).max() < 0.2
    assert result.confidence[inner].mean() > 0.9


def test_the_light_of_flat_places_is_a_mean_and_no_maximum():
    """Where the published baseline takes the brightest frame, low-pass band and all."""
    levels = np.array([0.3, 0.4, 0.5], np.float32)[:, None, None, None]
    image = fuse(np.broadcast_to(levels, (3, 1, 64, 64)).copy()).image
    np.testing.assert_allclose(image, 0.4, atol=1e-5)


@pytest.mark.parametrize("count", [4, 16])
def test_noise_falls_with_the_number_of_flat_frames(count):
    random = np.random.default_rng(9)
    frames = (0.4 + 0.01 * random.standard_normal((count, 3, 128, 128))).astype(np.float32)
    assert fuse(frames).image.std() / 0.01 < 1.15 / np.sqrt(count)  # measured 0.531 of 4 frames and 0.272 of 16


def test_what_is_masked_counts_only_beside_the_mask(small_bracket):
    """Coefficients that lie mostly in what a frame saw see some of the rest; well inside a hole nothing does."""
    frames, mask = small_bracket.planes()[:3].copy(), np.ones((3, 160, 200), np.uint8)
    mask[1, 20:, 20:] = 0
    spoilt = frames.copy()
    spoilt[1, :, 24:, 24:] = 0.9
    one, other = fuse(frames, mask).image, fuse(spoilt, mask).image
    np.testing.assert_allclose(other[:, 90:, 90:], one[:, 90:, 90:], rtol=0, atol=1e-6)
    assert np.abs(other - one)[:, :40, :40].max() > 1e-3


def test_frames_that_miss_a_border_are_used_beside_it():
    """All frames but one miss 2 px: what is sharp in one of them is taken from there, 6 px from the border."""
    sharp = textured((1, 128, 128))
    flat = np.full_like(sharp, 0.5)
    mask = np.ones((128, 128), np.uint8)
    mask[:2], mask[:, :2] = 0, 0
    sharp[:, :2], sharp[:, :, :2] = sharp[:, 2:3], sharp[:, :, 2:3]  # as warp fills what a frame did not see
    image = fuse([flat, sharp], [np.ones_like(mask), mask]).image
    error = np.abs(image - sharp)[0]
    assert error[6:, 6:].mean() < 0.004, error[6:, 6:].mean()


def test_where_no_frame_saw_anything_there_is_still_a_picture():
    frames, mask = textured((2, 3, 64, 64)), np.zeros((64, 64), np.uint8)
    result = fuse(frames, [mask, mask])
    assert np.isfinite(result.image).all() and not result.confidence.any()


def test_extreme_values_stay_finite():
    for frames in (
        np.full((3, 1, 40, 50), 1e3, np.float32),
        np.zeros((3, 3, 40, 50), np.float32),
        np.stack([np.zeros((1, 40, 50)), 1e3 * textured((1, 40, 50)), -textured((1, 40, 50))]).astype(np.float32),
        np.full((2, 1, 40, 50), 1e-20, np.float32),
    ):
        result = fuse(frames)
        assert all(np.isfinite(a).all() for a in (result.image, result.depth, result.confidence))
        assert frames.min() - 2e3 <= result.image.min() and result.image.max() <= frames.max() + 2e3


def test_threads_and_strides_do_not_matter_and_a_preview_ends_nothing(small_bracket):
    frames, masks = small_bracket.planes()[:3], np.ones((3, 160, 200), np.uint8)
    masks[1, :, :20] = 0
    one, fuser = fuse(frames, masks, threads=1), WaveletFuser(threads=3)
    for frame, mask in zip(frames, masks, strict=True):
        fuser.push(np.asfortranarray(frame), np.asfortranarray(mask))
        last = fuser.preview()
    other = fuser.finish()
    np.testing.assert_array_equal(last, other.image)
    for field in ("image", "depth", "confidence"):
        assert getattr(one, field).tobytes() == getattr(other, field).tobytes()


def test_memory_does_not_grow_with_frames_nor_pass_what_is_said():
    """Bytes of everything a fuser holds after two frames, per pixel: 41 of three planes."""
    fuser = WaveletFuser()
    for _ in range(2):
        fuser.push(textured((3, 256, 256)), np.pad(np.ones((250, 250), np.uint8), 3))
    held = [v for level in fuser._levels for v in vars(level).values()] + list(vars(fuser).values())
    total = sum(a.nbytes for a in held if isinstance(a, np.ndarray))
    assert total / 256**2 < 42


def test_wrong_frames_are_named():
    fuser = WaveletFuser()
    with pytest.raises(ArgumentError, match=r"WaveletFuser.push: planes must be \(1..4, H, W\) float32, got"):
        fuser.push(np.zeros((3, 8, 8)))
    with pytest.raises(ArgumentError, match=r"WaveletFuser\.push: planes must be a NumPy array, got list"):
        fuser.push([[1.0]])
    fuser.push(textured((3, 20, 20)))
    with pytest.raises(BurstError, match=r"WaveletFuser.push: frame 1 is \(3, 20, 21\)"):
        fuser.push(textured((3, 20, 21)))
    fuser.finish()
    with pytest.raises(ArgumentError, match=r"finish\(\); make a new WaveletFuser"):
        fuser.push(textured((3, 20, 20)))


def test_stack_knows_it_by_name(small_bracket):
    frames = (small_bracket.frames[::2] ** (1 / 2.2) * 255).round().astype(np.uint8)
    stacked = pyfocus.stack(list(frames), fuser="wavelet", align=False, equalise=False, crop=False)
    assert stacked.image().shape == (160, 200, 3) and stacked.depth() is not None
    plain = pyfocus.stack(list(frames), fuser="laplacian", align=False, equalise=False, crop=False)
    apart = np.abs(stacked.image(8).astype(int) - plain.image(8))
    assert apart.any() and apart.mean() < 3
