"""Engines that run: on the emulated device with a fake TensorRT, whose kernels are ONNX Runtime's; on a card for real.

The fake reads and writes the device's memory by the addresses that it is told, so that everything but TensorRT itself
is what a card gets: shapes, memory, order, tiles, errors. Tests of real engines need a card, not the emulated one.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyfocus
from pyfocus import _C
from pyfocus.errors import ArgumentError, ReadError, ResourceError

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

import exported_stub as stub  # noqa: E402

from pyfocus.export import engine_build, engines, flavours, session, stream_fuser, to_tensorrt  # noqa: E402
from pyfocus.export.profiles import Sizes  # noqa: E402
from pyfocus.export.states import ArrayState, BoundState  # noqa: E402

pytestmark = pytest.mark.cuda
EMULATED = _C.device_archs() == "host"
on_a_card = pytest.mark.skipif(EMULATED, reason="the emulated device runs no engines: needs a card")
needs_tensorrt = pytest.mark.skipif(importlib.util.find_spec("tensorrt") is None, reason="TensorRT is not installed")
needs_rtx = pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="TensorRT-RTX is not installed")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> None:
    monkeypatch.setenv("PYFOCUS_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def fake(tmp_path, monkeypatch) -> None:
    """A fake TensorRT, which builds in this very process."""
    if not EMULATED:
        pytest.skip("the fake works in the emulated device's memory, which is the host's")
    (tmp_path / "fake").mkdir()
    shutil.copy(Path(__file__).with_name("tensorrt_fake.py"), tmp_path / "fake" / "tensorrt.py")
    monkeypatch.syspath_prepend(tmp_path / "fake")
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    del sys.modules["tensorrt"]
    build = lambda job, *more: engine_build.build(json.loads(json.dumps(job)), lambda line: True)  # noqa: E731
    monkeypatch.setattr(to_tensorrt, "build_apart", build)


def burst(count: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    masks = (random.random((count, height, width)) > 0.1).astype(np.uint8)
    return (0.1 + 0.8 * random.random((count, 3, height, width))).astype(np.float32), masks


def fold(fuser: Any, frames: np.ndarray, masks: np.ndarray) -> Any:
    for frame, mask in zip(frames, masks, strict=True):
        fuser.push(frame, mask)
    return fuser.finish()


def alike(got: Any, truth: Any, limit: float) -> None:
    for what in ("image", "depth", "confidence"):
        base = getattr(truth, what)
        np.testing.assert_allclose(getattr(got, what), base, rtol=0, atol=limit * np.abs(base).max(), err_msg=what)


# --- with a fake TensorRT ----------------------------------------------


@pytest.mark.parametrize(("bound", "batch"), [(True, 1), (False, 1), (True, 3), (False, 3)])
def test_tiles_of_an_engine_against_onnx_runtime(bound, batch, fake, tmp_path, monkeypatch):
    stream = stub.write_stream(tmp_path / "stream", variant="gridsample")
    build_engines(stream, tmp_path / "engines", sizes=Sizes(largest=(40, 48), batch=batch))
    frames, masks = burst(3, 61, 130)
    truth = fold(session.load(stream, noise=stub.NOISE, threads=1, tile_px=512), frames, masks)
    if not bound:
        monkeypatch.setattr(stream_fuser, "fits_twice", lambda *given: False)
    fuser = engines.load(tmp_path / "engines", noise=stub.NOISE, threads=1)
    assert (fuser._tiler.tile_px, fuser._tiler.at_once) == (24, batch)  # 40 without two halos of 8; as built for
    assert str(fuser.runtime) == "TensorRT 10.9.0.34, cuda:0"
    fuser.push(frames[0], masks[0])
    assert isinstance(fuser._state, BoundState if bound else ArrayState)
    got = fold(fuser, frames[1:], masks[1:])
    alike(got, truth, 1e-5)


@pytest.mark.filterwarnings("ignore:.*little noise is assumed:RuntimeWarning")
def test_an_engine_by_name(fake, tmp_path):
    stream = stub.write_stream(tmp_path / "stream", variant="gridsample")
    build_engines(stream, tmp_path / "engines")
    y, x = np.mgrid[:48, :64]
    picture = (127 + 60 * np.sin(x / 3) * np.cos(y / 4)).astype(np.uint8)[..., None].repeat(3, -1)
    pictures = [picture, picture // 2]
    how: dict[str, Any] = {"align": False, "threads": 1, "device": "cuda"}
    truth, got = (
        pyfocus.stack(pictures, fuser=session_or_engine, **how)
        for session_or_engine in (session.load(stream, threads=1), str(tmp_path / "engines" / "finish.engine"))
    )
    np.testing.assert_allclose(got.image(), truth.image(), atol=1)


def test_a_burst_and_one_tile_size(fake, tmp_path):
    frames, masks = burst(2, 70, 90)
    for name, where in (
        ("burst", stub.write_burst(tmp_path / "burst", variant="gridsample")),
        ("tile", stub.write_burst(tmp_path / "tile", tile=(64, 80), variant="gridsample")),
    ):
        build_engines(where, tmp_path / f"{name}-engines")
        results = []
        for fuser in (session.load(where, threads=1), engines.load(tmp_path / f"{name}-engines", threads=1)):
            for frame, mask in zip(frames, masks, strict=True):
                fuser.push(frame, mask)
            results.append(fuser.finish().image)
        np.testing.assert_allclose(results[1], results[0], rtol=0, atol=1e-5)


def test_what_does_not_fit_the_engine(fake, tmp_path):
    stream = stub.write_stream(tmp_path / "stream", variant="gridsample")
    build_engines(stream, tmp_path / "engines", sizes=Sizes((16, 16), (32, 32), (64, 64)))
    exported = engines.open_engines(tmp_path / "engines")
    told = {"noise": np.zeros((1, 2)), "white_balance": np.ones((1, 3))}
    assert exported.finish({**exported.zeros(16, 64), **told})[0].shape == (1, 3, 16, 64)
    with pytest.raises(ArgumentError, match=r"state_sums must be 1x3x16x16 to 1x3x64x64, got 1x3x8x64; take tiles"):
        exported.finish({**exported.zeros(8, 64), **told})
    with pytest.raises(ArgumentError, match="takes state_sums, noise, white_balance, got noise"):
        exported.runs["finish"]({"noise": told["noise"]})
    runner = exported.runners["finish"]
    on = runner.arrays
    inputs = {"state_sums": on.zeros((1, 3, 16, 16)), "noise": on.zeros((1, 2)), "white_balance": on.zeros((1, 3))}
    outputs = {name: on.empty((1, 1, 16, 16)) for name in ("image", "depth", "confidence")}
    with pytest.raises(ArgumentError, match=r"outputs must be image 1x3x16x16, depth 1x1x16x16"):
        runner.run_bound(inputs, outputs)
    build_engines(stream, tmp_path / "small", sizes=Sizes(largest=(16, 16)))
    with pytest.raises(ReadError, match=r"takes windows up to 16 px, of which halos of 8 px leave nothing"):
        engines.load(tmp_path / "small")


def test_what_tensorrt_says_at_run_time(fake, tmp_path, monkeypatch):
    stream = stub.write_stream(tmp_path / "stream", variant="gridsample")
    build_engines(stream, tmp_path / "engines")
    exported = engines.open_engines(tmp_path / "engines")
    monkeypatch.setenv("FAKE_TENSORRT", "no run")
    with pytest.raises(ResourceError, match=r"finish\.engine: TensorRT 10\.9\.0\.34 failed: it does not say why"):
        exported.finish({**exported.zeros(16, 16), "noise": np.zeros((1, 2)), "white_balance": np.ones((1, 3))})
    monkeypatch.setenv("FAKE_TENSORRT", "no context")
    with pytest.raises(ResourceError, match=r"step\.engine: .* cannot get ready to run it: .*smaller --max-shapes"):
        engines.open_engines(tmp_path / "engines")
    monkeypatch.setattr(sys.modules["tensorrt"], "MAGIC", b"new tag")
    with pytest.raises(ReadError, match=r"step\.engine: .* cannot load it: magicTag does not match; build it again"):
        engines.open_engines(tmp_path / "engines")


def build_engines(*given: Any, **options: Any) -> list[Path]:
    return to_tensorrt.build_engines(*given, **{"flavour": "tensorrt", **options})


# --- on a card ---------------------------------------------------------


@on_a_card
@needs_tensorrt
def test_a_tensorrt_engine_on_a_card(tmp_path):
    _against_onnx_runtime(stub.write_stream(tmp_path / "stream"), tmp_path / "engines", "tensorrt")


@on_a_card
@needs_rtx
def test_an_rtx_engine_on_a_card(tmp_path):
    if not flavours.runs_on((), flavours.card().capability):
        pytest.skip(f"TensorRT-RTX has no engines for {flavours.card()}")
    _against_onnx_runtime(
        stub.write_stream(tmp_path / "stream", variant="gridsample"), tmp_path / "engines", "tensorrt-rtx"
    )


@on_a_card
@needs_tensorrt
def test_an_engine_for_another_card_is_refused_on_a_card(tmp_path):
    (file,) = build_engines(stub.write_stream(tmp_path / "stream") / "finish.onnx", tmp_path / "finish.engine")
    shutil.copy(file, tmp_path / "step.engine")
    for name in ("step", "finish"):
        sidecar = tmp_path / f"{name}.engine.json"
        text = (tmp_path / "finish.engine.json").read_text()
        sidecar.write_text(text.replace(flavours.card().name, "another card"))
    with pytest.raises(ReadError, match="was built on another card"):
        engines.load(tmp_path)


@on_a_card
@needs_tensorrt
@pytest.mark.parametrize(("variant", "precision", "limit"), [
    ("standard", "fp32", 1e-4), ("gridsample", "fp32", 1e-4), ("plugin", "fp32", 1e-4), ("plugin", "mixed", 1e-2),
])  # fmt: skip
def test_the_shipped_network_on_a_card(variant, precision, limit, exported_lite, tmp_path):
    """Against ONNX Runtime on the CPU in single precision, by tiles; with our plugin's kernels, too."""
    build_engines(exported_lite(variant, precision), tmp_path / "engines", precision=precision)
    frames, masks = burst(3, 300, 420)
    truth = fold(
        session.load(exported_lite("standard", "fp32"), noise=stub.NOISE, threads=os.cpu_count()), frames, masks
    )
    got = fold(engines.load(tmp_path / "engines", noise=stub.NOISE, tile_px=256), frames, masks)
    alike(got, truth, limit)


@on_a_card
def test_a_device_is_entered():
    flavours.enter(0)
    with pytest.raises(ResourceError, match="NVIDIA's driver refuses it"):
        flavours.enter(99)


def _against_onnx_runtime(stream: Path, folder: Path, flavour: str) -> None:
    build_engines(stream, folder, flavour=flavour, sizes=Sizes(largest=(40, 48)))
    frames, masks = burst(3, 61, 83)
    truth = fold(session.load(stream, noise=stub.NOISE, threads=1), frames, masks)
    alike(fold(engines.load(folder, noise=stub.NOISE), frames, masks), truth, 1e-4)
