"""Runs that go on to the bit after any end, and nearly so from smaller checkpoints."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from command import STRICT
from training_runs import PLAIN, SMALL, Halves, check_same, go, log_of

torch = pytest.importorskip("torch")

from pyfocus.errors import ArgumentError  # noqa: E402
from pyfocus.nn.checkpoint import read_pack  # noqa: E402
from pyfocus.nn.train import RECIPES, changed, train  # noqa: E402
from pyfocus.nn.train.state import RunState  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("after", [1, 4, 7])
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(tmp_path, whole_run, after):
    asked = iter([False] * (after - 1) + [True])
    outcome = go(tmp_path / "run", stop=lambda: next(asked))
    assert (outcome.reason, outcome.step) == ("stopped", after)
    source = Halves()
    outcome = go(tmp_path / "run", resume=True, source=source)
    assert outcome.reason == "done" and source.asked == list(range(after, 8))
    check_same(tmp_path / "run", whole_run)
    assert [e["loss"] for e in log_of(tmp_path / "run")] == [e["loss"] for e in log_of(whole_run)]


def test_minutes_end_a_call_with_a_checkpoint(tmp_path, whole_run):
    outcome = go(tmp_path / "run", "minutes=1e-9")
    assert (outcome.reason, outcome.step) == ("minutes", 1)
    assert go(tmp_path / "run", resume=True).step == 8
    check_same(tmp_path / "run", whole_run)


def test_a_run_killed_while_it_writes_goes_on_to_the_same_bits(tmp_path, plain_run):
    """Killed by the system between two checkpoints, with a worker process; what it logged too early is taken out."""
    folder = tmp_path / "run"
    words = [w for s in [*PLAIN, "workers=1"] for w in ("--set", s)]
    command = [sys.executable, "-m", "pyfocus", "train", "tiny", "-o", str(folder), "--threads", "1", *words]
    with subprocess.Popen(command, env={**os.environ, **STRICT}, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = []
        while not lines or not lines[-1].startswith("step 5 "):
            lines.append(process.stderr.readline())
            assert lines[-1], lines
        process.kill()
    (folder / ".last.pt.00000000.part").write_bytes(b"half")
    with (folder / "log.jsonl").open("a") as file:
        file.write('{"what": "train", "st')
    outcome = train(changed(RECIPES["tiny"], PLAIN), folder, resume=True)
    assert outcome.reason == "done" and not list(folder.glob(".*"))
    check_same(folder, plain_run)
    assert [e["loss"] for e in log_of(folder)] == [e["loss"] for e in log_of(plain_run)]


def test_resuming_what_never_began_begins(tmp_path, whole_run):
    assert go(tmp_path / "run", resume=True).step == 8
    check_same(tmp_path / "run", whole_run)


def test_a_run_is_not_begun_over_another(tmp_path):
    go(tmp_path / "run", "steps=2")
    with pytest.raises(ArgumentError, match=r"holds a run; go on with it .--resume. or begin anew .--overwrite."):
        go(tmp_path / "run")
    assert go(tmp_path / "run", "steps=4", "seed=1", overwrite=True).step == 4
    assert [e["step"] for e in log_of(tmp_path / "run")] == [1, 2, 3, 4]


def test_a_finished_run_that_is_resumed_is_judged_again_or_lengthened(tmp_path):
    first = go(tmp_path / "run", "steps=2")
    again = go(tmp_path / "run", "steps=2", resume=True)
    assert again.reason == "done" and again.psnr == first.psnr
    assert go(tmp_path / "run", "steps=3", resume=True).step == 3


@pytest.mark.parametrize("kept,bytes_a_weight,near", [("exact", 16, 0), ("compact", 10, 1e-2), ("weights", 2, 1e-3)])
def test_smaller_checkpoints_go_on_nearly_where_they_were(tmp_path, kept, bytes_a_weight, near):
    outcome = go(tmp_path / "run", f"checkpoint={kept}", "steps=6")
    state = RunState(changed(RECIPES["tiny"], [*SMALL, f"checkpoint={kept}", "steps=6"]), "cpu")
    count = sum(p.numel() for p in state.net.parameters())
    assert outcome.bytes < bytes_a_weight * count + 100_000
    state.restore(tmp_path / "run" / "last.pt", read_pack(tmp_path / "run" / "last.pt", "pyfocus-run", 1))
    go(tmp_path / "exact", "steps=6")
    exact = read_pack(tmp_path / "exact" / "last.pt", "pyfocus-run", 1)
    for key, value in state.net.state_dict().items():
        assert torch.allclose(value, exact["weights"][key], rtol=near, atol=1e-6), key
    moments = state.optimiser.state_dict()["state"]
    if kept == "weights":
        assert not moments and state.since == 6
    else:
        for n, one in moments.items():
            assert torch.allclose(one["exp_avg_sq"], exact["optimiser"]["state"][n]["exp_avg_sq"], rtol=near, atol=0)
        for key, value in state.average.state_dict().items():
            assert torch.allclose(value, exact["average"][key], rtol=near, atol=1e-5), key
