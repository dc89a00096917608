"""Data sets made of bursts: what a burst is, runs that go on, and truth by another program."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from command import files
from PIL import Image
from raw_brackets import CAMERA, bracket_of

pytest.importorskip("torch")

from pyfocus.errors import ArgumentError, BurstError, ReadError, WriteError
from pyfocus.io import write_image
from pyfocus.nn import data
from pyfocus.nn.data import store

pytestmark = pytest.mark.usefixtures("one_thread")


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


def test_a_second_run_goes_on_and_mends_nothing(raw_bursts: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "set"
    shutil.copytree(raw_bursts, source)
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


def test_one_frame_is_no_burst(tmp_path: Path) -> None:
    (tmp_path / "in" / "a").mkdir(parents=True)
    write_image(tmp_path / "in" / "a" / "1.tif", np.full((40, 48, 3), 90, np.uint8))
    with pytest.raises(BurstError, match=r"^a: has one frame; a burst is of two or more$"):
        data.build_dataset(tmp_path / "in", tmp_path / "set", data.Recipe("rgb"))
    assert set(files(tmp_path / "set")) == {"dataset.json"}


def test_a_folder_of_other_things_is_left_alone(raw_bursts: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(WriteError, match="is no data set"):
        data.build_dataset(raw_bursts, tmp_path, data.Recipe("rggb"))
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


def test_a_program_can_make_the_truth(raw_bursts: Path, tmp_path: Path) -> None:
    source = raw_bursts / "cup1"
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
def test_a_program_that_fails_leaves_nothing(raw_bursts: Path, tmp_path: Path, name: str) -> None:
    program, text = PROGRAMS[name]
    recipe = data.Recipe("rggb", truth_command=command_for(tmp_path, program))
    with pytest.raises(BurstError, match="cup1: ") as caught:
        data.build_dataset(raw_bursts / "cup1", tmp_path / "set", recipe)
    assert text in str(caught.value)
    assert list((tmp_path / "set" / "bursts").iterdir()) == [] and len(data.open_dataset(tmp_path / "set")) == 0


def test_a_command_is_words_and_no_shell(raw_bursts: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    recipe = data.Recipe("rggb", truth_command=f"no-such-program-here {{inputs}} {{output}}; touch {marker}")
    with pytest.raises(BurstError, match="no-such-program-here: cannot be run"):
        data.build_dataset(raw_bursts / "cup1", tmp_path / "set", recipe)
    assert not marker.exists()
    for command in ("prog {inputs}", "prog x{inputs} {output}", "prog '{inputs} {output}", ""):
        with pytest.raises(ArgumentError, match="truth command"):
            data.build_dataset(raw_bursts, tmp_path / "other", data.Recipe("rggb", truth_command=command))
    with pytest.raises(ArgumentError, match="fuser"):
        data.build_dataset(raw_bursts, tmp_path / "other", data.Recipe("rggb", truth="sharpest"))
    assert not (tmp_path / "other").exists()
