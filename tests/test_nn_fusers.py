"""Networks as fusers: tiles against the whole frame, and what networks are told."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
from network_stubs import NOISE, Pick, Result, Stub, at_once, close, fold, masks_of, textured

import pyfocus
from pyfocus.burst import Frame, Meta
from pyfocus.colour import linear_to_srgb, srgb_to_linear
from pyfocus.errors import BurstError
from pyfocus.stacker import Stacker

torch = pytest.importorskip("torch")

from pyfocus import nn  # noqa: E402
from pyfocus.nn import tiles  # noqa: E402
from pyfocus.nn.burst_fuser import BurstFuser  # noqa: E402
from pyfocus.nn.stream import FocusDeepStream  # noqa: E402
from pyfocus.nn.stream_fuser import CLEAN, StreamFuser  # noqa: E402
from pyfocus.tiles import Box, whole  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


# --- tiles equal the whole ---------------------------------------------


@pytest.mark.parametrize("size,tile", [((70, 90), 16), ((64, 96), 32), ((131, 77), 64), ((40, 50), 512), ((3, 9), 16)])
@pytest.mark.parametrize("masked", [False, True])
def test_tiles_fold_to_what_the_whole_frame_does(size, tile, masked):
    frames, net = textured(4, (3, *size)), Stub()
    masks = masks_of(frames) if masked else None
    places = [2.0, 0.0, 1.0, 3.5]
    fused = fold(net, frames, masks, places, tile_px=tile)
    assert masked or max(max(window) for window in net.windows) <= tile + 16  # a halo of one step, not of four
    close(fused, at_once(net, frames, masks, places), 2e-5)  # worst of three seeds 9.6e-7


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
    close(fused, at_once(net, frames, masks_of(frames)), 2e-5)  # worst of three seeds 6.0e-7


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
    np.testing.assert_allclose(fused.image, wanted, rtol=0, atol=1e-4)  # worst 1.7e-5, the store's rounding


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
    for each in (stacker, plain):
        each.push(frame, index=8)
    fused = stacker.finish().fused.image
    wanted = plain.finish().fused.image  # white-balanced, as every fuser gets it
    np.testing.assert_allclose(fused, wanted, rtol=1e-6, atol=1e-7)
    assert image.shape == (64, 80, 3) and image.dtype == np.uint8
    held = StreamFuser(net, noise=NOISE)
    held.begin(frame)
    held.push(np.full((3, 8, 8), 0.6, np.float32))
    np.testing.assert_allclose(
        held._state.read([Box(0, 8, 0, 8)], tiles.CPU).sums[0, :, 0, 0], [0.3, 0.6, 0.4], rtol=1e-6
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


@pytest.mark.parametrize("make", [lambda: StreamFuser(Stub(), noise=NOISE), lambda: BurstFuser(Pick("rgb", 2, 0))])
def test_one_frame_is_no_burst(make):
    fuser = make()
    fuser.push(textured(1)[0])
    assert fuser.preview().shape == textured(1)[0].shape  # of one that comes live, it may be looked at
    with pytest.raises(
        BurstError, match=r"finish: \w+ takes bursts of two frames or more, got one; .*--fuser laplacian"
    ):
        fuser.finish()
    fuser.push(textured(2)[1])
    assert fuser.finish().image.shape == textured(1)[0].shape


def _kept(pushed: int, wanted: int) -> list[int]:
    """Which frames a network of ``wanted`` is shown of ``pushed``."""
    net = Pick("rgb", wanted, 0)
    fuser = BurstFuser(net, encoding="linear", threads=1)
    for k in range(pushed):
        fuser.push(np.full((3, 16, 16), k / 100, np.float32))
    says = f"Pick was made for bursts of {wanted} frames, this one has {pushed}: some are"
    with nullcontext() if pushed == wanted else pytest.warns(RuntimeWarning, match=says):
        fuser.finish()
    return np.rint(net.seen[0, :, 0, 0, 0].numpy() * 100).astype(int).tolist()


def test_long_bursts_are_thinned_and_short_ones_repeated():
    assert _kept(6, 3) == [0, 2, 4]
    assert _kept(7, 3) == [0, 2, 4]
    assert _kept(3, 3) == [0, 1, 2]
    assert _kept(2, 6) == [0, 0, 0, 1, 1, 1]
    assert _kept(4, 6) == [0, 0, 1, 2, 2, 3]


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
