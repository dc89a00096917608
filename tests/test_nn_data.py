"""Data sets: what is stored is what the frames show, in the right place; batches repeat; damage is named.

Oracles are the simulation's own truth and a scene that is a formula, so that every direction and phase is known.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from raw_brackets import CAMERA, FRAMES, bracket_of, psnr

torch = pytest.importorskip("torch")

from pyfocus.errors import ArgumentError, BurstError, ReadError  # noqa: E402
from pyfocus.io import read_burst  # noqa: E402
from pyfocus.nn import data  # noqa: E402
from pyfocus.nn.data import keep as keeping  # noqa: E402
from pyfocus.nn.data import store  # noqa: E402
from pyfocus.nn.data.dataset import choose_places  # noqa: E402
from pyfocus.simulate import simulate, write_bracket  # noqa: E402
from pyfocus.simulate.camera import NEUTRAL  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


# --- the store ---------------------------------------------------------


def test_stored_values_come_back_to_half_a_step() -> None:
    light = np.random.default_rng(1).uniform(-0.01, 0.6, (3, 8, 10)).astype(np.float32)
    white = (1.6, 1.0, 1.3)
    out = np.empty(light.shape, np.uint16)
    store.encode(light, out, white)
    expected = light.astype(np.float64) / np.reshape(white, (3, 1, 1))
    assert np.abs(store.decode(out) - expected).max() <= 0.5001 / 64511
    codes = np.arange(256, dtype=np.uint8).reshape(1, 1, -1).repeat(3, 0)
    again = np.empty_like(codes)
    store.encode(store.decode(codes), again)
    assert np.array_equal(again, codes)


@pytest.mark.parametrize("name", ["", "../x", "a/../b", "/etc", "a//b", ".hidden", "a\\b"])
def test_a_name_stays_inside_the_folder(name: str) -> None:
    with pytest.raises(ArgumentError, match="visible folders"):
        store.folder_name(name)


def test_frames_lie_where_the_reference_has_them(tmp_path: Path) -> None:
    # without blur every frame shows the same: in the reference's geometry they must equal the truth at each site
    bracket = bracket_of(0, blur_px=0.0, rotation_deg=0.3)
    write_bracket(bracket, tmp_path / "still")
    data.build_dataset(tmp_path / "still", tmp_path / "set", data.Recipe("rggb"), reference="middle")
    made = data.open_dataset(tmp_path / "set")
    facts = made.facts(0)
    y0, x0, y1, x1 = facts.crop
    camera = bracket.truth[y0:y1, x0:x1].transpose(2, 0, 1) * CAMERA
    sites = np.stack([camera[c, dy::2, dx::2] for c, dy, dx in ((0, 0, 0), (1, 0, 1), (1, 1, 0), (2, 1, 1))])
    frames = store.decode(np.load(made.folder / "bursts" / "still" / "frames.npy"))
    assert facts.reference == bracket.reference and facts.left_out == [] and frames.shape == facts.shape()
    assert np.abs(np.array(facts.white_balance) - 1 / np.array(NEUTRAL)).max() < 1e-6
    errors = [psnr(frame, sites) for frame in frames]
    shifted = psnr(frames[0], np.roll(sites, 1, axis=2))
    assert min(errors) > 38 and shifted < min(errors) - 10, (errors, shifted)  # measured: 40.6 and 23.7
    # its transforms are kept, and are the simulation's
    maps = np.array([f["transform"] for f in facts.registration["frames"]])[:, :2]
    assert np.abs(maps - bracket.transforms)[..., 2].max() < 0.15  # px; measured: 0.07


def test_truth_is_sharp_and_in_camera_colours(raw_set: Path, raw_bursts: Path, tmp_path: Path) -> None:
    bracket, made = bracket_of(0), data.open_dataset(raw_set)
    facts = made.facts(0)
    y0, x0, y1, x1 = facts.crop
    known = bracket.truth[y0:y1, x0:x1].transpose(2, 0, 1) * CAMERA
    sharp = made.crop(0, 0, 0, facts.size).truth[0].numpy()
    shutil.copytree(raw_bursts / "cup1", tmp_path / "cup1")
    data.build_dataset(tmp_path / "cup1", tmp_path / "set", data.Recipe("rggb", truth="average"), reference="middle")
    mean = data.open_dataset(tmp_path / "set")
    blurred = mean.crop(0, 0, 0, facts.size).truth[0].numpy()
    assert mean.facts(0).crop == facts.crop
    assert psnr(sharp, known) > psnr(blurred, known) + 3, (psnr(sharp, known), psnr(blurred, known))
    assert np.abs(sharp.mean((1, 2)) / known.mean((1, 2)) - 1).max() < 0.02
    none = mean.crop(0, 0, 0, 32)
    assert not none.depth.any() and not none.sharp.any()  # an average has no depth: nothing is claimed
    batch = made.crop(0, 0, 0, facts.size)
    near = known.shape[1] // 2
    assert float(batch.depth.min()) >= 0 and float(batch.depth.max()) <= FRAMES - 1
    assert float(batch.depth[0, 0, near:].mean()) != float(batch.depth[0, 0, :near].mean())
    assert 0 < float(batch.sharp.mean()) <= 1


def test_noise_is_measured_or_given(raw_bursts: Path, tmp_path: Path) -> None:
    flat = np.full((256, 256, 3), 0.2, np.float32) + np.linspace(0, 0.5, 256, dtype=np.float32)[None, :, None]
    noisy = simulate(flat, np.zeros((256, 256), np.float32), frames=2, raw=True, iso=0.5, jitter_px=0, breathing=0)
    write_bracket(noisy, tmp_path / "in")
    found = read_burst(tmp_path / "in" / "frames")
    still = keeping.known_registration(np.stack([np.eye(3)] * 2), found[0].size, found.names)
    for given, expected, tolerance in ((None, noisy.settings.noise, 0.1), ((0.3, 0.4), (0.3, 0.4), 0.0)):
        recipe = data.Recipe("rggb", truth="average", noise=given)
        item = keeping.Found("noisy", "noisy", found, still)
        facts = keeping.keep(tmp_path / str(given), item, recipe, {}, lambda *_: None)
        assert facts.noise[0] * 0.4 + facts.noise[1] == pytest.approx(expected[0] * 0.4 + expected[1], rel=tolerance)


# --- batches -----------------------------------------------------------


def test_a_batch_repeats_and_is_what_the_files_hold(raw_set: Path) -> None:
    made = data.open_dataset(raw_set)
    assert len(made) == 2 and made.kind == "rggb" and made.names == ["cup1", "key1"] and made.split("train") == [0, 1]
    one, two = made.batch(3, 5, size=(32, 40), count=6), data.open_dataset(raw_set).batch(3, 5, size=(32, 40), count=6)
    other = made.batch(3, 6, size=(32, 40), count=6)
    for name in ("frames", "index", "truth", "depth", "sharp", "noise", "white_balance"):
        assert torch.equal(getattr(one, name), getattr(two, name)), name
        assert getattr(one, name).dtype == torch.float32
    assert not torch.equal(one.frames, other.frames)
    assert one.frames.shape == (6, FRAMES, 4, 16, 20) and one.truth.shape == (6, 3, 32, 40) and one.kind == "rggb"
    assert one.depth.shape == one.sharp.shape == (6, 1, 32, 40) and one.noise.shape == (6, 2)
    assert one.index.tolist() == [[2, 0, 1, 3]] * 6  # the reference, which is the middle frame, first

    stored = np.load(raw_set / "bursts" / "key1" / "frames.npy")
    crop = made.crop(1, 12, 8, (16, 24))
    part = (stored[:, :, 6:14, 4:16].astype(np.float64) - 1024) / 64511
    assert np.abs(crop.frames[0].numpy() - part[[2, 0, 1, 3]]).max() < 1e-6
    truth = np.load(raw_set / "bursts" / "key1" / "truth.npy")[:, 12:28, 8:32]
    assert np.abs(crop.truth[0].numpy() - (truth.astype(np.float64) - 1024) / 64511).max() < 1e-6


def test_random_crops_reach_every_place(raw_set: Path) -> None:
    made = data.open_dataset(raw_set)
    rows, columns = made.facts(0).size
    whole = made.batch(0, 0, size=(rows, 8), count=2)
    assert whole.truth.shape[2] == rows
    seen = [made.batch(0, step, size=(rows - 2, columns - 2), count=1).truth for step in range(24)]
    assert len({t.numpy().tobytes() for t in seen if t.shape[2:] == (rows - 2, columns - 2)}) >= 4


def test_a_mosaic_and_its_rgb_are_of_the_same_planes(raw_set: Path) -> None:
    made = data.open_dataset(raw_set)
    planes, mosaic, rgb = (made.crop(0, 20, 22, 24, kind=kind) for kind in ("rggb", "mosaic", "rgb"))
    assert mosaic.frames.shape == (1, FRAMES, 1, 24, 24) and rgb.frames.shape == (1, FRAMES, 3, 24, 24)
    for plane, (dy, dx) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        assert torch.equal(mosaic.frames[:, :, 0, dy::2, dx::2], planes.frames[:, :, plane])
    for channel, (dy, dx) in enumerate(((0, 0), (0, 1), (1, 1))):  # at its own sites a colour is not interpolated
        own = planes.frames[:, :, (0, 1, 3)[channel]]
        assert float((rgb.frames[:, :, channel, dy::2, dx::2] - own).abs().max()) < 1e-5
    whole = made.crop(0, 0, 0, made.facts(0).size, kind="rgb").frames[..., 20:44, 22:46]
    assert torch.equal(rgb.frames, whole)  # the margin is wide enough for demosaicing
    known = bracket_of(0)
    y0, x0, _, _ = made.facts(0).crop
    truth = known.light(known.reference)[y0 + 20 : y0 + 44, x0 + 22 : x0 + 46].transpose(2, 0, 1) * CAMERA
    assert psnr(rgb.frames[0, 0].numpy(), truth) > 38  # measured: 41.5


@pytest.mark.parametrize("total", [2, 3, 7, 30])
def test_chosen_places_are_even_and_hold_the_reference(total: int) -> None:
    for reference in range(total):
        for count in range(1, total + 1):
            places = choose_places(total, reference, count)
            assert reference in places and len(set(places.tolist())) == count and (np.diff(places) > 0).all()
    assert choose_places(30, 0, 30).tolist() == list(range(30))


def test_fewer_frames_keep_the_reference_and_the_depths_scale(raw_set: Path) -> None:
    made = data.open_dataset(raw_set)
    whole, few = made.crop(0, 0, 0, 64), made.crop(0, 0, 0, 64, frames=2)
    assert few.frames.shape[1] == 2 and few.index.tolist() == [[1, 0]]
    assert torch.equal(few.frames[:, 0], whole.frames[:, 0])
    places = choose_places(FRAMES, 2, 2)
    assert np.allclose(few.depth.numpy(), np.interp(whole.depth.numpy(), places, [0, 1]), atol=1e-6)


def test_what_a_crop_must_be(raw_set: Path) -> None:
    made = data.open_dataset(raw_set)
    for call, text in (
        (lambda: made.crop(0, 1, 0, 16), "begin at even px"),
        (lambda: made.crop(0, 0, 120, 16), "lie inside"),
        (lambda: made.crop(0, 0, 0, 15), "even and 2 px or more"),
        (lambda: made.crop(2, 0, 0, 16), "burst must be 0 to 1"),
        (lambda: made.crop(0, 0, 0, 16, kind="planes"), "rggb or mosaic or rgb"),
        (lambda: made.batch(0, 0, size=512, count=1), "size must fit every burst"),
        (lambda: made.batch(0, 0, size=16, count=1, split="val"), "split not empty"),
        (lambda: made.split("validation"), "train, val, test"),
        (lambda: made.crops([], 16), "got none"),
    ):
        with pytest.raises(ArgumentError, match=text):
            call()
    with pytest.raises(BurstError, match="9 frames are asked for"):
        made.crop(0, 0, 0, 16, frames=9)


def test_another_process_reads_the_same(raw_set: Path) -> None:
    made = data.open_dataset(raw_set)
    first = made.batch(1, 1, size=16, count=2)
    copied = pickle.dumps(made)
    assert len(copied) < 5000  # facts, no pixels
    assert torch.equal(pickle.loads(copied).batch(1, 1, size=16, count=2).frames, first.frames)


def test_squares_are_numbered_draws(raw_set: Path) -> None:
    made = data.open_dataset(raw_set)
    squares = data.Squares(made, "train", 32, kind="rgb", frames=(2, 3), seed=4)
    rows, columns = zip(*(made.facts(i).size for i in range(2)), strict=True)
    assert len(squares) == sum((r // 32) * (c // 32) for r, c in zip(rows, columns, strict=True))
    assert torch.equal(squares.draw(7, 2).frames, squares.draw(7, 2).frames)
    assert {squares.draw(n, 1).frames.shape[1] for n in range(12)} == {2, 3}
    with pytest.raises(ArgumentError, match=r"'val' of .* has none"):
        data.Squares(made, "val", 32)
    with pytest.raises(ArgumentError, match="frames must be 1 to 4"):
        data.Squares(made, "train", 32, frames=5)
    made.splits[1] = "val"
    tiles = data.Squares(made, "val", 32)
    assert torch.equal(tiles.draw(0, 2).truth[1], made.crop(1, 0, 32, 32).truth[0])
    assert torch.equal(tiles.draw(len(tiles), 1).truth, tiles.draw(0, 1).truth)


# --- damage ------------------------------------------------------------


def damaged(raw_set: Path, folder: Path) -> Path:
    shutil.copytree(raw_set, folder / "set")
    return folder / "set"


def test_damaged_sets_are_named(raw_set: Path, tmp_path: Path) -> None:
    root = damaged(raw_set, tmp_path)
    array = root / "bursts" / "cup1" / "frames.npy"
    whole = array.read_bytes()
    array.write_bytes(whole[:-100])
    with pytest.raises(ReadError, match=r"frames.npy: is damaged or cut short"):
        data.open_dataset(root).crop(0, 0, 0, 16)
    np.save(array, np.zeros((2, 2), np.uint16))
    with pytest.raises(ReadError, match=r"frames.npy: should be"):
        data.open_dataset(root).crop(0, 0, 0, 16)
    index = root / "dataset.json"
    good = json.loads(index.read_text())
    for change, text in (
        ({"version": 2}, "of version 2, and 1 is read"),
        ({"format": "other"}, "is no pyfocus dataset"),
        ({"bursts": [{"name": "../cup1", "scene": "", "split": "train"}]}, "visible folders"),
        ({"bursts": [{"name": "cup1", "scene": "", "split": "all"}]}, "a split is none"),
    ):
        index.write_text(json.dumps({**good, **change}))
        with pytest.raises(ReadError, match=text):
            data.open_dataset(root)
    index.write_text("{")
    with pytest.raises(ReadError, match="is damaged"):
        data.open_dataset(root)
    with pytest.raises(ReadError, match="cannot be read"):
        data.open_dataset(tmp_path / "nothing")


class Intruder:
    """Unpickled, it would make a folder."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.marker,)


@pytest.mark.parametrize("legacy", [False, True])
def test_no_file_runs_code(tmp_path: Path, raw_set: Path, legacy: bool) -> None:
    marker, path = tmp_path / "marker", tmp_path / "transforms.pth"
    torch.save([Intruder(marker)], path, _use_new_zipfile_serialization=not legacy)
    for read in (lambda: data.read_transforms(path, 2), lambda: data.read_crop(path)):
        with pytest.raises(ReadError, match=r"transforms.pth: asks for \w+.mkdir, and nothing but numbers"):
            read()
    torch.save([np.array([Intruder(marker)], object)], path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ReadError, match=r"transforms.pth: "):
        data.read_transforms(path, 2)
    root = damaged(raw_set, tmp_path)
    np.save(root / "bursts" / "cup1" / "truth.npy", np.array([Intruder(marker)], object), allow_pickle=True)
    with pytest.raises(ReadError, match=r"truth.npy: is damaged"):
        data.open_dataset(root).crop(0, 0, 0, 16)
    assert not marker.exists()
    pickle.loads(pickle.dumps(Intruder(marker)))  # as it would have
    assert marker.exists()
