"""Networks as fusers: tiles against the whole frame, what networks are told, memory that ends, and every error."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from typing import Any, NamedTuple

import numpy as np
import pytest
from command import make_burst, refuse, run

import pyfocus
from pyfocus.burst import Frame, Meta
from pyfocus.cli.arguments import UsageError, parser
from pyfocus.cli.stacking import choose_domain, choose_fuser
from pyfocus.cli.terminal import Terminal
from pyfocus.colour import linear_to_srgb, srgb_to_linear
from pyfocus.errors import ArgumentError, BurstError, ReadError, ResourceError
from pyfocus.io import FrameSource
from pyfocus.stacker import Stacker, resolve_fuser

torch = pytest.importorskip("torch")

from pyfocus import nn  # noqa: E402
from pyfocus.nn import fusers, tiles  # noqa: E402
from pyfocus.nn.burst_fuser import BurstFuser  # noqa: E402
from pyfocus.nn.checkpoint import save_model  # noqa: E402
from pyfocus.nn.stream import FocusDeepStream  # noqa: E402
from pyfocus.nn.stream_fuser import CLEAN, StreamFuser  # noqa: E402
from pyfocus.tiles import Box, whole  # noqa: E402

NOISE = (1e-3, 1e-6)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


class StubState(NamedTuple):
    sums: Any  # (1, 3, H, W)
    half: dict[str, Any]  # {"last": (1, 5, H/2, W/2)}
    count: Any  # (1, 1, 1, 1): the same for all tiles


class Result(NamedTuple):
    image: Any
    depth: Any
    confidence: Any


class Stub(torch.nn.Module):
    """A small folding network: every step sees 3 pixels around and what the last one saw; 4 at the end."""

    step_px, step_halo_px, finish_halo_px = 8, 8, 8

    def __init__(self) -> None:
        super().__init__()
        self.see = torch.nn.Conv2d(7, 5, 4, 2, 1)
        self.mix = torch.nn.Conv2d(10, 5, 3, 1, 1)
        self.weigh = torch.nn.ConvTranspose2d(5, 1, 2, 2)
        self.polish = torch.nn.Conv2d(3, 3, 5, 1, 2)
        self.told: list[Any] = []
        self.windows: list[tuple[int, int]] = []

    def init_state(self, batch: int, height: int, width: int) -> StubState:
        half = torch.full((batch, 5, height // 2, width // 2), 0.25)
        return StubState(torch.zeros(batch, 3, height, width), {"last": half}, torch.zeros(batch, 1, 1, 1))

    def step(self, state, frame, index, noise, white_balance, valid=None):
        self.told.append((float(index[0]), noise[0].tolist(), white_balance[0].tolist()))
        self.windows.append(tuple(frame.shape[2:]))
        seen = torch.ones_like(frame[:, :1]) if valid is None else valid
        gain = white_balance[:, :, None, None].expand_as(frame)
        x = torch.tanh(self.see(torch.cat([frame, gain, seen], 1)))
        last = torch.tanh(self.mix(torch.cat([x, state.half["last"]], 1)))
        weight = self.weigh(last).exp() * seen
        return StubState(state.sums + weight * frame * (1 + state.count), {"last": last}, state.count + 1)

    def finish(self, state, noise, white_balance):
        image = self.polish(state.sums / state.count)
        return Result(image, image[:, :1] * state.count, image[:, 1:2].sigmoid())


def textured(count=3, shape=(3, 70, 90), seed=0):
    return (0.1 + 0.8 * np.random.default_rng(seed).random((count, *shape))).astype(np.float32)


def masks_of(frames):
    masks = np.ones((len(frames), *frames.shape[2:]), np.uint8)
    for k in range(len(frames)):
        masks[k, : 5 * k, 10 : 30 + k] = 0
    return masks


def fold(net, frames, masks=None, places=None, **how):
    fuser = StreamFuser(net, **{"noise": NOISE, "threads": 1, **how})
    for k, frame in enumerate(frames):
        fuser.push(frame, None if masks is None else masks[k], index=None if places is None else places[k])
    return fuser.finish()


def at_once(net, frames, masks=None, places=None, noise=NOISE, balance=(1.0, 1.0, 1.0)):
    """The network over whole frames, padded by mirrored pixels: what every fuser is held to."""
    down, right = (-n % 8 for n in frames.shape[2:])
    pad = [(0, 0), (0, down), (0, right)]
    told = torch.tensor([noise]), torch.tensor([balance])
    with torch.no_grad():
        state = net.init_state(1, frames.shape[2] + down, frames.shape[3] + right)
        for k, frame in enumerate(frames):
            x = torch.from_numpy(np.pad(frame, pad, mode="reflect"))[None]
            seen = (
                None if masks is None else torch.from_numpy(np.pad(masks[k][None], pad, mode="reflect"))[None].float()
            )
            state = net.step(state, x, torch.tensor([float(k if places is None else places[k])]), *told, seen)
        out = net.finish(state, *told)
    cut = np.s_[0, :, : frames.shape[2], : frames.shape[3]]
    return out.image[cut].numpy(), out.depth[cut][0].numpy(), out.confidence[cut][0].numpy()


def close(fused, wanted, atol):
    for ours, theirs in zip((fused.image, fused.depth, fused.confidence), wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=atol)


# --- tiles equal the whole ---------------------------------------------


@pytest.mark.parametrize("size,tile", [((70, 90), 16), ((64, 96), 32), ((131, 77), 64), ((40, 50), 512), ((3, 9), 16)])
@pytest.mark.parametrize("masked", [False, True])
def test_tiles_fold_to_what_the_whole_frame_does(size, tile, masked):
    frames, net = textured(4, (3, *size)), Stub()
    masks = masks_of(frames) if masked else None
    places = [2.0, 0.0, 1.0, 3.5]
    fused = fold(net, frames, masks, places, tile_px=tile)
    assert masked or max(max(window) for window in net.windows) <= tile + 16  # a halo of one step, not of four
    close(fused, at_once(net, frames, masks, places), 2e-5)  # worst 1.0e-6


def test_a_halo_that_is_too_small_is_seen():
    """The test above can fail: without a halo, tiles show."""
    frames, net = textured(), Stub()
    net.step_halo_px = 0
    assert np.abs(fold(net, frames, tile_px=16).image - at_once(net, frames)[0]).max() > 1e-3


@pytest.mark.parametrize("size", [(96, 232), (100, 133)])
def test_the_shipped_kind_of_network_in_tiles(size):
    frames = textured(3, (3, *size), 4)
    net = FocusDeepStream("tiny")
    with torch.no_grad():
        for parameter in net.parameters():  # an untrained one aligns by nothing
            parameter += 0.05 * torch.randn_like(parameter)
    fused = fold(net, frames, masks_of(frames), tile_px=64)
    close(fused, at_once(net, frames, masks_of(frames)), 1e-4)  # worst 2.4e-6


@pytest.mark.parametrize(
    "make,kind",
    [(nn.FocusDeep, "rgb"), (nn.FocusDeep, "rggb"), (nn.FocusDeep, "mosaic"), (nn.UNet, "rgb"), (nn.UNet, "mosaic")],
)
def test_a_fixed_number_of_frames_in_tiles(make, kind):
    net, channels = make(kind, 2, 8 if make is nn.FocusDeep else 2), 3 if kind == "rgb" else 4
    frames = textured(2, (channels, 171, 37), 3)
    fuser = BurstFuser(net, tile_px=48, threads=1, encoding="linear")
    for frame in frames:
        fuser.push(frame)
    if kind == "mosaic":
        shown = np.empty((2, 1, 342, 74), np.float32)
        shown[:, 0, 0::2, 0::2], shown[:, 0, 0::2, 1::2] = frames[:, 0], frames[:, 1]
        shown[:, 0, 1::2, 0::2], shown[:, 0, 1::2, 1::2] = frames[:, 2], frames[:, 3]
    else:
        shown = frames
    with torch.no_grad():
        wanted = net(torch.from_numpy(shown)[None])[0].numpy()
    fused = fuser.finish()
    assert fused.depth is None and fused.image.shape == ((3, 171, 37) if kind == "rgb" else (3, 342, 74))
    np.testing.assert_allclose(fused.image, wanted, rtol=0, atol=1e-4)  # worst 2.3e-5, the store's rounding


@pytest.mark.parametrize("kind", ["FocusDeep", "UNet"])
def test_halos_hold_what_the_published_networks_see(kind):
    net, side = (nn.FocusDeep("rgb", 2, 8), 144) if kind == "FocusDeep" else (nn.UNet("rgb", 2, 2), 352)
    if kind == "UNet":
        for parameter in net.parameters():  # no unit of so few may be dead
            parameter.data.abs_()
    x = torch.rand(1, 2, 3, side, side, requires_grad=True)
    reach = 0
    for p in (side // 2, side // 2 + 3):
        gradient = torch.autograd.grad(net(x)[:, :, p, p].square().sum(), x)[0].abs().amax((0, 1, 2))
        seen = gradient.nonzero()
        reach = max(reach, int((seen - p).abs().max()))
    least = {"FocusDeep": 40, "UNet": 140}[kind]
    assert least < reach <= {"FocusDeep": 64, "UNet": 160}[kind]


# --- what networks are told --------------------------------------------


class Echo(Stub):
    """Gives back the last frame as it came."""

    def step(self, state, frame, index, noise, white_balance, valid=None):
        super().step(state, frame, index, noise, white_balance, valid)
        return state._replace(sums=frame, count=state.count + 1)

    def finish(self, state, noise, white_balance):
        return Result(state.sums, state.sums[:, :1], state.sums[:, 1:2])


RAW = Meta(cfa="GRBG", black=(64.0,) * 4, white=4095.0, white_balance=(2.0, 1.0, 1.5), encoding="linear")


def raw_frames(count=3, size=(64, 80)):
    random = np.random.default_rng(2)
    flat = 700 + 300 * np.add.outer(np.arange(size[0]) // 32, np.arange(size[1]) // 40)
    return [Frame(np.uint16(np.clip(random.normal(flat, 20 + k), 0, 4095)), RAW) for k in range(count)]


def test_networks_see_the_camera_s_values_and_results_are_balanced():
    net = Echo()
    stacker = Stacker(StreamFuser(net, noise=NOISE, threads=1), align=False, equalise=False, crop=False)
    plain = Stacker("average", align=False, equalise=False, crop=False)
    frame = raw_frames(1)[0]
    stacker.push(frame, index=7)
    plain.push(frame)
    assert net.told == [(7.0, pytest.approx(NOISE), [2.0, 1.0, 1.5])]
    image = stacker.preview()
    fused = stacker.finish().fused.image
    wanted = plain.finish().fused.image  # white-balanced, as every fuser gets it
    np.testing.assert_allclose(fused, wanted, rtol=1e-6, atol=1e-7)
    assert image.shape == (64, 80, 3) and image.dtype == np.uint8
    held = StreamFuser(net, noise=NOISE)
    held.begin(frame)
    held.push(np.full((3, 8, 8), 0.6, np.float32))
    np.testing.assert_allclose(
        held._state.read(Box(0, 8, 0, 8), tiles.CPU).sums[0, :, 0, 0], [0.3, 0.6, 0.4], rtol=1e-6
    )


def test_less_noise_than_the_network_ever_saw_is_none():
    def told(sigma):
        frame = 0.3 + sigma * np.random.default_rng(8).standard_normal((128, 128, 3))
        fuser = StreamFuser(Echo(), threads=1)
        fuser.begin(Frame(frame.astype(np.float32), Meta(encoding="linear")))
        return fuser.noise

    assert told(0.0015) == CLEAN
    shot, read = told(0.006)
    assert 0.3 * shot + read == pytest.approx(0.006**2, rel=0.1)


def test_noise_is_measured_on_the_first_frame_as_the_camera_gave_it():
    frame, net = raw_frames(1, (256, 256))[0], Echo()
    wanted = pyfocus.noise.estimate_noise(frame)
    Stacker(StreamFuser(net, threads=1), align=False).push(frame)
    assert net.told[0][1] == pytest.approx([wanted.shot, wanted.read], rel=1e-5)
    direct = StreamFuser(net, threads=1)  # nobody says begin: the planes are looked at
    planes = (0.4 + np.random.default_rng(1).normal(0, 0.02, (3, 128, 128))).astype(np.float32)
    direct.push(planes)
    shot, read = direct.noise
    assert shot * 0.4 + read == pytest.approx(0.02**2, rel=0.05)


def test_a_frame_without_a_flat_place_gives_a_warning():
    with pytest.warns(RuntimeWarning, match=r"flat.*--noise SHOT,READ"):
        StreamFuser(Stub()).begin(Frame(np.random.default_rng(0).integers(0, 255, (40, 40, 3)).astype(np.uint8)))


def test_grey_frames_are_shown_as_three_planes_and_come_back_as_one():
    frames, net = textured(2, (1, 40, 48)), Stub()
    fused = fold(net, frames)
    wanted = at_once(net, np.repeat(frames, 3, 1))[0].mean(0, keepdims=True)
    np.testing.assert_allclose(fused.image, wanted, rtol=0, atol=1e-5)
    fuser = BurstFuser(nn.UNet("rgb", 2, 2), threads=1)
    for frame in frames:
        fuser.push(frame)
    assert fuser.preview().shape == (1, 40, 48) and fuser.finish().image.shape == (1, 40, 48)


def test_one_frame_is_a_burst():
    frames, net = textured(1), Stub()
    close(fold(net, frames), at_once(net, frames), 1e-5)


class Pick(torch.nn.Module):
    """A fixed number of frames, of which it gives back one."""

    def __init__(self, kind: str, frames: int, number: int, scale: int = 1) -> None:
        super().__init__()
        self.kind, self.frames, self.number, self.scale = kind, frames, number, scale
        self.seen: Any = None

    def forward(self, burst):
        self.seen = burst
        x = burst[:, self.number]
        if self.kind == "rgb":
            return x
        if self.kind == "rggb":
            x = torch.nn.functional.pixel_shuffle(x, 2)
        return x.expand(-1, 3, -1, -1)


def _kept(pushed: int, wanted: int) -> list[int]:
    """Which frames a network of ``wanted`` is shown of ``pushed``."""
    net = Pick("rgb", wanted, 0)
    fuser = BurstFuser(net, encoding="linear", threads=1)
    for k in range(pushed):
        fuser.push(np.full((3, 16, 16), k / 100, np.float32))
    fuser.finish()
    return np.rint(net.seen[0, :, 0, 0, 0].numpy() * 100).astype(int).tolist()


def test_long_bursts_are_thinned_and_short_ones_repeated():
    assert _kept(6, 3) == [0, 2, 4]
    assert _kept(7, 3) == [0, 2, 4]
    assert _kept(3, 3) == [0, 1, 2]
    assert _kept(2, 6) == [0, 0, 0, 1, 1, 1]
    assert _kept(4, 6) == [0, 0, 1, 2, 2, 3]
    assert _kept(1, 3) == [0, 0, 0]


@pytest.mark.parametrize("cfa", ["RGGB", "BGGR", "GRBG", "GBRG"])
@pytest.mark.parametrize("kind", ["rggb", "mosaic"])
def test_red_comes_first_and_pixels_stay_in_their_places(cfa, kind):
    """The network gives back what it was shown; that must be the mosaic, each pixel where it was."""
    net = Pick(kind, 2, 1, 2 if kind == "rggb" else 1)
    meta = Meta(cfa=cfa, black=(0.0,) * 4, white=1000.0, white_balance=(2.0, 1.0, 1.5), encoding="linear")
    mosaic = np.random.default_rng(0).integers(10, 900, (160, 96)).astype(np.uint16)
    frame = Frame(mosaic, meta)
    fuser = BurstFuser(net, tile_px=32, threads=1)
    fuser.begin(frame)
    offsets = pyfocus.raw.plane_offsets(cfa)
    planes = np.stack([mosaic[y::2, x::2] / np.float32(1000) for y, x in offsets]).astype(np.float32)
    balance = np.array([2, 1, 1, 1.5], np.float32)[:, None, None]
    for _ in range(2):
        fuser.push(planes * balance)
    image = fuser.finish().image
    for c, gain in enumerate((2, 1, 1.5)):
        np.testing.assert_allclose(image[c], mosaic / 1000 * gain, rtol=0, atol=2e-4)
    first = net.seen[0, 0, 0, 0, 0]
    reds = mosaic[offsets[0][0] :: 2, offsets[0][1] :: 2] / 1000
    assert np.abs(reds - float(first)).min() < 1e-4  # a red one


def test_srgb_networks_see_srgb():
    net = Pick("rgb", 2, 1)
    frames = textured(2, (3, 20, 24))
    fuser = BurstFuser(net, threads=1)
    fuser.begin(Frame(np.zeros((20, 24), np.uint16), RAW))  # balance stays in: pictures are shown as pictures
    for frame in frames:
        fuser.push(frame)
    preview = fuser.preview()
    image = fuser.finish().image
    np.testing.assert_allclose(net.seen[0].numpy(), linear_to_srgb(frames), atol=1e-4)
    np.testing.assert_allclose(image, frames[1], atol=1e-4)
    np.testing.assert_allclose(srgb_to_linear(net.seen[0, 1].numpy()), image, atol=1e-6)
    np.testing.assert_allclose(preview, frames.mean(0), atol=5e-5)


# --- memory, devices, threads ------------------------------------------


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
    need = 3 * 64 * 64 * 18 + 3 * frames[0].nbytes
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
    fold(Counting(), textured(1), threads=1)
    fold(Counting(), textured(1), threads=3)
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


# --- errors ------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda: StreamFuser(Stub(), noise=NOISE), lambda: BurstFuser(Pick("rgb", 2, 0))])
def test_frames_that_no_network_takes(make):
    fuser, good = make(), textured(1, (3, 24, 24))[0]
    with pytest.raises(BurstError, match="no frames were pushed"):
        fuser.finish()
    fuser.push(good)
    bad = good.copy()
    bad[1, 5, 5] = np.nan
    with pytest.raises(BurstError, match=r"frame 1 has pixels that are not finite numbers \(NaN"):
        fuser.push(bad)
    with pytest.raises(BurstError, match="the first was"):
        fuser.push(textured(1, (3, 24, 32))[0])
    with pytest.raises(ArgumentError, match=r"takes 1 or 3 planes, got 4; stack with domain='rgb' \(--domain rgb\)"):
        fuser.push(textured(1, (4, 24, 24))[0])
    with pytest.raises(ArgumentError, match="float64"):
        fuser.push(good.astype(float))
    fuser.push(good)  # what was refused left it as it was
    fuser.finish()
    with pytest.raises(ArgumentError, match="already taken with finish"):
        fuser.push(good)


def test_domains():
    with pytest.raises(ArgumentError, match="domain must be 'rgb' for this network, got 'raw'"):
        Stacker(StreamFuser(Stub(), noise=NOISE), domain="raw")
    raw = BurstFuser(Pick("mosaic", 2, 0))
    with pytest.raises(ArgumentError, match="domain must be 'raw' for this network"):
        pyfocus.stack([np.zeros((64, 64, 3), np.uint8)] * 2, fuser=raw)
    with pytest.raises(BurstError, match=r"takes mosaics \(mosaic\), .* is a picture"):
        raw.begin(Frame(np.zeros((8, 8, 3), np.uint8)))
    with pytest.raises(ArgumentError, match="takes 4 planes, got 3; stack with domain='raw'"):
        raw.push(textured(1)[0])
    with pytest.raises(ArgumentError, match="half the size"):
        BurstFuser(nn.UNet("rggb", 2, 2))


def test_arguments():
    with pytest.raises(ArgumentError, match="tile_px must be 8 or more, got 4"):
        StreamFuser(Stub(), tile_px=4)
    for noise in ((1e-3,), (-1.0, 0.0), (2.0, 0.0)):
        with pytest.raises(ArgumentError, match="noise must be"):
            StreamFuser(Stub(), noise=noise)
    with pytest.raises(ArgumentError, match="encoding must be 'srgb' or 'linear'"):
        BurstFuser(Pick("rgb", 2, 0), encoding="gamma")
    with pytest.raises(ArgumentError, match="Linear does neither"):
        fusers.fuser_of(torch.nn.Linear(2, 2))
    with pytest.raises(ArgumentError, match="noise is for networks that are told of it, Pick is not"):
        fusers.fuser_of(Pick("rgb", 2, 0), noise=NOISE)
    assert fusers.fuser_of(Pick("rgb", 2, 0), {"encoding": "linear"})._encoding == "linear"


# --- by name -----------------------------------------------------------


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "best.pt"
    save_model(path, FocusDeepStream("tiny"), {})
    return path


def test_a_model_s_file_is_a_fuser(model, small_bracket):
    frames = [np.uint8(255 * np.clip(frame, 0, 1)) for frame in small_bracket.frames[:2, :64, :72]]
    fuser = resolve_fuser(str(model), noise=NOISE, threads=1)
    assert isinstance(fuser, StreamFuser) and fuser.noise == NOISE
    result = pyfocus.stack(frames, fuser=fuser, align=False)
    assert result.image().shape == (64, 72, 3) and np.isfinite(result.depth()).all()
    assert isinstance(Stacker(str(model))._fuser, StreamFuser)


def test_the_shipped_weights(model, monkeypatch, tmp_path):
    monkeypatch.setattr(fusers, "WEIGHTS", tmp_path)
    with pytest.raises(ResourceError, match="the weights of 'focusdeep' are not in this installation"):
        Stacker("focusdeep")
    model.rename(tmp_path / fusers.SHIPPED["focusdeep"])
    assert isinstance(Stacker("focusdeep")._fuser, StreamFuser)


def test_names_that_are_none(tmp_path):
    with pytest.raises(ArgumentError, match=r"average, laplacian, focusdeep, a model's file .*, got 'best'"):
        Stacker("best")
    with pytest.raises(ReadError, match=r"none.pt: cannot be read"):
        pyfocus.stack([np.zeros((32, 32), np.uint8)] * 2, fuser=str(tmp_path / "none.pt"))
    (tmp_path / "other.pt").write_bytes(b"no model")
    with pytest.raises(ReadError, match=r"other.pt: "):
        Stacker(str(tmp_path / "other.pt"))
    with pytest.raises(ArgumentError, match="noise is for networks"):
        resolve_fuser("laplacian", noise=NOISE)


def test_without_torch_there_is_one_clear_error():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import pyfocus\n"
        "try: pyfocus.Stacker('focusdeep')\n"
        "except pyfocus.errors.ResourceError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "needs torch, which is not installed: pip install 'pyfocus-stack[torch]'" in done.stdout, done.stderr
    code = "import sys, pyfocus; pyfocus.Stacker('laplacian'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "False"


def options(*words: str) -> Any:
    return parser().parse_args(["stack", "frames", *words])


def test_what_the_command_line_refuses(model, monkeypatch):
    monkeypatch.chdir(model.parent)
    network = ("-o", "o.tif", "--fuser", "best.pt")
    for words, says in (
        (("--fuser", "nine"), "average, laplacian, focusdeep, a model's file"),
        (("--noise", "1"), "must be SHOT,READ"),
        (("--noise=-1,0",), "must be SHOT,READ"),
    ):
        with pytest.raises(UsageError, match=says):
            options("-o", "o.tif", *words)
    for words, says in (
        (("-o", "o.tif", "--noise", "1e-3,1e-6"), "--noise is what a network is told"),
        (("-o", "o.dng", "--fuser", "best.pt"), "a network gives a picture"),
        (("-o", "o.tif", "--depth", "d.png", "--fuser", "raw.pt"), "raw.pt gives neither"),
    ):
        save_model("raw.pt", nn.FocusDeep("rggb", 2, 8), {})
        with pytest.raises(UsageError, match=says):
            choose_fuser(options(*words))
    fuser = choose_fuser(options(*network, "--noise", "1e-3,1e-6", "--threads", "1"))
    assert fuser.noise == NOISE and fuser.threads == 1
    with pytest.raises(UsageError, match="works in --domain rgb; leave --domain raw out"):
        choose_domain(options(*network, "--domain", "raw"), [], Terminal(), fuser.domain)
    picture = FrameSource(model.with_name("picture.tif"))
    assert choose_domain(options(*network), [picture], Terminal(), fuser.domain) == "rgb"
    assert choose_domain(options(*network), [], Terminal(), "raw") == "raw"
    with pytest.raises(UsageError, match=r"--fuser best\.pt needs camera raws, picture\.tif is a picture already"):
        choose_domain(options(*network), [picture], Terminal(), "raw")


def test_the_command_line(model, tmp_path):
    make_burst(tmp_path / "rgb", frames=2, height=64, width=96)
    words = ("stack", "rgb/frames", "-o", "o.tif", "--fuser", "best.pt", "--noise", "1e-4,1e-7", "--depth", "d.png")
    done = run(*words, "--threads", 1, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "o.tif").stat().st_size > 10_000 and (tmp_path / "d.png").is_file()
    refuse(*words[:5], "none.pt", "--overwrite", cwd=tmp_path, code=1, says="none.pt: cannot be read")


# --- boxes -------------------------------------------------------------


def test_boxes():
    frame = whole((20, 33), 8)
    assert frame.size == (24, 40) and whole((20, 33)).size == (20, 33)
    cut = frame.cut(16, 16)
    assert [box.size for box in cut] == [(16, 16), (16, 16), (16, 8), (8, 16), (8, 16), (8, 8)]
    assert sum(h * w for h, w in (box.size for box in cut)) == 24 * 40
    assert cut[5].grown(8, frame.size) == Box(8, 24, 24, 40)
    assert cut[5].within(frame, stride=4) == (slice(4, 6), slice(8, 10))
    assert cut[5].within(cut[5].grown(8, frame.size), scale=2) == (slice(16, 32), slice(16, 32))
