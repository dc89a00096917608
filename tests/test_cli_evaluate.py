"""``pyfocus evaluate`` as its users have it: the files it writes, what it says, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from command import files, make_burst, refuse, run

import pyfocus
from pyfocus.cli import evaluating
from pyfocus.cli.arguments import UsageError, parser
from pyfocus.cli.terminal import Terminal
from pyfocus.errors import PyfocusError, WriteError


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small scenes, ``two/near`` of pictures and ``two/raw`` of mosaics; never written to."""
    folder = tmp_path_factory.mktemp("data")
    make_burst(folder / "two" / "near")
    make_burst(folder / "two" / "raw", raw=True)
    return folder / "two"


@pytest.fixture
def scene(data: Path, tmp_path: Path) -> Path:
    """A scene of one's own, ``scene`` in an otherwise empty folder."""
    return Path(shutil.copytree(data / "near", tmp_path / "scene"))


def test_the_command_writes_table_and_pictures(data: Path, tmp_path: Path):
    words = ("--border", 4, "--pictures", "worst", "--worst", 2, "--paper")
    # without torch: an evaluation of classical fusers needs none
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "torch.py").write_text("raise ImportError('torch was asked for')")
    done = run(
        "evaluate", "laplacian", "average", "--data", data, "-o", "t.md", *words, cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "hidden")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    table = (tmp_path / "t.md").read_text()
    assert table.count("| laplacian |") == 3 and table.count("| average |") == 3 and "published" in table
    assert "mean of 2" in done.stdout and "t.md: 4 rows as markdown" in done.stdout
    pictures = [path for path in files(tmp_path) if path.startswith("worst")]
    assert [Path(name).name.split("-")[:2] for name in pictures] == [
        ["average", "01"], ["average", "02"], ["laplacian", "01"], ["laplacian", "02"],
    ]  # fmt: skip
    picture = imagecodecs.imread(tmp_path / pictures[0])
    assert picture.dtype == np.uint8 and picture.shape[2] == 3 and picture.max() == 255


def test_json_on_standard_output(data: Path, tmp_path: Path):
    done = run("evaluate", "average", "--data", data / "near", "--json", "-q", cwd=tmp_path)
    report = json.loads(done.stdout)
    assert (done.returncode, done.stderr, files(tmp_path)) == (0, "", {})
    assert report["version"] == pyfocus.__version__ and report["protocol"] == "paper" and "published" not in report
    (row,) = report["rows"]
    assert row["scene"] == "near" and row["inner_psnr"] is None and row["frames"] == 5
    assert report["means"][0]["psnr"] == row["psnr"] and 15 < row["psnr"] < 40


def test_a_frame_left_out_shows(scene: Path):
    for k in (0, 4):
        blank = np.zeros((96, 128, 3), np.uint16)
        pyfocus.write_image(scene / f"frames/IMG_000{k}.tif", blank, overwrite=True)
    done = run("evaluate", "average", "--data", "scene", cwd=scene.parent)
    assert done.returncode == 3 and "scene, average: 2 of 5 frames could not be registered" in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["nobody", "--data", "scene"], 2, "fuser must be one of"),
        (["average"], 2, "--data"),
        (["--data", "scene"], 2, "FUSER"),
        (["average", "--data", "nowhere"], 1, "nowhere: no such folder"),
        (["average", "--data", "scene/truth.tif"], 1, "is a file; name a folder of scenes"),
        (["average", "--data", "void"], 1, "void: no scenes in this folder"),
        (["average", "--data", "bare"], 1, "bare/s: has frames/ but no truth to compare with"),
        (["average", "--data", "small"], 1, "small: the truth is 128 x 90 px, the frames are 128 x 96 px"),
        (["average", "--data", "scene", "--split", "train"], 1, "is no data set"),
        (["average", "--data", "scene", "-o", "nowhere/t.md"], 1, "the folder nowhere does not exist"),
        (["average", "--data", "scene", "-o", "kept.md"], 1, "kept.md: exists already"),
        (["average", "--data", "scene", "--pictures", "kept.md"], 1, "kept.md: is a file; name a folder"),
        (["average", "--data", "scene", "--pictures", "scene"], 1, "scene: holds files already"),
        (["average", "--data", "scene", "--worst", "2"], 2, "add --pictures DIR"),
        (["average", "--data", "scene", "--worst", "0", "--pictures", "p"], 2, "must be a whole number from 1"),
        (["average", "--data", "scene", "--border", "-1"], 2, "--border"),
        (["average", "--data", "scene", "--border", "60"], 1, "scene: psnr: border must be"),
        (["average", "--data", "scene", "--border", "4", "--protocol", "score"], 2, "leave --border out"),
        (["average", "--data", "scene", "--json", "--format", "text"], 2, "contradict each other"),
    ],
)
def test_what_cannot_be_judged_is_said(
    made: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int, says: str
):
    before = files(made)
    monkeypatch.chdir(made)
    with pytest.raises({1: PyfocusError, 2: UsageError}[code]) as caught:
        evaluating.run(parser().parse_args(["evaluate", *words, "-q"]), Terminal(quiet=True))
    assert says in str(caught.value) and files(made) == before


def test_errors_are_one_line_and_an_exit_code(made: Path):
    refuse("evaluate", "nobody", "--data", "scene", "-q", cwd=made, code=2, says="fuser must be one of")
    refuse("evaluate", "average", "--data", "small", "-q", cwd=made, code=1, says="small: the truth is 128 x 90 px")


@pytest.fixture(scope="module")
def made(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a scene, one without truth, one whose truth is too small, and an empty one."""
    folder = tmp_path_factory.mktemp("made")
    for name in ("scene", "bare/s", "small"):
        shutil.copytree(data / "near", folder / name)
    (folder / "bare/s/truth.tif").unlink()
    truth = tifffile.imread(folder / "small/truth.tif")
    pyfocus.write_image(folder / "small/truth.tif", truth[:90], overwrite=True)
    (folder / "void").mkdir()
    (folder / "kept.md").write_text("mine")
    return folder


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_to(made: Path, tmp_path: Path):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    words = ["evaluate", "average", "--data", str(made / "scene"), "--pictures", str(locked / "p")]
    with pytest.raises(WriteError, match="no permission to write into"):
        evaluating.run(parser().parse_args(words), Terminal(quiet=True))
