"""The fuser auto: its formula, its tiles, what it does beside others, and when it is not taken."""

from __future__ import annotations

import numpy as np
import pytest

import pyfocus
import reference
from pyfocus import combine
from pyfocus.arrays import HOST
from pyfocus.burst import Burst
from pyfocus.combine import CombinedFuser
from pyfocus.depthmap import DepthMapFuser
from pyfocus.focus import Scratch
from pyfocus.laplacian import Laplacian


def fused(fuser, frames, masks=None):
    for k, frame in enumerate(frames):
        fuser.push(frame, None if masks is None else masks[k], index=k)
    return fuser.finish()


@pytest.fixture
def two_surfaces():
    """A textured strip, sharp in frame 0, before a ground that is sharp in frame 5; clean, six frames."""
    random = np.random.default_rng(3)
    size = (200, 240)
    ground, strip = random.random((3, *size)).astype(np.float32), random.random((3, *size)).astype(np.float32)
    near = np.zeros(size, np.float32)
    near[:, 100:130] = 1

    def blurred(planes, radius):
        out = planes
        for axis in (-2, -1):
            shifts = range(-radius, radius + 1)
            out = np.mean([np.roll(out, s, axis) for s in shifts], axis=0)
        return out.astype(np.float32)

    frames = []
    for k in range(6):
        cover = blurred(near[None], k)
        frames.append(blurred(strip * near, k) + (1 - cover) * blurred(ground, 5 - k))
    return np.stack(frames), np.where(near > 0, strip, ground)


def test_a_spline_is_the_formula():
    random = np.random.default_rng(8)
    frames, weights = random.random((4, 3, 91, 118)).astype(np.float32), random.random((4, 46, 59)).astype(np.float32)
    weights[0, :20] = 0
    spline = combine._Spline((3, 91, 118), Scratch())
    for frame, weight in zip(frames, weights, strict=True):
        spline.add(frame, weight)
    sums, shares, base, below = [], [], 0.0, 0.0
    for frame, weight in zip(frames, weights, strict=True):
        fine, rating = frame.astype(float), weight.astype(float)
        for level in range(5):
            if level:
                rating = reference.down(rating[None])[0]
            coarse, size = reference.down(fine), fine.shape[1:]
            share = reference.up(rating[None], size)[0] ** (2 if level else 1)
            detail = share * (fine - reference.up(coarse, size))
            if len(sums) <= level:
                sums.append(0.0)
                shares.append(0.0)
            sums[level], shares[level] = sums[level] + detail, shares[level] + share
            fine = coarse
        base, below = base + rating * fine, below + rating
    want = base / below
    for total, share in zip(reversed(sums), reversed(shares), strict=True):
        want = reference.up(want, share.shape) + total / share
    np.testing.assert_allclose(spline.collapse(), want, rtol=0, atol=2e-5)


def test_depth_is_the_depth_map_s_and_copies_are_the_frame(two_surfaces):
    frames, _ = two_surfaces
    both, depth = fused(CombinedFuser(), frames), fused(DepthMapFuser(), frames)
    np.testing.assert_array_equal(both.depth, depth.depth)
    np.testing.assert_array_equal(both.confidence, depth.confidence)
    same = fused(CombinedFuser(), [frames[2]] * 4).image
    np.testing.assert_allclose(same, frames[2], rtol=0, atol=1e-4)  # 16-bit roots


def test_it_is_sharp_on_both_surfaces(two_surfaces):
    frames, truth = two_surfaces
    inner = np.s_[:, 20:-20, 20:-20]
    errors = [np.abs(fused(make(), frames).image - truth)[inner].mean() for make in (CombinedFuser, Laplacian)]
    best = min(np.abs(frame - truth)[inner].mean() for frame in frames)
    assert errors[0] < 0.25 * best and errors[0] < 2 * errors[1]  # a clean random texture is the pyramid's best case


def test_brightness_that_differs_all_around_leaves_no_border():
    """Two flat frames, one brighter; a depth that jumps between them: the change is spread over many pixels."""
    random = np.random.default_rng(9)
    frames = np.full((2, 1, 256, 256), 0.2, np.float32)
    frames[1] += 0.1
    left = np.arange(256) < 128
    detail = 0.02 * random.standard_normal((256, 256)).astype(np.float32)
    frames[0, 0] += detail * left
    frames[1, 0] += detail * ~left
    steps = []
    for make in (CombinedFuser, DepthMapFuser):
        rows = fused(make(), frames).image[0, 40:-40].mean(axis=0)
        steps.append(np.abs(np.diff(np.convolve(rows, np.ones(5) / 5, "valid"))).max())
    assert steps[0] < 0.6 * steps[1]


def test_depths_apart_are_found_within_seven_places():
    random = np.random.default_rng(12)
    depth = random.uniform(0, 5, (40, 50)).astype(np.float32)
    padded = np.pad(depth, 3, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (7, 7))
    np.testing.assert_array_equal(
        combine._around(combine._around(depth, 0, np.minimum), 1, np.minimum), windows.min((2, 3))
    )
    np.testing.assert_array_equal(
        combine._around(combine._around(depth, 0, np.maximum), 1, np.maximum), windows.max((2, 3))
    )
    step = np.zeros((40, 50), np.float32)
    step[:, 25:] = 4
    share = combine.apart(step)
    assert share[20, 25] > 0.9 and not share[:, :15].any() and not share[:, 35:].any()
    assert not combine.apart(step / 2).any()  # two frames are one surface


def test_no_value_leaves_the_range_of_the_frames(two_surfaces):
    frames, _ = two_surfaces
    image = fused(CombinedFuser(), frames).image
    assert (image >= frames.min(0) - 1e-4).all() and (image <= frames.max(0) + 1e-4).all()  # 16-bit roots


def test_beside_a_silhouette_the_ground_is_sharper_than_the_depth_map_has_it():
    """A bar before a fine texture as bright as it is; blur grows to 8 px."""
    random = np.random.default_rng(21)
    ground = (0.3 + 0.3 * random.random((1, 160, 240))).astype(np.float32)
    bar = np.zeros((160, 240), np.float32)
    bar[:, 90:150] = 1
    near = (0.25 + 0.3 * random.random((1, 160, 240))).astype(np.float32)

    def blurred(planes, radius):
        for axis in (-2, -1):
            planes = np.mean([np.roll(planes, s, axis) for s in range(-radius, radius + 1)], axis=0)
        return planes.astype(np.float32)

    frames = np.stack([blurred(near * bar, k) + (1 - blurred(bar[None], k)) * blurred(ground, 8 - k) for k in range(9)])
    ring = np.s_[:, 20:-20, 152:162]
    errors = [np.abs(fused(make(), frames).image - ground)[ring].mean() for make in (CombinedFuser, DepthMapFuser)]
    assert errors[0] < 0.8 * errors[1]


def test_tiles_meet_without_a_seam(two_surfaces, monkeypatch):
    frames, _ = two_surfaces
    whole = fused(CombinedFuser(), frames).image
    monkeypatch.setattr(combine, "_TILE_PX", (64, 96))
    tiles = fused(CombinedFuser(), frames).image
    # The coarsest levels see a little further than 64 px.
    np.testing.assert_allclose(tiles, whole, rtol=0, atol=2e-3)
    assert np.abs(tiles - whole).mean() < 5e-5


def test_what_no_frame_saw_is_left_out_of_the_pyramid_too(two_surfaces):
    frames = two_surfaces[0].copy()
    masks = np.ones((6, 200, 240), np.uint8)
    masks[3, :60] = 0
    frames[3, :, :50] = 50.0
    assert fused(CombinedFuser(), frames, masks).image[:, :44].max() < 2


def test_any_thread_count_gives_the_same_bytes(two_surfaces):
    frames, _ = two_surfaces
    one, three = (fused(CombinedFuser(threads), frames) for threads in (1, 3))
    assert one.image.tobytes() == three.image.tobytes()


def test_grey_and_four_planes(two_surfaces):
    frames, _ = two_surfaces
    assert fused(CombinedFuser(), frames[:, :1]).image.shape == (1, 200, 240)
    assert fused(CombinedFuser(), np.concatenate([frames, frames[:, :1]], axis=1)).image.shape == (4, 200, 240)


def test_its_name_is_auto(small_bracket):
    frames = [np.rint(f * 65535).astype(np.uint16) for f in np.clip(small_bracket.frames[:3], 0, 1)]
    named = pyfocus.stack(frames, align=False, fuser="auto").fused.image
    np.testing.assert_array_equal(pyfocus.stack(frames, align=False, fuser=CombinedFuser()).fused.image, named)


def test_without_room_the_fold_is_taken_with_a_warning(small_bracket, monkeypatch):
    frames = [np.rint(f * 65535).astype(np.uint16) for f in np.clip(small_bracket.frames[:3], 0, 1)]
    fold = pyfocus.stack(frames, align=False, fuser="laplacian").fused.image
    monkeypatch.setattr(combine, "disk_room", lambda folder: 1000)
    monkeypatch.setattr(combine, "KEPT_BYTES", 1000)
    with pytest.warns(RuntimeWarning, match="no room to keep 3 frames of 200 x 160 px, .*fuser='laplacian' is taken"):
        taken = pyfocus.stack(frames, align=False, fuser="auto").fused.image
    np.testing.assert_array_equal(taken, fold)
    fuser = CombinedFuser(memory=10_000)
    assert fuser.has_room(1, (10, 100)) and not fuser.has_room(2, (10, 100))


def test_on_a_device_the_fold_is_taken(small_bracket):
    from pyfocus.stack import _or_fold

    class Elsewhere(type(HOST)):  # type: ignore[misc]
        is_device = True

    burst = Burst.from_arrays([np.zeros((20, 30), np.uint8)] * 2)
    assert _or_fold(CombinedFuser(), burst, None, Elsewhere()) == "laplacian"
    assert _or_fold("wavelet", burst, None, Elsewhere()) == "wavelet"
