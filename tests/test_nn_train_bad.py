"""Training that goes wrong: bad steps, full disks, damaged checkpoints, workers and devices that are not there."""

from __future__ import annotations

import os
import pickle
import re
import sys
import threading
import types

import pytest
from training_runs import Halves, check_same, go, log_of, weights

torch = pytest.importorskip("torch")

from pyfocus.errors import ArgumentError, ReadError, ResourceError, TrainingError, WriteError  # noqa: E402
from pyfocus.nn import checkpoint  # noqa: E402
from pyfocus.nn.batch import Batch  # noqa: E402
from pyfocus.nn.checkpoint import read_pack, write_pack  # noqa: E402
from pyfocus.nn.train import Moment, journal, sources  # noqa: E402
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


@pytest.mark.parametrize("rate", ["1e3", "3"])
def test_weights_that_a_step_has_ruined_are_not_kept(tmp_path, rate):
    """Its loss was still that of the weights before it."""
    go(tmp_path / "run", "save_every=1")
    good = (tmp_path / "run" / "last.pt").read_bytes()
    with pytest.raises(TrainingError, match=r"at step 13, 4 steps in a row .*last\.pt is from before"):
        go(tmp_path / "run", f"lr={rate}", "schedule=constant", "steps=99", "bad_steps=4", "save_every=1", resume=True)
    taken = [e["step"] for e in log_of(tmp_path / "run") if e["skipped"] == 0]
    assert taken == list(range(1, 10))  # one more than the checkpoint has
    assert (tmp_path / "run" / "last.pt").read_bytes() == good
    assert go(tmp_path / "run", "steps=10", resume=True).skipped == 0


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


@pytest.mark.parametrize("name", ["samples", "tensorboard"])
def test_what_cannot_be_told_is_an_error_of_ours(tmp_path, monkeypatch, name):
    """A full disk meets whatever is written next: the log, the samples, what TensorBoard reads."""

    class Full:
        def __init__(self, folder: str, purge_step: int) -> None:
            raise OSError(28, os.strerror(28))

    if name == "tensorboard":
        board = types.ModuleType("torch.utils.tensorboard")
        board.SummaryWriter = Full  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
        monkeypatch.setattr(journal.importlib.util, "find_spec", lambda name: name)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).touch()
    hook = threading.excepthook
    with pytest.raises(WriteError, match=rf"run/{name}: cannot be written: .*; make room for it"):
        go(tmp_path / "run")
    assert threading.excepthook is hook
    assert [e["step"] for e in log_of(tmp_path / "run")] == ([1, 2, 3, 4] if name == "samples" else [])


def test_tensorboard_s_own_thread_ends_without_a_traceback(tmp_path, monkeypatch, capsys):
    """It raises what went wrong to whoever writes next, who tells it."""
    full = OSError(28, os.strerror(28))

    class Writer:
        def __init__(self, folder: str, purge_step: int) -> None:
            self.thread = type("Thread", (threading.Thread,), {"__module__": "tensorboard.x", "run": self.fail})()

        def fail(self, *more: object) -> None:
            raise full

        def add_scalar(self, name: str, value: float, step: int) -> None:
            if not self.thread.ident:
                self.thread.start()
                self.thread.join()
            raise full

        def close(self) -> None:
            raise full

    board = types.ModuleType("torch.utils.tensorboard")
    board.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    monkeypatch.setattr(journal.importlib.util, "find_spec", lambda name: name)
    others: list[object] = []
    monkeypatch.setattr(threading, "excepthook", others.append)
    with pytest.raises(WriteError, match="run/tensorboard: cannot be written: No space left"):
        go(tmp_path / "run")
    assert others == [] and threading.excepthook == others.append
    told = journal.Journal(tmp_path / "run", 0)
    stranger = threading.Thread(target=lambda: 1 / 0)
    stranger.start()
    stranger.join()
    told.close()
    assert len(others) == 1  # another thread's error is still heard


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
