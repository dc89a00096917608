"""deform_conv against its formula in float64, ONNX's reference evaluator and finite differences; laws; equal bits."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import reference_deform_conv as reference
from deform_conv_cases import CASES, GRADIENTS, Half, arrays, scratch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_deform_conv import Steps

from pyfocus import _C


def forward(a: dict[str, Any], s: Steps, out: Any = None, threads: int = 0) -> Any:
    if out is None:
        area = a["offset"].shape[2:]
        out = np.full((len(a["input"]), len(a["weight"]), *area), np.nan, a["input"].dtype)
    _C.deform_conv(
        a["input"], a["weight"], a["offset"], a["mask"], a["bias"], out, scratch(a, s), **asdict(s), threads=threads
    )
    return out


def backward(
    a: dict[str, Any], s: Steps, wanted: tuple[str, ...] = GRADIENTS, threads: int = 0
) -> dict[str, np.ndarray]:
    """The wanted gradients, by NumPy arrays of NaN that the kernels fill."""
    like = dict(a, mask=a["offset"][:, ::2] if a["mask"] is None else a["mask"])
    out = {name: np.full(like[name].shape, np.nan, like[name].dtype) for name in wanted}
    _C.deform_conv_backward(
        a["upstream"], a["input"], a["weight"], a["offset"], a["mask"], *(out.get(name) for name in GRADIENTS),
        scratch(a, s, True), **asdict(s), threads=threads,
    )  # fmt: skip
    return out


def oracle(a: dict[str, Any], s: Steps) -> np.ndarray:
    wide = {name: None if v is None else v.astype(float) for name, v in a.items()}
    return reference.deform_conv(wide["input"], wide["weight"], wide["offset"], wide["mask"], wide["bias"], s)


def oracle_backward(a: dict[str, Any], s: Steps) -> dict[str, np.ndarray]:
    wide = {name: None if v is None else v.astype(float) for name, v in a.items()}
    order = ("upstream", "input", "weight", "offset", "mask")
    return reference.deform_conv_backward(*(wide[name] for name in order), s)


def close(got: np.ndarray, want: np.ndarray, tolerance: float) -> None:
    """Within `tolerance` of the largest value."""
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * max(np.abs(want).max(initial=0), 1e-3))


# --- values ------------------------------------------------------------


@pytest.mark.parametrize("modulated", [True, False])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype,tolerance", [(np.float32, 1e-5), (np.float64, 4e-15)])  # worst 3.4e-6, 4.1e-16
def test_output_is_the_formula(name, dtype, tolerance, modulated):
    a, s = arrays(name, dtype), CASES[name][3]
    a = a if modulated else dict(a, mask=None, bias=None)
    close(forward(a, s), oracle(a, s), tolerance)


@pytest.mark.parametrize("modulated", [True, False])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype,tolerance", [(np.float32, 2e-5), (np.float64, 1e-14)])  # worst 4.2e-6, 9.9e-16
def test_gradients_are_the_formulas(name, dtype, tolerance, modulated):
    a, s = arrays(name, dtype), CASES[name][3]
    a = a if modulated else dict(a, mask=None)
    want = oracle_backward(a, s)
    for key, got in backward(a, s).items():
        close(got, want[key], tolerance)


@pytest.mark.parametrize("name", ["plain", "groups", "strided", "dilated 2x5"])
def test_gradients_of_the_oracle_are_its_finite_differences(name):
    a, s = arrays(name), CASES[name][3]
    got, random = oracle_backward(a, s), np.random.default_rng(1)
    for key in GRADIENTS:
        for at in random.choice(a[key].size, min(a[key].size, 10), replace=False):
            sides = []
            for step in (1e-6, -1e-6):
                moved = a[key].copy()
                moved.ravel()[at] += step
                sides.append(np.vdot(a["upstream"], oracle(dict(a, **{key: moved}), s)))
            # worst 8.1e-9: rounding of the sum, divided by the step
            assert got[key].ravel()[at] == pytest.approx((sides[0] - sides[1]) / 2e-6, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("name", ["plain", "groups", "strided", "dilated 2x5"])
def test_onnx_reference_evaluator_agrees(name):
    import onnx
    from onnx.reference import ReferenceEvaluator

    a, (_, _, kernel, s) = arrays(name, np.float32), CASES[name]
    names = ["X", "W", "offset", "B", "mask"]
    node = onnx.helper.make_node(
        "DeformConv", names, ["Y"], kernel_shape=kernel, strides=s.stride, pads=[*s.pad, *s.pad],
        dilations=s.dilation, group=s.groups, offset_group=s.offset_groups,
    )  # fmt: skip
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [node],
        "one",
        [value(n, onnx.TensorProto.FLOAT, None) for n in names],
        [value("Y", onnx.TensorProto.FLOAT, None)],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 19)])
    given = dict(zip(names, (a[n] for n in ("input", "weight", "offset", "bias", "mask")), strict=True))
    close(forward(a, s), ReferenceEvaluator(model).run(None, given)[0], 2e-6)  # worst 9.6e-7


# --- half types --------------------------------------------------------


def halves(a: dict[str, np.ndarray], dtype: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What the kernels get, and the same values in float64."""
    half = {name: Half(dtype, a[name]) for name in ("input", "weight", "bias", "upstream")}
    full = {name: a[name].astype(np.float32) for name in ("offset", "mask")}
    return {**half, **full}, {**{name: h.values() for name, h in half.items()}, **full}


def seen(a: dict[str, Any]) -> dict[str, Any]:
    return {name: v.array if isinstance(v, Half) else v for name, v in a.items()}


@pytest.mark.parametrize("name", ["plain", "one of all", "groups", "tiles"])
@pytest.mark.parametrize("dtype,half_step", [("float16", 2**-11), ("bfloat16", 2**-8)])
def test_half_types_are_rounded_once(name, dtype, half_step):
    s = CASES[name][3]
    a, exact = halves(arrays(name), dtype)
    want = oracle(exact, s)
    # Rounding to nearest is half a step of each value; float32 adds at worst 8.3e-7 of the largest.
    out = Half(dtype, np.full(want.shape, np.nan))
    forward(seen(a), s, out.array)
    near = {"rtol": half_step * 1.01, "atol": 2e-6 * np.abs(want).max()}
    np.testing.assert_allclose(out.values(), want, **near)
    grads = {key: Half(dtype, np.full(exact[key].shape, np.nan)) for key in ("input", "weight", "bias")}
    grads |= {key: np.full(exact[key].shape, np.nan, np.float32) for key in ("offset", "mask")}
    k = seen(a)
    _C.deform_conv_backward(
        k["upstream"], k["input"], k["weight"], k["offset"], k["mask"], *(seen(grads)[key] for key in GRADIENTS),
        scratch(k, s, True), **asdict(s),
    )  # fmt: skip
    for key, want in oracle_backward(exact, s).items():
        got = grads[key]
        if isinstance(got, Half):
            np.testing.assert_allclose(got.values(), want, rtol=half_step * 1.01, atol=2e-6 * np.abs(want).max())
        else:
            close(got, want, 2e-5)  # worst 2.3e-6


def through(x: Half, factor: float) -> Half:
    """x times a weight, each pixel an image of its own: no neighbour to multiply by 0."""
    out, n = Half(x.dtype, np.zeros(x.bits.shape)), len(x.bits)
    a = {"input": x.array, "weight": Half(x.dtype, np.full((1, 1, 1, 1), factor)), "mask": None, "bias": None}
    a["offset"] = np.zeros((n, 2, 1, 1), np.float32)
    forward(seen(a), Steps(), out.array, threads=1)
    return out


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_every_half_number_comes_through(dtype):
    every = Half(dtype, np.zeros((65536, 1, 1, 1)))
    every.bits[:] = np.arange(65536, dtype=np.uint16).reshape(-1, 1, 1, 1)
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(through(every, 1.0).values(), every.values())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_rounding_to_half_is_to_nearest_ties_to_even(dtype):
    """Products of two half numbers: halfway cases, subnormal results, overflow to infinity."""
    with np.errstate(over="ignore"):
        x = Half(
            dtype,
            np.random.default_rng(5).standard_normal((5000, 1, 1, 1))
            * 2.0 ** np.arange(-25, 17).repeat(120)[:5000].reshape(-1, 1, 1, 1),
        )
        want = Half(dtype, (x.values() * 1.5).astype(np.float32))
    out = through(x, 1.5)
    np.testing.assert_array_equal(out.values(), want.values())
    assert dtype != "float16" or np.isinf(out.values()).any()


# --- laws --------------------------------------------------------------


def convolve(a: dict[str, np.ndarray], s: Steps) -> np.ndarray:
    """Plain convolution by windows of the padded image."""
    n, (o, per, kh, kw) = len(a["input"]), a["weight"].shape
    image = np.pad(a["input"].astype(float), [(0, 0), (0, 0), (s.pad[0],) * 2, (s.pad[1],) * 2])
    reach = [s.dilation[i] * (k - 1) + 1 for i, k in enumerate((kh, kw))]
    windows = np.lib.stride_tricks.sliding_window_view(image, reach, axis=(2, 3))
    windows = windows[:, :, :: s.stride[0], :: s.stride[1], :: s.dilation[0], :: s.dilation[1]]
    windows = windows.reshape(n, s.groups, per, *windows.shape[2:])
    weight = a["weight"].astype(float).reshape(s.groups, -1, per, kh, kw)
    out = np.einsum("gocij,ngcyxij->ngoyx", weight, windows)
    return out.reshape(n, o, *out.shape[3:]) + a["bias"].reshape(-1, 1, 1)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_without_offsets_it_is_a_convolution(data):
    kernel = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
    groups = data.draw(st.integers(1, 3))
    s = Steps(data.draw(pairs), data.draw(st.tuples(st.integers(0, 3), st.integers(0, 3))), data.draw(pairs), groups)
    size = tuple(s.dilation[i] * (kernel[i] - 1) + 1 + data.draw(st.integers(0, 12)) for i in (0, 1))
    n, per, outputs = data.draw(st.integers(1, 2)), data.draw(st.integers(1, 3)), data.draw(st.integers(1, 5))
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    area = reference.output_size(size, kernel, s)
    a = {
        "input": random.standard_normal((n, groups * per, *size), np.float32),
        "weight": random.standard_normal((groups * outputs, per, *kernel), np.float32),
        "bias": random.standard_normal(groups * outputs, np.float32),
        "offset": np.zeros((n, 2 * kernel[0] * kernel[1], *area), np.float32),
        "mask": None,
    }
    # Rounding goes with the size of the terms, which may cancel.
    size = convolve({k: v if v is None else np.abs(v) for k, v in a.items()}, s)
    assert (np.abs(forward(a, s) - convolve(a, s)) <= 1e-6 * size).all()


@pytest.mark.parametrize("shift", [(0, 0), (1, 0), (-2, 3), (4, -5)])
def test_whole_offsets_sample_the_shifted_image(shift):
    random = np.random.default_rng(3)
    image, weight = random.standard_normal((1, 3, 20, 24), np.float32), random.standard_normal((4, 3, 3, 3), np.float32)
    moved = np.zeros_like(image)
    dy, dx = shift
    to, at = np.s_[max(0, -dy) : 20 - max(0, dy)], np.s_[max(0, -dx) : 24 - max(0, dx)]
    moved[:, :, to, at] = np.roll(image, (-dy, -dx), axis=(2, 3))[:, :, to, at]
    offset = np.zeros((1, 18, 18, 22), np.float32)
    offset[:, ::2], offset[:, 1::2] = shift
    a = {"input": image, "weight": weight, "offset": offset, "mask": None, "bias": None}
    b = dict(a, input=moved, offset=np.zeros_like(offset))
    np.testing.assert_array_equal(forward(a, Steps()), forward(b, Steps()))


def test_at_minus_one_the_derivative_is_from_the_right():
    """As in torchvision: what training starts with, zero offsets over a padded border, still gets a gradient there."""
    a, s = arrays("plain"), CASES["plain"][3]
    a["offset"][:] = 0
    got, want = backward(a, s), oracle_backward(a, s)
    for key in GRADIENTS:
        close(got[key], want[key], 1e-14)  # worst 5.3e-16
    assert np.abs(got["offset"][0, 0, 0, 1:]).min() > 0  # tap (0, 0) of the first row lies at y = -1
    assert not forward(dict(a, bias=None, weight=a["weight"] * [[[[1], [0], [0]]]]), s)[:, :, 0].any()


# --- equal bits --------------------------------------------------------


@pytest.fixture
def best_isa():
    yield
    _C.set_isa(0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["groups", "tiles", "wide"])
def test_every_instruction_set_and_thread_count_gives_the_same_bits(name, dtype, best_isa):
    a, s = arrays(name, dtype), CASES[name][3]
    bits = set()
    for level in (2, 3, 4):
        _C.set_isa(level)
        for threads in (1, 2, 3):
            out = [forward(a, s, threads=threads), *backward(a, s, threads=threads).values()]
            bits.add(b"".join(v.tobytes() for v in out))
    assert len(bits) == 1


def test_half_types_give_the_same_bits_on_every_instruction_set(best_isa):
    s, a = CASES["tiles"][3], halves(arrays("tiles"), "float16")[0]
    bits = set()
    for level in (2, 3, 4):
        _C.set_isa(level)
        out = Half("float16", np.zeros(a["upstream"].bits.shape))
        forward(seen(a), s, out.array)
        bits.add(out.bits.tobytes())
    assert len(bits) == 1


def test_a_gradient_alone_is_the_same_as_among_all():
    a, s = arrays("tiles", np.float32), CASES["tiles"][3]
    every = backward(a, s)
    for wanted in [(key,) for key in GRADIENTS] + [("offset", "weight"), ("input", "mask"), ()]:
        for key, got in backward(a, s, wanted).items():
            np.testing.assert_array_equal(got, every[key])


# --- the edges of the range --------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bad", [1e30, -1e30, np.nan, np.inf, -np.inf, 2.0**31, -(2.0**63), 3e9])
def test_offsets_far_outside_sample_nothing(bad, dtype):
    a, s = arrays("groups", dtype), CASES["groups"][3]
    hit = np.random.default_rng(4).random(a["offset"].shape) < 0.3
    a["offset"][hit] = bad
    close(forward(a, s), oracle(a, s), 2e-6)  # worst 3.7e-7
    got, want = backward(a, s), oracle_backward(a, s)
    for key in GRADIENTS:
        close(got[key], want[key], 2e-5)
    assert not got["offset"][hit].any()


def test_pixels_that_are_not_sampled_do_not_count():
    """Zero outside is no product with 0: infinities elsewhere leave no NaN."""
    a = {
        "input": np.full((1, 1, 6, 6), np.inf, "f4"),
        "weight": np.ones((1, 1, 1, 1), "f4"),
        "mask": None,
        "bias": None,
    }
    for far in (-1.0, 6.0, -9.0):
        a["offset"] = np.full((1, 2, 6, 6), far, np.float32)
        a["offset"] -= np.stack(np.mgrid[:6, :6])
        assert not forward(a, Steps()).any()


def test_empty_batches_and_outputs_are_nothing_to_do():
    a = {name: v[:0] if name in ("input", "offset", "mask", "upstream") else v for name, v in arrays("plain").items()}
    s = CASES["plain"][3]
    assert forward(a, s).size == 0
    assert not backward(a, s)["weight"].any() and not backward(a, s)["bias"].any()
    a, s = arrays("plain"), Steps()
    a["weight"] = np.ones((5, 4, 10, 3))
    for name, planes in (("offset", 60), ("mask", 30), ("upstream", 5)):
        a[name] = np.ones((1, planes, 0, 9))
    assert forward(a, s).size == 0
    for key, got in backward(a, s).items():
        assert not got.any(), key
