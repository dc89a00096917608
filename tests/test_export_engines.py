"""Engines: shapes, what lies beside them, the cache, building in a process of its own, and what is refused.

Full TensorRT builds on a card and comes from NVIDIA's own index, so that here a fake of it is built with
(tests/tensorrt_fake.py); TensorRT-RTX is the real one where it is installed. What runs is in test_engines_cuda.py.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyfocus.cli import exporting
from pyfocus.errors import ArgumentError, ExportError, ReadError, ResourceError, WriteError

onnx = pytest.importorskip("onnx")

import exported_stub as stub  # noqa: E402

from pyfocus.export import engine_cache, engine_process, engines, flavours, to_tensorrt  # noqa: E402
from pyfocus.export.engine_file import read_engine, sidecar_of  # noqa: E402
from pyfocus.export.flavours import Card  # noqa: E402
from pyfocus.export.onnx_metadata import facts_of, read_file  # noqa: E402
from pyfocus.export.plugin import plugin_library  # noqa: E402
from pyfocus.export.profiles import Sizes, profiles_of  # noqa: E402
from pyfocus.export.to_tensorrt import build_engines  # noqa: E402

needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="TensorRT-RTX is not installed: pyfocus-stack[rtx]"
)
CARD = Card("NVIDIA L4", "8.9")
GRIDSAMPLE = {"variant": "gridsample"}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> Path:
    """A cache of this test's own."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("PYFOCUS_CACHE", str(folder))
    return folder / "engines"


@pytest.fixture(scope="module")
def stream(tmp_path_factory) -> Path:
    return stub.write_stream(tmp_path_factory.mktemp("stream"), **GRIDSAMPLE)


@pytest.fixture
def fake(tmp_path, monkeypatch) -> Path:
    """A fake TensorRT that every process finds, on a machine with a fake card."""
    folder = tmp_path / "fake"
    folder.mkdir()
    shutil.copy(Path(__file__).with_name("tensorrt_fake.py"), folder / "tensorrt.py")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    del sys.modules["tensorrt"]
    monkeypatch.setattr(to_tensorrt, "card", lambda: CARD)
    return folder


@pytest.fixture
def library() -> Path:
    """Our plugin."""
    try:
        return plugin_library()
    except ResourceError as error:
        pytest.skip(str(error))


def told(engine: Path) -> dict[str, Any]:
    """What the fake's builder was told."""
    line = engine.read_bytes().removeprefix(b"ftrt").partition(b"\n")[0]
    found: dict[str, Any] = json.loads(line)
    return found


def left(folder: Path) -> list[str]:
    """Every file in a folder, hidden ones, too."""
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*"))


# --- shapes ------------------------------------------------------------


def test_shapes_of_every_input_in_pixels():
    facts = stub.facts("step", stub.STEP_INPUTS)
    found = profiles_of(facts, Sizes((64, 72), (384, 384), (1024, 512 + 8), batch=3))
    assert list(found) == list(stub.STEP_INPUTS)
    assert found == {
        "state_last": ((1, 4, 32, 36), (3, 4, 192, 192), (3, 4, 512, 260)),
        "state_count": ((1, 1, 1, 1), (3, 1, 1, 1), (3, 1, 1, 1)),
        "state_sums": ((1, 3, 64, 72), (3, 3, 384, 384), (3, 3, 1024, 520)),
        "frame": ((1, 3, 64, 72), (3, 3, 384, 384), (3, 3, 1024, 520)),
        "index": ((1,), (3,), (3,)),
        "noise": ((1, 2), (3, 2), (3, 2)),
        "white_balance": ((1, 3), (3, 3), (3, 3)),
        "valid": ((1, 1, 64, 72), (3, 1, 384, 384), (3, 1, 1024, 520)),
    }


def test_what_is_left_open_is_filled_in():
    facts = stub.facts("step", ("frame",))

    def sizes(**given: Any) -> list[tuple[int, ...]]:
        return [shape[2:] for shape in profiles_of(facts, Sizes(**given))["frame"]]

    assert sizes() == [(8, 8), (528, 528), (1024, 1024)]  # a tile of 512 and its halos of 8
    assert sizes(largest=(64, 2048)) == [(8, 8), (64, 528), (64, 2048)]
    assert sizes(smallest=(512, 8)) == [(512, 8), (528, 528), (1024, 1024)]
    assert sizes(usual=(2048, 8)) == [(8, 8), (2048, 8), (2048, 1024)]
    assert sizes(smallest=(2048, 2048)) == [(2048, 2048)] * 3
    fixed = stub.facts("step", ("frame",), tile=(64, 128))
    assert profiles_of(fixed, Sizes(batch=2))["frame"] == ((1, 3, 64, 128), (2, 3, 64, 128), (2, 3, 64, 128))
    burst = stub.facts("burst", ("frames",), frames=5, kind="rggb", step_px=16, halo_px=160, state=())
    assert profiles_of(burst, Sizes())["frames"] == ((1, 5, 4, 16, 16), (1, 5, 4, 576, 576), (1, 5, 4, 1024, 1024))


@pytest.mark.parametrize(
    ("sizes", "changes", "text"),
    [
        (Sizes((64, 60)), {}, "min shapes must be multiples of 8 px for Stub, got 64x60"),
        (Sizes(largest=(0, 8)), {}, "max shapes must be multiples of 8 px"),
        (Sizes((64, 64), (32, 64)), {}, "min shapes must be no larger than opt shapes, got 64x64 and 32x64"),
        (Sizes(usual=(64, 64), largest=(64, 56)), {}, "opt shapes must be no larger than max shapes"),
        (Sizes(usual=(64, 64)), {"tile": (64, 72)}, "opt shapes must be 64x72, the one size that this file takes"),
        (Sizes(batch=0), {}, "batch must be 1 or more"),
        (Sizes(), {"inputs": ("frame", "x")}, "an input 'x' whose shape is not known"),
    ],
)
def test_shapes_that_cannot_be(sizes, changes, text):
    facts = stub.facts("step", changes.pop("inputs", ("frame",)), **changes)
    with pytest.raises(ArgumentError, match=re.escape(text)):
        profiles_of(facts, sizes)


# --- metadata without onnx ---------------------------------------------


def test_metadata_as_onnx_reads_it(stream):
    for file in stream.glob("*.onnx"):
        truth = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
        facts, data = read_file(file)
        assert facts.texts() == truth and data == file.read_bytes()


def test_damaged_models_are_refused_and_nothing_else_happens(stream, tmp_path):
    data = (stream / "step.onnx").read_bytes()
    for end in [*range(40), *range(40, len(data) - 1, 97), len(data) - 1]:
        with pytest.raises(ReadError, match=r"m\.onnx: ") as caught:
            facts_of("m.onnx", data[:end])
        assert "\n" not in str(caught.value)
    random, refused = np.random.default_rng(0), 0
    for _ in range(300):
        broken = bytearray(data)
        for at in random.integers(0, len(data), 5):
            broken[at] = random.integers(256)
        try:
            facts_of("m.onnx", bytes(broken))
        except ReadError:
            refused += 1
    assert refused > 20
    for text in (b"", b"a picture", b"\xff" * 50, b"\x72\x00"):
        with pytest.raises(ReadError, match="is no ONNX model"):
            facts_of("m.onnx", text)
    with pytest.raises(ReadError, match="cannot be read: No such file"):
        read_file(tmp_path / "none.onnx")


# --- building, with a fake TensorRT ------------------------------------


def test_what_tensorrt_is_told_and_what_lies_beside_the_engine(stream, fake, tmp_path):
    lines: list[str] = []
    files = build_engines(
        stream, tmp_path / "out", sizes=Sizes(largest=(64, 64)), workspace=1 << 30, precision="fp32",
        timing_cache=tmp_path / "timings", tell=lines.append,
    )  # fmt: skip
    assert left(tmp_path / "out") == ["finish.engine", "finish.engine.json", "step.engine", "step.engine.json"]
    assert files == [tmp_path / "out" / "step.engine", tmp_path / "out" / "finish.engine"]
    said = told(files[0])
    assert said["flags"] == 1 << 1 and said["cleared"] == ["TF32"] and said["pools"] == {"WORKSPACE": 1 << 30}
    assert said["profile"]["state_last"] == [[1, 4, 4, 4], [1, 4, 32, 32], [1, 4, 32, 32]]
    assert (tmp_path / "timings").read_bytes() == b"++"  # written by the first, read by the second
    facts, data = read_engine(files[0])
    assert data.endswith((stream / "step.onnx").read_bytes()) and facts.facts == read_file(stream / "step.onnx")[0]
    assert (facts.flavour, facts.runtime, facts.card, facts.model) == ("tensorrt", "10.9.0.34", CARD, "step.onnx")
    assert facts.profiles["frame"] == ((1, 3, 8, 8), (1, 3, 64, 64), (1, 3, 64, 64)) and facts.largest_px() == 64
    assert lines[0] == "step.onnx: TensorRT 10.9.0.34 builds step.engine"
    text = json.loads(sidecar_of(files[0]).read_text())
    assert text["card"] == {"name": "NVIDIA L4", "capability": "8.9"} and text["bytes"] == len(data)


def test_timings_of_another_card_are_begun_anew(stream, fake, tmp_path):
    (tmp_path / "timings").write_bytes(b"other card")
    build_engines(stream / "step.onnx", tmp_path / "m.engine", timing_cache=tmp_path / "timings")
    assert (tmp_path / "timings").read_bytes() == b"+"


def test_the_same_is_taken_from_the_cache(stream, fake, cache, tmp_path, monkeypatch):
    built: list[dict[str, Any]] = []
    whole = to_tensorrt.build_apart
    monkeypatch.setattr(to_tensorrt, "build_apart", lambda job, *more: built.append(job) or whole(job, *more))
    step = stream / "step.onnx"

    def make(name: str, **how: Any) -> bytes:
        (file,) = build_engines(step, tmp_path / f"{name}.engine", **how)
        return file.read_bytes()

    first = make("a")
    assert make("b") == first and len(built) == 1
    assert sidecar_of(tmp_path / "b.engine").read_bytes() == sidecar_of(tmp_path / "a.engine").read_bytes()
    make("c", cache=False)
    assert len(built) == 2
    make("d", sizes=Sizes(largest=(64, 64)))
    make("e", workspace=1 << 20)
    monkeypatch.setattr(to_tensorrt, "card", lambda: Card("NVIDIA L40S", "8.9"))
    make("f")
    monkeypatch.setattr(sys.modules["tensorrt"], "__version__", "10.10.0.31")
    make("g")
    (tmp_path / "other.onnx").write_bytes(stub.with_fact(step, "colour_space", "another"))
    step = tmp_path / "other.onnx"
    make("h")
    assert len(built) == 7 and len(list(cache.glob("*.engine"))) == 6


def test_a_damaged_cache_is_no_matter(stream, fake, cache, tmp_path, monkeypatch):
    def make(name: str) -> bytes:
        return build_engines(stream / "step.onnx", tmp_path / name)[0].read_bytes()

    first = make("a.engine")
    (kept,) = cache.glob("*.engine")
    kept.write_bytes(first[:-1])
    assert make("b.engine") == first and kept.read_bytes() == first
    kept.with_suffix(".sha256").unlink()
    assert make("c.engine") == first
    monkeypatch.setenv("PYFOCUS_CACHE", str(kept))  # a file, where a folder should be
    lines: list[str] = []
    build_engines(stream / "step.onnx", tmp_path / "d.engine", tell=lines.append)
    assert (tmp_path / "d.engine").read_bytes() == first and "cannot be written" in lines[-1]


def test_the_cache_does_not_grow_without_end(cache, monkeypatch):
    monkeypatch.setattr(engine_cache, "LIMIT_BYTES", 250)
    for k, key in enumerate("abc"):
        assert engine_cache.keep(key, bytes([k]) * 100)
        os.utime(cache / f"{key}.engine", (k, k))
    assert engine_cache.cached("b") == b"\1" * 100  # which makes it the one used last
    assert engine_cache.cached("a") is None
    assert engine_cache.keep("d", b"\3" * 100)
    assert {file.name for file in cache.iterdir()} == {f"{key}.{end}" for key in "bd" for end in ("engine", "sha256")}
    monkeypatch.delenv("PYFOCUS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert engine_cache.cache_folder() == Path("/x/pyfocus/engines")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert engine_cache.cache_folder() == Path("/home/somebody/.cache/pyfocus/engines")


@pytest.mark.parametrize(
    ("how", "error", "text"),
    [
        ("abort", ResourceError, r"was ended by SIGABRT .*: terminate called without an active exception; "),
        ("raise", ResourceError, r"failed: RuntimeError: an error of two lines$"),
        ("nothing", ExportError, r"does not take it: \[no.cpp::tactic::1\] could not find any implementation$"),
    ],
)
def test_a_build_that_fails_is_one_line_and_no_file(how, error, text, stream, fake, tmp_path, monkeypatch, cache):
    monkeypatch.setenv("FAKE_TENSORRT", how)
    with pytest.raises(error, match=text) as caught:
        build_engines(stream, tmp_path / "out")
    said = str(caught.value)
    assert "\n" not in said and said.startswith(f"{stream / 'step.onnx'}: TensorRT 10.9.0.34 ")
    assert left(tmp_path / "out") == [] and not cache.exists()


def test_what_the_parser_refuses_is_named(stream, fake, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FAKE_NO_EXP", "1")
    assert exporting.main(["tensorrt", str(stream), "-o", str(tmp_path / "out")]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.endswith("does not take it: node exp_1 (Exp): not supported") and line.startswith("pyfocus: error")
    assert left(tmp_path / "out") == []


def test_a_library_that_chatters_and_dies_at_exit_has_built_its_engine(stream, fake, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("FAKE_TENSORRT", "junk")
    (file,) = build_engines(stream / "step.onnx", tmp_path / "m.engine")
    assert read_engine(file)[0].facts.part == "step" and "library" not in "".join(capfd.readouterr())


def test_stopping_leaves_nothing(stream, fake, tmp_path):
    env = {**os.environ, "FAKE_TENSORRT": "slow", "PYTHONPATH": f"{fake}{os.pathsep}{os.pathsep.join(sys.path)}"}
    lines = (
        "import sys; from pyfocus.export import to_tensorrt; from pyfocus.export.flavours import Card\n"
        "to_tensorrt.card = lambda: Card('a', '8.9')\n"
        "from pyfocus.cli.exporting import main; sys.exit(main())"
    )
    words = [sys.executable, *(["-S"] if sys.flags.no_site else []), "-c", lines, "tensorrt", str(stream), "-o"]
    with subprocess.Popen(
        [*words, str(tmp_path / "out")], env=env, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:  # fmt: skip
        assert process.stderr is not None and "builds" in process.stderr.readline()
        began = time.monotonic()
        while [file.read_text() for file in (tmp_path / "out").rglob("said.txt")] != ["asleep\n"]:
            assert time.monotonic() < began + 60
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(30) == 130, rest
    last = [line for line in rest.splitlines() if not line.startswith("step.engine: Building: ")]
    assert last == ["pyfocus: error: stopped; nothing was left half-written"] and left(tmp_path / "out") == []
    assert time.monotonic() < began + 60  # and did not wait for the one that sleeps


def test_lines_of_progress_come_every_few_seconds(monkeypatch):
    lines: list[str] = []
    now = iter([0.0, 1.0, 6.0, 7.0, 12.0])
    monkeypatch.setattr(engine_process.time, "monotonic", lambda: next(now))
    say = engine_process._Told("m.engine", lines.append)
    for k in range(4):
        say({"phase": "Building", "done": k, "total": 4})
    assert lines == ["m.engine: Building: 1 of 4", "m.engine: Building: 3 of 4"]


# --- what is refused before anything is built --------------------------


def test_bad_requests(stream, tmp_path, fake):
    step = stream / "step.onnx"
    (tmp_path / "there.engine").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    for error, text, given, options in (
        (ReadError, "none: there is no such file or folder", (tmp_path / "none", tmp_path / "out"), {}),
        (ReadError, "empty: holds no step.onnx or burst.onnx", (tmp_path / "empty", tmp_path / "out"), {}),
        (ReadError, "is no ONNX model", (Path(__file__), tmp_path / "out"), {}),
        (ArgumentError, "m.engine: must be a folder for the engines of", (stream, tmp_path / "m.engine"), {}),
        (ArgumentError, "m.plan: must be a folder, or end in .engine", (step, tmp_path / "m.plan"), {}),
        (WriteError, "there.engine: exists already", (step, tmp_path / "there.engine"), {}),
        (ArgumentError, "is fp32, not mixed: the file decides", (step, tmp_path / "m.engine"), {"precision": "mixed"}),
        (ArgumentError, "must be multiples of 8", (step, tmp_path / "m.engine"), {"sizes": Sizes((1, 1))}),
        (ArgumentError, "flavour must be one of tensorrt, tensorrt-rtx", (step, tmp_path), {"flavour": "other"}),
        (ArgumentError, "workspace must be 0 or more", (step, tmp_path), {"workspace": -1}),
        (ArgumentError, "builds for the card at hand", (step, tmp_path), {"capabilities": ["8.9"]}),
        (ArgumentError, "must be such as 8.9", (step, tmp_path), {"flavour": "tensorrt-rtx", "capabilities": ["sm89"]}),
        (ArgumentError, "leave timing_cache out", (step, tmp_path), {"flavour": "tensorrt-rtx", "timing_cache": "t"}),
        (WriteError, "cannot be written: File exists", (step, tmp_path / "there.engine" / "m.engine"), {}),
    ):
        with pytest.raises(error, match=re.escape(text)) as caught:
            build_engines(*given, **options)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists() and not (tmp_path / "m.engine").exists()
    build_engines(step, tmp_path / "there.engine", overwrite=True)
    assert read_engine(tmp_path / "there.engine")[0].facts.part == "step"


def test_rtx_is_not_asked_for_nodes_that_it_does_not_know(tmp_path):
    stub.write_stream(tmp_path / "standard")
    with pytest.raises(ExportError, match=r"has DeformConv nodes, which TensorRT-RTX does not know; .*gridsample"):
        build_engines(tmp_path / "standard", tmp_path / "out", flavour="tensorrt-rtx")


@pytest.mark.parametrize(("flavour", "extra"), [("tensorrt", "tensorrt"), ("tensorrt-rtx", "rtx")])
def test_what_is_not_installed_is_named(flavour, extra, stream, tmp_path, monkeypatch, capsys):
    module = flavours.FLAVOURS[flavour].module
    monkeypatch.setitem(sys.modules, module, None)
    command = flavours.FLAVOURS[flavour].command
    assert exporting.main([command, str(stream), "-o", str(tmp_path / "out")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"is not installed: pip install 'pyfocus-stack[{extra}]'" in line and not (tmp_path / "out").exists()
    assert ("pypi.nvidia.com" in line) == (flavour == "tensorrt")


def test_an_install_that_is_not_whole(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    for text, message in (
        ("raise ImportError('libnvonnxparser.so.11: cannot open shared object file')", "cannot be loaded (libnvonnx"),
        ("raise OSError('libcudart.so.13')", "cannot be loaded (libcudart.so.13); install it whole"),
        ("import tensorrt_bindings_of_no_version", "cannot be loaded (No module named"),
        ("", "has no Builder"),
    ):
        (tmp_path / "tensorrt.py").write_text(text)
        monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
        importlib.invalidate_caches()
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        with pytest.raises(ResourceError, match=re.escape(message)):
            flavours.load_module(flavours.TENSORRT)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)


def test_without_a_card_tensorrt_is_not_even_tried(stream, fake, tmp_path, monkeypatch):
    def none() -> Card:
        raise ResourceError("no CUDA device 0: NVIDIA's driver is not installed")

    monkeypatch.setattr(to_tensorrt, "card", none)
    with pytest.raises(ResourceError, match=r"builds on the card that it builds for: no CUDA.*; pyfocus-export rtx"):
        build_engines(stream, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_wrong_usage(stream, tmp_path, capsys):
    step = str(stream / "step.onnx")
    for words, text in (
        (["tensorrt", step], "-o"),
        (["rtx", step, "-o", "m", "--max-shapes", "64"], "height and width in pixels, such as 384x384, got '64'"),
        (["rtx", step, "-o", "m", "--max-shapes", "64x0"], "height and width"),
        (["rtx", step, "-o", "m", "--compute-capability", "89"], "a compute capability, such as 8.9, got '89'"),
        (["rtx", step, "-o", "m", "--timing-cache", "t"], "--timing-cache"),
        (["tensorrt", step, "-o", "m", "--batch", "0"], "from 1, got '0'"),
        (["tensorrt", step, "-o", "m", "--workspace", "much"], "must be a size such as 500MB"),
    ):
        assert exporting.main(words) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert text in line, line


# --- what the loader refuses -------------------------------------------


@pytest.fixture
def built(stream, fake, tmp_path, tmp_path_factory, monkeypatch) -> Path:
    """Engines of the fake, on a machine with the card that they are for; built once, copied for each test."""
    once = tmp_path_factory.getbasetemp() / "engines-of-the-fake"
    if not once.exists():
        build_engines(stream, once)
    monkeypatch.setattr(engines, "card", lambda number: CARD)
    return Path(shutil.copytree(once, tmp_path / "built"))


def test_files_that_are_no_engines(built):
    engine = built / "step.engine"
    data, text = engine.read_bytes(), sidecar_of(engine).read_text()
    for content, sidecar, message in (
        (data[:-7], text, rf"step\.engine: is cut short: {len(data) - 7} bytes, step\.engine\.json says {len(data)}"),
        (data + b"x", text, r"step\.engine: is not the engine that was built"),
        (data[:-1] + b"?", text, r"step\.engine: is damaged, or not the engine of step\.engine\.json"),
        (data, "", r"step\.engine\.json: is damaged, or none of ours"),
        (data, "[]", r"step\.engine\.json: is damaged, or none of ours"),
        (data, text.replace("pyfocus-engine", "other"), r"is other of version 1, and pyfocus-engine of 1 is read here"),
        (data, text.replace('"version": 1', '"version": 2'), r"is pyfocus-engine of version 2"),
        (data, text.replace('"bytes"', '"size"'), r"is damaged \(TypeError"),
        (data, text.replace("1x3x8x8", "1x3xAx8"), r"is damaged \(ValueError"),
        (data, text.replace('"tensorrt"', '"another"'), r"is damaged \(ValueError: another"),
        (data, text.replace("pyfocus.halo_px", "pyfocus.halo"), r"lacks pyfocus\.halo_px"),
        (data, text.replace('"frame": "', '"fram": "'), r"is damaged"),
        (data, None, r"step\.engine: step\.engine\.json is not beside it, without which nothing is known of it"),
        (None, text, r"step\.engine: needs|there is no such file"),
    ):
        for file, value in ((engine, content), (sidecar_of(engine), sidecar)):
            file.unlink(missing_ok=True)
            if value is not None:
                file.write_bytes(value if isinstance(value, bytes) else value.encode())
        with pytest.raises(ReadError, match=message) as caught:
            engines.load(engine)
        assert "\n" not in str(caught.value)


def test_engines_that_do_not_belong_together(built, tmp_path):
    with pytest.raises(ReadError, match=r"holds no step\.engine or burst\.engine"):
        engines.load(tmp_path)
    (built / "finish.engine").unlink()
    with pytest.raises(ReadError, match=r"step\.engine: needs finish\.engine beside it"):
        engines.load(built)
    shutil.copy(built / "step.engine", built / "finish.engine")
    text = sidecar_of(built / "step.engine").read_text()
    sidecar_of(built / "finish.engine").write_text(text.replace("10.9.0.34", "10.8.0.43"))
    with pytest.raises(ReadError, match="built by different versions"):
        engines.load(built)


def test_engines_for_another_tensorrt_or_card(built, monkeypatch):
    module = flavours.load_module(flavours.TENSORRT)
    with monkeypatch.context() as other:
        other.setattr(module, "__version__", "10.13.2.6")
        with pytest.raises(ReadError, match=r"by TensorRT 10\.9\.0\.34, which alone runs it, and 10\.13\.2\.6 is inst"):
            engines.load(built)
    monkeypatch.setattr(engines, "card", lambda number: Card("NVIDIA T4", "7.5"))
    with pytest.raises(ReadError, match=r"was built on NVIDIA L4 \(8\.9\) and runs there alone, and NVIDIA T4 \(7"):
        engines.load(built)


def test_without_tensorrt_the_extra_is_named(built, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(ResourceError, match=r"TensorRT is not installed: pip install 'pyfocus-stack\[tensorrt\]'"):
        engines.load(built / "finish.engine", device="auto")
    with pytest.raises(ArgumentError, match="device must be auto, cpu, cuda or cuda:N, got 'gpu'"):
        monkeypatch.setitem(sys.modules, "tensorrt", sys)
        monkeypatch.setattr(sys, "Builder", None, raising=False)
        engines.load(built, device="gpu")


def test_a_machine_without_a_driver_says_so():
    if flavours.driver_trouble() == "":
        pytest.skip("there is a driver")
    with pytest.raises(ResourceError, match=r"no CUDA device 0: NVIDIA's driver (is not installed|does not start)"):
        flavours.card()


@pytest.mark.parametrize(
    ("built_for", "card", "fits"),
    [
        ((), "8.0", True), ((), "8.6", True), ((), "8.9", True), ((), "12.0", True), ((), "12.1", True),
        ((), "13.0", True), ((), "7.5", False), ((), "9.0", False), ((), "10.0", False), (("8.9",), "8.9", True),
        (("8.9",), "8.6", False), (("7.5", "12.0"), "12.0", True),
    ],
)  # fmt: skip
def test_which_cards_an_rtx_engine_is_for(built_for, card, fits):
    assert flavours.runs_on(built_for, card) == fits


def test_what_an_engine_says_of_itself(built, capsys):
    assert exporting.main(["info", str(built / "step.engine"), "--json"]) == 0
    texts = json.loads(capsys.readouterr().out)[str(built / "step.engine")]
    assert texts["pyfocus.part"] == "step" and texts["engine.runtime"] == "10.9.0.34"
    assert json.loads(texts["engine.profiles"])["frame"].startswith("1x3x8x8 ")


# --- TensorRT-RTX, for real --------------------------------------------


@needs_rtx
def test_rtx_builds_without_a_card(stream, tmp_path, capsys, cache):
    words = ["rtx", str(stream), "-o", str(tmp_path / "a"), "--max-shapes", "64x64", "--precision", "fp32"]
    assert exporting.main([*words, "--json"]) == 0
    out, err = capsys.readouterr()
    said = json.loads(out)[str(tmp_path / "a" / "step.engine")]
    version = str(flavours.load_module(flavours.RTX).__version__)
    assert said["flavour"] == "tensorrt-rtx" and said["runtime"] == version and said["card"] is None
    assert err.splitlines()[0] == f"step.onnx: TensorRT-RTX {version} builds step.engine"
    assert left(tmp_path / "a") == ["finish.engine", "finish.engine.json", "step.engine", "step.engine.json"]
    facts, data = read_engine(tmp_path / "a" / "step.engine")
    assert facts.capabilities == () and len(data) > 10_000
    words[3] = str(tmp_path / "b")
    began = time.perf_counter()
    assert exporting.main(words) == 0
    assert time.perf_counter() - began < 5  # measured 0.01
    assert "was built before" in capsys.readouterr().err
    for name in left(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    with pytest.raises(ResourceError, match="no CUDA device 0"):
        engines.load(tmp_path / "a")


@needs_rtx
def test_rtx_builds_for_the_cards_that_are_named(stream, tmp_path):
    finish = stream / "finish.onnx"
    (file,) = build_engines(finish, tmp_path / "m.engine", flavour="tensorrt-rtx", capabilities=["12.0", "8.9", "8.9"])
    assert read_engine(file)[0].capabilities == ("8.9", "12.0")
    with pytest.raises(ExportError, match=r"does not build for compute capability 9\.0, but for 7\.5, 8\.0, 8\.6"):
        build_engines(finish, tmp_path / "n.engine", flavour="tensorrt-rtx", capabilities=["9.0"])
    assert not (tmp_path / "n.engine").exists()


@needs_rtx
def test_rtx_refuses_in_one_line(stream, tmp_path):
    """Metadata of ours over graphs that are not: a node that it does not know, and inputs that are not those named."""
    deform = onnx.helper.make_node(
        "DeformConv", ["frame", "w", "offset"], ["y"], "shift", kernel_shape=[3, 3], pads=[1] * 4
    )
    facts = stub.facts("step", ("frame", "offset"), state=(("offset", 18, 1),), **GRIDSAMPLE)
    size = ["batch", 3, "rows", "columns"]
    stub.save(
        tmp_path / "deform.onnx", facts, [deform], {"frame": size, "offset": ["batch", 18, *size[2:]]}, {"y": size},
        w=stub.weights(3, 3, 3, 3, seed=0),
    )  # fmt: skip
    (tmp_path / "inputs.onnx").write_bytes(stub.with_fact(stream / "finish.onnx", "inputs", ["state_sums", "noise"]))
    for name, text in (
        ("deform", r"does not take it: node shift \(DeformConv\): .*Plugin not found"),
        ("inputs", r"takes noise, state_sums, white_balance, its metadata says noise, state_sums"),
    ):
        with pytest.raises(ExportError, match=text) as caught:
            build_engines(tmp_path / f"{name}.onnx", tmp_path / "m.engine", flavour="tensorrt-rtx")
        assert "\n" not in str(caught.value) and not (tmp_path / "m.engine").exists()


def write_shift(path: Path) -> Path:
    """A file of one DeformConv2d, the node of our plugin."""
    steps = {"stride": 1, "padding": 1, "dilation": 1, "groups": 1, "offset_groups": 1}
    names = {"plugin_version": "1", "plugin_namespace": "pyfocus"}
    takes = ["frame", "state_offset", "state_mask", "w", "b"]
    node = onnx.helper.make_node("DeformConv2d", takes, ["next_offset"], "shift", domain="pyfocus", **steps, **names)
    state = (("state_offset", 18, 1), ("state_mask", 9, 1), ("state_count", 1, 0))
    channels = {"frame": 3, "state_offset": 18, "state_mask": 9}
    facts = stub.facts("step", tuple(channels), state=state, variant="plugin")
    values = {
        name: onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", count, "rows", "columns"])
        for name, count in (channels | {"next_offset": 3}).items()
    }
    weights = {"w": stub.weights(3, 3, 3, 3, seed=0), "b": np.zeros(3, np.float32)}
    graph = onnx.helper.make_graph(
        [node], "shift", [values[name] for name in channels], [values["next_offset"]],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )  # fmt: skip
    domains = [onnx.helper.make_opsetid("", 20), onnx.helper.make_opsetid("pyfocus", 1)]
    model = onnx.helper.make_model(graph, opset_imports=domains, ir_version=9)
    for key, text in facts.texts().items():
        model.metadata_props.add(key=key, value=text)
    path.write_bytes(model.SerializeToString())
    return path


@needs_rtx
def test_rtx_builds_with_our_plugin(tmp_path, library):
    (file,) = build_engines(write_shift(tmp_path / "m.onnx"), tmp_path / "m.engine", flavour="tensorrt-rtx")
    facts, data = read_engine(file)
    assert facts.plugin == to_tensorrt.hash_bytes(library.read_bytes()) and b"DeformConv2d" in data


def test_without_the_plugin_its_graphs_are_refused(tmp_path, monkeypatch, fake):
    monkeypatch.setenv("PYFOCUS_TENSORRT_PLUGIN", str(tmp_path / "none.so"))
    for flavour in flavours.FLAVOURS:
        monkeypatch.setattr(to_tensorrt, "load_module", lambda made_by: sys.modules[__name__])
        monkeypatch.setattr(sys.modules[__name__], "__version__", "1", raising=False)
        with pytest.raises(ResourceError, match=r"PYFOCUS_TENSORRT_PLUGIN must name the file .*none\.so"):
            build_engines(write_shift(tmp_path / "m.onnx"), tmp_path / "m.engine", flavour=flavour)
    assert left(tmp_path) == ["fake", "fake/tensorrt.py", "m.onnx"]


@needs_rtx
@pytest.mark.parametrize("part", ["step", "finish"])
@pytest.mark.parametrize(
    ("variant", "precision"), [("gridsample", "fp32"), ("gridsample", "mixed"), ("plugin", "fp32"), ("plugin", "mixed")]
)
def test_rtx_builds_engines_of_the_shipped_network(variant, precision, part, exported_lite, tmp_path, request):
    if variant == "plugin":
        request.getfixturevalue("library")
    model = exported_lite(variant, precision) / f"{part}.onnx"
    (file,) = build_engines(model, tmp_path / "m.engine", flavour="tensorrt-rtx", precision=precision)
    facts, data = read_engine(file)
    assert (facts.facts.variant, facts.facts.precision) == (variant, precision) and bool(facts.plugin) == (
        variant == "plugin"
    )
    assert len(data) > 1_000_000 and facts.model_sha256 == to_tensorrt.hash_bytes(model.read_bytes())
