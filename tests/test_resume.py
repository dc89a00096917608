"""Runs that are broken off and gone on from: to the same bits, of the same inputs alone, with nothing left behind."""

from __future__ import annotations

import itertools
import json
import os
import signal
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import make_burst

from pyfocus import cli
from pyfocus.errors import ArgumentError, ReadError, WriteError
from pyfocus.kept import Kept
from pyfocus.tiles import Box

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import exported_stub as stub  # noqa: E402

from pyfocus.export import runtime, session  # noqa: E402

RUN = {"inputs": ["a", "b"], "noise": (1e-3, 1e-6)}


class Stop(Exception):
    """What ends a run in the middle."""


@pytest.fixture(scope="module")
def stream(tmp_path_factory) -> Path:
    return stub.write_stream(tmp_path_factory.mktemp("stream"))


@pytest.fixture(scope="module")
def burst(tmp_path_factory) -> Path:
    return stub.write_burst(tmp_path_factory.mktemp("burst"))


@pytest.fixture(autouse=True)
def signals():
    """The command line leaves its own behind."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def always(monkeypatch):
    """States are kept after every frame, however long that takes here."""
    monkeypatch.setattr("pyfocus.kept.SHARE", 0)


@pytest.fixture
def runs(monkeypatch) -> list[str]:
    """Every run of a session, by the name of its file."""
    seen: list[str] = []
    real = runtime.Session.run

    def run(self: Any, inputs: Any) -> Any:
        seen.append(self.path.stem)
        return real(self, inputs)

    monkeypatch.setattr(runtime.Session, "run", run)
    return seen


def textured(count: int, *shape: int) -> np.ndarray:
    return (0.1 + 0.8 * np.random.default_rng(0).random((count, *shape))).astype(np.float32)


def torch_fuser() -> Any:
    torch = pytest.importorskip("torch")
    from pyfocus.nn.stream import FocusDeepStream
    from pyfocus.nn.stream_fuser import StreamFuser

    torch.manual_seed(0)
    return StreamFuser(FocusDeepStream("tiny"), noise=stub.NOISE, threads=1, tile_px=32)


def stop_after(count: int) -> Any:
    calls = itertools.count(1)

    def tell(*said: Any) -> None:
        if next(calls) == count:
            raise Stop

    return tell


# --- fusers ------------------------------------------------------------


@pytest.mark.parametrize("kind", ["onnx", "onnx in a file", "torch"])
def test_a_folding_network_goes_on_to_the_same_bits(stream, tmp_path, runs, kind):
    memory = 0 if kind == "onnx in a file" else None

    def make() -> Any:
        if kind == "torch":
            return torch_fuser()
        return session.load(stream, noise=stub.NOISE, threads=1, tile_px=32, memory=memory, folder=tmp_path)

    size = (40, 48) if kind == "torch" else (61, 83)
    frames, seen = textured(4, 3, *size), np.ones(size, np.uint8)
    seen[:9] = 0

    def push(fuser: Any, numbers: range) -> None:
        for k in numbers:
            fuser.push(frames[k], seen if k == 1 else None, index=2 * k)

    wanted = make()
    push(wanted, range(4))
    wanted = wanted.finish()
    first = make()
    first.kept = Kept(tmp_path / "kept", RUN)
    push(first, range(2))
    first.tell = stop_after(3)  # in the middle of the third frame
    with pytest.raises(Stop):
        push(first, range(2, 3))
    first.kept.close()
    runs.clear()
    second = make()
    second.kept = Kept(tmp_path / "kept", json.loads(json.dumps(RUN)))
    assert second.kept.is_begun
    push(second, range(2))
    assert not runs and second.frames == 2
    push(second, range(2, 4))
    got = second.finish()
    assert kind == "torch" or runs.count("step") == 2 * 6
    for what in ("image", "depth", "confidence"):
        np.testing.assert_array_equal(getattr(got, what), getattr(wanted, what))
    second.kept.remove()
    assert not (tmp_path / "kept").exists()


def test_a_burst_goes_on_from_its_finished_tiles(burst, tmp_path, runs):
    def make() -> Any:
        return session.load(burst, threads=1, tile_px=32)

    frames = textured(2, 3, 61, 83)
    wanted, first, second = make(), make(), make()
    for fuser in (wanted, first, second):
        for frame in frames:
            fuser.push(frame)
    wanted = wanted.finish()
    first.kept, first.tell = Kept(tmp_path / "kept", RUN), stop_after(4)
    with pytest.raises(Stop):
        first.finish()
    first.kept.close()
    with open(tmp_path / "kept" / "tiles", "a") as file:
        file.write("32 61 32")  # a line that was not finished
    runs.clear()
    second.kept = Kept(tmp_path / "kept", RUN)
    got = second.finish()
    assert len(runs) == 6 - 4
    second.kept.remove()
    np.testing.assert_array_equal(got.image, wanted.image)


def test_a_network_of_other_facts_is_refused(stream, burst, tmp_path):
    frames = textured(1, 3, 40, 48)
    first = session.load(stream, noise=stub.NOISE, threads=1, tile_px=32)
    first.kept = Kept(tmp_path / "kept", RUN)
    first.push(frames[0])
    first.kept.close()
    for how, key in (({"tile_px": 16, "noise": stub.NOISE}, "tile_px"), ({"tile_px": 32, "noise": (1e-4, 0)}, "noise")):
        other = session.load(stream, threads=1, **how)
        other.kept = Kept(tmp_path / "kept", RUN)
        with pytest.raises(ReadError, match=f"finished work of another run: {key} was .*remove the folder") as caught:
            other.push(frames[0])
        other.kept.close()
        assert "\n" not in str(caught.value)
        with pytest.raises(ArgumentError, match="broken off"):
            other.push(frames[0])


# --- the folder --------------------------------------------------------


def test_states_are_kept_whole(tmp_path):
    arrays = [np.arange(12, dtype=np.float32).reshape(1, 3, 4), np.array([7], np.int64)]
    kept = Kept(tmp_path / "k", RUN)
    assert not kept.is_begun and kept.read_state({}, list) == 0
    kept.write_state({"a": 1}, 3, iter(arrays))
    got: list[np.ndarray] = []
    assert kept.read_state({"a": 1}, got.extend) == 3
    for one, other in zip(got, arrays, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype
    state = tmp_path / "k" / "state"
    whole = state.read_bytes()
    for data, says in ((whole[:-1], "is cut short"), (b"{}\n" + whole, "is damaged"), (b"\x80", "is damaged")):
        state.write_bytes(data)
        with pytest.raises(ReadError, match=f"state: {says}; remove .*k and begin anew"):
            kept.read_state({"a": 1}, got.extend)


def test_keeping_does_not_take_the_run_s_time(tmp_path, monkeypatch):
    kept, now = Kept(tmp_path / "k", RUN), [100.0]
    monkeypatch.setattr("pyfocus.kept.time.monotonic", lambda: now[0])

    def arrays():
        now[0] += 2.0
        yield np.zeros(1, np.float32)

    monkeypatch.setattr("pyfocus.kept.SHARE", 10)
    frames = []
    for frame in range(1, 60):
        now[0] += 1.0
        kept.write_state({}, frame, arrays())
        frames.append(kept.read_state({}, list))
    assert frames[:3] == [1, 1, 1] and set(frames) == {1, 21, 41}  # every 20 s where it takes 2


def test_folders_of_others(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"")
    with pytest.raises(ReadError, match="pictures: is no folder of finished work; move it away"):
        Kept(tmp_path / "pictures", RUN)
    assert os.listdir(tmp_path / "pictures") == ["a.png"]
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(WriteError, match="file: finished work cannot be kept there"):
        Kept(tmp_path / "file", RUN)
    kept = Kept(tmp_path / "k", RUN)
    with pytest.raises(WriteError, match="k: another run is at work there"):
        Kept(tmp_path / "k", RUN)
    kept.close()
    with pytest.raises(
        ReadError, match=r'another run: inputs was \["a", "b"\], is \["c"\]; remove the folder, or leave'
    ):
        Kept(tmp_path / "k", {**RUN, "inputs": ["c"]})
    Kept(tmp_path / "k", RUN).close()


def test_a_full_disk_ends_keeping_but_not_the_run(tmp_path, monkeypatch):
    kept = Kept(tmp_path / "k", RUN)
    kept.write_state({}, 1, iter([np.zeros(3, np.float32)]))
    kept._cost_s = 0

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pyfocus.kept.os.fsync", full)
    with pytest.warns(RuntimeWarning, match="no more finished work can be kept there: No space left.*the run goes on"):
        kept.write_state({}, 2, iter([np.zeros(3, np.float32)]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept.write_state({}, 3, iter([np.zeros(3, np.float32)]))
    assert kept.read_state({}, list) == 1 and sorted(os.listdir(kept.folder)) == ["run.json", "state"]


def test_pictures_are_kept_by_tiles(tmp_path):
    kept = Kept(tmp_path / "k", RUN)
    picture, done = kept.open_picture({"a": 1}, (3, 8, 8))
    assert done == set() and not picture.any()
    picture[:, :4] = 5
    kept.finish_tile(Box(0, 4, 0, 8))
    picture, done = kept.open_picture({"a": 1}, (3, 8, 8))
    assert done == {Box(0, 4, 0, 8)} and (picture[:, :4] == 5).all()
    with pytest.raises(ReadError, match="another run: a was 1, is 2"):
        kept.open_picture({"a": 2}, (3, 8, 8))
    (tmp_path / "k" / "tiles").write_text('{"a": 1, "shape": [3, 8, 8]}\n0 4 x 8\n')
    with pytest.raises(ReadError, match="tiles: is damaged"):
        kept.open_picture({"a": 1}, (3, 8, 8))


# --- the command -------------------------------------------------------


def test_the_command_goes_on(stream, tmp_path, monkeypatch, capsys, runs):
    make_burst(tmp_path / "rgb", frames=3, height=64, width=96)
    monkeypatch.chdir(tmp_path)
    words = ["stack", "rgb/frames", "--fuser", str(stream), "--noise", "1e-4,1e-7", "--threads", "1", "--no-align"]
    assert cli.main([*words, "-o", "whole.tif"]) == 0
    count = runs.count("step")
    real = runtime.Session.run

    def broken(self: Any, inputs: Any) -> Any:
        if runs.count("step") == count - 1:
            raise KeyboardInterrupt
        return real(self, inputs)

    words += ["-o", "out.tif", "--resume"]
    runs.clear()
    capsys.readouterr()
    monkeypatch.setattr(runtime.Session, "run", broken)
    assert cli.main(words) == 130
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == "pyfocus: error: stopped; nothing was left half-written"
    assert "what is finished is kept in out.tif.pyfocus-resume; the same command goes on from it" in said
    monkeypatch.setattr(runtime.Session, "run", real)
    assert cli.main([*words, "--no-equalise"]) == 1
    assert "another run: equalise was true, is false; remove the folder" in capsys.readouterr().err
    runs.clear()
    assert cli.main([*words, "-v", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["runtime"]["provider"] == "CPUExecutionProvider"
    assert "going on from what is finished" in err and "runs in ONNX Runtime" in err
    assert runs.count("step") == 1 and not (tmp_path / "out.tif.pyfocus-resume").exists()
    assert (tmp_path / "out.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()


def test_what_the_command_refuses(stream, tmp_path, monkeypatch, capsys):
    make_burst(tmp_path / "rgb", frames=2, height=64, width=96)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["stack", "rgb/frames", "-o", "o.tif", "--resume", "--fuser", "laplacian"]) == 2
    assert (
        "--resume is for networks, whose runs are long; leave it out with --fuser laplacian" in capsys.readouterr().err
    )
    small = stub.write_stream(tmp_path / "big", (128, 128))
    assert cli.main(["stack", "rgb/frames", "-o", "o.tif", "--fuser", str(small), "--noise", "0,0", "--resume"]) == 1
    said = capsys.readouterr().err.splitlines()
    assert len([line for line in said if "error" in line]) == 1 and "the frame is smaller" in said[-1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["big", "rgb"]
