"""The simulator: optics, motion, sensor, and the scenes it makes up."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pyfocus.errors import ArgumentError, WriteError
from pyfocus.simulate import Bracket, Settings, frame_name, iso_noise, simulate, write_bracket
from pyfocus.simulate.camera import BLACK_DN, NEUTRAL, WHITE_DN
from pyfocus.simulate.lens import build_lens, disc_kernel
from pyfocus.simulate.scene import procedural_scene, synthetic_depth
from pyfocus.simulate.surfaces import find_surfaces, nearest, sharpen_edges

STILL = {"breathing": 0.0, "jitter_px": 0.0}
MOVING = {"breathing": 0.05, "jitter_px": 2.0, "rotation_deg": 0.4}


def texture(h: int = 120, w: int = 150, seed: int = 5) -> np.ndarray:
    """Fine and coarse noise (h, w, 3) float32 in [0, 1]."""
    random = np.random.default_rng(seed)
    coarse = np.kron(random.random((h // 10 + 1, w // 10 + 1, 3)), np.ones((10, 10, 1)))[:h, :w]
    return (0.5 * random.random((h, w, 3)) + 0.5 * coarse).astype(np.float32)


def step_depth(h: int = 120, w: int = 150) -> np.ndarray:
    """Near (1) on the left half, far (0) on the right."""
    return np.broadcast_to(np.where(np.arange(w) < w // 2, 1.0, 0.0), (h, w)).astype(np.float32)


# --- optics ------------------------------------------------------------


@pytest.mark.parametrize("radius", [0.0, 0.3, 0.5, 1.0, 2.7, 8.0, 23.4])
def test_disc_keeps_light_centre_and_spread(radius):
    kernel = disc_kernel(radius).astype(np.float64)
    y, x = np.mgrid[: len(kernel), : len(kernel)] - len(kernel) // 2
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    assert (kernel * x).sum() == pytest.approx(0, abs=1e-5)
    assert (kernel * y * y).sum() == pytest.approx(radius**2 / 4, rel=2e-3, abs=1e-6)
    np.testing.assert_allclose(kernel, kernel.T, atol=1e-7)


@pytest.mark.parametrize("seed", [0, 1])
def test_constant_scene_stays_constant(seed):
    depth = synthetic_depth((130, 170), seed)
    bracket = simulate(np.full((130, 170, 3), 0.37), depth, frames=5, blur_px=9.3, seed=seed, **MOVING)
    for k in range(5):
        assert np.abs(bracket.light(k) - 0.37).max() < 1e-5


def test_tilted_plane_has_no_seams():
    """Against the definition: each pixel is the mean over a disc of its own radius."""
    photo = texture(90, 160)
    depth = np.broadcast_to(np.linspace(0, 1, 160), (90, 160)).astype(np.float32)
    lens = build_lens(photo, depth, 10.0, 1.0)
    assert len(lens.surfaces) == 1
    edge = lens.reach_px
    got = lens.render(0.3)
    error = np.zeros(got.shape[:2])
    expected_all = np.zeros_like(got)
    for x in range(got.shape[1]):
        kernel = disc_kernel(10.0 * abs(float(depth[0, x + edge]) - 0.3))
        half = len(kernel) // 2
        columns = photo[:, x + edge - half : x + edge + half + 1]
        for y in range(0, got.shape[0], 3):
            expected = np.tensordot(kernel, columns[y + edge - half : y + edge + half + 1], 2)
            expected_all[y, x] = expected
            error[y, x] = np.abs(got[y, x] - expected).max()
    # Blending two discs of the ladder is all that is approximate: worst measured 0.009 on noise of range 1.
    assert error.max() < 0.015
    # No column stands out: detail energy along the gradient equals the reference's.
    energy = [np.square(np.diff(a[::3], axis=1)).mean((0, 2)) for a in (got, expected_all)]
    ratio = energy[0] / energy[1]  # measured 0.88 to 1.05 on white noise
    assert ratio.max() < 1.1 and ratio.min() > 0.8


def test_still_frames_keep_the_mean():
    photo, depth = texture(128, 128), np.broadcast_to(np.linspace(0, 1, 128)[:, None], (128, 128))
    bracket = simulate(photo, depth, frames=3, blur_px=6, **STILL)
    for k in range(3):
        assert bracket.light(k).mean() == pytest.approx(photo.mean(), rel=2e-3)


def test_focused_surface_equals_the_truth():
    photo = texture()
    bracket = simulate(photo, step_depth(), frames=4, blur_px=7, **STILL)
    near, far = bracket.light(0), bracket.light(3)
    np.testing.assert_allclose(near[:, :75], photo[:, :75], atol=2e-6)  # a near edge in focus is crisp up to its rim
    np.testing.assert_allclose(far[:, 75 + 8 :], photo[:, 75 + 8 :], atol=2e-6)
    assert np.abs(near[:, 90:] - photo[:, 90:]).mean() > 0.05


def test_near_edge_dissolves_over_extended_background():
    """Blue before red, focus on the red: red shines through the blurred rim as the disc's edge says."""
    photo = np.zeros((100, 120, 3), np.float32)
    photo[:, :60, 2] = 0.8
    photo[:, 60:, 0] = 0.6
    row = simulate(photo, step_depth(100, 120), frames=2, blur_px=10, **STILL).light(1)[50]
    kernel = disc_kernel(10.0).sum(0)
    cover = np.convolve(np.pad((np.arange(120) < 60).astype(float), 40, mode="edge"), kernel, "same")[40:-40]
    # A radius between two rungs of the ladder is a blend: worst measured 0.0018; a smear is off by 0.1.
    np.testing.assert_allclose(row[:, 2], 0.8 * cover, atol=3e-3)
    np.testing.assert_allclose(row[:, 0], 0.6 * (1 - cover), atol=3e-3)


def test_extended_background_has_texture():
    photo = texture(140, 200)
    photo[:, :100] = 0
    behind = simulate(photo, step_depth(140, 200), frames=2, blur_px=12, **STILL).light(1)[20:-20, 93:98]
    detail = np.square(np.diff(behind, axis=0)).mean()
    visible = np.square(np.diff(photo[20:-20, 105:110], axis=0)).mean()
    assert detail > 0.05 * visible  # about a quarter of the light comes through: (1/4)^2 of the energy
    cover = disc_kernel(12.0).sum(0).cumsum()[6:11].mean()  # of the disc, what reaches past the edge
    assert behind.mean() == pytest.approx(cover * photo[:, 100:].mean(), rel=0.15)


def test_depth_order_is_found_locally():
    """A near object on the far part of a plane is before it, though the plane's mean depth is nearer."""
    depth = np.broadcast_to(np.linspace(1, 0, 200)[:, None], (200, 120)).copy()
    depth[150:170, 40:80] = 0.45
    labels, _ = find_surfaces(depth.astype(np.float32), 0.05)
    assert len(np.unique(labels)) == 2
    photo = np.full((200, 120, 3), 0.1, np.float32)
    photo[150:170, 40:80] = 0.9
    focused = simulate(photo, depth, frames=21, blur_px=8, **STILL).light(11)  # focus 0.45
    np.testing.assert_allclose(focused[150:170, 40:80], 0.9, atol=1e-3)
    np.testing.assert_allclose(focused[150:170, 82:], 0.1, atol=1e-3)


def test_soft_depth_edges_become_crisp_and_slopes_stay():
    row = np.concatenate([np.zeros(20), [0.25, 0.5, 0.75], np.ones(20)])
    sharp = sharpen_edges(np.tile(row, (12, 1)).astype(np.float32), 0.03)
    assert set(np.unique(sharp)) == {0.0, 1.0}
    slope = np.tile(np.linspace(0, 1, 100), (12, 1)).astype(np.float32)
    np.testing.assert_array_equal(sharpen_edges(slope, 0.03), slope)


def test_nearest_against_brute_force():
    random = np.random.default_rng(0)
    known = random.random((30, 40)) < 0.02
    y, x = np.nonzero(~known)
    py, px, distance = nearest(known, y, x, 9)
    ky, kx = np.nonzero(known)
    exact = np.hypot(y[:, None] - ky, x[:, None] - kx).min(1)
    close = exact <= 9
    np.testing.assert_allclose(distance[close], exact[close])
    assert np.isinf(distance[~close]).all() and known[py[close], px[close]].all()


def test_noisy_depth_is_survived():
    depth = np.random.default_rng(0).random((60, 80))
    bracket = simulate(np.full((60, 80, 3), 0.5), depth, frames=2, blur_px=5)
    assert np.abs(bracket.light(0) - 0.5).max() < 1e-4


# --- motion ------------------------------------------------------------


def smooth_scene(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A band-limited picture known at real coordinates."""
    waves = [0.5 + 0.2 * np.sin(0.61 * x + 0.3 * y + c) + 0.2 * np.sin(0.9 * y - 0.2 * x + 2 * c) for c in range(3)]
    return np.stack(waves, -1)


def test_transforms_map_reference_to_frame():
    h, w = 100, 140
    y, x = np.mgrid[:h, :w].astype(float)
    bracket = simulate(smooth_scene(x, y), np.zeros((h, w)), frames=5, blur_px=0, **MOVING)
    assert bracket.reference == 2
    np.testing.assert_array_equal(bracket.transforms[2], [[1, 0, 0], [0, 1, 0]])
    np.testing.assert_allclose(bracket.light(2), bracket.truth, atol=1e-6)
    for k in (0, 4):
        inverse = np.linalg.inv(np.vstack([bracket.transforms[k], [0, 0, 1]]))
        rx, ry = (inverse[i, 0] * x + inverse[i, 1] * y + inverse[i, 2] for i in (0, 1))
        inside = (rx > 3) & (rx < w - 4) & (ry > 3) & (ry < h - 4)
        error = (bracket.light(k) - smooth_scene(rx, ry))[inside]
        assert np.abs(error).max() < 0.012  # Lanczos-3 at 0.95 rad/px; a shift of 0.05 px would give 0.015
        assert np.abs(error).mean() < 0.002


def test_breathing_grows_about_the_centre():
    bracket = simulate(np.zeros((40, 60, 3)), np.zeros((40, 60)), frames=11, breathing=0.1, jitter_px=0)
    scales = bracket.transforms[:, 0, 0]
    assert scales[-1] - scales[0] == pytest.approx(0.1)
    np.testing.assert_allclose(bracket.transforms @ [29.5, 19.5, 1], np.tile([29.5, 19.5], (11, 1)))


def test_flicker_scales_light_but_not_the_reference():
    bracket = simulate(np.full((16, 16, 3), 0.4), np.zeros((16, 16)), frames=8, flicker=0.08, **STILL)
    means = np.array([bracket.light(k).mean() for k in range(8)])
    np.testing.assert_allclose(means, 0.4 * bracket.gains, rtol=1e-5)
    assert bracket.gains[4] == 1 and 0.01 < np.ptp(bracket.gains) <= 0.16


# --- sensor ------------------------------------------------------------


def test_mosaic_phase_and_levels():
    photo = np.broadcast_to(np.float32([0.2, 0.4, 0.6]), (20, 24, 3))
    frame = simulate(photo, np.zeros((20, 24)), frames=1, raw=True)[0]
    dn = [np.rint(BLACK_DN + c * n * (WHITE_DN - BLACK_DN)) for c, n in zip((0.2, 0.4, 0.6), NEUTRAL, strict=True)]
    assert frame.dtype == np.uint16 and frame.shape == (20, 24)
    for (row, column), expected in zip([(0, 0), (0, 1), (1, 0), (1, 1)], [dn[0], dn[1], dn[1], dn[2]], strict=True):
        assert np.abs(frame[row::2, column::2].astype(int) - expected).max() <= 1


@pytest.mark.parametrize("raw", [True, False])
def test_noise_variance_follows_the_model(raw):
    level, iso = 0.18, 0.8
    bracket = simulate(np.full((256, 256, 3), level), np.zeros((256, 256)), frames=1, raw=raw, iso=iso)
    shot, read = iso_noise(iso)
    if raw:
        value = (bracket[0][0::2, 1::2].astype(float) - BLACK_DN) / (WHITE_DN - BLACK_DN)
    else:
        encoded = bracket[0] / 65535
        value = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    assert value.mean() == pytest.approx(level, abs=1e-3)
    assert value.var() == pytest.approx(shot * level + read, rel=0.04)


def test_iso_scale_spans_brooks():
    assert iso_noise(0)[0] == pytest.approx(1e-4) and iso_noise(1)[0] == pytest.approx(0.012)
    shot, read = iso_noise(0.5)
    assert np.log(read) == pytest.approx(2.18 * np.log(shot) + 1.20)


def test_black_is_not_clipped_at_black():
    frame = simulate(np.zeros((64, 64, 3)), np.zeros((64, 64)), frames=1, raw=True, iso=0.9)[0]
    assert (frame < BLACK_DN).mean() == pytest.approx(0.5, abs=0.05)


def test_raw_meta_describes_the_camera():
    meta = simulate(np.zeros((8, 8, 3)), np.zeros((8, 8)), frames=1, raw=True).meta
    assert (meta.cfa, meta.white, meta.white_balance) == ("RGGB", 16383, (2.0, 1.0, 1.6))
    assert meta.xyz_to_camera is not None
    white = np.reshape(meta.xyz_to_camera, (3, 3)) @ [0.95047, 1.0, 1.08883]
    np.testing.assert_allclose(white, 1, atol=2e-3)


# --- brackets ------------------------------------------------------------


def small(seed: int = 0, **changes: object) -> Bracket:
    return simulate(texture(41, 51), synthetic_depth((41, 51), 1), frames=3, blur_px=3, seed=seed, iso=0.5, **changes)


def test_frames_are_reproducible_in_any_order():
    first, second = small(), small()
    backwards = [second[k] for k in (2, 1, 0)][::-1]
    for a, b in zip(first, backwards, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first[0], small(seed=1)[0])
    np.testing.assert_array_equal(first[-1], first[2])
    with pytest.raises(IndexError):
        first[3]


def test_raw_is_cropped_to_even_and_burst_reads_lazily():
    bracket = small(raw=True)
    assert bracket.truth.shape == (40, 50, 3) and bracket.depth.shape == (40, 50)
    assert len(bracket.burst) == 3 and bracket.burst[1].is_mosaic and bracket.burst.names[1] == "IMG_0001"
    assert np.ptp(bracket.focus) > 0 and bracket.focus[0] == bracket.depth.max()


@pytest.mark.parametrize("raw", [True, False])
def test_write_bracket(tmp_path, raw):
    bracket = small(raw=raw)
    paths = write_bracket(bracket, tmp_path / "b")
    assert [p.name for p in paths] == [f"IMG_000{k}.{'dng' if raw else 'tif'}" for k in range(3)]
    assert all(p.stat().st_size > 2000 for p in paths)
    assert (tmp_path / "b" / "truth.tif").is_file() and (tmp_path / "b" / "depth.png").is_file()
    scene = json.loads((tmp_path / "b" / "scene.json").read_text())
    np.testing.assert_array_equal(scene["transforms"], bracket.transforms)
    assert scene["reference"] == 1 and scene["iso"] == 0.5 and scene["raw"] is raw
    with pytest.raises(WriteError, match="exists already"):
        write_bracket(bracket, tmp_path / "b")
    write_bracket(bracket, tmp_path / "b", overwrite=True)
    assert not list((tmp_path / "b").rglob("*.part"))


def test_frame_names_sort():
    assert frame_name(7, 12) == "IMG_0007" and frame_name(7, 20000) == "IMG_00007"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"frames": 0}, "frames must be at least 1"),
        ({"blur_px": -1}, "blur_px must be"),
        ({"blur_px": 4000}, "at most 400"),
        ({"iso": float("nan")}, "iso must be"),
        ({"breathing": 0.9}, "breathing must be within"),
        ({"flicker": 1.0}, "flicker below 1"),
    ],
)
def test_settings_are_checked(changes, text):
    with pytest.raises(ArgumentError, match=text):
        Settings(**changes)


def test_arrays_are_checked():
    with pytest.raises(ArgumentError, match=r"photo must be \(H, W, 3\)"):
        simulate(np.zeros((20, 20)), np.zeros((20, 20)))
    with pytest.raises(ArgumentError, match="depth"):
        simulate(np.zeros((20, 20, 3)), np.zeros((20, 21)))
    with pytest.raises(ArgumentError, match="finite"):
        simulate(np.full((20, 20, 3), np.nan), np.zeros((20, 20)))


# --- scenes ------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (120, 90), (200, 300)])
def test_synthetic_depth_is_in_range(shape):
    depth = synthetic_depth(shape, 4)
    assert depth.shape == shape and depth.dtype == np.float32 and depth.min() >= 0 and depth.max() <= 1
    np.testing.assert_array_equal(depth, synthetic_depth(shape, 4))


def test_synthetic_depth_has_objects_and_slope():
    depth = synthetic_depth((200, 300), 0)
    assert depth.max() == 1 and depth.min() == 0
    assert (np.abs(np.diff(depth, axis=1)) > 0.05).sum() > 100
    assert len(np.unique(find_surfaces(depth, 0.03)[0])) > 4


def test_procedural_scene_is_rich_and_reproducible():
    image, depth = procedural_scene(160, 240, 3)
    assert image.shape == (160, 240, 3) and image.dtype == depth.dtype == np.float32
    assert image.min() >= 0 and image.max() <= 1 and depth.min() == 0 and depth.max() == 1
    again = procedural_scene(160, 240, 3)
    np.testing.assert_array_equal(image, again[0])
    np.testing.assert_array_equal(depth, again[1])
    assert not np.array_equal(image, procedural_scene(160, 240, 4)[0])
    detail = np.abs(np.diff(image.mean(2), axis=1))
    assert np.median(detail) > 0.002  # texture everywhere: there is something to focus on
    with pytest.raises(ArgumentError):
        procedural_scene(4, 240)
