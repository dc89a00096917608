"""Networks as fusers where memory ends: smaller tiles, the CPU, files; devices, threads, repeated results."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from network_stubs import NOISE, Pick, Stub, at_once, close, fold, textured

import pyfocus
from pyfocus.errors import ArgumentError, BurstError, ResourceError

torch = pytest.importorskip("torch")

from pyfocus.nn import tiles  # noqa: E402
from pyfocus.nn.burst_fuser import BurstFuser  # noqa: E402
from pyfocus.nn.stream_fuser import StreamFuser  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


class Hungry(Stub):
    """A network that finds no memory for windows of more pixels than ``limit``; none at all away from the CPU."""

    def __init__(self, limit: int, anywhere: bool = True) -> None:
        super().__init__()
        self.limit, self.anywhere, self.place = limit, anywhere, None

    def to(self, place):
        self.place = place
        return super().to(place)

    def step(self, state, frame, *more):
        short = frame.shape[2] * frame.shape[3] > self.limit if self.anywhere else self.place != tiles.CPU
        if short:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB\nand more lines")
        return super().step(state, frame, *more)


def test_tiles_are_halved_when_memory_ends():
    frames, net = textured(2, (3, 300, 280)), Hungry(160 * 160)
    fuser = StreamFuser(net, noise=NOISE, threads=1, tile_px=256)
    for frame in frames:
        fuser.push(frame)
    assert fuser._tiler.tile_px == 128 and fuser._tiler.device == tiles.CPU
    fused = fuser.finish()
    net.limit = 1 << 30
    close(fused, at_once(net, frames), 1e-5)


def test_a_device_without_memory_hands_over_to_the_cpu_with_one_warning():
    frames, net = textured(3, (3, 200, 90)), Hungry(0, anywhere=False)
    fuser = StreamFuser(net, noise=NOISE, threads=1, tile_px=128, device="cpu:0")  # another device, to torch
    with pytest.warns(RuntimeWarning, match="cpu:0 has no memory left for tiles of 64 px; .*on the CPU") as told:
        for frame in frames:
            fuser.push(frame)
    assert len(told) == 1 and fuser._tiler.device == tiles.CPU and fuser._tiler.tile_px == 128
    close(fuser.finish(), at_once(net, frames), 1e-5)


def test_no_memory_anywhere_is_one_error():
    fuser = StreamFuser(Hungry(100), noise=NOISE, threads=1)
    with pytest.raises(ResourceError, match="tiles of 64 px do not fit into memory: CUDA out of memory"):
        fuser.push(textured(1, (3, 100, 100))[0])
    with pytest.raises(ArgumentError, match="an earlier push was broken off"):
        fuser.push(textured(1, (3, 100, 100))[0])
    with pytest.raises(BurstError, match="a push was broken off"):
        fuser.finish()


def test_other_errors_of_a_network_are_its_own():
    net = Stub()
    net.step = lambda *more: 1 / 0
    with pytest.raises(ZeroDivisionError):
        fold(net, textured(1))


def test_a_state_past_the_limit_lies_in_a_file(tmp_path):
    frames, net = textured(3, (3, 104, 96)), Stub()
    fuser = StreamFuser(net, noise=NOISE, threads=1, tile_px=32, memory=1000, folder=tmp_path)
    fuser.push(frames[0])
    state = fuser._state
    assert state.in_file and state.bytes == 104 * 96 * 4 * (3 + 5 / 4) and list(tmp_path.iterdir()) == []
    for frame in frames[1:]:
        fuser.push(frame)
    close(fuser.finish(), at_once(net, frames), 1e-5)
    assert not StreamFuser(net, noise=NOISE).memory


def test_frames_past_the_limit_of_the_pipeline_lie_in_a_file():
    frames = [np.uint8(255 * f.transpose(1, 2, 0)) for f in textured(3, (3, 64, 64))]
    need = 3 * 64 * 64 * 18 + 3 * frames[0].nbytes + 300_000_000  # and of Python, libraries, tiles
    images = []
    for memory in (None, need + 2 * 3 * 64 * 64, need + 10**6):
        fuser = BurstFuser(Pick("rgb", 3, 2), threads=1)
        images.append(pyfocus.stack(frames, fuser=fuser, align=False, equalise=False, memory=memory).fused.image)
        assert fuser.memory == (None if memory is None else memory - need)
        assert (fuser._store.on_disk_bytes > 0) == (memory == need + 2 * 3 * 64 * 64)
    np.testing.assert_array_equal(images[0], images[1])
    np.testing.assert_array_equal(images[0], images[2])


def test_nothing_of_a_tile_is_kept():
    """Not even until the garbage collector comes: that would be a copy of the state per push."""
    seen = []

    class Watched(Stub):
        def step(self, state, *more):
            seen.append(weakref.ref(state.sums))
            return super().step(state, *more)

        def finish(self, state, *more):
            seen.append(weakref.ref(state.sums))
            return super().finish(state, *more)

    fuser = StreamFuser(Watched(), noise=NOISE, threads=1, tile_px=16)
    gc.disable()
    try:
        fuser.push(textured(1)[0])
        fuser.preview()
        assert len(seen) > 40 and not any(ref() is not None for ref in seen)
    finally:
        gc.enable()


def test_devices():
    assert tiles.torch_device("cpu") == tiles.CPU
    if torch.cuda.is_available():
        assert tiles.torch_device("auto") == torch.device("cuda", 0)
    else:
        assert tiles.torch_device("auto") == tiles.CPU
        with pytest.raises(ResourceError, match="sees no device cuda:1; install a torch with CUDA"):
            StreamFuser(Stub(), device="cuda:1")


def test_threads_are_torch_s_only_for_the_work():
    counts = []

    class Counting(Stub):
        def step(self, *arguments):
            counts.append(torch.get_num_threads())
            return super().step(*arguments)

    torch.set_num_threads(2)
    fold(Counting(), textured(2), threads=1)
    fold(Counting(), textured(2), threads=3)
    assert set(counts) == {1, 3} and torch.get_num_threads() == 2


def test_the_same_frames_give_the_same_bytes():
    frames, net = textured(3), Stub()
    first, second = (fold(net, frames, tile_px=32) for _ in range(2))
    assert first.image.tobytes() == second.image.tobytes() and first.depth.tobytes() == second.depth.tobytes()


def test_previews_change_nothing():
    frames, net = textured(3), Stub()
    fuser = StreamFuser(net, noise=NOISE, threads=1)
    for frame in frames:
        fuser.push(frame)
        last = fuser.preview()
    np.testing.assert_array_equal(last, fuser.finish().image)
    np.testing.assert_array_equal(last, fold(net, frames).image)
