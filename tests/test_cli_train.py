"""``pyfocus train`` and the borrowed card's pieces, in processes of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command import STRICT, refuse, run
from training_runs import PLAIN, check_same, go, log_of

pytest.importorskip("torch")

from pyfocus import cli
from pyfocus.nn.checkpoint import read_pack

pytestmark = pytest.mark.usefixtures("one_thread")


# --- the command -------------------------------------------------------


def test_the_command_stops_cleanly_and_goes_on(tmp_path, plain_run):
    words = [w for s in PLAIN for w in ("--set", s)]
    command = [sys.executable, "-m", "pyfocus", "train", "tiny", "-o", "run", "--threads", "1", *words]
    with subprocess.Popen(
        command, cwd=tmp_path, env={**os.environ, **STRICT}, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None and process.stdout is not None
        while not (line := process.stderr.readline()).startswith("step 1 of 8, loss"):
            assert line, "it ended too early"
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "; go on with --resume" in out and "error" not in err
    done = run("train", "tiny", "-o", "run", "--resume", "--json", "--threads", 1, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["reason"], result["step"], result["folder"]) == ("done", 8, "run")
    check_same(tmp_path / "run", plain_run)


def test_the_command_refuses_in_one_line(tmp_path):
    refuse("train", "nosuch", "-o", "run", cwd=tmp_path, code=2, says="no recipe 'nosuch'; there are rgb, raw")


@pytest.mark.parametrize(
    "words,code,says",
    [
        (["tiny", "--set", "lr=-1"], 2, "lr must be above 0"),
        (["tiny"], 1, "holds a run"),
        (["rgb", "--resume"], 2, "is a run of tiny, not rgb"),
        (["tiny", "--overwrite", "--set", "photos=nowhere"], 1, "photos must be a folder"),
        (["tiny", "--overwrite", "--set", "data=nowhere"], 1, "nowhere"),
        (["tiny", "--overwrite", "--set", "simulation.colour=3"], 1, "simulation has a setting it does not take"),
        (["tiny", "--overwrite", "--set", "config.size=vast"], 1, "size must be one of"),
        (["tiny", "--overwrite", "--set", "device=cuda:99"], 1, "cuda:99 is not there"),
    ],
)
def test_bad_words_end_in_one_line_and_leave_the_run(tmp_path, capsys, monkeypatch, words, code, says):
    go(tmp_path / "run", "steps=2")
    before = (tmp_path / "run" / "last.pt").read_bytes()
    monkeypatch.setattr(signal, "signal", lambda number, handler: signal.SIG_DFL)
    monkeypatch.setattr(cli.logging, "disable", lambda level: None)
    assert cli.main(["train", *words, "-o", str(tmp_path / "run")]) == code
    error = capsys.readouterr().err
    assert says in error and error.startswith("pyfocus: error: ") and error.count("\n") == 1
    assert (tmp_path / "run" / "last.pt").read_bytes() == before


# --- a borrowed card ---------------------------------------------------

PIECE = (sys.executable, str(Path(__file__).resolve().parents[1] / "benchmarks" / "gpu_train.py"))


def test_pieces_go_on_from_each_other_in_a_folder_that_can_travel(tmp_path):
    words = [w for s in [*PLAIN, "validate_every=0", "checkpoint=weights"] for w in ("--set", s)]
    piece = [*PIECE, "--run", "run", "--installed", "--device", "cpu", "--recipe", "tiny", "--keep", "kept", *words]
    for step, minutes in ((1, "1e-9"), (8, "1")):
        done = subprocess.run([*piece, "--minutes", minutes], cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert read_pack(tmp_path / "run" / "last.pt", "pyfocus-run", 1)["step"] == step
    assert sorted(p.name for p in (tmp_path / "kept").iterdir()) == [
        "0000001.png", "0000008.png", "best.pt", "last.pt", "log.jsonl", "recipe.json",
    ]  # fmt: skip
    assert [e["step"] for e in log_of(tmp_path / "kept")] == list(range(1, 9))


def test_the_recipe_that_ships_leaves_a_checkpoint_that_can_travel(tmp_path):
    words = [w for s in ("batch=1", "size_px=32", "validation=1", *PLAIN[-2:], "workers=0") for w in ("--set", s)]
    piece = [*PIECE, "--run", "run", "--installed", "--device", "cpu", "--recipe", "stream_lite", "--minutes", "1e-9"]
    done = subprocess.run([*piece, *words], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert 10e6 < (tmp_path / "run" / "last.pt").stat().st_size < 16e6


def test_photos_that_are_too_large_to_travel_are_refused(tmp_path):
    (tmp_path / "photos").mkdir()
    with (tmp_path / "photos" / "a.jpg").open("wb") as file:
        file.truncate(41_000_000)
    words = ["--run", "run", "--prepare", "--photos"]
    done = subprocess.run([*PIECE, *words, "photos"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stderr.startswith("gpu-train: photos are 41.0 MB, 40 MB travel")
    (tmp_path / "photos" / "a.jpg").write_bytes(b"small")
    done = subprocess.run([*PIECE, *words, "photos"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and (tmp_path / "run" / "photos" / "a.jpg").read_bytes() == b"small"
