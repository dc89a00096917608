"""Data sets: what is stored is what the frames show, in the right place; batches repeat; damage and absence are named.

Oracles are the simulation's own truth and a scene that is a formula, so that every direction and phase is known.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import files, run
from lsfd_miniature import KEY, NAMES, SIZE, make_archive, scene, to_reference
from PIL import Image

torch = pytest.importorskip("torch")

from pyfocus import cli  # noqa: E402
from pyfocus.burst import Burst, Frame, Meta  # noqa: E402
from pyfocus.errors import ArgumentError, BurstError, ReadError, WriteError  # noqa: E402
from pyfocus.io import read_burst, write_image  # noqa: E402
from pyfocus.nn import data  # noqa: E402
from pyfocus.nn.data import keep as keeping  # noqa: E402
from pyfocus.nn.data import store  # noqa: E402
from pyfocus.nn.data.dataset import choose_places  # noqa: E402
from pyfocus.nn.data.lsfd_convert import on_red  # noqa: E402
from pyfocus.raw import CFA_ORDERS, pack  # noqa: E402
from pyfocus.simulate import procedural_scene, simulate, write_bracket  # noqa: E402
from pyfocus.simulate.camera import NEUTRAL  # noqa: E402

HEIGHT, WIDTH, FRAMES = 96, 128, 4
CAMERA = np.array(NEUTRAL, np.float32)[:, None, None]  # response to white: takes the white balance out


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def bracket_of(seed: int, **changes: Any) -> Any:
    """A small raw bracket that moves."""
    picture, depth = procedural_scene(HEIGHT, WIDTH)
    settings = {"frames": FRAMES, "blur_px": 6.0, "breathing": 0.02, "jitter_px": 1.0, "raw": True, "seed": seed}
    return simulate(picture[:, ::-1] if seed % 2 else picture, depth, **{**settings, **changes})


@pytest.fixture(scope="module")
def bursts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two brackets, ``cup1`` and ``key1``; never written to."""
    folder = tmp_path_factory.mktemp("bursts")
    for seed, name in enumerate(("cup1", "key1")):
        write_bracket(bracket_of(seed), folder / name)
    return folder


@pytest.fixture(scope="module")
def built(bursts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set of them, all to learn from; never written to."""
    folder = tmp_path_factory.mktemp("built") / "set"
    data.build_dataset(bursts, folder, data.Recipe("rggb"), reference="middle", shares=data.Shares(0, 0))
    return folder


def shown(planes: np.ndarray) -> np.ndarray:
    return np.clip(planes, 0, 1) ** (1 / 2.2)


def psnr(one: np.ndarray, two: np.ndarray) -> float:
    return float(-10 * np.log10(np.square(shown(one) - shown(two)).mean()))


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


def test_truth_is_sharp_and_in_camera_colours(built: Path, bursts: Path, tmp_path: Path) -> None:
    bracket, made = bracket_of(0), data.open_dataset(built)
    facts = made.facts(0)
    y0, x0, y1, x1 = facts.crop
    known = bracket.truth[y0:y1, x0:x1].transpose(2, 0, 1) * CAMERA
    sharp = made.crop(0, 0, 0, facts.size).truth[0].numpy()
    shutil.copytree(bursts / "cup1", tmp_path / "cup1")
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


def test_noise_is_measured_or_given(bursts: Path, tmp_path: Path) -> None:
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


def test_a_batch_repeats_and_is_what_the_files_hold(built: Path) -> None:
    made = data.open_dataset(built)
    assert len(made) == 2 and made.kind == "rggb" and made.names == ["cup1", "key1"] and made.split("train") == [0, 1]
    one, two = made.batch(3, 5, size=(32, 40), count=6), data.open_dataset(built).batch(3, 5, size=(32, 40), count=6)
    other = made.batch(3, 6, size=(32, 40), count=6)
    for name in ("frames", "index", "truth", "depth", "sharp", "noise", "white_balance"):
        assert torch.equal(getattr(one, name), getattr(two, name)), name
        assert getattr(one, name).dtype == torch.float32
    assert not torch.equal(one.frames, other.frames)
    assert one.frames.shape == (6, FRAMES, 4, 16, 20) and one.truth.shape == (6, 3, 32, 40) and one.kind == "rggb"
    assert one.depth.shape == one.sharp.shape == (6, 1, 32, 40) and one.noise.shape == (6, 2)
    assert one.index.tolist() == [[2, 0, 1, 3]] * 6  # the reference, which is the middle frame, first

    stored = np.load(built / "bursts" / "key1" / "frames.npy")
    crop = made.crop(1, 12, 8, (16, 24))
    part = (stored[:, :, 6:14, 4:16].astype(np.float64) - 1024) / 64511
    assert np.abs(crop.frames[0].numpy() - part[[2, 0, 1, 3]]).max() < 1e-6
    truth = np.load(built / "bursts" / "key1" / "truth.npy")[:, 12:28, 8:32]
    assert np.abs(crop.truth[0].numpy() - (truth.astype(np.float64) - 1024) / 64511).max() < 1e-6


def test_random_crops_reach_every_place(built: Path) -> None:
    made = data.open_dataset(built)
    rows, columns = made.facts(0).size
    whole = made.batch(0, 0, size=(rows, 8), count=2)
    assert whole.truth.shape[2] == rows
    seen = [made.batch(0, step, size=(rows - 2, columns - 2), count=1).truth for step in range(24)]
    assert len({t.numpy().tobytes() for t in seen if t.shape[2:] == (rows - 2, columns - 2)}) >= 4


def test_a_mosaic_and_its_rgb_are_of_the_same_planes(built: Path) -> None:
    made = data.open_dataset(built)
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


def test_fewer_frames_keep_the_reference_and_the_depths_scale(built: Path) -> None:
    made = data.open_dataset(built)
    whole, few = made.crop(0, 0, 0, 64), made.crop(0, 0, 0, 64, frames=2)
    assert few.frames.shape[1] == 2 and few.index.tolist() == [[1, 0]]
    assert torch.equal(few.frames[:, 0], whole.frames[:, 0])
    places = choose_places(FRAMES, 2, 2)
    assert np.allclose(few.depth.numpy(), np.interp(whole.depth.numpy(), places, [0, 1]), atol=1e-6)


def test_what_a_crop_must_be(built: Path) -> None:
    made = data.open_dataset(built)
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


def test_another_process_reads_the_same(built: Path) -> None:
    made = data.open_dataset(built)
    first = made.batch(1, 1, size=16, count=2)
    copied = pickle.dumps(made)
    assert len(copied) < 5000  # facts, no pixels
    assert torch.equal(pickle.loads(copied).batch(1, 1, size=16, count=2).frames, first.frames)


def test_squares_are_numbered_draws(built: Path) -> None:
    made = data.open_dataset(built)
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


# --- building ----------------------------------------------------------


def test_what_a_burst_is(tmp_path: Path) -> None:
    picture = np.zeros((20, 20, 3), np.uint8)
    for name in ("a/1.jpg", "a/2.jpg", "b/raw/1.png", "b/raw/2.png", "b/jpg/1.jpg", "b/jpg/2.jpg", "b/truth.tif",
                 "c/d/1.png", "c/d/2.png", "c/one.jpg", ".old/1.jpg", ".old/2.jpg"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(tmp_path / name, picture)
    found = data.find_bursts(tmp_path)
    assert [(n, p.relative_to(tmp_path).as_posix()) for n, p in found] == [("a", "a"), ("b", "b/raw"), ("c/d", "c/d")]
    assert data.find_bursts(tmp_path / "a") == [("a", tmp_path / "a")]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ReadError, match="no burst in this folder"):
        data.find_bursts(tmp_path / "empty")
    with pytest.raises(ReadError, match="no such folder"):
        data.find_bursts(tmp_path / "z")


def test_scenes_are_split_whole_and_for_good() -> None:
    shares = data.Shares(0.25, 0.25, seed=1)
    assert shares.scene("key1") == shares.scene("key2") == "key" and shares.scene("007") == "007"
    assert data.Shares(siblings=False).scene("key1") == "key1"
    where = [shares.of(f"scene {i}") for i in range(4000)]
    assert all(abs(where.count(split) / 4000 - part) < 0.03 for split, part in (("val", 0.25), ("test", 0.25)))
    assert where[:50] == [shares.of(f"scene {i}") for i in range(50)]
    with pytest.raises(ArgumentError, match="at most 1 together"):
        data.Shares(0.7, 0.7)


def test_a_second_run_goes_on_and_mends_nothing(bursts: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "set"
    shutil.copytree(bursts, source)
    broken = source / "key1" / "frames" / "IMG_0001.dng"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:5000])
    with pytest.raises(ReadError, match=r"key1.*IMG_0001.dng"):
        data.build_dataset(source, target, data.Recipe("rggb"))
    assert [p.name for p in (target / "bursts").iterdir()] == ["cup1"]  # nothing half-written
    assert data.open_dataset(target).names == ["cup1"]
    before = files(target / "bursts" / "cup1")
    broken.write_bytes(whole)
    again = data.build_dataset(source, target, data.Recipe("rggb"))
    assert (again.made, again.kept) == (["key1"], ["cup1"])
    assert files(target / "bursts" / "cup1") == before and data.open_dataset(target).names == ["cup1", "key1"]

    with pytest.raises(WriteError, match="made with truth 'laplacian', not 'average'"):
        data.build_dataset(source, target, data.Recipe("rggb", truth="average"))
    (source / "cup1" / "frames" / "IMG_0003.dng").unlink()
    with pytest.raises(WriteError, match="of other files than the burst has now"):
        data.build_dataset(source, target, data.Recipe("rggb"))
    anew = data.build_dataset(source, target, data.Recipe("rggb", truth="average"), overwrite=True)
    assert anew.made == ["cup1", "key1"] and len(data.open_dataset(target).facts(0).frames) == 3
    assert not store.leftovers(target)


def test_a_folder_of_other_things_is_left_alone(bursts: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(WriteError, match="is no data set"):
        data.build_dataset(bursts, tmp_path, data.Recipe("rggb"))
    assert [p.name for p in tmp_path.iterdir()] == ["letter.txt"]


def test_pictures_are_kept_as_rgb(tmp_path: Path) -> None:
    bracket = bracket_of(1, raw=False)
    for k, frame in enumerate(bracket):
        (tmp_path / "in").mkdir(exist_ok=True)
        write_image(tmp_path / "in" / f"{k}.png", frame, bits=8)
    with pytest.raises(BurstError, match="pictures, not mosaics"):
        data.build_dataset(tmp_path / "in", tmp_path / "no", data.Recipe("rggb"))
    data.build_dataset(tmp_path / "in", tmp_path / "set", data.Recipe("rgb"), reference="middle")
    made = data.open_dataset(tmp_path / "set")
    stored = np.load(tmp_path / "set" / "bursts" / "in" / "frames.npy")
    y0, x0, y1, x1 = made.facts(0).crop
    own = np.asarray(Image.open(tmp_path / "in" / f"{bracket.reference}.png"))[y0:y1, x0:x1].transpose(2, 0, 1)
    assert stored.dtype == np.uint8 and np.array_equal(stored[bracket.reference], own)
    batch = made.crop(0, 0, 0, 32)
    assert batch.kind == "rgb" and batch.white_balance.tolist() == [[1, 1, 1]]
    code = own[:, :32, :32] / 255
    linear = np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)
    assert np.abs(batch.frames[0, 0].numpy() - linear).max() < 1e-6
    with pytest.raises(ArgumentError, match="kind must be rgb for frames stored as rgb"):
        made.crop(0, 0, 0, 32, kind="rggb")


# --- another program's truth -------------------------------------------

MEAN = """import sys, numpy as np, tifffile
*inputs, output = [a for a in sys.argv[1:] if a != "-o"]
tifffile.imwrite(output, np.rint(np.mean([tifffile.imread(p) for p in inputs], 0)).astype(np.uint16))
"""
PROGRAMS = {
    "exit": ("import sys; print('no licence', file=sys.stderr); sys.exit(3)", "failed with exit code 3: no licence"),
    "nothing": ("", "wrote no picture to {output}"),
    "small": (MEAN.replace(".astype(np.uint16)", ".astype(np.uint16)[:-2]"), "must be of the frames' size"),
}


def command_for(folder: Path, program: str) -> str:
    (folder / "program.py").write_text(program)
    return f"{sys.executable} '{folder / 'program.py'}' {{inputs}} -o {{output}}"


def test_a_program_can_make_the_truth(bursts: Path, tmp_path: Path) -> None:
    source = bursts / "cup1"
    command = command_for(tmp_path, MEAN)
    data.build_dataset(source, tmp_path / "set", data.Recipe("rggb", truth_command=command), reference="middle")
    made = data.open_dataset(tmp_path / "set")
    assert made.facts(0).truth == command and made.facts(0).truth_colours == "camera"
    assert sorted(p.name for p in (tmp_path / "set" / "bursts" / "cup1").iterdir()) == [
        "burst.json", "frames.npy", "truth.npy",
    ]  # fmt: skip
    # the mean of codes of the frames as they were given: warped, balanced, divided by the largest gain
    rgb = tmp_path / "rgb"
    data.build_dataset(source, rgb, data.Recipe("rgb"), reference="middle")
    frames = data.open_dataset(rgb).crop(0, 0, 0, 64).frames[0].numpy().astype(np.float64) / CAMERA / 2
    low, high = frames * 12.92, 1.055 * np.maximum(frames, 1e-9) ** (1 / 2.4) - 0.055
    code = np.clip(np.where(frames <= 0.0031308, low, high), 0, 1).mean(0)
    expected = np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4) * 2 * CAMERA
    assert (
        np.abs(made.crop(0, 0, 0, 64).truth[0].numpy() - expected).max() < 1e-4
    )  # two roundings to 16 bits; measured: 3.2e-5


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_that_fails_leaves_nothing(bursts: Path, tmp_path: Path, name: str) -> None:
    program, text = PROGRAMS[name]
    recipe = data.Recipe("rggb", truth_command=command_for(tmp_path, program))
    with pytest.raises(BurstError, match="cup1: ") as caught:
        data.build_dataset(bursts / "cup1", tmp_path / "set", recipe)
    assert text in str(caught.value)
    assert list((tmp_path / "set" / "bursts").iterdir()) == [] and len(data.open_dataset(tmp_path / "set")) == 0


def test_a_command_is_words_and_no_shell(bursts: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    recipe = data.Recipe("rggb", truth_command=f"no-such-program-here {{inputs}} {{output}}; touch {marker}")
    with pytest.raises(BurstError, match="no-such-program-here: cannot be run"):
        data.build_dataset(bursts / "cup1", tmp_path / "set", recipe)
    assert not marker.exists()
    for command in ("prog {inputs}", "prog x{inputs} {output}", "prog '{inputs} {output}", ""):
        with pytest.raises(ArgumentError, match="truth command"):
            data.build_dataset(bursts, tmp_path / "other", data.Recipe("rggb", truth_command=command))
    with pytest.raises(ArgumentError, match="fuser"):
        data.build_dataset(bursts, tmp_path / "other", data.Recipe("rggb", truth="sharpest"))
    assert not (tmp_path / "other").exists()


# --- damage ------------------------------------------------------------


def damaged(built: Path, folder: Path) -> Path:
    shutil.copytree(built, folder / "set")
    return folder / "set"


def test_damaged_sets_are_named(built: Path, tmp_path: Path) -> None:
    root = damaged(built, tmp_path)
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
def test_no_file_runs_code(tmp_path: Path, built: Path, legacy: bool) -> None:
    marker, path = tmp_path / "marker", tmp_path / "transforms.pth"
    torch.save([Intruder(marker)], path, _use_new_zipfile_serialization=not legacy)
    for read in (lambda: data.read_transforms(path, 2), lambda: data.read_crop(path)):
        with pytest.raises(ReadError, match=r"transforms.pth: asks for \w+.mkdir, and nothing but numbers"):
            read()
    torch.save([np.array([Intruder(marker)], object)], path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ReadError, match=r"transforms.pth: "):
        data.read_transforms(path, 2)
    root = damaged(built, tmp_path)
    np.save(root / "bursts" / "cup1" / "truth.npy", np.array([Intruder(marker)], object), allow_pickle=True)
    with pytest.raises(ReadError, match=r"truth.npy: is damaged"):
        data.open_dataset(root).crop(0, 0, 0, 16)
    assert not marker.exists()
    pickle.loads(pickle.dumps(Intruder(marker)))  # as it would have
    assert marker.exists()


# --- the published archive ---------------------------------------------


def test_transforms_come_back_inverted(tmp_path: Path) -> None:
    maps = [to_reference(k)[:2] for k in range(1, 4)]
    forms = {
        "list of arrays": [m.astype(np.float32) for m in maps],
        "one array": np.stack(maps),
        "tuple of tensors": tuple(torch.from_numpy(m) for m in maps),
        "one tensor": torch.from_numpy(np.stack(maps)),
        "with frame 0": [np.eye(3)[:2], *maps],
    }
    for name, form in forms.items():
        torch.save(form, tmp_path / "t.pth", _use_new_zipfile_serialization=name != "one array")
        found = data.read_transforms(tmp_path / "t.pth", 4)
        assert np.array_equal(found[0], np.eye(3)), name
        for k in range(1, 4):
            assert np.abs(found[k] @ to_reference(k) - np.eye(3)).max() < 1e-4, name
    for form, text in (
        (maps[:2], "it has 2 transforms, 4 frames need 3"),
        ([np.eye(4)] * 3, "where \\(2, 3\\) belongs"),
        ([np.full((2, 3), np.nan)] * 3, "finite numbers"),
        ([np.zeros((2, 3))] * 3, "Singular"),
        ({"a": 1}, "holds no transforms"),
        ("text", "holds no transforms"),
    ):
        torch.save(form, tmp_path / "t.pth")
        with pytest.raises(ReadError, match=text):
            data.read_transforms(tmp_path / "t.pth", 4)
    whole = (tmp_path / "t.pth").read_bytes()
    (tmp_path / "t.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ReadError, match="damaged, cut short"):
        data.read_transforms(tmp_path / "t.pth", 4)


@pytest.mark.parametrize("cfa", CFA_ORDERS)
def test_mosaics_begin_on_red(cfa: str) -> None:
    random = np.random.default_rng(2)
    counts = random.integers(100, 4000, (36, 40)).astype(np.uint16)
    meta = Meta(cfa=cfa, black=(1.0, 2.0, 3.0, 4.0), white=5000.0)
    cut, start = on_red(Burst(["x"], lambda i: Frame(counts, meta)), (30, 32))
    y, x = 3 + start[0], 4 + start[1]
    frame = cut[0]
    assert frame.meta.cfa == "RGGB" and cfa[2 * (y % 2) + x % 2] == "R" and max(start) <= 1
    assert frame.size[0] % 2 == frame.size[1] % 2 == 0
    assert 3 + 30 - 2 < y + frame.size[0] <= 3 + 30 and 4 + 32 - 2 < x + frame.size[1] <= 4 + 32
    red = pack(frame.data, frame.meta)[0]
    black = meta.black[2 * (y % 2) + x % 2]
    assert np.allclose(red, (counts[y : y + frame.size[0] : 2, x : x + frame.size[1] : 2] - black) / (5000 - black))
    with pytest.raises(BurstError, match="do not fit the photo's pictures"):
        on_red(Burst(["x"], lambda i: Frame(counts, meta)), (40, 32))


@pytest.mark.parametrize("cfa", ["RGGB", "GBRG"])
def test_archive_raws_lie_where_the_transforms_say(tmp_path: Path, cfa: str) -> None:
    make_archive(tmp_path, cfa=cfa)
    archive = data.read_lsfd(tmp_path)
    done = data.convert_lsfd(archive, tmp_path / "set", data.Recipe("rggb"))
    assert done.made == [KEY, NAMES[1]] and sorted(done.left_out) == sorted(NAMES[2:])
    made = data.open_dataset(tmp_path / "set")
    assert made.names == [NAMES[1], KEY] and made.splits == ["test", "train"]
    facts = made.facts(1)
    y0, x0, y1, x1 = facts.crop
    start = {"RGGB": (0, 0), "GBRG": (1, 0)}[cfa]  # of the first red pixel in the picture
    yy, xx = np.mgrid[y0:y1, x0:x1].astype(np.float64) + np.reshape(start, (2, 1, 1))
    frames = store.decode(np.load(made.folder / "bursts" / KEY.replace("/", "~") / "frames.npy"))
    assert facts.reference == 0 and facts.truth == "helicon_focus_aligned_tiff.jpg" and len(facts.frames) == 4
    sites = ((0, 0, 0), (1, 0, 1), (1, 1, 0), (2, 1, 1))
    expected = np.stack([scene(xx, yy)[c, dy::2, dx::2] * NEUTRAL[c] for c, dy, dx in sites])
    inner = np.s_[..., 2:-2, 2:-2]  # at the very edge demosaicing knows one side only
    worst = float(np.abs(frames - expected)[inner].max())
    # what is left is demosaicing; it must not look like a shift (x, y) of any frame's plane
    slopes = np.stack([scene(xx + dx, yy + dy) - scene(xx - dx, yy - dy) for dx, dy in ((0.5, 0), (0, 0.5))])
    for frame in frames:
        for plane, (c, dy, dx) in enumerate(sites):
            slope = (slopes[:, c, dy::2, dx::2] * NEUTRAL[c])[inner].reshape(2, -1).T
            shift = np.linalg.lstsq(slope, (frame[plane] - expected[plane])[inner].ravel(), rcond=None)[0]
            assert np.abs(shift).max() < 0.01, shift  # px of the picture; measured: 0.0045
    swapped = np.linalg.inv(to_reference(3)) @ np.linalg.inv(to_reference(3))  # had the map been taken the other way
    points = np.stack([xx, yy, np.ones_like(xx)], -1) @ swapped.T
    away = float(np.abs(scene(points[..., 0], points[..., 1])[1, 0::2, 1::2] * NEUTRAL[1] - expected[1]).max())
    assert worst < 0.0015 < 0.05 < away, (worst, away)  # measured: 0.0010 and 0.16
    # the published truth: a finished picture, which balanced frames are compared with
    batch = made.crop(1, 0, 0, facts.size)
    assert facts.truth_colours == "rendered"
    balanced = batch.truth[0].numpy() * batch.white_balance[0].numpy()[:, None, None]
    assert np.abs(balanced - scene(xx, yy)).max() < 0.03  # of JPEG; measured: 0.018


def test_archive_without_transforms_is_registered_here(tmp_path: Path) -> None:
    make_archive(tmp_path)
    folder = tmp_path / "focus_stack_dataset" / "dataset" / KEY
    (folder / "transforms.pth").unlink()
    shutil.rmtree(tmp_path / "focus_stack_dataset" / "dataset" / "test")
    archive = data.read_lsfd(tmp_path / "focus_stack_dataset")
    data.convert_lsfd(archive, tmp_path / "set", data.Recipe("rggb", truth="average"), truth="ours")
    facts = data.open_dataset(tmp_path / "set").facts(0)
    assert facts.truth == "average" and facts.truth_colours == "camera" and facts.reference == 0
    maps = np.array([f["transform"] for f in facts.registration["frames"]])
    for k, found in enumerate(maps):
        assert np.abs((found @ to_reference(k) - np.eye(3))[:2, 2]).max() < 0.05  # px; measured: 0.010


def test_archive_pictures(tmp_path: Path) -> None:
    make_archive(tmp_path)
    archive = data.read_lsfd(tmp_path)
    data.convert_lsfd(archive, tmp_path / "set", data.Recipe("rgb", equalise=False))
    made = data.open_dataset(tmp_path / "set")
    assert made.names == [KEY]  # the other has no pictures
    photo = archive.photos[0]
    stored = np.load(tmp_path / "set" / "bursts" / KEY.replace("/", "~") / "frames.npy")
    for k, path in enumerate(photo.aligned):
        assert np.array_equal(stored[k].transpose(1, 2, 0), read_burst(path)[0].data)  # aligned already: as they are
    truth = np.load(tmp_path / "set" / "bursts" / KEY.replace("/", "~") / "truth.npy")
    assert np.array_equal(truth.transpose(1, 2, 0), read_burst(photo.folder / "helicon_focus.jpg")[0].data)
    shutil.rmtree(photo.folder / "aligned")
    data.convert_lsfd(data.read_lsfd(tmp_path), tmp_path / "other", data.Recipe("rgb", equalise=False))
    frames = data.open_dataset(tmp_path / "other")
    y0, x0, y1, x1 = frames.facts(0).crop
    yy, xx = np.mgrid[y0:y1, x0:x1].astype(np.float64)
    light = frames.crop(0, 0, 0, frames.facts(0).size).frames[0].numpy()
    assert np.abs(light - scene(xx, yy)).max() < 0.04  # jpg/ by transforms.pth; of JPEG; measured: 0.022


def test_archive_says_what_there_is(tmp_path: Path) -> None:
    make_archive(tmp_path)
    archive = data.read_lsfd(tmp_path)
    assert archive == data.read_lsfd(tmp_path / "focus_stack_dataset" / "dataset")
    assert [photo.key for photo in archive.photos] == [KEY, "train/olympus_macro_lens/leaf1", NAMES[1]]
    assert archive.absent == ["test/lumix_lens/chairs3"] and archive.missing == []
    one = archive.photos[0]
    assert (len(one.raws), len(one.jpgs), len(one.aligned), one.crops) == (4, 4, 4, {"crops_raw": 1, "crops3": 1})
    assert [p.name for p in one.raws] == ["P1_2.rw2", "P1_9.rw2", "P1_10.rw2", "P1_11.rw2"] and one.missing == []
    assert archive.photos[1].missing == [
        "raw/", "jpg/", "aligned/", "transforms.pth", "helicon_focus.jpg", "helicon_focus_aligned_tiff.jpg",
    ]  # fmt: skip
    (archive.folder / "dataset.csv").write_text("name;where\na;b\n")
    with pytest.raises(ReadError, match=r"dataset.csv: is damaged: expected lines of set;lens;photo"):
        data.read_lsfd(tmp_path)
    (archive.folder / "dataset.csv").unlink()
    assert data.read_lsfd(tmp_path).missing == ["dataset.csv"]
    with pytest.raises(ReadError, match="no LSFD archive here"):
        data.read_lsfd(tmp_path / "nowhere")


def test_published_crops(tmp_path: Path) -> None:
    make_archive(tmp_path)
    folder = tmp_path / "focus_stack_dataset" / "dataset" / KEY
    raw, rgb = data.read_crop(folder / "crops_raw" / "crop0.pkl"), data.read_crop(folder / "crops3" / "crop0.pkl")
    assert raw.kind == "rggb" and raw.frames.shape == (1, 4, 4, 8, 8) and raw.truth.shape == (1, 3, 16, 16)
    assert raw.white_balance.tolist() == [[2.0, 1.0, 1.5]] and raw.index.tolist() == [[0, 1, 2, 3]]
    assert torch.allclose(raw.truth[0, :, 0, 0] * raw.white_balance[0], torch.tensor([1.0, 0.0, 1.0]))
    assert rgb.kind == "rgb" and float(rgb.frames.max()) == 1 and not rgb.depth.any()
    torch.save({"burst": torch.zeros(2, 3, 8, 8), "target": torch.zeros(3)}, tmp_path / "x.pkl")
    with pytest.raises(ReadError, match="holds no crop"):
        data.read_crop(tmp_path / "x.pkl")


# --- the command line --------------------------------------------------


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """``pyfocus`` in this process, which has torch already: exit code, standard output and error."""
    monkeypatch.chdir(tmp_path)
    before, level = signal.getsignal(signal.SIGTERM), logging.root.manager.disable

    def call(*words: object) -> tuple[int, str, str]:
        code = cli.main([str(word) for word in words])
        said = capsys.readouterr()
        return code, said.out, said.err

    yield call
    signal.signal(signal.SIGTERM, before)
    logging.disable(level)


def test_command_builds_and_goes_on(bursts: Path, tmp_path: Path, command: Any) -> None:
    words = ("dataset", "build", bursts, "-o", "set", "--test", 0, "--val", 0)
    code, out, err = command(*words, "--json")
    assert code == 0, err
    report = json.loads(out)
    assert report["made"] == ["cup1", "key1"] and report["splits"] == {"train": 2, "val": 0, "test": 0}
    assert report["kind"] == "rggb" and report["warnings"] == []
    (tmp_path / "set" / "bursts" / ".cup1.0.part").mkdir()
    before = files(tmp_path)
    code, out, err = command(*words)
    assert code == 0 and "0 made, 2 kept from before" in out and "was left behind by a run that was killed" in err
    code, out, err = command(*words, "--seed", 3)
    assert code == 1 and not out and "was made with split" in err and files(tmp_path) == before
    code, out, err = command("dataset", "build", bursts, "-o", "other", "--seed", 1)
    assert code == 0 and "no burst of 2 scenes went to val and test" in err


def test_command_lists_and_converts_the_archive(tmp_path: Path, command: Any) -> None:
    make_archive(tmp_path)
    code, out, err = command("dataset", "lsfd", tmp_path)
    assert code == 0 and not err
    assert f"{KEY}: 4 raws, 4 jpgs, 4 aligned, transforms, 2 truths, 1 in crops3/, 1 in crops_raw/\n" in out
    assert "test/lumix_lens/chairs3: in dataset.csv, not on disk" in out
    assert "leaf1: 0 raws, 0 jpgs, 0 aligned, no transforms, 0 truths; missing: raw/, jpg/" in out
    assert json.loads(command("dataset", "lsfd", tmp_path, "--json")[1])["absent"] == ["test/lumix_lens/chairs3"]
    code, out, err = command("dataset", "lsfd", tmp_path, "-o", "set", "--json")
    assert code == 0 and json.loads(out)["made"] == [KEY, NAMES[1]]
    assert "train/olympus_macro_lens/leaf1 was left out: it has no raw/" in err
    assert data.open_dataset(tmp_path / "set").facts(0).size[0] <= SIZE[0]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ("build nowhere -o s", 1, "nowhere: no such folder"),
        ("build . -o s", 1, "no burst in this folder or below"),
        ("build . -o s --val 2", 2, "val and test must be 0 or more"),
        ("build . -o s --noise 1", 2, "--noise"),
        ("build .", 2, "-o/--output"),
        ("build BURSTS -o s --noise -1 0", 2, "--noise must be two numbers of 0 or more"),
        ("build BURSTS -o s --truth x", 1, "fuser"),
        ("build BURSTS -o s --truth average --truth-command x", 2, "contradict each other"),
        ("build BURSTS -o s --truth-command x", 2, "--truth-command: must be a program with the word {inputs}"),
        ("build BURSTS -o BURSTS", 1, "is no data set; choose a new folder"),
        ("lsfd .", 1, "no LSFD archive here"),
        ("", 2, "ACTION"),
    ],
)
def test_command_says_what_is_wrong(
    bursts: Path, tmp_path: Path, command: Any, words: str, code: int, says: str
) -> None:
    found, out, err = command("dataset", *(str(bursts) if word == "BURSTS" else word for word in words.split()))
    assert (found, out, err.count("pyfocus: error: ")) == (code, "", 1) and says in err, err
    assert len(err.splitlines()) == 1 and not list(tmp_path.iterdir())


def test_command_in_a_process_of_its_own(tmp_path: Path) -> None:
    make_archive(tmp_path)
    done = run("dataset", "lsfd", ".", "-q", cwd=tmp_path)  # warnings are errors there
    assert done.returncode == 0 and done.stderr == "" and "3 photos" in done.stdout
