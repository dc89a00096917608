"""Exported files as fusers: tiles against the whole, one tile size, bindings, providers, bursts, and what is refused.

The networks are small graphs built here, so that every ONNX Runtime reads them and torch is not needed.
"""

from __future__ import annotations

import re
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyfocus
from pyfocus.arrays import HOST
from pyfocus.burst import Frame, Meta
from pyfocus.cli import terminal
from pyfocus.errors import ArgumentError, BurstError, Cancelled, ReadError, ResourceError
from pyfocus.fusers import exported_files, names_fuser, resolve_fuser
from pyfocus.networks import Runtime
from pyfocus.tiles import FixedTiles, whole

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

import exported_stub as stub  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

from pyfocus.export import runtime, session, states  # noqa: E402
from pyfocus.export import stream_fuser as stream_fuser_module  # noqa: E402
from pyfocus.export.binding import run_bound  # noqa: E402
from pyfocus.export.states import ArrayState, BoundState  # noqa: E402

BALANCE = (2.0, 1.0, 1.5)


@pytest.fixture(scope="module")
def stream(tmp_path_factory) -> Path:
    return stub.write_stream(tmp_path_factory.mktemp("stream"))


def textured(count: int, *shape: int) -> np.ndarray:
    return (0.1 + 0.8 * np.random.default_rng(0).random((count, *shape))).astype(np.float32)


def masks_of(frames: np.ndarray) -> np.ndarray:
    masks = np.ones((len(frames), *frames.shape[2:]), np.uint8)
    for k in range(len(frames)):
        masks[k, : 7 * k, 10 : 30 + k] = 0
    return masks


def fold(where: Path, frames: np.ndarray, masks: np.ndarray | None = None, **how: Any) -> Any:
    fuser = session.load(where, **{"noise": stub.NOISE, "threads": 1, **how})
    for k, frame in enumerate(frames):
        fuser.push(frame, None if masks is None else masks[k])
    return fuser.finish()


def at_once(folder: Path, frames: np.ndarray, masks: np.ndarray | None = None) -> list[np.ndarray]:
    """Whole frames through ONNX's own evaluator, padded by mirrored pixels."""
    step, finish = (ReferenceEvaluator(onnx.load(folder / f"{part}.onnx")) for part in ("step", "finish"))
    height, width = frames.shape[2:]
    pad = [(0, 0), (0, 0), (0, -height % 8), (0, -width % 8)]
    size = height + pad[2][1], width + pad[3][1]
    told = {"noise": np.array([stub.NOISE], np.float32), "white_balance": np.ones((1, 3), np.float32)}
    state = {
        name: np.zeros((1, c, size[0] // s, size[1] // s) if s else (1, c, 1, 1), np.float32)
        for name, c, s in stub.STATE
    }
    for k, frame in enumerate(frames):
        seen = np.ones((1, 1, height, width)) if masks is None else masks[k][None, None]
        given = {
            "frame": np.pad(frame[None], pad, mode="reflect"), "index": np.array([k], np.float32),
            "valid": np.pad(seen, pad, mode="reflect").astype(np.float32),
        }  # fmt: skip
        state = dict(zip(state, step.run(None, {**state, **given, **told}), strict=True))
    results = finish.run(None, {"state_sums": state["state_sums"], **told})
    return [result[0, :, :height, :width] for result in results]


def close(fused: Any, wanted: list[np.ndarray]) -> None:
    for ours, theirs in zip((fused.image, fused.depth[None], fused.confidence[None]), wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)  # worst 2e-6


# --- tiles equal the whole ---------------------------------------------


@pytest.mark.parametrize("size,tile", [((61, 83), 24), ((64, 64), 16), ((30, 90), 384)])
def test_tiles_fold_to_what_the_whole_frame_does(stream, tmp_path, size, tile):
    frames = textured(3, 3, *size)
    masks = masks_of(frames)
    close(fold(stream, frames, masks, tile_px=tile), at_once(stream, frames, masks))
    close(fold(stream, frames, masks, tile_px=tile, memory=0, folder=tmp_path), at_once(stream, frames, masks))


@pytest.mark.parametrize(
    "size,tile", [((61, 83), (40, 32)), ((32, 64), (32, 32)), ((27, 70), (32, 48)), ((90, 40), (24, 40))]
)
def test_tiles_of_one_size(tmp_path, stream, size, tile):
    fixed = stub.write_stream(tmp_path / "fixed", tile)  # whose shapes the runtime insists on
    frames = textured(3, 3, *size)
    masks = masks_of(frames)
    close(fold(fixed, frames, masks), at_once(stream, frames, masks))


def test_frames_that_no_tile_is_made_of(tmp_path):
    small = session.load(stub.write_stream(tmp_path / "a", (64, 64)), noise=stub.NOISE, threads=1)
    with pytest.raises(ArgumentError, match=r"tiles of 64 x 64 px alone, .* 56 x 80 px .*: the frame is smaller; ex"):
        small.push(textured(1, 3, 56, 80)[0])
    thin = session.load(stub.write_stream(tmp_path / "b", (16, 64)), noise=stub.NOISE, threads=1)
    with pytest.raises(ArgumentError, match="a halo of 8 px leaves none of it"):
        thin.push(textured(1, 3, 64, 80)[0])


@pytest.mark.parametrize("size,tile,halo,step", [(100, 40, 8, 8), (101, 48, 16, 16), (64, 64, 16, 16), (57, 64, 0, 8)])
def test_every_window_lies_inside_and_holds_its_halo(size, tile, halo, step):
    tiles, frame = FixedTiles((tile, tile), step), whole((size, size))
    cores = [core for row in tiles.rows(frame, halo) for core in row]
    seen = np.zeros((size, size), int)
    for core in cores:
        window = tiles.window(core, frame, halo)
        seen[core.y0 : core.y1, core.x0 : core.x1] += 1
        assert window.y0 % step == 0 and window.y0 >= 0 and window.y1 <= size
        assert window.y1 - window.y0 == tile or (window.y1 == size and 0 <= window.y0 + tile - size < step)
        assert core.y0 - window.y0 >= halo or window.y0 == 0
        assert window.y1 - core.y1 >= halo or window.y1 == size
    assert (seen == 1).all()


def test_no_seam_on_a_smooth_gradient(stream):
    """The step across tiles' borders is that of the pixels beside them: nothing to see at any magnification."""
    y, x = np.mgrid[:96, :144].astype(np.float32)
    frames = np.stack([np.stack([0.2 + 0.003 * x + 0.002 * y + 0.01 * k] * 3) for k in range(2)])
    image = fold(stream, frames, tile_px=24).image
    for axis, size in ((1, 96), (2, 144)):
        steps = np.moveaxis(np.diff(image, axis=axis), axis, 0).astype(np.float64)
        bend = np.abs(steps[1:-1] - (steps[:-2] + steps[2:]) / 2).reshape(size - 3, -1).max(1)  # at step k + 1
        borders = np.arange(24, size - 8, 24) - 2
        inside = np.setdiff1d(np.arange(8, size - 11), borders)
        phases = [bend[inside[inside % 2 == b % 2]].max() for b in borders]  # the stub's own pattern has two
        assert (bend[borders] <= 1.05 * np.array(phases) + 1e-6).all()


def test_a_halo_that_is_too_small_is_seen(tmp_path, stream):
    """The tests above can fail: without a halo, tiles show."""
    bare = stub.write_stream(tmp_path / "bare", halo_px=0)
    frames = textured(2, 3, 64, 64)
    assert np.abs(fold(bare, frames, tile_px=16).image - at_once(stream, frames)[0]).max() > 1e-3


# --- bindings ----------------------------------------------------------


def test_bound_arrays_are_read_and_written_in_place(stream):
    one = runtime.Session(stream / "finish.onnx", threads=1)
    inputs = {
        "state_sums": textured(1, 3, 16, 24), "noise": np.array([stub.NOISE], np.float32),
        "white_balance": np.ones((1, 3), np.float32),
    }  # fmt: skip
    outputs = {n: np.full((1, c, 16, 24), -1, np.float32) for n, c in (("image", 3), ("depth", 1), ("confidence", 1))}
    one.run_bound(inputs, outputs)
    for got, wanted in zip(outputs.values(), one.run(inputs), strict=True):
        np.testing.assert_array_equal(got, wanted)
    image = outputs["image"].copy()
    inputs["state_sums"][...] = 0  # the same addresses, other values
    run_bound(one._session, inputs, outputs)
    assert np.abs(image).max() > 0.1 and not outputs["image"].any()


def test_a_state_where_the_tiles_are(stream, monkeypatch):
    """What runs on a card, on the host's arrays: bound tiles, and two states that take turns."""
    frames = textured(3, 3, 61, 83)
    masks = masks_of(frames)
    apart = fold(stream, frames, masks, tile_px=24)
    monkeypatch.setattr(stream_fuser_module, "fits_twice", lambda facts, size, arrays: arrays is HOST)
    fuser = session.load(stream, noise=stub.NOISE, threads=1, tile_px=24)
    for frame, mask in zip(frames, masks, strict=True):
        fuser.push(frame, mask)
    assert isinstance(fuser._state, BoundState)
    again = session.load(stream, noise=stub.NOISE, threads=1, tile_px=24)
    for frame in frames[:2]:
        again.push(frame)
    again._state.restore(iter([array.copy() for array in fuser._state.arrays()]))
    for results in (fuser.finish(), again.finish()):
        for what in ("image", "depth", "confidence"):
            np.testing.assert_array_equal(getattr(results, what), getattr(apart, what))


# --- where it runs -----------------------------------------------------


def test_the_runtime_is_named(stream):
    fuser = session.load(stream, noise=stub.NOISE, threads=1)
    assert fuser.runtime == Runtime("ONNX Runtime", onnxruntime.__version__, "CPUExecutionProvider")
    assert str(fuser.runtime) == f"ONNX Runtime {onnxruntime.__version__}, CPUExecutionProvider"


class OnlyCpu:
    """An ONNX Runtime with CUDA inside that falls back: in silence, or with an error."""

    def __init__(self, monkeypatch: Any, error: str | None) -> None:
        self.made: list[list[Any]] = []
        real = onnxruntime.InferenceSession

        def make(path: str, options: Any, providers: list[Any], **more: Any) -> Any:
            self.made.append(providers)
            if error and providers[0] != "CPUExecutionProvider":
                raise RuntimeError(error)
            return real(path, options, providers=["CPUExecutionProvider"], **more)

        monkeypatch.setattr(onnxruntime, "InferenceSession", make)
        monkeypatch.setattr(
            onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
        )
        monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print("a library is missing"), raising=False)


@pytest.mark.parametrize("error", [None, "libcudnn.so.9: cannot open\nmore lines"])
def test_a_card_that_does_not_start(stream, monkeypatch, capsys, error):
    fake = OnlyCpu(monkeypatch, error)
    with pytest.raises(ResourceError, match=r"step\.onnx: .*could not start on cuda:1.*cuDNN fit it, or work on the C"):
        session.load(stream, device="cuda:1")
    with pytest.warns(RuntimeWarning, match="could not start on cuda:0.*the work is done on the CPU") as told:
        fuser = session.load(stream, device="auto", threads=1)
    assert len(told) == 1 and fuser.runtime.provider == "CPUExecutionProvider"
    assert fake.made[0][0][1]["device_id"] == "1" and capsys.readouterr().out == ""
    if error:
        assert "libcudnn.so.9" in str(told[0].message) and "\n" not in str(told[0].message)


def test_auto_is_the_cpu_where_there_is_nothing_else(stream, monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        session.load(stream, device="auto", threads=1)
        monkeypatch.setattr(runtime._C, "device_count", lambda: 1)  # a card, but no runtime for it
        with pytest.raises(RuntimeWarning, match=r"no CUDA; .*pyfocus-stack\[gpu\]"):
            session.load(stream, device="auto", threads=1)
    with pytest.raises(ResourceError, match=r"no CUDA; .*pyfocus-stack\[gpu\]', or work on the CPU"):
        session.load(stream, device="cuda")


# --- memory ------------------------------------------------------------


def test_tiles_are_halved_when_memory_ends(stream, monkeypatch):
    frames = textured(2, 3, 150, 140)
    wanted = fold(stream, frames)
    real, limit, bad = runtime.Session.run, [100 * 100], ["std::bad_alloc"]

    def run(self: Any, inputs: Any) -> Any:
        with self._said():
            if inputs["state_sums"][0, 0].size > limit[0]:
                raise RuntimeError(f"[ONNXRuntimeError] : 6 : {bad[0]}\nand more")
        return real(self, inputs)

    monkeypatch.setattr(runtime.Session, "run", run)
    fuser = session.load(stream, noise=stub.NOISE, threads=1, tile_px=160)
    for frame in frames:
        fuser.push(frame)
    assert fuser._tiler.tile_px == 64
    np.testing.assert_allclose(fuser.finish().image, wanted.image, atol=1e-5)
    limit[0] = 10
    with pytest.raises(ResourceError, match=r"bad_alloc; tiles of 64 px do not fit into memory") as caught:
        fold(stream, frames)
    assert "\n" not in str(caught.value)
    bad[0] = "a shape is wrong"
    with pytest.raises(ResourceError, match=r"failed on CPUExecutionProvider: .*shape is wrong; try smaller tiles"):
        fold(stream, frames)


def test_a_state_in_a_file_takes_no_memory(stream, tmp_path):
    """Not while tiles are read and written either: what was touched is given back to the system."""
    facts = runtime.Session(stream / "step.onnx", threads=1).facts
    state = ArrayState(facts, (2048, 2048), 0, tmp_path, 1)

    def mapped() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssFile"))

    before, most = mapped(), 0
    boxes = whole((2048, 2048)).cut(256, 256)
    for box in boxes:  # as at the end, where nothing is written
        state.read([box])
        most = max(most, mapped())
    for box in boxes:
        read = state.read([box])
        most = max(most, mapped())
        state.write([(box, state.cores(read, [box], [box])[0])])
    state.turn([np.zeros((1, 1, 1, 1), np.float32)] * 3)
    assert state.bytes == 67_108_868 and max(most, mapped()) - before < 20e6  # measured 4e6
    state.close()


def test_memory_for_parts_is_used_again_up_to_a_limit(stream, monkeypatch):
    facts = runtime.Session(stream / "step.onnx", threads=1).facts
    state, box = ArrayState(facts, (64, 64), None, None, 1), whole((64, 64))

    def step() -> list[np.ndarray]:
        parts = state.cores(state.read([box]), [box], [box])[0]
        state.write([(box, parts)])
        state.turn(parts)
        return parts

    first = step()
    assert step()[0] is first[0]
    monkeypatch.setattr(states, "KEPT_BYTES", 1000)
    step()
    assert not state._free and step()[0] is not first[0]
    state.close()


# --- a fixed number of frames ------------------------------------------

RAW = {"black": (64.0,) * 4, "white": 4095.0, "white_balance": (2.0, 1.0, 1.5), "encoding": "linear"}


def shown_burst(planes: np.ndarray, kind: str, red: tuple[int, int]) -> np.ndarray:
    """(N, C, h, w) as a network sees it, by slicing: mosaics moved so that red comes first, sizes made up to 16s."""
    if kind != "rgb":
        y, x = red
        count, _, h, w = planes.shape
        mosaic = np.zeros((count, 1, 2 * h, 2 * w), np.float32)
        for plane, (dy, dx) in enumerate([(y, x), (y, 1 - x), (1 - y, x), (1 - y, 1 - x)]):
            mosaic[:, 0, dy::2, dx::2] = planes[:, plane]
        planes = np.pad(mosaic, [(0, 0), (0, 0), (y, y), (x, x)], mode="reflect")
        if kind == "rggb":
            planes = np.concatenate([planes[..., dy::2, dx::2] for dy in (0, 1) for dx in (0, 1)], 1)
    return np.pad(planes, [(0, 0), (0, 0), (0, -planes.shape[2] % 16), (0, -planes.shape[3] % 16)], mode="reflect")


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("kind,cfa", [("rgb", None), ("mosaic", "RGGB"), ("mosaic", "GBRG"), ("rggb", "BGGR")])
def test_a_burst_in_tiles(tmp_path, kind, cfa, fixed):
    where = stub.write_burst(tmp_path / "any", kind, 2)
    size = (101, 75) if kind != "mosaic" else (101, 90)
    frames = textured(3, 3 if kind == "rgb" else 4, *size)
    meta = Meta(cfa=cfa, **RAW)  # type: ignore[arg-type]
    tile = (64, 80) if kind != "mosaic" else (112, 144)
    used = stub.write_burst(tmp_path / "fixed", kind, 2, tile) if fixed else where
    fuser = resolve_fuser(str(used), threads=1)
    fuser._tiler.tile_px = 32
    fuser.begin(Frame(np.zeros((16, 16) if cfa else (16, 16, 3), np.uint16), meta))
    for frame in frames:
        fuser.push(frame)
    told: list[tuple[str, float, int]] = []
    fuser.tell = lambda *said: told.append(said)
    with pytest.warns(RuntimeWarning, match="made for bursts of 2 frames, this one has 3"):
        image = fuser.finish().image
    red = {"RGGB": (0, 0), "GBRG": (1, 0), "BGGR": (1, 1), None: (0, 0)}[cfa]
    scale = 1 if kind == "rgb" else 2
    gain = np.array(BALANCE if cfa else (1, 1, 1), np.float32)
    gains = gain if kind == "rgb" else gain[[0, 1, 1, 2]]
    shown = shown_burst(frames[[0, 1]] / gains[:, None, None], kind, red)
    out = ReferenceEvaluator(onnx.load(where / "burst.onnx")).run(None, {"frames": shown[None]})[0][0]
    y, x = red if scale == 2 else (0, 0)
    wanted = out[:, y : y + scale * size[0], x : x + scale * size[1]] * gain[:, None, None]
    assert len(told) > 2 and told[-1][1] == pytest.approx(told[-1][2]) and {what for what, *_ in told} == {"finish"}
    np.testing.assert_allclose(image, wanted, rtol=0, atol=3e-4)  # worst 1.5e-4, the store's rounding


def test_bursts_that_do_not_fit(tmp_path):
    where = stub.write_burst(tmp_path / "raw", "mosaic", 2)
    fuser = session.load(where, threads=1)
    assert (fuser.domain, fuser.gives_depth) == ("raw", False)
    with pytest.raises(BurstError, match=r"Stub takes mosaics \(mosaic\), .* is a picture"):
        fuser.begin(Frame(np.zeros((8, 8, 3), np.uint8)))
    with pytest.raises(ArgumentError, match="takes 4 planes, got 3; stack with domain='raw'"):
        fuser.push(textured(1, 3, 32, 32)[0])
    with pytest.raises(ArgumentError, match="noise is for networks that are told of it, Stub is not"):
        session.load(where, noise=stub.NOISE)
    tiles = session.load(stub.write_burst(tmp_path / "t", "rgb", 2, (64, 64)), threads=1)
    with pytest.raises(ArgumentError, match="the frame is smaller"):
        tiles.push(textured(1, 3, 40, 64)[0])


# --- what is refused ---------------------------------------------------


@pytest.mark.parametrize(
    "key,value,says",
    [
        ("step_px", 0, "step_px is 0"),
        ("step_px", "8.5", r"step_px is 8\.5"),
        ("halo_px", 12, "halo_px 12"),
        ("tile", [16, 20], r"tile is \(16, 20\)"),
        ("tile", "[16]", r"tile is \(16,\)"),
        ("part", "middle", "part is 'middle'|needs step.onnx"),
        ("state", [["state_last", 4]], r"state is \(\('state_last', 4\)"),
        ("state", [["a", 1, 2], ["b", 1, 0], ["c", 1, 1]], "state is"),
        ("state", 5, "state is 5"),
    ],
)
def test_facts_that_cannot_be_worked_with(stream, tmp_path, key, value, says):
    for part in ("step", "finish"):
        data = (stream / f"{part}.onnx").read_bytes()
        changed = part == "step" or key in ("state", "tile")
        (tmp_path / f"{part}.onnx").write_bytes(
            stub.with_fact(stream / f"{part}.onnx", key, value) if changed else data
        )
    with pytest.raises(ReadError, match=says) as caught:
        session.load(tmp_path, threads=1)
    assert "\n" not in str(caught.value)


def test_names(stream, tmp_path):
    assert exported_files(str(stream)) == [stream / "finish.onnx", stream / "step.onnx"]
    assert exported_files(str(stream / "step.onnx")) == [stream / "finish.onnx", stream / "step.onnx"]
    assert exported_files("a/best.pt") == [Path("a/best.pt")] and exported_files("laplacian") == []
    (tmp_path / "step.engine").write_bytes(b"")
    assert names_fuser(str(tmp_path)) and names_fuser("m.engine") and not names_fuser(str(tmp_path.parent / "none"))
    with pytest.raises(ArgumentError, match=re.escape("a model's file (.pt, .onnx, .engine) or the folder")):
        resolve_fuser("model.bin")


def test_without_the_runtime_the_extra_is_named(stream, monkeypatch):
    for name in [name for name in sys.modules if name.startswith(("pyfocus.export", "onnxruntime"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ResourceError, match=r"needs onnxruntime, which is not installed: pip .*pyfocus-stack\[onnx\]"):
        resolve_fuser(str(stream))


def test_progress_counts_parts_of_frames_and_the_end(stream):
    frames = [np.uint8(255 * f.transpose(1, 2, 0)) for f in textured(2, 3, 64, 64)]
    fuser, told = session.load(stream, noise=stub.NOISE, threads=1, tile_px=32), []
    pyfocus.stack(frames, fuser=fuser, align=False, progress=lambda *said: told.append(said))
    assert [done for stage, done, _ in told if stage == "fuse"] == [0, 0.25, 0.5, 0.75, 1, 1, 1.25, 1.5, 1.75, 2, 2]
    assert [said for said in told if said[0] == "finish"] == [("finish", float(k), 4) for k in (1, 2, 3, 4)]
    assert fuser.tell is None

    def stop(stage: str, done: float, total: int) -> None:
        if done > 1:
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        pyfocus.stack(frames, fuser=session.load(stream, noise=stub.NOISE, threads=1), align=False, progress=stop)


def test_how_long_it_takes_is_told_in_fitting_words(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    lines = terminal._Lines()
    steps = (("fuse", 0, 0, 30), ("fuse", 70, 2.5, 30), ("finish", 80, 1, 40), ("finish", 90, 21, 40))
    for stage, seconds, done, total in steps:
        now[0] = seconds
        lines(stage, done, total)
    lines.end()
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "fuse: 2.5 of 30, 28.0 s per frame, 13 min left"
    assert said[2] == "finish: 21 of 40, 2.1 tiles/s, 9 s left"
