"""The torch operators: against NumPy and ONNX's evaluator, torch's own checks, gradients, compile, export, autocast."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import reference_deform_conv
from deform_conv_cases import CASES, arrays
from reference_deform_conv import Steps

import reference
from pyfocus.errors import ArgumentError

torch = pytest.importorskip("torch")

from torch.fx.experimental.proxy_tensor import make_fx  # noqa: E402

from pyfocus import nn  # noqa: E402

DATA = ("input", "weight", "offset", "mask", "bias")
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def place(request) -> Any:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    return request.param


def tensors(name: str, dtype: Any = torch.float64, device: str = "cpu") -> dict[str, Any]:
    return {key: torch.from_numpy(v).to(device, dtype) for key, v in arrays(name).items()}


def words(s: Steps) -> dict[str, Any]:
    """Steps as torch names them."""
    named = asdict(s)
    return {"padding": named.pop("pad"), **named}


def call(t: dict[str, Any], s: Steps) -> Any:
    return nn.deform_conv2d(*(t[key] for key in DATA), **words(s))


def row(t: dict[str, Any], s: Steps) -> tuple[Any, ...]:
    """The arguments of the operator itself."""
    return (*(t[key] for key in DATA), s.stride, s.pad, s.dilation, s.groups, s.offset_groups)


def close(got: Any, want: np.ndarray, tolerance: float) -> None:
    """Within `tolerance` of the largest value."""
    np.testing.assert_allclose(got.detach().cpu().double().numpy(), want, rtol=0, atol=tolerance * np.abs(want).max())


# --- deform_conv2d: values and gradients -------------------------------


@pytest.mark.parametrize("place", DEVICES, indirect=True)
@pytest.mark.parametrize("modulated", [True, False])
@pytest.mark.parametrize("name", ["plain", "groups", "strided", "dilated 2x5"])
@pytest.mark.parametrize("dtype,tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-14)])  # worst 1.1e-6, 5.9e-16
def test_output_and_gradients_are_the_formulas(name, modulated, dtype, tolerance, place):
    s, given = CASES[name][3], tensors(name, dtype, place)
    leaves = {key: given[key].requires_grad_() for key in DATA}
    if not modulated:
        leaves["mask"] = leaves["bias"] = None
    exact = {key: None if v is None else v.detach().cpu().double().numpy() for key, v in leaves.items()}
    out = call(leaves, s)
    close(out, reference_deform_conv.deform_conv(*(exact[key] for key in DATA), s), tolerance)
    out.backward(given["upstream"])
    upstream = given["upstream"].cpu().double().numpy()
    order = [exact[key] for key in ("input", "weight", "offset", "mask")]
    want = reference_deform_conv.deform_conv_backward(upstream, *order, s)
    for key, leaf in leaves.items():
        if leaf is not None:
            assert leaf.grad.dtype == dtype
            close(leaf.grad, want[key], tolerance)


@pytest.mark.parametrize("name", ["plain", "strided"])
def test_onnx_reference_evaluator_agrees(name):
    pytest.importorskip("onnx")
    from onnx import TensorProto, helper
    from onnx.reference import ReferenceEvaluator

    (_, _, kernel, s), t = CASES[name], tensors(name, torch.float32)
    names = ["X", "W", "offset", "B", "mask"]
    node = helper.make_node(
        "DeformConv", names, ["Y"], kernel_shape=kernel, strides=s.stride, pads=[*s.pad, *s.pad],
        dilations=s.dilation, group=s.groups, offset_group=s.offset_groups,
    )  # fmt: skip
    value = helper.make_tensor_value_info
    inputs, outputs = ([value(n, TensorProto.FLOAT, None) for n in some] for some in (names, ["Y"]))
    graph = helper.make_graph([node], "one", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)])
    fed = dict(zip(names, (t[key].numpy() for key in ("input", "weight", "offset", "bias", "mask")), strict=True))
    close(call(t, s), ReferenceEvaluator(model).run(None, fed)[0], 2e-6)  # worst 5.7e-7


@pytest.mark.parametrize("modulated", [True, False])
@pytest.mark.parametrize("name", ["one pixel, 3x3", "group per channel"])
def test_gradients_are_finite_differences(name, modulated):
    """Positions of the cases keep away from the whole numbers, where the derivative jumps."""
    s, t = CASES[name][3], tensors(name)
    leaves = {key: t[key][:1] if key in ("input", "offset", "mask") else t[key] for key in DATA}
    leaves = {key: v.requires_grad_() for key, v in leaves.items() if modulated or key in ("input", "weight", "offset")}
    assert torch.autograd.gradcheck(
        lambda *v: call({"mask": None, "bias": None, **dict(zip(leaves, v, strict=True))}, s), tuple(leaves.values())
    )


@pytest.mark.parametrize("modulated", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_torch_finds_nothing_wrong_with_the_operators(dtype, modulated):
    s, t = CASES["groups"][3], tensors("groups", dtype)
    if not modulated:
        t["mask"] = t["bias"] = None
    upstream = t["upstream"]
    wanted = [True, False, True, modulated, modulated]
    torch.library.opcheck(torch.ops.pyfocus.deform_conv2d_backward, (upstream, *row(t, s)[:4], *row(t, s)[5:], wanted))
    for key in DATA:
        t[key] = None if t[key] is None else t[key].requires_grad_()
    torch.library.opcheck(torch.ops.pyfocus.deform_conv2d, row(t, s))


def test_only_wanted_gradients_are_made():
    s, t = CASES["plain"][3], tensors("plain", torch.float32)
    every = {key: t[key].clone().requires_grad_() for key in DATA}
    call(every, s).backward(t["upstream"])
    one = dict(t, offset=t["offset"].clone().requires_grad_())
    call(one, s).backward(t["upstream"])
    assert torch.equal(one["offset"].grad, every["offset"].grad) and t["weight"].grad is None


def test_a_second_derivative_is_refused():
    s, t = CASES["plain"][3], tensors("plain")
    x = t["input"].requires_grad_()
    (grad,) = torch.autograd.grad(call(t, s).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="deform_conv2d_backward"):
        grad.sum().backward()


# --- deform_conv2d: laws -----------------------------------------------


@pytest.mark.parametrize("groups", [1, 2])
def test_without_offsets_it_is_conv2d(groups):
    x, weight = torch.randn(2, 4, 9, 7, dtype=torch.float64), torch.randn(6, 4 // groups, 3, 3, dtype=torch.float64)
    bias, steps = torch.randn(6, dtype=torch.float64), {"stride": 2, "padding": (1, 2), "dilation": 2, "groups": groups}
    want = torch.nn.functional.conv2d(x, weight, bias, **steps)
    offset = torch.zeros(2, 18, *want.shape[2:], dtype=torch.float64)
    close(nn.deform_conv2d(x, weight, offset, None, bias, **steps), want.numpy(), 1e-14)  # worst 2.4e-16


def test_memory_order_does_not_matter():
    s, t = CASES["groups"][3], tensors("groups", torch.float32)
    odd = {key: v.to(memory_format=torch.channels_last) if v.dim() == 4 else v for key, v in t.items()}
    assert not odd["input"].is_contiguous() and torch.equal(call(odd, s), call(t, s))
    leaf = t["input"].requires_grad_()
    call(t, s).backward(odd["upstream"])
    first, leaf.grad = leaf.grad, None
    call(t, s).backward(t["upstream"])
    assert torch.equal(first, leaf.grad)


def test_an_empty_batch_is_nothing_to_do():
    t = {key: v[:0] if key in ("input", "offset", "mask") else v for key, v in tensors("plain").items()}
    t["weight"].requires_grad_()
    out = call(t, CASES["plain"][3])
    assert out.shape == (0, 5, 9, 11)
    out.sum().backward()
    assert not t["weight"].grad.any()


# --- deform_conv2d: types ----------------------------------------------


@pytest.mark.parametrize("place", DEVICES, indirect=True)
@pytest.mark.parametrize("dtype,step", [(torch.float16, 2**-10), (torch.bfloat16, 2**-7)])
def test_half_data_goes_with_float32_coordinates(dtype, step, place):
    s, t = CASES["groups"][3], tensors("groups", dtype, place)
    for key in ("input", "weight", "bias"):
        t[key].requires_grad_()
    t["offset"] = tensors("groups", torch.float32, place)["offset"].requires_grad_()
    out = call(t, s)  # which takes the mask from half to float32
    assert out.dtype == dtype
    exact = (t[key].detach().cpu().double().numpy() for key in DATA)
    close(out, reference_deform_conv.deform_conv(*exact, s), step)
    out.backward(t["upstream"])
    assert t["input"].grad.dtype == t["weight"].grad.dtype == t["bias"].grad.dtype == dtype
    assert t["offset"].grad.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_halves_the_data_and_leaves_the_coordinates(dtype):
    s, t = CASES["groups"][3], tensors("groups", torch.float32)
    leaves = {key: t[key].requires_grad_() for key in DATA}
    halved = {k: v.detach().to(dtype if k in ("input", "weight", "bias") else torch.float32) for k, v in t.items()}
    with torch.autocast("cpu", dtype=dtype):
        out = call(leaves, s)
        raw = torch.ops.pyfocus.deform_conv2d(*row(leaves, s))
        wide = call(tensors("groups"), s)
    assert out.dtype == dtype and wide.dtype == torch.float64  # autocast leaves float64 alone
    assert torch.equal(out, call(halved, s)) and torch.equal(out, raw)
    rounded = dict(halved, offset=halved["offset"].to(dtype))  # what a rule of one type for all would do
    assert not torch.equal(out, call(rounded, s))
    out.float().square().sum().backward()
    assert all(leaf.grad.dtype == torch.float32 for leaf in leaves.values())


# --- deform_conv2d: compile, export ------------------------------------


class Layer(torch.nn.Module):
    """A convolution that says where to look, and a deformable one that looks."""

    def __init__(self) -> None:
        super().__init__()
        self.offset, self.conv = torch.nn.Conv2d(4, 27, 3, padding=1), torch.nn.Conv2d(4, 5, 3)

    def forward(self, x: Any) -> Any:
        offset, mask = self.offset(x).split([18, 9], 1)
        moved = nn.deform_conv2d(x, self.conv.weight, offset, mask.sigmoid(), self.conv.bias, padding=1)
        return torch.cat([moved, x], 1)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_in_one_graph_it_gives_the_same(backend):
    layer, x = Layer(), torch.randn(2, 4, 8, 9)
    fast = torch.compile(layer, fullgraph=True, backend=backend, dynamic=True)
    for size in ((8, 9), (11, 6)):
        x = torch.randn(2, 4, *size)
        want, got = layer(x), fast(x)
        assert torch.equal(got, want)
        grads = [torch.autograd.grad(out.square().sum(), list(layer.parameters())) for out in (want, got)]
        for a, b in zip(*grads, strict=True):
            torch.testing.assert_close(a, b)


def test_compiled_under_autocast_it_gives_the_same():
    layer, x = Layer(), torch.randn(2, 4, 8, 9)
    fast = torch.compile(layer, fullgraph=True, backend="aot_eager")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(fast(x), layer(x))


def test_exported_it_takes_any_size():
    layer, dim = Layer().eval(), torch.export.Dim
    dims = {"x": {2: dim("height", min=2), 3: dim("width", min=2)}}
    program = torch.export.export(layer, (torch.randn(1, 4, 8, 9),), dynamic_shapes=dims)
    assert any(node.target == torch.ops.pyfocus.deform_conv2d.default for node in program.graph.nodes)
    for size in ((8, 9), (5, 14)):
        x = torch.randn(1, 4, *size)
        assert torch.equal(program.module()(x), layer(x))


def test_fake_tensors_have_the_shape_and_say_what_is_wrong():
    s, t = CASES["strided"][3], tensors("strided", torch.float32)
    graph = make_fx(lambda *v: call(dict(zip(DATA, v, strict=True)), s), tracing_mode="symbolic")(
        *(t[key] for key in DATA)
    )
    assert graph(*(t[key] for key in DATA)).shape == t["upstream"].shape
    meta = {key: v.to("meta") for key, v in t.items()}
    assert call(meta, s).shape == t["upstream"].shape
    with pytest.raises(RuntimeError, match="output's height and width"):
        call(dict(meta, offset=meta["offset"][:, :, 1:]), s)


# --- deform_conv2d: errors ---------------------------------------------


@pytest.mark.parametrize(
    "change,text",
    [
        ({"input": torch.zeros(4, 9, 11)}, "input must have 4 dimensions"),
        ({"weight": torch.zeros(5, 3, 3, 3)}, "weight"),
        ({"offset": torch.zeros(1, 18, 9, 10)}, "offset"),
        ({"mask": torch.zeros(1, 8, 9, 11)}, "mask"),
        ({"bias": torch.zeros(4)}, "bias"),
        ({"weight": torch.zeros(5, 4, 3, 3, dtype=torch.float16)}, "weight must be float32"),
    ],
)
def test_what_does_not_fit_is_named(change, text):
    t = {**tensors("plain", torch.float32), **change}
    with pytest.raises(ArgumentError, match=f"deform_conv.*{text}"):
        call(t, CASES["plain"][3])


def test_a_pair_is_a_pair():
    t = tensors("plain")
    with pytest.raises(ArgumentError, match=r"deform_conv2d: stride must be one number or a pair \(y, x\), got \[1\]"):
        nn.deform_conv2d(t["input"], t["weight"], t["offset"], padding=1, stride=[1])


# --- warp_affine -------------------------------------------------------


def maps(n: int) -> Any:
    angle = 0.1 * torch.arange(n, dtype=torch.float64)
    rows = [angle.cos(), -angle.sin(), 1.3 * angle + 0.4, angle.sin(), angle.cos(), 0.2 - angle]
    return torch.stack(rows, 1).view(n, 2, 3)


@pytest.mark.parametrize("place", DEVICES, indirect=True)
@pytest.mark.parametrize("kernel", range(3))
@pytest.mark.parametrize("shape", [(3, 3, 12, 17), (2, 5, 9, 8), (1, 1, 1, 1)])
def test_every_image_is_warped_by_its_own_map(shape, kernel, place):
    x, matrix = torch.rand(shape, device=place), maps(shape[0])
    got = nn.warp_affine(x, matrix, ("bilinear", "bicubic", "lanczos3")[kernel])
    assert got.shape == x.shape and got.device == x.device
    square = np.concatenate([matrix.numpy(), np.broadcast_to([[[0.0, 0, 1]]], (shape[0], 1, 3))], 1)
    for image, planes, m in zip(got.cpu().numpy(), x.cpu().numpy().astype(float), square, strict=True):
        for out, plane in zip(image, planes, strict=True):
            at = reference.positions(m, shape[2:])
            np.testing.assert_allclose(out, reference.sample(plane, *at, kernel), atol=2e-6)  # worst 4.8e-7


def test_warps_by_whole_pixels_are_slices():
    x, shift = torch.rand(2, 3, 8, 9), torch.tensor([[[1.0, 0, 2], [0, 1, 1]]]).expand(2, 2, 3)
    assert torch.equal(nn.warp_affine(x, shift)[:, :, :-1, :-2], x[:, :, 1:, 2:])
    half = x.to(torch.bfloat16)
    assert torch.equal(nn.warp_affine(half, shift)[:, :, :-1, :-2], half[:, :, 1:, 2:])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert nn.warp_affine(x, maps(2)).dtype == torch.float32
    assert nn.warp_affine(x[:0], shift[:0]).shape == (0, 3, 8, 9)


def test_warp_compiles_and_has_no_gradient():
    x, matrix = torch.rand(2, 3, 8, 9), maps(2)
    torch.library.opcheck(torch.ops.pyfocus.warp_affine, (x, matrix, "lanczos3"))
    fast = torch.compile(nn.warp_affine, fullgraph=True, backend="aot_eager")
    assert torch.equal(fast(x, matrix), nn.warp_affine(x, matrix))
    with pytest.raises(RuntimeError, match=r"no autograd formula"):
        nn.warp_affine(x.requires_grad_(), matrix).sum().backward()


@pytest.mark.parametrize(
    "arguments,text",
    [
        ((torch.rand(3, 8, 9), maps(1)), r"input must be \(N, C, H, W\)"),
        ((torch.rand(1, 3, 8, 9).double(), maps(1)), "float64"),
        ((torch.rand(2, 3, 8, 9), maps(1)), r"matrix must be \(2, 2, 3\)"),
        ((torch.rand(1, 3, 8, 9), maps(1), "nearest"), "interpolation must be one of bilinear, bicubic, lanczos3"),
        ((torch.rand(1, 3, 8, 9), maps(1) * torch.nan), "matrices must be finite"),
        ((torch.rand(1, 3, 0, 9), maps(1)), "must not be empty"),
    ],
)
def test_a_bad_warp_is_refused(arguments, text):
    with pytest.raises(ArgumentError, match=text):
        nn.warp_affine(*arguments)
