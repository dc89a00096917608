"""Training that goes wrong: bad steps, full disks, damaged checkpoints, workers and devices that are not there."""

from __future__ import annotations

import os
import pickle
import re

import pytest
from training_runs import Halves, check_same, go, log_of, weights

torch = pytest.importorskip("torch")

from pyfocus.errors import ArgumentError, ReadError, ResourceError, TrainingError, WriteError  # noqa: E402
from pyfocus.nn import checkpoint  # noqa: E402
from pyfocus.nn.batch import Batch  # noqa: E402
from pyfocus.nn.checkpoint import read_pack, write_pack  # noqa: E402
from pyfocus.nn.train import Moment, sources  # noqa: E402
from pyfocus.nn.train.processes import device_of, half_precision  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_bad_step_is_skipped_and_counted(tmp_path):
    told: list[Moment] = []
    outcome = go(tmp_path / "run", source=Halves(spoilt={3, 5}), tell=told.append)
    assert (outcome.step, outcome.skipped, told[-1].skipped) == (8, 2, 2)
    assert [e["step"] for e in log_of(tmp_path / "run") if e["loss"] is None] == [4, 6]
    assert all(torch.isfinite(v).all() for v in weights(tmp_path / "run").values())


def test_a_run_of_bad_steps_ends_and_its_last_good_checkpoint_stays(tmp_path):
    with pytest.raises(TrainingError, match=r"at step 8, 4 steps in a row .* learning rate .*last\.pt is from before"):
        go(tmp_path / "run", "bad_steps=4", "steps=20", source=Halves(spoilt=range(4, 99)))
    pack = read_pack(tmp_path / "run" / "last.pt", "pyfocus-run", 1)
    assert pack["step"] == 4 and all(torch.isfinite(v).all() for v in pack["weights"].values())
    assert go(tmp_path / "run", "steps=6", resume=True).reason == "done"


@pytest.mark.parametrize("rate", ["1e3", "1e30"])
def test_a_learning_rate_that_explodes_is_named(tmp_path, rate):
    with pytest.raises(TrainingError, match=rf"learning rate {re.escape(f'{float(rate):g}')} is too high.*--set lr="):
        go(tmp_path / "run", f"lr={rate}", "warmup_steps=0", "steps=400", "bad_steps=5", "save_every=1000")


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch, whole_run):
    calls = []

    def full(number: int) -> None:
        calls.append(number)
        if len(calls) > 2:
            raise OSError(28, os.strerror(28))

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    with pytest.raises(WriteError, match=r"\.pt: the disk is full .* needed"):
        go(tmp_path / "run")
    monkeypatch.undo()
    assert read_pack(tmp_path / "run" / "last.pt", "pyfocus-run", 1)["step"] == 2
    go(tmp_path / "run", resume=True)
    check_same(tmp_path / "run", whole_run)


def test_a_damaged_or_foreign_checkpoint_says_so(tmp_path):
    go(tmp_path / "run", "steps=2")
    last = tmp_path / "run" / "last.pt"
    pack, data = read_pack(last, "pyfocus-run", 1), last.read_bytes()
    last.write_bytes(data[: len(data) // 2])
    with pytest.raises(ReadError, match=r"last\.pt: .*cut short"):
        go(tmp_path / "run", resume=True)
    changes = [({"version": 9}, "version 9"), ({"format": "x"}, "is no pyfocus-run"), ({"weights": {}}, "do not fit")]
    changes += [({"optimiser": {"state": {}}}, "no run that can go on"), ({"recipe": {}}, '"format"')]
    changes += [({"kept": "most"}, "no run that can go on: kept is 'most'"), ({"kept": None}, "kept is None")]
    for change, text in changes:
        write_pack(last, {**pack, **change})
        with pytest.raises(ReadError, match=text):
            go(tmp_path / "run", resume=True)
    write_pack(last, {key: value for key, value in pack.items() if key != "kept"})
    with pytest.raises(ReadError, match="no run that can go on: 'kept'"):
        go(tmp_path / "run", resume=True)
    write_pack(last, pack)
    with pytest.raises(ReadError, match="do not fit"):
        go(tmp_path / "run", "config.size=lite", resume=True)
    assert last.exists()


def test_a_worker_that_dies_is_told_in_one_line(tmp_path):
    class Dying(Halves):
        def draw(self, index: int, count: int) -> Batch:
            raise RuntimeError("DataLoader worker (pid 3) is killed by signal: Killed.\nmore")

    with pytest.raises(ResourceError, match=r"a process that makes bursts .* \(DataLoader worker .pid 3.*workers=0"):
        go(tmp_path / "run", source=Dying())


class Failing(Halves):
    def draw(self, index: int, count: int) -> Batch:
        raise ReadError("frame.tif: is cut short")


def test_what_is_wrong_in_a_worker_is_told_in_one_line(tmp_path, monkeypatch):
    """The worker is told of nothing but the recipe and where to begin, and its error comes through as it was."""
    monkeypatch.setattr(sources, "DataLoader", lambda made, **options: map(pickle.loads, map(pickle.dumps, made)))
    monkeypatch.setattr(sources, "training_source", lambda recipe, device: Failing())
    with pytest.raises(ReadError, match=r"^frame\.tif: is cut short$"):
        go(tmp_path / "run", "workers=1", source=None)


def test_devices_that_are_not_there_are_refused(monkeypatch):
    assert device_of("cpu") == "cpu" and half_precision("cpu") in ("bf16", "none")
    with pytest.raises(ArgumentError, match="device must be auto, cpu, cuda or cuda:N"):
        device_of("tpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ResourceError, match="cuda:3 is not there: torch sees 0"):
        device_of("cuda:3")
