"""Average and Laplacian: the whole fold against its formula in float64, and the laws a user relies on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reference
from pyfocus.errors import ArgumentError, BurstError
from pyfocus.fuse import Average, Fused
from pyfocus.laplacian import Laplacian, noise_of

FUSERS = (Average, Laplacian)


def fuse(frames, masks=None, make=Laplacian, places=None, **how) -> Fused:
    fuser = make(**how)
    for k, frame in enumerate(frames):
        fuser.push(frame, None if masks is None else masks[k], index=None if places is None else places[k])
    return fuser.finish()


def textured(shape=(3, 70, 90), seed=0):
    random = np.random.default_rng(seed)
    return (0.1 + 0.8 * random.random(shape)).astype(np.float32)


def masks_for(count, size, seed=5):
    """Frames miss a border each, and some of them a hole."""
    out = np.ones((count, *size), np.uint8)
    for k in range(1, count):
        out[k, :, : 3 * k] = 0
        out[k, size[0] // 2 : size[0] // 2 + 4 * k, size[1] // 3 : size[1] // 2] = 0
    return out


# --- values ------------------------------------------------------------


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("size", [(64, 96), (131, 97)])
def test_the_fold_is_the_formula(small_bracket, size, masked):
    frames = np.ascontiguousarray(small_bracket.planes()[::2, :, : size[0], 50 : 50 + size[1]])
    frames += np.random.default_rng(1).normal(0, 0.004, frames.shape).astype(np.float32)
    masks = masks_for(3, size) if masked else [None] * 3
    result = fuse(frames, masks)
    image, depth, confidence = reference.laplacian(frames, masks)
    # Worst on these scenes: image 1.9e-7, depth 2.4e-7 frames, confidence 2e-7 (ratings to the 8th power in float32).
    np.testing.assert_allclose(result.image, image, rtol=0, atol=2e-6)
    np.testing.assert_allclose(result.depth, depth, rtol=0, atol=1e-5)
    np.testing.assert_allclose(result.confidence, confidence, rtol=0, atol=1e-5)


def test_places_in_focus_order_are_the_depth(small_bracket):
    frames, places = small_bracket.planes()[:3], [4.0, 2.5, -1.0]
    result = fuse(frames, places=places)
    np.testing.assert_allclose(
        result.depth, reference.laplacian(frames, [None] * 3, places)[1], rtol=0, atol=1e-5
    )  # worst 6.6e-7


def test_average_is_the_mean_of_what_was_seen():
    frames, masks = textured((4, 3, 40, 50)), masks_for(4, (40, 50))
    masks[:, 5:9, 5:9] = 0
    want = (frames * masks[:, None]).sum(0, dtype=float) / np.maximum(masks.sum(0), 1)
    result = fuse(frames, masks, Average)
    np.testing.assert_allclose(result.image, want, rtol=0, atol=1e-6)
    np.testing.assert_allclose(fuse(frames, None, Average).image, frames.mean(0, dtype=float), rtol=0, atol=1e-6)
    assert result.depth is None and result.confidence is None and not result.image[:, 5:9, 5:9].any()


def test_noise_floor_is_the_formula(small_bracket):
    frame = small_bracket.planes()[2].astype(np.float32)
    light = reference.down(frame)
    quiet = reference.smooth(reference.energy(frame, light))
    np.testing.assert_allclose(noise_of(quiet, light), reference.noise_of(quiet, light), rtol=1e-6)


def test_noise_floor_measures_shot_noise():
    """Known noise on a flat, shaded picture: variance 0.8 (2e-4 light + 1e-6), found from its quietest fifth."""
    random = np.random.default_rng(4)
    light = np.broadcast_to(np.linspace(0.05, 0.8, 512), (3, 512, 512))
    frame = (light + random.standard_normal(light.shape) * np.sqrt(2e-4 * light + 1e-6)).astype(np.float32)
    coarse = reference.down(frame)
    slope, floor = noise_of(reference.smooth(reference.energy(frame, coarse)), coarse)
    assert (slope * 0.4 + floor) / (0.8 * (2e-4 * 0.4 + 1e-6)) == pytest.approx(1, abs=0.1)  # measured 0.989


# --- laws --------------------------------------------------------------


@settings(max_examples=12, deadline=None)
@given(st.sampled_from(FUSERS), st.integers(1, 4), st.tuples(st.integers(1, 90), st.integers(1, 90)))
def test_copies_fuse_to_the_frame(make, count, size):
    frame = textured((2, *size))
    result = fuse([frame] * count, make=make)
    np.testing.assert_allclose(result.image, frame, rtol=0, atol=2e-6)  # worst 1.3e-7
    if make is Laplacian:
        assert not result.confidence.any()  # nothing stands out
        np.testing.assert_allclose(result.depth, (count - 1) / 2, rtol=0, atol=1e-5)


@pytest.mark.parametrize("make", FUSERS)
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (16, 16), (17, 31), (1, 200)])
def test_tiny_pictures(make, size):
    frames = textured((3, 3, *size))
    result = fuse(frames, make=make)
    assert result.image.shape == (3, *size) and np.isfinite(result.image).all()
    if make is Laplacian:
        assert result.depth.shape == size and np.all((result.depth >= -1e-4) & (result.depth <= 2.0001))
        assert np.all((result.confidence >= 0) & (result.confidence <= 1))


def test_the_sharper_frame_wins(small_bracket):
    frames, truth = small_bracket.planes(), small_bracket.truth.transpose(2, 0, 1)
    result = fuse(frames)
    inner = np.ones(truth.shape[1:], bool)
    inner[:, 85:115] = False  # the plane's edge, where neither frame shows the truth
    error = np.abs(result.image - truth)[:, inner].mean()
    best = min(np.abs(f - truth)[:, inner].mean() for f in frames)
    average = np.abs(fuse(frames, make=Average).image - truth)[:, inner].mean()
    assert error < 0.05 * best and error < 0.05 * average, f"{error} {best} {average}"


def test_depth_and_confidence_of_two_planes(small_bracket):
    result = fuse(small_bracket.planes())
    near, far = small_bracket.near.copy(), ~small_bracket.near
    near[:, 85:], far[:, :115] = False, False
    assert np.abs(result.depth[far]).max() < 0.2 and np.abs(result.depth[near] - 4).max() < 0.2
    assert result.confidence[near | far].mean() > 0.9


@settings(max_examples=8, deadline=None)
@given(st.permutations(range(4)))
def test_the_order_of_frames_changes_the_depth_only(small_bracket, order):
    frames = small_bracket.planes()[[0, 1, 3, 4]]
    one, other = fuse(frames), fuse(frames[list(order)], places=[float(k) for k in order])
    # The noise floor is the calmest frame's so far, so order matters a little: worst 7.2e-5.
    np.testing.assert_allclose(other.image, one.image, rtol=0, atol=1e-3)
    np.testing.assert_allclose(other.depth, one.depth, rtol=0, atol=0.05)


def test_what_is_masked_does_not_count(small_bracket):
    frames, size = small_bracket.planes()[:3].copy(), (160, 200)
    mask = np.ones((3, *size), np.uint8)
    mask[1, 40:100, 60:140] = 0
    spoilt = frames.copy()
    spoilt[1, :, 44:96, 64:136] = 0.9  # the rim of a hole reaches the ratings around it through the filters
    one, other = fuse(frames, mask).image, fuse(spoilt, mask).image
    np.testing.assert_allclose(other[:, 60:80, 80:120], one[:, 60:80, 80:120], rtol=0, atol=1e-5)  # worst 0
    mean, spoilt_mean = fuse(frames, mask, Average).image, fuse(spoilt, mask, Average).image
    np.testing.assert_array_equal(mean, spoilt_mean)


@pytest.mark.parametrize("black", [False, True])
def test_a_frame_that_saw_nothing_changes_nothing(small_bracket, black):
    frames = small_bracket.planes()[:2]
    frames = (frames + 0.01 * np.random.default_rng(2).standard_normal(frames.shape)).astype(np.float32)
    nothing = np.zeros((160, 200), np.uint8)
    one = fuse(frames)
    for place in (0, 1, 2):
        with_it = list(frames)
        with_it.insert(place, (0 if black else 1) * textured((3, 160, 200), seed=8))
        masks: list = [None] * 3
        masks[place] = nothing
        other = fuse(with_it, masks)
        # Its light keeps a weight of 1e-12 on the last level, beside ratings of 4e-8 and more.
        np.testing.assert_allclose(other.image, one.image, rtol=0, atol=1e-5)


def test_where_no_frame_saw_anything_there_is_still_a_picture():
    frames, mask = textured((2, 3, 64, 64)), np.zeros((64, 64), np.uint8)
    result = fuse(frames, [mask, mask])
    assert np.isfinite(result.image).all() and not result.confidence.any()


def test_a_black_frame_does_not_pass_for_one_without_noise():
    """A lamp that failed: the fold would take every frame's noise for detail from then on."""
    flat = 0.4 + 0.01 * np.random.default_rng(3).standard_normal((7, 1, 128, 128))
    flat[3] = 0
    frames = flat.astype(np.float32)
    fuser = Laplacian()
    for frame in frames:
        fuser.push(frame)
    assert fuser._noise is not None and fuser._noise[0] * 0.4 + fuser._noise[1] > 0.5 * 0.8e-4
    seen = fuse(frames, [None] * 3 + [np.zeros((128, 128), np.uint8)] + [None] * 3)
    np.testing.assert_allclose(seen.image, fuse(frames[[0, 1, 2, 4, 5, 6]]).image, rtol=0, atol=1e-5)


@pytest.mark.parametrize("count", [4, 16])
def test_noise_falls_with_the_number_of_flat_frames(count):
    random = np.random.default_rng(9)
    frames = (0.4 + 0.01 * random.standard_normal((count, 3, 256, 256))).astype(np.float32)
    left = fuse(frames).image.std() / 0.01
    # measured 0.513 of 4 frames and 0.259 of 16, beside 1 / sqrt(N) = 0.5 and 0.25: ratings of noise differ by chance
    assert left < 1.08 / np.sqrt(count)
    assert fuse(frames, make=Average).image.std() / 0.01 == pytest.approx(1 / np.sqrt(count), rel=0.02)


@pytest.mark.parametrize("make", FUSERS)
def test_extreme_values_stay_finite(make):
    for frames in (
        np.full((3, 1, 40, 50), 1e3, np.float32),
        textured((3, 3, 40, 50)) * np.float32(1e3),
        np.zeros((3, 3, 40, 50), np.float32),
        np.stack([np.zeros((1, 40, 50)), 1e3 * textured((1, 40, 50)), -textured((1, 40, 50))]).astype(np.float32),
        np.full((2, 1, 40, 50), 1e-20, np.float32),
    ):
        result = fuse(frames, make=make)
        assert np.isfinite(result.image).all()
        assert frames.min() - 2e3 <= result.image.min() and result.image.max() <= frames.max() + 2e3
        if make is Laplacian:
            assert np.isfinite(result.depth).all() and np.isfinite(result.confidence).all()


def test_threads_do_not_matter(small_bracket):
    results = [fuse(small_bracket.planes()[:3], masks_for(3, (160, 200)), threads=n) for n in (1, 2, 3)]
    for field in ("image", "depth", "confidence"):
        assert len({getattr(r, field).tobytes() for r in results}) == 1


@pytest.mark.parametrize("make", FUSERS)
def test_preview_shows_what_finish_gives_and_ends_nothing(make, small_bracket):
    frames = small_bracket.planes()[:3]
    fuser = make()
    fuser.push(frames[0])
    np.testing.assert_allclose(fuser.preview(), frames[0], rtol=0, atol=2e-6)
    fuser.push(frames[1])
    fuser.preview()
    fuser.push(frames[2])
    last = fuser.preview()
    np.testing.assert_array_equal(last, fuser.finish().image)
    np.testing.assert_array_equal(last, fuse(frames, make=make).image)


@pytest.mark.parametrize("make", FUSERS)
def test_any_strides_are_taken_and_frames_are_left_alone(make):
    frame, mask = textured((80, 90, 3)), np.ones((160, 90), np.uint8)
    mask[20:60] = 0
    view, seen = frame.transpose(2, 0, 1), mask[::2]
    kept = frame.copy()
    one = fuse([view, view[:, ::-1]], [seen, seen], make)
    two = fuse([view.copy(), view[:, ::-1].copy()], [seen.copy(), seen.copy()], make)
    np.testing.assert_array_equal(one.image, two.image)
    np.testing.assert_array_equal(frame, kept)


# --- errors ------------------------------------------------------------


@pytest.mark.parametrize("make", FUSERS)
def test_wrong_frames_are_named(make):
    name, good = make.__name__, textured((3, 20, 20))
    for bad in (good[0], good.astype(float), textured((5, 20, 20)), np.zeros((0, 20, 20), np.float32)):
        with pytest.raises(ArgumentError, match=rf"{name}.push: planes must be \(1..4, H, W\) float32, got"):
            make().push(bad)
    for bad in (np.ones((20, 21), np.uint8), np.ones((20, 20), bool), np.ones((3, 20, 20), np.uint8)):
        with pytest.raises(ArgumentError, match=rf"{name}.push: valid must be \(20, 20\) uint8, got"):
            make().push(good, bad)
    fuser = make()
    fuser.push(good)
    with pytest.raises(BurstError, match=rf"{name}.push: frame 1 is \(3, 20, 21\), the first was \(3, 20, 20\)"):
        fuser.push(textured((3, 20, 21)))
    fuser.push(good)  # a refused frame leaves the fuser as it was
    np.testing.assert_allclose(fuser.finish().image, good, atol=2e-6)


@pytest.mark.parametrize("make", FUSERS)
def test_without_frames_and_after_the_end(make):
    with pytest.raises(BurstError, match="no frames were pushed"):
        make().finish()
    with pytest.raises(BurstError, match="no frames were pushed"):
        make().preview()
    fuser = make()
    fuser.push(textured((1, 20, 20)))
    fuser.finish()
    with pytest.raises(ArgumentError, match=r"the result was already taken with finish\(\)"):
        fuser.push(textured((1, 20, 20)))
    with pytest.raises(BurstError):
        fuser.finish()
