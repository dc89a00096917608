"""Simulated bursts: seeded, in focus where they say, occlusion as a brute-force lens has it, noise as declared."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pyfocus.errors import ArgumentError, ReadError  # noqa: E402
from pyfocus.io import write_image  # noqa: E402
from pyfocus.nn.simulate import Simulation, SimulationSettings  # noqa: E402
from pyfocus.nn.simulate.lens import Lens, aperture_kernel, draw_aperture  # noqa: E402
from pyfocus.nn.simulate.pictures import Pictures  # noqa: E402
from pyfocus.nn.simulate.sensor import centred, code, move, soften  # noqa: E402
from pyfocus.nn.simulate.simulation import draw_motion, see_sharp  # noqa: E402

FAST = SimulationSettings(blur_px=5.0, pool=1, photos=1.0)  # painting takes half a second
# Nothing but the optics: no motion, no drift, no softness, files of 16 bit.
BARE = replace(FAST, still=1.0, drift=0.0, softness_px=(0.0, 0.0), raw=0.0, coded=0.0, window=0.0)
CPU = torch.device("cpu")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """A folder with one photo: blocks of colour and noise."""
    random = np.random.default_rng(5)
    blocks = np.kron(random.uniform(0.1, 0.9, (15, 20, 3)), np.ones((16, 16, 1)))
    pixels = np.clip(blocks + random.normal(0, 0.05, blocks.shape), 0, 1)
    folder = tmp_path_factory.mktemp("photos")
    write_image(folder / "blocks.png", (pixels * 255).astype(np.uint8))
    return folder


@pytest.fixture(scope="module")
def make(photo):
    def build(settings=FAST, **changes):
        return Simulation(photo, size=48, frames=changes.pop("frames", 4), settings=settings, **changes)

    return build


def fields(batch):
    return (batch.frames, batch.index, batch.truth, batch.depth, batch.sharp, batch.noise, batch.white_balance)


# --- seeds, shapes, conventions ----------------------------------------


def test_a_batch_can_be_had_again(make):
    first, second = make(seed=3, frames=(3, 5)), make(seed=3, frames=(3, 5))
    second.draw(4, 1)  # what was drawn before must not matter
    one, two = first.draw(7, 2), second.draw(7, 2)
    assert all(torch.equal(a, b) for a, b in zip(fields(one), fields(two), strict=True))
    assert not torch.equal(one.truth[0], one.truth[1])
    assert not torch.equal(one.truth, make(seed=3).draw(8, 2).truth)
    assert not torch.equal(one.truth, make(seed=4).draw(7, 2).truth)


@pytest.mark.parametrize(("kind", "channels", "side"), [("rgb", 3, 48), ("rggb", 4, 24), ("mosaic", 1, 48)])
def test_shapes_of_every_kind(make, kind, channels, side):
    batch = make(kind=kind, frames=(3, 5)).draw(1, 3)
    count = batch.frames.shape[1]
    assert batch.kind == kind and len(batch) == 3 and 3 <= count <= 5
    assert batch.frames.shape == (3, count, channels, side, side)
    assert batch.truth.shape == (3, 3, 48, 48)
    assert batch.depth.shape == batch.sharp.shape == (3, 1, 48, 48)
    assert batch.noise.shape == (3, 2) and batch.white_balance.shape == (3, 3)
    assert all(x.dtype == torch.float32 and torch.isfinite(x).all() for x in fields(batch))
    assert torch.equal(batch.index.sort(1).values, torch.arange(count).float().expand(3, -1))
    assert batch.truth.min() >= 0 and batch.truth.max() <= 1
    assert batch.sharp.min() >= 0 and batch.sharp.max() <= 1
    assert (batch.white_balance[:, 1] == 1).all() and (batch.noise > 0).all()


def test_every_number_of_frames_comes(make):
    sim = make(frames=(2, 3))
    assert {sim.draw(k, 1).frames.shape[1] for k in range(6)} == {2, 3}


def test_planes_are_the_mosaics(make):
    mosaic, planes = make(kind="mosaic").draw(2, 1).frames, make(kind="rggb").draw(2, 1).frames
    for plane, (y, x) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        assert torch.equal(planes[:, :, plane], mosaic[:, :, 0, y::2, x::2])


def test_reversed_bursts_count_from_the_other_end(make):
    one = make(replace(FAST, reversed=0.0)).draw(3, 2)
    two = make(replace(FAST, reversed=1.0)).draw(3, 2)
    assert torch.equal(one.frames, two.frames)
    assert torch.equal(one.index, 3 - two.index)
    assert torch.allclose(one.depth, 3 - two.depth, atol=1e-6)


def test_cameras_with_a_mosaic_have_their_own_white(make):
    raw = make(replace(FAST, raw=1.0)).draw(0, 4).white_balance
    srgb = make(replace(FAST, raw=0.0)).draw(0, 4).white_balance
    assert (srgb == 1).all()
    assert ((raw[:, 0] >= 1.4) & (raw[:, 0] <= 2.4) & (raw[:, 2] >= 1.3) & (raw[:, 2] <= 2.0)).all()


# --- the truth ----------------------------------------------------------


def test_with_everything_in_focus_every_frame_is_the_truth(make):
    batch = make(replace(BARE, step_px=(0.0, 0.0), layers=(3, 4)), noise="none").draw(0, 2)
    worst = (batch.frames - batch.truth[:, None]).abs().max()
    assert worst < 1e-4  # measured 2e-5: a code of 65535 where the curve is steepest
    assert (batch.sharp == 1).all()


def test_a_frame_is_the_truth_where_its_place_is_the_depth(make):
    settings = replace(BARE, layers=(1, 1), step_px=(2.0, 2.0))
    batch = make(settings, noise="none").draw(0, 6)
    radius = 2.0 * (batch.depth - batch.index[:, :, None, None]).abs()  # (B, N, H, W)
    error = (batch.frames - batch.truth[:, None]).abs().amax(2)
    focused, blurred = error[radius < 0.1], error[(radius > 2)]
    assert len(focused) > 500 and len(blurred) > 500
    assert focused.max() < 0.02 and focused.mean() < 1e-3
    assert blurred.mean() > 0.02


def test_sharp_is_one_near_some_focus_and_falls_over_two_pixels(make):
    batch = make(replace(FAST, step_px=(3.0, 3.0), window=1.0)).draw(1, 6)
    radius = 3 * (batch.depth - batch.index[:, :, None, None]).abs().amin(1, keepdim=True)
    expected = (1 - (radius - 1.5) / 2).clamp(0, 1)
    assert torch.allclose(batch.sharp, expected, atol=1e-5)
    assert (batch.sharp == 1).any() and (batch.sharp == 0).any()


def test_without_a_window_all_depths_are_within_the_burst(make):
    batch = make(replace(FAST, window=0.0, layers=(1, 1))).draw(0, 6)
    assert batch.depth.min() >= 0 and batch.depth.max() <= 3 and batch.sharp.mean() > 0.99


def test_a_mosaic_is_developed_to_the_truth_and_motion_undone(make):
    settings = replace(
        BARE, raw=1.0, still=0.0, shift_px=0.0, scale=0.0, softness_px=(0.9, 0.9), step_px=(0.0, 0.0), photos=1.0
    )
    batch = make(settings, noise="none").draw(0, 3)
    error = (batch.frames - batch.truth[:, None]).square().mean((2, 3, 4))
    beside = (batch.truth[..., 1:] - batch.truth[..., :-1]).square().mean((1, 2, 3))  # a shift of 1 px
    assert (error < 0.5 * beside[:, None]).all()  # measured 0.35: this photo's colours are hard on a demosaic
    assert (error[:, 1:] < 1.1 * error[:, :1]).all()  # moved frames lose nothing against the reference


def test_what_registration_leaves_is_what_was_drawn():
    random = np.random.default_rng(0)
    for _ in range(5):
        whole, back = draw_motion(random, FAST, 0.5, 64, undone=True)
        left = whole @ back
        assert abs(left[0, 0] - 1) <= FAST.scale and abs(left[:2, 2]).max() < 1.6
        assert abs(whole[0, 0] - 1) <= FAST.breathing
        rest, nothing = draw_motion(random, FAST, 0.5, 64, undone=False)
        assert np.array_equal(nothing, np.eye(3)) and abs(rest[0, 0] - 1) <= FAST.scale


def test_moving_by_whole_pixels_is_a_slice_and_the_middle_stays():
    x = torch.rand(3, 20, 20)
    assert torch.allclose(move(x, centred(1.0, (2.0, -1.0), 20))[:, 4:16, 4:16], x[:, 3:15, 6:18], atol=1e-6)
    middle = centred(1.02, (0.0, 0.0), 21) @ np.array([10, 10, 1.0])
    assert np.allclose(middle, [10, 10, 1])


# --- the lens -----------------------------------------------------------

SIDE, EDGE = 48, 12


@pytest.fixture(scope="module")
def lens():
    return Lens(SIDE, 8.0, 0, CPU, pool=6)


def opaque(colour):
    return torch.cat([colour, torch.ones(1, SIDE, SIDE)])


def test_a_scene_all_beyond_the_largest_aperture_is_rendered(lens):
    scene = opaque(torch.full((3, SIDE, SIDE), 0.5))[None]
    view = lens.render(scene, torch.full((1, SIDE, SIDE), 90.0), torch.tensor([0.0, 1.0]), 1.0, EDGE, 0)
    assert torch.allclose(view, torch.full_like(view, 0.5), atol=1e-5)


@pytest.mark.parametrize("aperture", [0, 1, 2, 3, 4, 5])
def test_blur_keeps_the_light_and_has_the_variance_of_its_disc(lens, aperture):
    scene = torch.zeros(1, 4, SIDE, SIDE)
    scene[0, :3, 24, 24], scene[0, 3] = 1.0, 1.0
    places = torch.tensor([0.0, 0.3, 1.7, 4.0, 6.5])
    views = lens.render(scene, torch.zeros(1, SIDE, SIDE), places, 1.0, EDGE, aperture).double()
    assert torch.allclose(views.sum((2, 3)), torch.ones(5, 3, dtype=torch.float64), atol=1e-5)
    assert views.min() > -1e-6
    axis = torch.arange(SIDE - 2 * EDGE, dtype=torch.float64) - (24 - EDGE)
    spread = (views[:, 0] * (axis[:, None] ** 2 + axis[None, :] ** 2)).sum((1, 2))
    # Measured 0.2 %, but for the steps of 1/64 px in the table of radii.
    assert torch.allclose(spread, places.double() ** 2 / 2, rtol=0.015, atol=0.005)


def test_apertures_are_the_same_turned_by_half():
    for number in range(4):
        shape = draw_aperture(np.random.default_rng(number))
        for radius in (0.5, 1.3, 6.0):
            kernel = aperture_kernel(shape, radius)
            assert np.allclose(kernel, kernel[::-1, ::-1], atol=1e-7)
            assert abs(float(kernel.sum()) - 1) < 1e-5 and kernel.min() >= 0


def blur_plainly(plane, kernel):
    """Convolution by its definition, float64, for the pixels of the view."""
    half, span = len(kernel) // 2, SIDE - 2 * EDGE
    out = np.zeros((span, span))
    for dy in range(-half, half + 1):
        for dx in range(-half, half + 1):
            top, left = EDGE - dy, EDGE - dx
            out += kernel[dy + half, dx + half] * plane[top : top + span, left : left + span]
    return out


def test_occlusion_is_as_in_a_lens_by_definition(lens):
    random = torch.Generator().manual_seed(1)
    ground, near = torch.rand(3, SIDE, SIDE, generator=random), torch.rand(3, SIDE, SIDE, generator=random)
    cover = torch.zeros(SIDE, SIDE)
    cover[:, 20:] = 1
    light = torch.stack([opaque(ground), torch.cat([near * cover, cover[None]])])
    depth = torch.stack([torch.full((SIDE, SIDE), 3.0), torch.full((SIDE, SIDE), 1.0)])
    rung = float(lens.rungs[7])  # a step that is on the ladder, so that one kernel says it all
    view = lens.render(light, depth, torch.tensor([1.0, 3.0]), rung / 2, EDGE, 0).double().numpy()
    kernel = aperture_kernel(lambda y, x: np.hypot(y, x), rung).astype(float)
    crop = slice(EDGE, SIDE - EDGE)
    flat, front, covered = (x.double().numpy() for x in (ground, near, cover))
    for channel in range(3):
        # Focus on the near surface: it hides exactly what lies behind it, and beside it the hidden part shines in.
        expected = np.where(covered[crop, crop] == 1, front[channel, crop, crop], blur_plainly(flat[channel], kernel))
        assert np.abs(view[0, channel] - expected).max() < 2e-3
        assert np.abs(view[0, channel] - expected)[:, 12:].max() < 1e-6
        # Focus on the ground: the near surface dissolves over it.
        alpha = blur_plainly(covered, kernel)
        expected = blur_plainly(front[channel] * covered, kernel) + (1 - alpha) * flat[channel, crop, crop]
        assert np.abs(view[1, channel] - expected).max() < 2e-3


def test_the_sharp_view_shows_the_front_and_its_depth():
    light = torch.zeros(3, 4, 2, 2)
    light[0] = torch.tensor([0.2, 0.2, 0.2, 1.0])[:, None, None]
    light[1, :, 0] = torch.tensor([0.5, 0.5, 0.5, 1.0])[:, None]
    light[2, :, 0, 0] = 0.25 * torch.tensor([0.9, 0.9, 0.9, 1.0])
    depth = torch.tensor([5.0, 3.0, 1.0])[:, None, None].expand(3, 2, 2)
    view, front = see_sharp(light, depth)
    assert torch.allclose(view[0], torch.tensor([[0.25 * 0.9 + 0.75 * 0.5, 0.5], [0.2, 0.2]]))
    assert torch.equal(front, torch.tensor([[3.0, 3.0], [5.0, 5.0]]))  # a quarter of cover is not the front yet


# --- the sensor ---------------------------------------------------------


def test_noise_has_the_variance_that_is_declared(make):
    shot, read = 0.01, 1e-4
    settings = replace(BARE, step_px=(0.0, 0.0))
    clean = make(settings, kind="mosaic", noise="none", frames=8).draw(0, 3)
    noisy = make(settings, kind="mosaic", noise=(shot, read), frames=8).draw(0, 3)
    assert torch.equal(noisy.noise, torch.tensor([[shot, read]] * 3))
    x, difference = clean.frames.double(), (noisy.frames - clean.frames).double()
    for low, high in ((0.0, 0.03), (0.05, 0.15), (0.2, 0.5)):
        here = (x >= low) & (x < high)
        assert here.sum() > 2000
        expected = shot * x[here].mean() + read
        assert abs(difference[here].square().mean() / expected - 1) < 0.08  # 3 sigma of 2000 samples is 0.095
        assert abs(difference[here].mean()) < 4 * math.sqrt(expected / here.sum())
    assert noisy.frames.min() < 0  # black has room below


def test_brighter_than_white_is_white_and_files_are_of_eight_bit(make):
    batch = make(replace(BARE, coded=1.0, step_px=(0.0, 0.0)), noise="none").draw(0, 2)
    frames = batch.frames.double()
    codes = torch.where(frames <= 0.0031308, 12.92 * frames, 1.055 * frames ** (1 / 2.4) - 0.055) * 255
    assert (codes - codes.round()).abs().max() < 1e-3
    assert batch.frames.max() <= 1
    assert torch.equal(code(torch.tensor([-0.5, 0.0, 1.0, 7.0]), 255), torch.tensor([0.0, 0.0, 1.0, 1.0]))


def test_softness_is_a_gaussian():
    point = torch.zeros(1, 1, 21, 21)
    point[..., 10, 10] = 1
    axis = np.arange(-10, 11)
    for sigma in (0.5, 0.9):
        row = np.exp(-0.5 * (axis / sigma) ** 2)
        expected = np.outer(row, row) / row.sum() ** 2
        assert np.abs(soften(point, sigma)[0, 0].numpy() - expected).max() < 1e-3
    assert torch.equal(soften(point, 0.0), point)


# --- pictures -----------------------------------------------------------


def test_photos_are_shown_in_linear_light(tmp_path):
    write_image(tmp_path / "grey.png", np.full((200, 200, 3), 188, np.uint8))
    pictures = Pictures([tmp_path / "grey.png"], 1, 64, 0, CPU)
    piece = pictures.cut(np.random.default_rng(0), 64, photo=True)
    assert piece.shape == (3, 64, 64)
    assert torch.allclose(piece, torch.full_like(piece, ((188 / 255 + 0.055) / 1.055) ** 2.4), atol=1e-6)


def test_small_photos_are_made_large_enough(tmp_path):
    write_image(tmp_path / "small.png", np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8))
    piece = Pictures([tmp_path / "small.png"], 1, 64, 0, CPU).cut(np.random.default_rng(0), 64, photo=True)
    assert piece.shape == (3, 64, 64)


def test_without_photos_everything_is_painted():
    batch = Simulation(size=32, frames=2, settings=FAST).draw(0, 1)
    assert batch.truth.std() > 0.005


# --- what is refused ----------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"size": 33}, "size must be even"),
        ({"size": 8}, "at least 16 px"),
        ({"frames": (5, 3)}, "frames must be 1 or more"),
        ({"frames": 0}, "frames must be 1 or more"),
        ({"kind": "yuv"}, "kind must be one of rgb, rggb, mosaic"),
        ({"noise": "loud"}, "noise must be 'drawn', 'none' or"),
        ({"noise": (-1.0, 0.0)}, "both 0 or more"),
        ({"seed": -1}, "seed must be 0 or more"),
        ({"photos": "/nowhere/at/all"}, "photos must be a folder"),
    ],
)
def test_arguments_are_checked(arguments, text):
    with pytest.raises(ArgumentError, match=text):
        Simulation(**arguments)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"step_px": (3.0, 1.0)}, "step_px must be finite"),
        ({"drift": -0.1}, "drift must be finite"),
        ({"raw": 1.5}, "raw is a share"),
        ({"layers": (0, 2)}, "layers and pool"),
        ({"breathing": 0.2}, "breathing must be at most 0.03"),
        ({"blur_px": 0.1}, "blur_px must be at least"),
        ({"softness_px": (0.0, 9.0)}, "softness_px must be at most"),
    ],
)
def test_settings_are_checked(changes, text):
    with pytest.raises(ArgumentError, match=text):
        SimulationSettings(**changes)


def test_draws_and_photos_are_checked(make, tmp_path):
    with pytest.raises(ArgumentError, match="index must be 0 or more"):
        make().draw(-1)
    with pytest.raises(ArgumentError, match="count 1 or more"):
        make().draw(0, 0)
    with pytest.raises(ArgumentError, match="no JPEG, PNG or TIFF"):
        Simulation(tmp_path)
    (tmp_path / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 torn")
    with pytest.raises(ReadError):
        Simulation(tmp_path)
    write_image(tmp_path / "torn.jpg", np.full((64, 64), 9, np.uint8), overwrite=True)
    with pytest.raises(ArgumentError, match="must be in colour"):
        Simulation(tmp_path)
