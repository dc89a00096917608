"""FocusDeep and UNet as published: parameters to the digit, shapes, what sees what, gradients, variants, errors."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from pyfocus.errors import ArgumentError

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402

from pyfocus import nn  # noqa: E402
from pyfocus.nn.align import ModulatedDeform, PlainDeform  # noqa: E402
from pyfocus.nn.bursts import pad_to  # noqa: E402
from pyfocus.nn.layers import NormedConv2d, WideActivation, up2  # noqa: E402

CHANNELS = {"rgb": 3, "rggb": 4, "mosaic": 1}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def small(kind: str = "rgb", frames: int = 3, **options: Any) -> Any:
    return nn.FocusDeep(kind, frames, 8, **options)


def burst(kind: str, frames: int, h: int, w: int, batch: int = 1) -> Any:
    return torch.rand(batch, frames, CHANNELS[kind], h, w)


def parameters(module: Any) -> int:
    return sum(p.numel() for p in module.parameters())


# --- parameters --------------------------------------------------------


@pytest.mark.parametrize(
    "kind,modulated,count",
    [
        ("mosaic", False, 3_981_122),
        ("rgb", False, 3_983_426),
        ("rggb", False, 4_102_850),
        ("rgb", True, 4_333_858),
        ("rggb", True, 4_453_282),
    ],
)
def test_focusdeep_has_the_published_number_of_parameters(kind, modulated, count):
    assert parameters(nn.FocusDeep(kind, modulated=modulated)) == count


def test_each_part_of_focusdeep_has_its_number_of_parameters():
    net = nn.FocusDeep("mosaic")
    assert parameters(net.shallow) == 704
    assert [parameters(block) for block in net.front] == [74_534] * 5
    assert parameters(net.pyramid.down) == 369_408
    assert parameters(net.pyramid.lateral) + parameters(net.pyramid.smooth) == 103_040
    assert parameters(net.align) == 1_034_624
    assert parameters(net.fuse) == 123_008
    assert [parameters(group) for group in net.trunk.groups] == [355_992, 364_312, 368_408, 372_504, 376_600]
    assert parameters(net.trunk) == 1_862_520
    assert parameters(net.tail) == 112_710
    assert parameters(net.direct) == 2_438


@pytest.mark.parametrize("kind,count", [("mosaic", 46_745_603), ("rgb", 46_780_163), ("rggb", 46_797_443)])
def test_unet_has_the_published_number_of_parameters(kind, count):
    with torch.device("meta"):
        assert parameters(nn.UNet(kind)) == count


# --- layers ------------------------------------------------------------


def test_weight_norm_starts_as_torchs_convolution():
    torch.manual_seed(5)
    ours = NormedConv2d(3, 4, 3)
    torch.manual_seed(5)
    theirs = torch.nn.utils.parametrizations.weight_norm(torch.nn.Conv2d(3, 4, 3, padding=1))
    x = torch.randn(2, 3, 7, 6)
    torch.testing.assert_close(ours(x), theirs(x))
    with torch.no_grad():
        ours.direction *= 7.0  # only its direction counts
        ours.gain *= 2.0
    torch.testing.assert_close(ours(x) - ours.bias[:, None, None], 2 * (theirs(x) - theirs.bias[:, None, None]))


def test_a_wide_block_adds_its_input():
    block = WideActivation(8, residual=True)
    x = torch.randn(1, 8, 5, 6)
    plain = block(x) - x
    block.residual = False
    torch.testing.assert_close(block(x), plain)


def test_up2_keeps_straight_lines_straight():
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    torch.testing.assert_close(up2(ramp)[0, 0, 0, 1:-1], torch.arange(0.25, 7.0, 0.5))


@pytest.mark.parametrize("layer,modulated", [(PlainDeform, False), (ModulatedDeform, True)])
def test_without_offsets_the_layers_are_convolutions(layer, modulated):
    deform, x = layer(16, zero_offsets=True), torch.randn(2, 16, 6, 7)
    got = deform(x, deform.guide(torch.randn(2, 16, 6, 7)))
    half = 0.5 if modulated else 1.0  # a mask of sigmoid(0)
    want = F.conv2d(x, half * deform.weight, deform.bias, padding=1, groups=1 if modulated else 8)
    torch.testing.assert_close(got, want)


def test_alignment_moves_features_by_the_guide():
    """An offset bias of two pixels to the right is a shift of two pixels to the left of what comes out."""
    deform, x = PlainDeform(8, zero_offsets=True), torch.randn(1, 8, 9, 12)
    with torch.no_grad():
        deform.offset.bias[1::2] = 2.0
    got, still = deform(x, deform.guide(x)), F.conv2d(x, deform.weight, deform.bias, padding=1, groups=8)
    torch.testing.assert_close(got[..., 1:-3], still[..., 3:-1])


# --- shapes and sizes --------------------------------------------------


@pytest.mark.parametrize(
    "kind,modulated,size", [("rgb", False, 64), ("rgb", True, 32), ("rggb", False, 32), ("mosaic", False, 64)]
)
def test_focusdeep_at_its_full_width(kind, modulated, size):
    net = nn.FocusDeep(kind, 2, modulated=modulated)
    with torch.no_grad():
        out = net(burst(kind, 2, size, size))
    size *= 2 if kind == "rggb" else 1
    assert out.shape == (1, 3, size, size) and out.isfinite().all()


@pytest.mark.parametrize("kind,scale", [("rgb", 1), ("rggb", 2), ("mosaic", 1)])
def test_any_size_and_batch(kind, scale):
    net = small(kind)
    x = burst(kind, 3, 13, 18, batch=2)
    out = net(x)
    assert out.shape == (2, 3, 13 * scale, 18 * scale)
    whole = net(pad_to(x.flatten(1, 2), 4).unflatten(1, x.shape[1:3]))
    assert whole.shape == (2, 3, 16 * scale, 20 * scale)
    torch.testing.assert_close(out, whole[:, :, : 13 * scale, : 18 * scale])
    torch.testing.assert_close(net(x[1:]), out[1:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size,step", [((8, 8), 4), ((7, 10), 4), ((5, 9), 4), ((17, 30), 16)])
def test_a_mosaic_keeps_its_colours_when_it_is_padded(size, step):
    h, w = (-(-n // step) * step for n in size)
    colours = (2 * (torch.arange(h) % 2)[:, None] + torch.arange(w) % 2).float()
    assert torch.equal(pad_to(colours[None, None, : size[0], : size[1]], step)[0, 0], colours)


@pytest.mark.parametrize("kind", CHANNELS)
def test_unet_shapes(kind):
    net = nn.UNet(kind, 3, 4)
    assert net(burst(kind, 3, 64, 64, batch=2)).shape == (2, 3, 64, 64)
    assert net(burst(kind, 3, 17, 40)).shape == (1, 3, 17, 40)


def test_moving_the_burst_moves_the_picture():
    """By a pixel of the coarsest level, away from the edges."""
    net, x = small(frames=2).double(), burst("rgb", 2, 152, 160).double()
    with torch.no_grad():
        a, b = net(x[..., :-4]), net(x[..., 4:])
    torch.testing.assert_close(a[:, :, 68:-68, 72:-68], b[:, :, 68:-68, 68:-72])


# --- what sees what ----------------------------------------------------


@pytest.mark.parametrize("reference", ["previous", "first"])
def test_each_frame_is_aligned_to_its_reference(reference):
    net, x = small(frames=4, reference=reference), burst("rgb", 4, 16, 16)
    seen = {}
    for moved in range(4):
        changed = x.clone()
        changed[:, moved] = torch.rand(3, 16, 16)
        before, after = (net._align(net._pyramids(v)) for v in (x, changed))
        seen[moved] = {frame for frame in range(4) if not torch.equal(before[:, frame], after[:, frame])}
    if reference == "previous":
        assert seen == {0: {0, 1}, 1: {1, 2}, 2: {2, 3}, 3: {3}}
    else:
        assert seen == {0: {0, 1, 2, 3}, 1: {1}, 2: {2}, 3: {3}}


@pytest.mark.parametrize("skip,frames", [(0, {0}), (1, {1}), (-1, {2}), ("mean", {0, 1, 2})])
def test_the_skip_sees_its_frame(skip, frames):
    net, x = small(skip=skip), burst("rgb", 3, 16, 16).requires_grad_()
    for parameter in net.trunk.parameters():  # past the trunk there is only the skip
        torch.nn.init.zeros_(parameter)
    with torch.no_grad():
        for layer in net.trunk.modules():
            if isinstance(layer, NormedConv2d):
                layer.direction.fill_(1.0)  # of gain 0
    net(x).sum().backward()
    assert {frame for frame in range(3) if x.grad[:, frame].any()} == frames


def test_every_frame_counts():
    for net in (small(), nn.UNet("rgb", 3, 4)):
        x = burst("rgb", 3, 16, 16).requires_grad_()
        net(x).square().sum().backward()
        assert all(x.grad[:, frame].any() for frame in range(3))


@pytest.mark.parametrize("reference", ["previous", "first"])
@pytest.mark.parametrize("at_once", [1, 2])
def test_frames_in_parts_give_the_same(at_once, reference):
    net, x = small(frames=3, reference=reference), burst("rgb", 3, 16, 20, batch=2)
    whole = net(x)
    net.frames_at_once = at_once
    torch.testing.assert_close(net(x), whole)


# --- gradients, seeds, types -------------------------------------------


@pytest.mark.parametrize("kind", CHANNELS)
@pytest.mark.parametrize("modulated", [False, True])
def test_gradients_reach_every_parameter(kind, modulated):
    net = small(kind, modulated=modulated)
    F.l1_loss(out := net(burst(kind, 3, 24, 24)), torch.rand_like(out)).backward()
    without = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without and all(p.grad.isfinite().all() for p in net.parameters())


def test_gradients_reach_every_parameter_of_unet():
    net = nn.UNet("rgb", 2, 4)
    net(burst("rgb", 2, 32, 32)).square().sum().backward()
    assert all(p.grad.any() for p in net.parameters())


@pytest.mark.parametrize("modulated", [False, True])
def test_offsets_that_start_at_zero_learn(modulated):
    net, x = small(modulated=modulated, zero_offsets=True), burst("rgb", 3, 16, 16)
    seen = []
    for layer in [*net.align.deform, net.align.deform_again]:
        layer.offset.register_forward_hook(lambda _, __, out: seen.append(out))
    net(x).square().sum().backward()
    assert len(seen) == 4 and not any(out.any() for out in seen)
    for layer in [*net.align.deform, net.align.deform_again]:
        first = layer.offset.weight if modulated else layer.offset.gain
        assert first.grad.any() and first.grad.isfinite().all()


@pytest.mark.parametrize("make", [small, lambda: nn.UNet("rgb", 3, 4)])
def test_a_seed_gives_the_same_network_and_picture(make):
    x, nets = burst("rgb", 3, 16, 16), []
    for _ in range(2):
        torch.manual_seed(7)
        nets.append(make())
    states = [net.state_dict() for net in nets]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert torch.equal(nets[0](x), nets[1](x))
    other = make()
    assert not torch.equal(other(x), nets[0](x))
    other.load_state_dict(states[0])
    assert torch.equal(other(x), nets[0](x))


def test_autocast_trains_in_half():
    net, x = small(), burst("rgb", 3, 16, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = net(x)
    torch.testing.assert_close(out.float(), net(x), rtol=0, atol=0.1)
    out.float().square().sum().backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in net.parameters())


# --- compile, export ---------------------------------------------------


def test_it_compiles_in_one_graph():
    net, x = small(frames=2), burst("rgb", 2, 16, 20)
    torch.testing.assert_close(torch.compile(net, fullgraph=True, backend="eager")(x), net(x))


@pytest.mark.parametrize("kind", ["rgb", "rggb"])
def test_exported_it_takes_any_size_that_four_divides(kind):
    net, dim = small(kind, 2).eval(), torch.export.Dim
    dims = {"burst": {3: 4 * dim("height", min=2), 4: 4 * dim("width", min=2)}}
    program = torch.export.export(net, (burst(kind, 2, 16, 20),), dynamic_shapes=dims)
    x = burst(kind, 2, 24, 12)
    torch.testing.assert_close(program.module()(x), net(x))


# --- errors, and who loads torch ---------------------------------------


@pytest.mark.parametrize("make", [lambda: small("rgb"), lambda: nn.UNet("rgb", 3, 4)])
@pytest.mark.parametrize(
    "shape,text",
    [
        ((1, 3, 4, 32, 32), r"burst must have shape \(batch, 3, 3, H, W\), got \(1, 3, 4, 32, 32\)"),
        ((1, 5, 3, 32, 32), "this network takes 3 frames of 3 channels"),
        ((3, 3, 32, 32), r"got \(3, 3, 32, 32\)"),
        ((1, 3, 3, 3, 32), r"at least \d+ x \d+ pixels, got 3 x 32"),
    ],
)
def test_a_burst_that_does_not_fit_is_refused(make, shape, text):
    net = make()
    with pytest.raises(ArgumentError, match=f"^{type(net).__name__}: .*{text}"):
        net(torch.rand(shape))
    with pytest.raises(ArgumentError, match=r"floats in \[0, 1\], got torch.uint8"):
        net(torch.zeros(1, 3, 3, 32, 32, dtype=torch.uint8))


@pytest.mark.parametrize(
    "arguments,text",
    [
        ({"kind": "grey"}, "kind must be one of rgb, rggb, mosaic, got 'grey'"),
        ({"frames": 0}, "frames must be 1 or more, got 0"),
        ({"features": 12}, "features must be a multiple of 8, got 12"),
        ({"reference": "next"}, "reference must be 'previous' or 'first', got 'next'"),
        ({"skip": 30}, "skip must be a frame's index, of 30, or 'mean', got 30"),
        ({"skip": "last"}, "skip must be a frame's index"),
    ],
)
def test_a_network_that_cannot_be_is_refused(arguments, text):
    with pytest.raises(ArgumentError, match=f"^FocusDeep: {text}"):
        nn.FocusDeep(**arguments)


def test_the_package_does_not_load_torch(tmp_path):
    code = "import sys, pyfocus, pyfocus.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path).returncode == 0


def test_without_torch_the_error_says_what_to_install(tmp_path):
    code = "import sys; sys.modules['torch'] = None; import pyfocus.nn"
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 1
    assert "pyfocus.nn needs torch, which is not installed: pip install 'pyfocus-stack[torch]'" in run.stderr
