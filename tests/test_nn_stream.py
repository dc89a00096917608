"""FocusDeepStream against its own laws, and the scales and maps it is told against NumPy in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pyfocus.errors import ArgumentError  # noqa: E402
from pyfocus.nn.batch import Batch  # noqa: E402
from pyfocus.nn.losses import stream_loss  # noqa: E402
from pyfocus.nn.srgb import decode_srgb, encode_srgb  # noqa: E402
from pyfocus.nn.stream import STATE_STRIDES, FocusDeepStream, StreamState  # noqa: E402
from pyfocus.nn.tone import KNEE, LEAST_STEP, compress, details, expand, focus_energies, noise_map, slope, unit  # noqa: E402

NOISE = torch.tensor([[1e-3, 1e-6]])
WHITE = torch.tensor([[2.0, 1.0, 1.5]])


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(3)
    yield
    torch.set_num_threads(threads)


def moving_net(size: str = "tiny") -> FocusDeepStream:
    """A network whose alignment does move things, by random offsets up to its bound."""
    net = FocusDeepStream(size).eval()
    with torch.no_grad():
        net.align.guide.weight.normal_(0, 0.5)
        net.align.guide.bias.normal_(0, 1)
    return net


def frames(count: int, height: int = 48, width: int = 64) -> torch.Tensor:
    return torch.rand(1, count, 3, height, width)


# --- what the network is told ------------------------------------------


def test_compress_is_the_formula_and_expand_its_inverse():
    x = np.concatenate([-np.geomspace(1e-6, 0.05, 40), [0], np.geomspace(1e-6, 1.5, 80)])
    formula = np.sqrt((x + np.sqrt(x * x + 4 * KNEE**2)) / 2)
    values = torch.from_numpy(x)
    np.testing.assert_allclose(compress(values).numpy(), formula, rtol=1e-12)
    inside = formula > 5e-3
    np.testing.assert_allclose(expand(compress(values)).numpy()[inside], x[inside], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(compress(torch.tensor(0.25)).item(), 0.5, rtol=1e-4)


def test_slope_is_the_derivative():
    x = torch.linspace(-0.02, 1.0, 101, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(compress(x).sum(), x)
    torch.testing.assert_close(slope(x, compress(x)).detach(), expected, rtol=1e-12, atol=0)


def test_noise_map_is_what_noise_does_on_the_compressed_scale():
    rng = np.random.default_rng(5)
    shot, read, level = 2e-3, 4e-6, (0.1, 0.3, 0.2)
    gains = WHITE[0].double().numpy()
    for channel, raw in enumerate(level):
        raw_samples = raw + rng.normal(0, math.sqrt(shot * raw + read), 400_000)
        balanced = gains[channel] * raw_samples
        measured = np.sqrt((balanced + np.sqrt(balanced**2 + 4 * KNEE**2)) / 2).std()
        plane = torch.tensor(gains * np.array(level))[None, :, None, None]
        told = noise_map(plane, torch.tensor([[shot, read]]).double(), WHITE.double())[0, channel, 0, 0].item()
        assert told == pytest.approx(measured, rel=0.02)


def test_focus_energies_are_the_formula():
    image = np.random.default_rng(1).random((3, 16, 24))
    sigma = np.random.default_rng(2).random((3, 8, 12)) * 0.1
    got = focus_energies(torch.from_numpy(image)[None], torch.from_numpy(sigma)[None])[0].numpy()
    grey = image.mean(0)
    half = grey.reshape(8, 2, 12, 2).mean((1, 3))

    def laplacian(x):
        p = np.pad(x, 1, mode="edge")
        return x - (p[:-2, 1:-1] + p[2:, 1:-1] + p[1:-1, :-2] + p[1:-1, 2:]) / 4

    fine = (laplacian(grey) ** 2).reshape(8, 2, 12, 2).mean((1, 3))
    for energy, mine in ((fine, got[0]), (laplacian(half) ** 2, got[1])):
        p = np.pad(energy, 2, mode="edge")
        box = sum(p[y : y + 8, x : x + 12] for y in range(5) for x in range(5)) / 25
        np.testing.assert_allclose(mine, 0.5 * np.log(box + (sigma**2).sum(0) / 9 + 1e-7), rtol=1e-9)


def test_details_are_differences_in_units_of_noise():
    rng = np.random.default_rng(4)
    packed, sigma = rng.random((12, 6, 8)), 0.1 * rng.random((3, 6, 8))
    got = details(torch.from_numpy(packed)[None], torch.from_numpy(sigma)[None])[0].numpy()
    counts = np.pad(np.ones((6, 8)), 1)
    for channel in range(12):
        p, colour = np.pad(packed[channel], 1), channel // 4
        total = sum(p[y : y + 6, x : x + 8] for y in range(3) for x in range(3))
        mean = total / sum(counts[y : y + 6, x : x + 8] for y in range(3) for x in range(3))
        expected = (packed[channel] - mean) / (sigma[colour] + LEAST_STEP)
        np.testing.assert_allclose(got[channel], expected, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(unit(torch.from_numpy(sigma)[None])[0, channel], sigma[colour] + LEAST_STEP)
    np.testing.assert_allclose(got[12:], packed.reshape(3, 4, 6, 8).mean(1), rtol=1e-9)


# --- the fold ----------------------------------------------------------


def test_step_by_step_is_all_at_once():
    net, burst, index = moving_net().double(), frames(4).double(), torch.tensor([[2.0, 0.0, 1.0, 3.0]]).double()
    with torch.no_grad():
        whole = net(burst, index, NOISE.double(), WHITE.double())
        state = net.init_state(1, 48, 64)
        for k in range(4):
            state = net.step(state, burst[:, k], index[:, k], NOISE.double(), WHITE.double())
        folded = net.finish(state, NOISE.double(), WHITE.double())
    torch.testing.assert_close(folded.image, whole.image, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(folded.depth, whole.depth, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(folded.confidence, whole.confidence, rtol=1e-9, atol=1e-9)


def test_blends_of_one_frame_many_times_are_the_frame():
    net, burst = FocusDeepStream("tiny"), frames(1).repeat(1, 5, 1, 1, 1)
    with torch.no_grad():
        out = net(burst, torch.arange(5.0)[None], NOISE, WHITE)
    for blend in (out.blend, out.smooth):
        torch.testing.assert_close(blend, burst[:, 0], rtol=1e-4, atol=1e-5)


def test_depth_is_within_the_places_given_and_shifts_with_them():
    net, burst, index = moving_net(), frames(3), torch.tensor([[0.0, 1.0, 2.0]])
    with torch.no_grad():
        here, there = net(burst, index, NOISE, WHITE), net(burst, index + 40, NOISE, WHITE)
    assert here.depth.min() >= 0 and here.depth.max() <= 2
    torch.testing.assert_close(there.depth, here.depth + 40, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(there.image, here.image, rtol=1e-3, atol=1e-3)


def test_pixels_not_seen_do_not_count():
    net, burst = FocusDeepStream("tiny"), frames(2)
    valid = torch.ones(1, 1, 48, 64)
    valid[..., :24, :] = 0
    with torch.no_grad():
        one = net.step(net.init_state(1, 48, 64), burst[:, 0], torch.tensor([0.0]), NOISE, WHITE)
        two = net.step(one, burst[:, 1], torch.tensor([1.0]), NOISE, WHITE, valid)
    for before, after in zip(one[2:], two[2:], strict=True):
        assert torch.equal(before[:, :, :12], after[:, :, :12])
        assert not torch.equal(before[:, :, 12:], after[:, :, 12:])


def test_untrained_it_already_picks_the_sharp_frame():
    net, (burst, truth) = FocusDeepStream("lite"), two_halves()
    with torch.no_grad():
        out = net(burst, torch.tensor([[0.0, 1.0]]), torch.tensor([[1e-6, 1e-8]]), torch.ones(1, 3))
    error = (out.blend - truth).square().mean()
    assert error < 0.05 * (burst.mean(1) - truth).square().mean()
    assert out.depth[..., 16:-16, 8:48].mean() < 0.2 and out.depth[..., 16:-16, -48:-8].mean() > 0.8


def two_halves() -> tuple[torch.Tensor, torch.Tensor]:
    """Two frames (1, 2, 3, 64, 128), the left of one and the right of the other blurred; and the sharp picture."""
    truth = 0.1 + 0.5 * torch.rand(1, 3, 64, 128)
    soft = torch.nn.functional.avg_pool2d(truth, 5, 1, 2, count_include_pad=False)
    left = torch.arange(128) < 64
    return torch.stack([torch.where(left, truth, soft), torch.where(left, soft, truth)], 1), truth


def test_noise_and_white_balance_are_heard():
    net, burst, index = FocusDeepStream("tiny"), frames(2), torch.tensor([[0.0, 1.0]])
    with torch.no_grad():
        quiet = net(burst, index, NOISE, WHITE).image
        loud = net(burst, index, 10 * NOISE, WHITE).image
        other = net(burst, index, NOISE, torch.ones(1, 3)).image
    assert (quiet - loud).abs().max() > 1e-5 and (quiet - other).abs().max() > 1e-5


@pytest.mark.parametrize("size", ["tiny", "lite", "base"])
def test_nothing_reaches_farther_than_the_halo(size):
    net = moving_net(size).double()
    side = 2 * max(net.step_halo_px, net.finish_halo_px) + 48
    spot = side // 16 * 8
    one, two = torch.tensor([0.0]), torch.tensor([1.0])
    noise, white = NOISE.double(), WHITE.double()
    frame = torch.rand(1, 3, side, side).double()
    changed = frame.clone()
    changed[..., spot : spot + 8, spot : spot + 8] += 3
    with torch.no_grad():
        state = StreamState(*(part.double() for part in net.init_state(1, side, side)))
        state = net.step(state, frame, one, noise, white)
        here, there = (net.step(state, f, two, noise, white) for f in (frame, changed))
        for a, b, stride in zip(here, there, STATE_STRIDES, strict=True):
            if stride:
                assert 16 < reach_px(a, b, stride, spot) <= net.step_halo_px
        spoilt = StreamState(*(part.clone() for part in here))
        for part, stride in zip(spoilt, STATE_STRIDES, strict=True):
            if stride == 2:
                part[..., spot // 2 : spot // 2 + 4, spot // 2 : spot // 2 + 4] *= 1.7
        one_way, other = net.finish(here, noise, white), net.finish(spoilt, noise, white)
        assert 16 < reach_px(one_way.image, other.image, 1, spot) <= net.finish_halo_px


def reach_px(a: torch.Tensor, b: torch.Tensor, stride: int, spot: int) -> int:
    """How far from the 8 pixels at ``spot`` two maps differ, in pixels of the frame."""
    rows = ((a - b).abs().amax((0, 1)) > 0).any(1).nonzero()
    return max(spot - int(rows.min()) * stride, (int(rows.max()) + 1) * stride - spot - 8)


def test_offsets_stay_within_the_bound():
    net = FocusDeepStream("tiny", reach_px=4.0)
    assert net.align.reach == 1.0 and net.config == {"size": "tiny", "reach_px": 4.0}
    assert FocusDeepStream("tiny", reach_px=12).step_halo_px > net.step_halo_px


# --- loss --------------------------------------------------------------


def batch_of(truth: torch.Tensor, burst: torch.Tensor) -> Batch:
    depth = torch.zeros(1, 1, *truth.shape[2:])
    return Batch(burst, torch.tensor([[0.0, 1.0]]), truth, depth, torch.ones_like(depth), NOISE, WHITE)


def test_loss_is_least_at_the_truth_and_its_gradients_reach_every_weight():
    net, burst = FocusDeepStream("tiny"), frames(2)
    out = net(burst, torch.tensor([[0.0, 1.0]]), NOISE, WHITE)
    loss, parts = stream_loss(out, batch_of(0.5 * burst[:, 0], burst))
    loss.backward()
    silent = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    # While the offsets are zero, nothing comes through to what makes them but the last layer's weights.
    assert set(silent) <= {"align.compare.weight", "align.compare.bias"}
    assert parts["image"] > 0.01
    _, at_truth = stream_loss(out, batch_of(out.image.detach(), burst))
    assert at_truth["image"] < 1e-6


def test_the_encoding_is_srgb():
    x = np.linspace(-0.1, 1.2, 200)
    formula = np.where(x <= 0.0031308, 12.92 * x, 1.055 * np.maximum(x, 1e-9) ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(encode_srgb(torch.from_numpy(x)).numpy(), formula, atol=1e-12)
    np.testing.assert_allclose(decode_srgb(torch.from_numpy(formula)).numpy(), x, atol=1e-7)  # the two parts meet so


# --- bad input ---------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda net: FocusDeepStream("huge"), "size must be one of tiny, lite, base, got 'huge'"),
        (lambda net: FocusDeepStream("tiny", reach_px=0), "reach_px must be above 0 and at most 16, got 0"),
        (lambda net: net.init_state(1, 44, 64), "multiples of 8, got 44 x 64"),
        (lambda net: net(torch.rand(1, 3, 64, 64), *[None] * 3), r"\(batch, N, 3, H, W\)"),
        (lambda net: net(torch.rand(1, 2, 4, 64, 64), *[None] * 3), r"\(batch, 3, H, W\) of floats"),
    ],
)
def test_bad_input(change, text):
    with pytest.raises(ArgumentError, match=text):
        change(FocusDeepStream("tiny"))
