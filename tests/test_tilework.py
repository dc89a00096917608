"""Tiles in turn: which go together, what is gathered ahead, what happens when memory ends; networks give the same."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from pyfocus.errors import ArgumentError, ResourceError
from pyfocus.tiles import Box, whole
from pyfocus.tilework import TileRuns

FRAME = whole((40, 100))


def window(core: Box) -> Box:
    return core.grown(8, FRAME.size)


def groups_of(runs: TileRuns, tiles: list[Box], fails: Any = lambda cores: False) -> tuple[list[list[Box]], list[Any]]:
    """Which tiles were worked on together, without those of failed attempts, and what came of them."""
    worked = []

    def work(cores: list[Box], gathered: list[Box]) -> list[str]:
        assert gathered == [window(core) for core in cores]
        if fails(cores):
            raise MemoryError(f"no room for {len(cores)}")
        worked.append(cores)
        return [f"{core.y0} {core.x0}" for core in cores]

    found = list(runs.run(tiles, window, lambda cores: [window(core) for core in cores], work))
    assert [result for _, result in found] == [f"{core.y0} {core.x0}" for core, _ in found]
    return worked, [core for core, _ in found]


@pytest.mark.parametrize("ahead", [False, True])
def test_alike_tiles_go_together(ahead):
    tiles = FRAME.cut(20, 20)
    worked, found = groups_of(TileRuns(20, at_once=2, ahead=ahead), tiles)
    assert found == tiles and [len(group) for group in worked] == [1, 2, 1, 1] * 2  # borders have no halo beyond
    for group in worked:
        assert len({(window(core).size, str(core.within(window(core)))) for core in group}) == 1
    assert groups_of(TileRuns(20, ahead=ahead), tiles)[0] == [[tile] for tile in tiles]


@pytest.mark.parametrize("ahead", [False, True])
def test_fewer_and_smaller_ones_when_memory_ends(ahead):
    frame = whole((128, 640))
    tiles = frame.cut(128, 128)

    def fails(cores: list[Box]) -> bool:
        return sum(core.size[0] * core.size[1] for core in cores) > 64 * 64

    def alike(core: Box) -> Box:
        return core

    runs = TileRuns(128, at_once=3, ahead=ahead)
    sizes: list[int] = []

    def work(cores: list[Box], gathered: list[Box]) -> list[Box]:
        assert gathered == cores
        if fails(cores):
            raise MemoryError
        sizes.append(len(cores))
        return cores

    found = list(runs.run(tiles, alike, list, work))
    assert [core for core, _ in found] == [core for tile in tiles for core in tile.cut(64, 64)]
    assert all(core == result for core, result in found) and set(sizes) == {1}
    assert (runs.at_once, runs.tile_px) == (1, 64)
    with pytest.raises(ResourceError, match=r"no room for 1; tiles of 64 px do not fit into memory: close other"):
        groups_of(TileRuns(64), FRAME.cut(64, 64), lambda cores: True)
    with pytest.raises(ResourceError, match="this model's tiles do not fit"):
        groups_of(TileRuns(999, at_once=2, fixed=True), FRAME.cut(20, 20), lambda cores: True)


def test_the_next_tiles_are_gathered_meanwhile():
    gathered = {k: threading.Event() for k in range(3)}
    tiles = whole((10, 30)).cut(10, 10)
    threads = set()

    def gather(cores: list[Box]) -> int:
        threads.add(threading.current_thread().name)
        gathered[cores[0].x0 // 10].set()
        return cores[0].x0 // 10

    def work(cores: list[Box], place: int) -> list[bool]:
        return [place == 2 or gathered[place + 1].wait(10)]

    found = list(TileRuns(10, ahead=True).run(tiles, lambda core: core, gather, work))
    assert [there for _, there in found] == [True] * 3
    assert len(threads) == 1 and threading.current_thread().name not in threads


@pytest.mark.parametrize("ahead", [False, True])
def test_errors_come_through_and_no_thread_stays(ahead):
    before = threading.active_count()
    for gather, work in ((lambda cores: 1 / 0, lambda cores, got: cores), (list, lambda cores, got: 1 / 0)):
        with pytest.raises(ZeroDivisionError):
            list(TileRuns(20, ahead=ahead).run(FRAME.cut(20, 20), window, gather, work))
    short = iter([MemoryError("gathering"), None, None])

    def gather_late(cores: list[Box]) -> list[Box]:
        error = next(short, None)
        if error:
            raise error
        return cores

    tiles = whole((128, 128)).cut(128, 128)
    found = list(TileRuns(128, ahead=ahead).run(tiles, lambda core: core, gather_late, lambda cores, got: got))
    assert [core for core, _ in found] == tiles[0].cut(64, 64)
    assert threading.active_count() == before


# --- networks ----------------------------------------------------------


def same(first: Any, second: Any) -> None:
    for what in ("image", "depth", "confidence"):
        if getattr(first, what) is not None:
            np.testing.assert_allclose(getattr(first, what), getattr(second, what), rtol=0, atol=1e-6)


@pytest.mark.parametrize("device", ["cpu", "cpu:0"])  # the second is another device to torch: gathered ahead
def test_torch_gives_the_same_several_at_once(one_thread, device):
    pytest.importorskip("torch")
    from network_stubs import Stub, at_once, close, fold, masks_of, textured

    frames, counts = textured(3, (3, 61, 130)), []
    masks = masks_of(frames)

    class Watched(Stub):
        def step(self, state, frame, *more):
            counts.append(len(frame))
            return super().step(state, frame, *more)

    net = Watched()
    together = fold(net, frames, masks, tile_px=16, at_once=3, device=device)
    assert max(counts) == 3 and 1 in counts
    close(together, at_once(net, frames, masks), 1e-4)
    same(together, fold(net, frames, masks, tile_px=16))


@pytest.mark.parametrize("bound", [False, True])
def test_exported_models_give_the_same_several_at_once(tmp_path, monkeypatch, bound):
    pytest.importorskip("onnxruntime")
    stub = pytest.importorskip("exported_stub")
    from pyfocus.export import session, stream_fuser

    monkeypatch.setattr(stream_fuser, "fits_twice", lambda *known: bound)
    stub.write_stream(tmp_path)
    random = np.random.default_rng(0)
    frames, mask = random.random((3, 3, 61, 130), np.float32), np.ones((61, 130), np.uint8)
    mask[:, 20:40] = 0
    results = []
    for count in (1, 3):
        fuser = session.load(tmp_path, noise=stub.NOISE, threads=1, tile_px=16, at_once=count)
        step, counts = fuser.exported.runners["step"], []
        real = step.run_bound if bound else step.run

        def watched(inputs: Any, *more: Any, run: Any = real, seen: Any = counts) -> Any:
            seen.append(len(inputs["frame"]))
            return run(inputs, *more)

        monkeypatch.setattr(step, "run_bound", watched)
        fuser.exported.runs["step"] = watched
        for frame in frames:
            fuser.push(frame, mask)
        assert max(counts) == count
        results.append(fuser.finish())
    same(*results)


@pytest.mark.parametrize("kind", ["rgb", "mosaic"])
def test_bursts_give_the_same_several_at_once(tmp_path, one_thread, kind):
    pytest.importorskip("onnxruntime")
    stub = pytest.importorskip("exported_stub")
    from pyfocus.burst import Frame, Meta
    from pyfocus.export import session

    stub.write_burst(tmp_path, kind)
    frames = np.random.default_rng(0).random((2, 3 if kind == "rgb" else 4, 61, 130), np.float32)
    meta = Meta(cfa=None if kind == "rgb" else "GBRG", black=(0.0,) * 4, white=1.0, white_balance=(2.0, 1.0, 1.5))
    images = []
    for count in (1, 3):
        fuser = session.load(tmp_path, threads=1, tile_px=16, at_once=count)
        fuser.begin(Frame(np.zeros((16, 16, 3) if kind == "rgb" else (16, 16), np.uint16), meta))
        for frame in frames:
            fuser.push(frame)
        images.append(fuser.finish().image)
    np.testing.assert_allclose(*images, rtol=0, atol=1e-6)


def test_how_many_at_once(tmp_path):
    pytest.importorskip("onnxruntime")
    stub = pytest.importorskip("exported_stub")
    from pyfocus.export import session

    stub.write_stream(tmp_path)
    assert session.load(tmp_path, noise=stub.NOISE)._tiler.at_once == 1
    exported = session.open_exported(tmp_path, threads=1)
    for runner in exported.runners.values():
        runner.arrays, runner.most_at_once = type("OnCard", (), {"is_device": True}), 3
    assert [exported.tiles_at_once(wanted) for wanted in (None, 2, 9)] == [3, 2, 3]
    with pytest.raises(ArgumentError, match="at_once must be 1 or more, got 0"):
        session.load(tmp_path, at_once=0)
