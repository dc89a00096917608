"""The depth map fuser: its steps against their formulas in float64, and the laws a user relies on."""

from __future__ import annotations

import numpy as np
import pytest

import reference
from pyfocus.depthmap import DepthMapFuser, cut_behind, read_peaks, window_weights
from pyfocus.errors import ArgumentError, BurstError, ResourceError
from pyfocus.focus import measure, votes
from pyfocus.framestore import FrameStore
from pyfocus.fuse import Fused
from pyfocus.guided import smooth_guided
from pyfocus.stack import stack
from pyfocus.stacker import Stacker
from pyfocus.tiles import whole

LUMA = (0.25, 0.5, 0.25)
WHITE = (0.8, 0.055, 0.0104)


def fuse(frames, masks=None, places=None, order=None, **how) -> Fused:
    fuser = DepthMapFuser(**how)
    for k in range(len(frames)) if order is None else order:
        fuser.push(frames[k], None if masks is None else masks[k], index=k if places is None else places[k])
    return fuser.finish()


def textured(shape=(3, 70, 90), seed=0):
    return (0.1 + 0.8 * np.random.default_rng(seed).random(shape)).astype(np.float32)


def psnr(a, b):
    return -10 * np.log10(np.mean(np.square(np.asarray(a, float) - b)))


# --- measure and votes -------------------------------------------------


def energies_of(frame):
    """Energies and the light of the first grid, from the formula in float64."""
    fine = np.sqrt(np.maximum(np.tensordot(LUMA, frame.astype(float), 1), 0))[None]
    energies, lights = [], []
    for _ in range(3):
        coarse = reference.down(fine)
        energies.append(reference.smooth(reference.energy(fine, coarse)))
        lights.append(coarse[0])
        fine = coarse
    return energies, lights[0]


@pytest.mark.parametrize("size", [(64, 96), (61, 83), (1, 1), (3, 200)])
def test_the_measure_is_the_formula(size):
    frame = textured((3, *size)) - np.float32(0.2)  # some of it below black
    found = measure(frame, None, 1)
    energies, light = energies_of(frame)
    for ours, want in zip(found.energies, energies, strict=True):
        np.testing.assert_allclose(ours, want, rtol=0, atol=2e-7)  # worst 6e-8
    np.testing.assert_allclose(found.light, light, rtol=0, atol=1e-6)


def test_what_was_not_seen_is_marked():
    frame, mask = textured((1, 40, 50)), np.ones((40, 50), np.uint8)
    mask[:, :7] = 0
    found = measure(frame, mask, 1).energies[0]
    assert np.array_equal(found < 0, reference.valid_below(mask) == 0) and (found < 0).any()


def test_noise_is_that_of_calm_places():
    noise = np.random.default_rng(2).normal(0, 0.01, (1, 256, 256))
    frame = np.square(0.5 + noise).astype(np.float32)
    frame[:, 60:120] = textured((1, 60, 256))
    assert measure(frame, None, 1).noise == pytest.approx(0.8e-4, rel=0.35)  # the calmest 15 %: measured 0.66e-4
    assert measure(frame, np.zeros((256, 256), np.uint8), 1).noise == np.inf


def kept(frames, masks=None):
    stores = [FrameStore(1 << 24) for _ in range(3)]
    for k, frame in enumerate(frames):
        for store, energy in zip(stores, measure(frame, None if masks is None else masks[k], 1).energies, strict=True):
            store.push(energy[None])
    return stores


@pytest.mark.parametrize("size", [(150, 231), (31, 18)])
def test_votes_are_the_formula_in_any_box(size):
    frames, noise = textured((3, 3, *size)) * np.float32(0.3), 3e-4
    masks = np.ones((3, *size), np.uint8)
    masks[1, : size[0] // 3] = 0
    stores, grid = kept(frames, masks), ((size[0] + 1) // 2, (size[1] + 1) // 2)
    order = [2, 0, 1]
    all_votes, seen = votes(stores, order, noise, whole(grid))
    for vote, look, k in zip(all_votes, seen, order, strict=True):
        logs = [np.log1p(e * 0.8 / (30 * noise * w)) for e, w in zip(energies_of(frames[k])[0], WHITE, strict=True)]
        total = logs[0] + reference.up((logs[1] + reference.up(logs[2], logs[1].shape))[None], logs[0].shape)[0]
        want_seen = reference.valid_below(masks[k])
        assert np.array_equal(look, want_seen)
        np.testing.assert_allclose(vote, total * want_seen, rtol=0, atol=5e-3)  # 16-bit energies: worst 1.4e-3
    for box in whole(grid).cut(16, 20):
        part, part_seen = votes(stores, order, noise, box)
        rows, columns = box.within(whole(grid))
        assert np.array_equal(part, all_votes[:, rows, columns]) and np.array_equal(part_seen, seen[:, rows, columns])


# --- smoothing ---------------------------------------------------------


def lines_solved(maps, guide, strength, sigma):
    """The smoother by dense solutions of every column and row."""
    out = maps.astype(float)
    for round_ in (1, 2, 3):
        share = 1.5 * strength * 4.0 ** (3 - round_) / (4.0**3 - 1)
        for axis in (2, 1):  # along rows first
            out, g = np.moveaxis(out, axis, -1), np.moveaxis(guide[None].astype(float), axis, -1)[0]
            done = np.empty_like(out)
            for line in range(out.shape[1]):
                links = share * np.exp(-np.abs(np.diff(g[line])) / sigma)
                matrix = np.eye(out.shape[2]) - np.diag(links, 1) - np.diag(links, -1)
                matrix += np.diag(np.append(links, 0) + np.append(0, links))
                done[:, line] = np.linalg.solve(matrix, out[:, line].T).T
            out = np.moveaxis(done, -1, axis)
    return out


@pytest.mark.parametrize("size", [(20, 31), (1, 9), (9, 1), (1, 1)])
def test_the_smoother_solves_its_equations(size):
    random = np.random.default_rng(1)
    maps, guide = random.random((2, *size)).astype(np.float32), random.random(size).astype(np.float32)
    found = smooth_guided(maps, guide, 40.0, 0.3)
    np.testing.assert_allclose(found, lines_solved(maps, guide, 40.0, 0.3), rtol=0, atol=2e-6)  # worst 3e-7
    np.testing.assert_allclose(found.sum((1, 2)), maps.sum((1, 2)), rtol=1e-5)


def test_the_smoother_stops_at_edges_of_the_guide():
    guide = np.zeros((40, 60), np.float32)
    guide[:, 30:] = 1
    maps = guide[None] + np.random.default_rng(3).normal(0, 0.2, (1, 40, 60)).astype(np.float32)
    found = smooth_guided(maps, guide, 100.0, 0.02)[0]
    assert found[:, :30].std() < 0.04 and abs(found[:, 29].mean()) < 0.08 and abs(found[:, 30].mean() - 1) < 0.08
    across = smooth_guided(maps, np.zeros_like(guide), 100.0, 0.02)[0]
    assert abs(across[:, 29].mean()) > 0.3  # where the guide is flat, nothing is kept apart
    assert np.array_equal(smooth_guided(maps, guide, 0.0, 0.02), maps)


def test_the_smoother_refuses_what_it_cannot_take():
    with pytest.raises(ArgumentError, match="maps and guide"):
        smooth_guided(np.zeros((1, 4, 4), np.float32), np.zeros((4, 5), np.float32), 1.0, 0.1)
    with pytest.raises(ArgumentError, match="strength"):
        smooth_guided(np.zeros((1, 4, 4), np.float32), np.zeros((4, 4), np.float32), 1.0, 0.0)


# --- peaks -------------------------------------------------------------


def curve(values):
    return np.array(values, np.float32)[:, None, None]


@pytest.mark.parametrize("where", [1.0, 2.3, 3.5, 4.75])
def test_the_vertex_of_a_parabola_is_found(where):
    vote = curve([12 - 2 * (k - where) ** 2 for k in range(7)])
    depth, spread, confidence = read_peaks(vote, np.ones_like(vote), "none")
    assert depth[0, 0] == pytest.approx(where, abs=1e-4) and spread[0, 0] < 0.3 and confidence[0, 0] > 0.8


def test_where_all_frames_are_alike_nothing_is_sure():
    vote = np.full((5, 2, 2), 3, np.float32)
    depth, spread, confidence = read_peaks(vote, np.ones_like(vote))
    assert np.allclose(depth, 2) and np.allclose(spread, 2) and not confidence.any()
    one = read_peaks(np.full((1, 2, 2), 3, np.float32), np.ones((1, 2, 2), np.float32))
    assert not one[0].any() and not one[2].any()


def cut_slowly(curve, near):
    """The rule, pixel by pixel, as it is told: the first clear peak with a valley behind it hides what is behind."""
    line = list(curve if near == "first" else curve[::-1])
    top = max(line)
    peak = valley = line[0]
    for k in range(1, len(line)):
        if line[k] > valley and peak - valley >= 3 and peak >= top - 3 and peak >= 6:
            line[k:] = [min(valley, v) for v in line[k:]]
            break
        if line[k] > peak:
            peak = valley = line[k]
        else:
            valley = min(valley, line[k])
    return line if near == "first" else line[::-1]


@pytest.mark.parametrize("near", ["first", "last"])
def test_a_near_peak_hides_what_is_behind(near):
    random = np.random.default_rng(5)
    smooth = np.cumsum(random.normal(0, 3, (9, 40, 50)), axis=0)
    vote = np.maximum(smooth + 8, 0).astype(np.float32)
    want = np.apply_along_axis(cut_slowly, 0, vote, near)
    assert (want != vote).any(axis=0).mean() > 0.1
    cut_behind(vote, near)
    np.testing.assert_allclose(vote, want, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("line", "depth"),
    [
        ([1, 8, 1, 1, 10, 1], 1),  # two clear peaks: the nearer one
        ([1, 8, 6, 6, 10, 1], 4),  # no valley between them
        ([1, 6.5, 1, 1, 10, 1], 4),  # the near one is too weak beside the far one
        ([0, 4, 0, 0, 5, 0], 4),  # and here by itself
    ],
)
def test_which_peak_is_taken(line, depth):
    vote = curve(line)
    assert read_peaks(vote.copy(), np.ones_like(vote), "first")[0][0, 0] == pytest.approx(depth, abs=0.3)
    assert read_peaks(vote.copy(), np.ones_like(vote), "none")[0][0, 0] == pytest.approx(4, abs=0.3)
    back = vote[::-1].copy()
    assert read_peaks(back, np.ones_like(vote), "last")[0][0, 0] == pytest.approx(5 - depth, abs=0.3)


def test_weights_are_the_formula():
    random = np.random.default_rng(6)
    vote, seen = random.random((4, 5, 6)), np.ones((4, 5, 6))
    seen[1, :, :3] = 0
    seen[:, 0, 0] = 0
    depth, spread = 3 * random.random((5, 6)), random.random((5, 6))
    number = np.arange(4.0)[:, None, None]
    want = seen * np.exp(4 * vote - 0.5 * (number - depth) ** 2 / (0.25 + 4 * spread))
    want[:, 0, 0] = 1
    found = window_weights(*(a.astype(np.float32) for a in (vote, seen, depth, spread)))
    np.testing.assert_allclose(found / found.sum(0), want / want.sum(0), rtol=0, atol=1e-6)


# --- the fuser ---------------------------------------------------------


def test_the_sharper_frame_wins(small_bracket):
    frames, truth = small_bracket.planes(), small_bracket.truth.transpose(2, 0, 1)
    result = fuse(frames, near="last")
    inner = np.ones(truth.shape[1:], bool)
    inner[:, 85:115] = False  # the plane's edge, where neither frame shows the truth
    assert psnr(result.image[:, inner], truth[:, inner]) > 40  # measured 49
    want = np.where(small_bracket.near, 4, 0)
    assert np.abs(result.depth - want)[inner].max() < 0.5 and result.confidence[inner].mean() > 0.6


def test_copies_fuse_to_the_frame():
    frame = textured((2, 33, 47))
    result = fuse([frame] * 3)
    np.testing.assert_allclose(result.image, frame, rtol=0, atol=4e-5)  # 16-bit codes: 3.4e-5 at white
    np.testing.assert_allclose(result.depth, 1, atol=1e-4)
    assert not result.confidence.any()


@pytest.mark.parametrize("planes", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (17, 31), (1, 200)])
def test_tiny_pictures(size, planes):
    frames = textured((3, planes, *size))
    result = fuse(frames)
    assert result.image.shape == (planes, *size) and np.isfinite(result.image).all()
    assert result.depth.shape == result.confidence.shape == size
    assert np.all((result.depth >= -1e-4) & (result.depth <= 2.0001))
    assert np.all((result.confidence >= 0) & (result.confidence <= 1))


def test_neither_order_nor_threads_nor_where_frames_lie_matter(small_bracket, tmp_path):
    frames = small_bracket.planes()
    want = fuse(frames, threads=1)
    for order, how in (([2, 0, 1, 3, 4], {}), (None, {"threads": 3}), (None, {"memory": 0, "folder": tmp_path})):
        found = fuse(frames, order=order, **how)
        np.testing.assert_allclose(found.image, want.image, rtol=0, atol=1e-5 if order else 0)
        np.testing.assert_allclose(found.depth, want.depth, rtol=0, atol=1e-4 if order else 0)
    assert not list(tmp_path.iterdir())


def test_places_in_focus_order_are_the_depth(small_bracket):
    frames = small_bracket.planes()
    result = fuse(frames, places=[10.0, 20.0, 30.0, 40.0, 50.0], near="last")
    np.testing.assert_allclose(result.depth, 10 + 10 * fuse(frames, near="last").depth, rtol=1e-5)


def test_a_frame_counts_only_where_it_saw_the_scene():
    sharp, soft = textured((1, 60, 80)), np.full((1, 60, 80), 0.5, np.float32)
    mask = np.ones((60, 80), np.uint8)
    mask[:, :30] = 0
    mask[20:30, 50:60] = 0
    result = fuse([soft, np.where(mask, sharp, 9).astype(np.float32)], [None, mask])
    assert result.image.max() < 1.01
    np.testing.assert_allclose(result.image[:, :, :30], 0.5, atol=1e-4)
    assert psnr(result.image[0, 40:, 40:], sharp[0, 40:, 40:]) > 40
    nobody = fuse([soft, sharp], [np.zeros_like(mask)] * 2)
    assert np.isfinite(nobody.image).all() and not nobody.confidence.any()


def test_noise_falls_with_the_number_of_frames():
    random = np.random.default_rng(7)
    light = np.full((3, 96, 128), 0.4)
    frames = [(light + random.normal(0, 0.02, light.shape)).astype(np.float32) for _ in range(12)]
    noise = fuse(frames).image[:, 8:-8, 8:-8].std()
    assert noise < 0.35 * 0.02  # 1 / sqrt(12) is 0.29; measured 0.30


def test_what_is_opaque_stays_opaque():
    """A near bar before a background of more contrast, which is seen through it once the bar is out of focus."""
    random = np.random.default_rng(9)
    bar = np.zeros((96, 128), bool)
    bar[:, 40:70] = True
    far = textured((1, 96, 128), 1)
    near = (0.25 + 0.55 * random.random((1, 96, 128))).astype(np.float32)
    in_front = np.where(bar, near, far.mean(dtype=float)).astype(np.float32)  # the background is out of focus
    through = 0.85 * far + 0.15 * near  # the bar is spread so wide that it hides little
    between = np.full_like(far, far.mean())
    burst = [in_front, between, 0.2 * far + 0.8 * between, through]
    opaque, clear = fuse(burst, near="first"), fuse(burst, near="none")
    middle = np.s_[20:-20, 48:62]
    assert psnr(opaque.image[0][middle], near[0][middle]) > 30 and opaque.depth[middle].mean() < 0.1
    assert psnr(clear.image[0][middle], near[0][middle]) < 20 and clear.depth[middle].mean() > 2
    far_side = np.s_[:, 100:]
    assert psnr(opaque.image[0][far_side], through[0][far_side]) > 40


def test_a_preview_ends_nothing(small_bracket):
    fuser = DepthMapFuser()
    for frame in small_bracket.planes():
        fuser.push(frame)
    shown = fuser.preview()
    assert np.array_equal(shown, fuser.finish().image)
    with pytest.raises(BurstError, match="no frames"):
        fuser.preview()
    with pytest.raises(ArgumentError, match="make a new DepthMapFuser"):
        fuser.push(small_bracket.planes()[0])
    fuser.begin(None)
    fuser.push(small_bracket.planes()[0])
    assert fuser.frames == 1


def test_a_full_disk_leaves_what_came_before(small_bracket, monkeypatch):
    frames, fuser = small_bracket.planes(), DepthMapFuser()
    fuser.push(frames[0])
    fuser.push(frames[1])

    def full(self, planes):
        raise ResourceError("FrameStore.push: the disk is full")

    monkeypatch.setattr(FrameStore, "push", full)
    for _ in range(2):
        with pytest.raises(ResourceError, match=r"disk is full|no room"):
            fuser.push(frames[2])
    monkeypatch.undo()
    with pytest.raises(ResourceError, match="an earlier frame found no room"):
        fuser.push(frames[2])
    assert np.array_equal(fuser.finish().image, fuse(frames[:2]).image)


def test_what_is_refused():
    with pytest.raises(ArgumentError, match=r"near must be one of first, last, none, got 'left'"):
        DepthMapFuser(near="left")
    with pytest.raises(ArgumentError, match="must be a NumPy array, got list"):
        DepthMapFuser().push([[1.0]])
    fuser = DepthMapFuser()
    fuser.push(textured((3, 8, 8)))
    with pytest.raises(BurstError, match="frame 1 is"):
        fuser.push(textured((3, 8, 9)))
    with pytest.raises(BurstError, match="no frames"):
        DepthMapFuser().finish()


def test_the_pipeline_takes_it_by_name_and_gives_it_its_memory(small_bracket):
    burst = [(255 * np.sqrt(f)).astype(np.uint8) for f in small_bracket.frames]
    stages = []
    result = stack(
        burst, fuser="depthmap", align=False, memory=40_000_000, progress=lambda s, d, n: stages.append((s, d, n))
    )
    assert result.fused.depth is not None and result.image().shape == (160, 200, 3)
    assert ("finish", stages[-1][2], stages[-1][2]) == stages[-1]
    stacker = Stacker("depthmap", align=False)
    for frame in burst:
        stacker.push(frame)
    assert np.array_equal(stacker.finish().image(), result.image())


@pytest.mark.parametrize("size", [(131, 90), (128, 64), (33, 40)])
def test_a_frame_is_measured_band_by_band_to_the_same_bits(monkeypatch, size):
    planes = textured((3, *size))
    whole = measure(planes, None)
    monkeypatch.setattr("pyfocus.focus._BAND", 32)
    bands = measure(planes, None)
    for a, b in zip((*whole.energies, whole.light), (*bands.energies, bands.light), strict=True):
        np.testing.assert_array_equal(a, b)
