"""``pyfocus dataset``: built, gone on with, converted, and refused in one line."""

from __future__ import annotations

import json
import logging
import signal
from pathlib import Path
from typing import Any

import pytest
from command import files, run
from lsfd_miniature import KEY, NAMES, SIZE, make_archive

pytest.importorskip("torch")

from pyfocus import cli
from pyfocus.nn import data

pytestmark = pytest.mark.usefixtures("one_thread")


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


def test_command_builds_and_goes_on(raw_bursts: Path, tmp_path: Path, command: Any) -> None:
    words = ("dataset", "build", raw_bursts, "-o", "set", "--test", 0, "--val", 0)
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
    code, out, err = command("dataset", "build", raw_bursts, "-o", "other", "--seed", 1)
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
    raw_bursts: Path, tmp_path: Path, command: Any, words: str, code: int, says: str
) -> None:
    found, out, err = command("dataset", *(str(raw_bursts) if word == "BURSTS" else word for word in words.split()))
    assert (found, out, err.count("pyfocus: error: ")) == (code, "", 1) and says in err, err
    assert len(err.splitlines()) == 1 and not list(tmp_path.iterdir())


def test_command_in_a_process_of_its_own(tmp_path: Path) -> None:
    make_archive(tmp_path)
    done = run("dataset", "lsfd", ".", "-q", cwd=tmp_path)  # warnings are errors there
    assert done.returncode == 0 and done.stderr == "" and "3 photos" in done.stdout
