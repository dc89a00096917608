"""Everything that can be wrong with what a user gives: one clear line, the right exit code, nothing lost."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import tifffile
from command import files, interrupt, make_burst, refuse, run
from PIL import Image

from pyfocus.burst import Meta
from pyfocus.io import write_dng

TEXTURE = np.random.default_rng(4).integers(0, 60000, (96, 128, 3)).astype(np.uint16)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two small bursts, never written to."""
    folder = tmp_path_factory.mktemp("made")
    make_burst(folder / "rgb")
    make_burst(folder / "raw", frames=3, raw=True)
    return folder


@pytest.fixture
def here(tmp_path: Path, made: Path) -> Path:
    """A folder of one's own with ``frames`` (five TIFF) and ``raws`` (three DNG)."""
    shutil.copytree(made / "rgb" / "frames", tmp_path / "frames")
    shutil.copytree(made / "raw" / "frames", tmp_path / "raws")
    return tmp_path


# --- files that are no frames ------------------------------------------


def cut(path: Path, share: float) -> None:
    """Keep only the first part of a file."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def test_empty_file(here: Path) -> None:
    (here / "frames/IMG_0002.tif").write_bytes(b"")
    refuse("stack", "frames", "-o", "o.tif", cwd=here, code=1, says="IMG_0002.tif: the file is empty")


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_truncated_tiff(here: Path, share: float) -> None:
    cut(here / "frames/IMG_0002.tif", share)
    refuse("stack", "frames", "-o", "o.tif", cwd=here, code=1, says="IMG_0002.tif: ")


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_truncated_raw(here: Path, share: float) -> None:
    cut(here / "raws/IMG_0001.dng", share)
    refuse("stack", "raws", "-o", "o.tif", cwd=here, code=1, says="IMG_0001.dng: ")


def test_non_images(here: Path) -> None:
    (here / "notes.txt").write_text("not a picture\n")
    (here / "fake.tif").write_text("not a picture either, only named like one\n")
    (here / "void").mkdir()
    refuse("stack", "notes.txt", "-o", "o.tif", cwd=here, code=1, says="notes.txt: not an image")
    refuse("stack", "fake.tif", "-o", "o.tif", cwd=here, code=1, says="fake.tif: not an image")
    refuse("stack", "void", "-o", "o.tif", cwd=here, code=1, says="void: no images in this folder")
    refuse("stack", "nowhere.tif", "-o", "o.tif", cwd=here, code=1, says="nowhere.tif: no such file")
    refuse("stack", "frames/*.png", "-o", "o.tif", cwd=here, code=1, says="no image file matches")


def test_zero_frames(here: Path) -> None:
    refuse("stack", "-o", "o.tif", cwd=here, code=2, says="FILES")


def test_sizes_and_cameras_must_agree(here: Path) -> None:
    tifffile.imwrite(here / "frames/IMG_0002.tif", TEXTURE[:80])
    refuse("stack", "frames", "-o", "o.tif", cwd=here, code=1, says="IMG_0002.tif is 128 x 80 px")
    for k, model in enumerate(("One", "One", "Two")):
        meta = Meta(make="Maker", model=model, cfa="RGGB", black=(0.0,) * 4, white=65535.0)
        write_dng(here / f"raws/IMG_000{k}.dng", TEXTURE[:, :, 0], meta, overwrite=True)
    refuse("stack", "raws", "-o", "o.tif", cwd=here, code=1, says="Maker Two")


@pytest.mark.parametrize(("height", "width"), [(1, 40), (40, 1)])
def test_tiny_picture(here: Path, height: int, width: int) -> None:
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(here / "tiny.png")
    refuse("stack", "tiny.png", "tiny.png", "-o", "o.tif", cwd=here, code=1, says="tiny.png: the picture is")


def test_picture_without_pixels(here: Path) -> None:
    tifffile.imwrite(here / "none.tif", TEXTURE)
    data = bytearray((here / "none.tif").read_bytes())
    with tifffile.TiffFile(here / "none.tif") as tif:
        offsets = [tif.pages[0].tags[code].valueoffset for code in (256, 257)]
    for offset in offsets:
        data[offset : offset + 2] = b"\0\0"
    (here / "none.tif").write_bytes(data)
    refuse("stack", "none.tif", "none.tif", "-o", "o.tif", cwd=here, code=1, says="none.tif: ")


def test_nan_in_a_float_tiff(here: Path) -> None:
    picture = (TEXTURE / 65535).astype(np.float32)
    picture[40, 50, 1] = np.nan
    tifffile.imwrite(here / "nan.tif", picture, photometric="rgb")
    refuse("stack", "nan.tif", "nan.tif", "-o", "o.tif", cwd=here, code=1, says="nan.tif: 1 of 36864 values are NaN")


def test_black_frames(here: Path) -> None:
    for k in range(4):
        tifffile.imwrite(here / f"black{k}.tif", np.zeros_like(TEXTURE))
    done = run("stack", *(f"black{k}.tif" for k in range(4)), "-o", "o.tif", cwd=here)
    assert done.returncode == 3, done.stderr
    assert done.stderr.count("was left out") == 3 and "Traceback" not in done.stderr
    assert (tifffile.imread(here / "o.tif") == 0).all()


# --- targets -----------------------------------------------------------


def test_targets_that_cannot_be_written(here: Path) -> None:
    refuse("stack", "frames", "-o", "no/o.tif", cwd=here, code=1, says="the folder no does not exist")
    refuse("stack", "frames", "-o", "frames/IMG_0000.tif/o.tif", cwd=here, code=1, says="does not exist")
    refuse("stack", "frames", "-o", "frames", cwd=here, code=1, says="frames: ")
    refuse("stack", "frames", "-o", "o.bmp", cwd=here, code=1, says="must end in .tif")
    refuse("stack", "frames", "-o", "o.tif", "--depth", "d.jpg", cwd=here, code=1, says="must end in .tif")
    refuse("stack", "frames", "-o", "o.tif", "--save-transforms", "no/t.json", cwd=here, code=1, says="does not exist")


def test_an_existing_file_is_kept(here: Path) -> None:
    (here / "o.tif").write_bytes(b"precious")
    refuse("stack", "frames", "-o", "new.tif", "-o", "o.tif", cwd=here, code=1, says="o.tif: exists already")
    assert run("stack", "frames", "-o", "o.tif", "--overwrite", cwd=here).returncode == 0
    assert (here / "o.tif").read_bytes()[:4] == b"II*\0"


def test_inputs_are_never_written_to(here: Path) -> None:
    (here / "soft.tif").symlink_to("frames/IMG_0001.tif")
    os.link(here / "frames/IMG_0001.tif", here / "hard.tif")
    for target in ("frames/IMG_0001.tif", "soft.tif", "hard.tif"):
        refuse("stack", "frames", "-o", target, "--overwrite", cwd=here, code=2, says=f"{target} is one of the inputs")
    refuse("stack", "frames", "-o", "o.tif", "--depth", "hard.tif", "--overwrite", cwd=here, code=2, says="hard.tif")


def test_outputs_need_names_of_their_own(here: Path) -> None:
    refuse("stack", "frames", "-o", "o.tif", "-o", "./o.tif", cwd=here, code=2, says="named twice")
    refuse("stack", "frames", "-o", "o.png", "--depth", "o.png", cwd=here, code=2, says="named twice")


def limited() -> None:
    """No file may grow beyond 20 kB: for the program that is a disk that is full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


@pytest.mark.parametrize("target", ["o.tif", "o.png", "o.dng"])
def test_full_disk(here: Path, target: str) -> None:
    source = "raws" if target == "o.dng" else "frames"
    refuse("stack", source, "-o", target, cwd=here, code=1, says="the disk is full", preexec_fn=limited)


def test_full_disk_while_simulating(here: Path) -> None:
    words = ("simulate", "procedural", "--size", 200, "--frames", 2, "-o", "sim")
    refuse(*words, cwd=here, code=1, says="the disk is full", preexec_fn=limited)
    assert not (here / "sim").exists()


# --- options -----------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--memory", "lots"], "--memory: must be a size such as 500MB"),
        (["--memory", "0"], "--memory: must be a size"),
        (["--reference", "best"], "--reference: must be auto"),
        (["--reference", "5"], "--reference must be below the number of frames, 5"),
        (["--threads", "-1"], "--threads"),
        (["--threads", "two"], "--threads: must be a whole number"),
        (["--quality", "0"], "--quality: must be a whole number from 1 to 100"),
        (["--bits", "12"], "--bits"),
        (["--motion", "wild"], "--motion"),
        (["--nonsense"], "--nonsense"),
        (["-v", "-q"], "not allowed with"),
        (["--fuser", "average", "--depth", "d.png"], "use --fuser auto, depthmap or laplacian"),
        (["--no-align", "--save-transforms", "t.json"], "leave one of them out"),
        (["-o", "o.dng"], "o.dng needs camera raws, IMG_0000.tif is a picture"),
        (["--domain", "raw"], "--domain raw needs camera raws"),
    ],
)
def test_usage(here: Path, words: list[str], says: str) -> None:
    refuse("stack", "frames", "-o", "o.tif", *words, cwd=here, code=2, says=says)


def test_usage_of_the_rest(here: Path) -> None:
    refuse(cwd=here, code=2, says="COMMAND")
    refuse("unstack", cwd=here, code=2, says="unstack")
    refuse("stack", "raws", "-o", "o.dng", "--domain", "rgb", cwd=here, code=2, says="o.dng needs the mosaics")
    refuse("stack", "frames", "-o", "o.tif", cwd=here, code=2, says="PYFOCUS_THREADS", env={"PYFOCUS_THREADS": "all"})
    refuse("stack", "frames", "-o", "o.tif", "--memory", "100kB", cwd=here, code=1, says="memory")
    refuse("simulate", "procedural", "-o", "s", "--frames", 0, cwd=here, code=2, says="frames must be at least 1")
    refuse("simulate", "nowhere.png", "-o", "s", cwd=here, code=1, says="nowhere.png: no such file")


def test_transforms_that_do_not_fit(here: Path) -> None:
    assert run("stack", "frames", "-o", "o.tif", "--save-transforms", "t.json", cwd=here).returncode == 0
    words = ("stack", "frames", "-o", "o2.tif", "--transforms")
    (here / "broken.json").write_text((here / "t.json").read_text()[:-40])
    refuse(*words, "broken.json", cwd=here, code=1, says="broken.json: ")
    (here / "other.json").write_text('{"colour": "green"}')
    refuse(*words, "other.json", cwd=here, code=1, says="--save-transforms")
    (here / "binary.json").write_bytes(bytes(range(128, 256)))
    refuse(*words, "binary.json", cwd=here, code=1, says="binary.json: ")
    refuse(*words, "none.json", cwd=here, code=1, says="none.json: cannot be read")
    data = json.loads((here / "t.json").read_text())
    (here / "wide.json").write_text(json.dumps({**data, "width": 999}))
    refuse(*words, "wide.json", cwd=here, code=1, says="frames of 999 x 96 px")
    (here / "few.json").write_text(json.dumps({**data, "frames": data["frames"][:4], "reference": 0}))
    refuse(*words, "few.json", cwd=here, code=1, says="transforms of 4 frames, the burst has 5")
    refuse(*words, "t.json", "--no-align", cwd=here, code=2, says="contradict")


# --- stopped -----------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("stage", ["stacking", "register: "])
def test_stopped_while_stacking(here: Path, number: signal.Signals, stage: str) -> None:
    before = files(here)
    many = [f"frames/IMG_000{k % 5}.tif" for k in range(120 if stage == "register: " else 2000)]
    words = ("stack", *many, "--order", "as-given", "-o", "o.tif", "--depth", "d.png", "-v")
    code, said = interrupt(*words, cwd=here, number=number, after=stage, wait=0.1)
    assert code == 130 and said.splitlines()[-1] == "pyfocus: error: stopped; nothing was left half-written", said
    assert "Traceback" not in said and files(here) == before


def test_stopped_while_simulating(here: Path) -> None:
    Image.fromarray((TEXTURE >> 8).astype(np.uint8)).save(here / "other.png")
    before = files(here)
    words = ("simulate", "other.png", "procedural", "-o", "sim/deep", "--size", 400, "--frames", 20)
    code, said = interrupt(*words, cwd=here, number=signal.SIGINT, after="simulate other.png: 20", wait=0.8)
    assert code == 130 and "Traceback" not in said
    left = {name for name in files(here) if name not in before}
    assert len(left) == 23 and all(name.startswith("sim/deep/other/") for name in left)
