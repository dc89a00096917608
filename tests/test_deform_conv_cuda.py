"""deform_conv on the device beside the formula in float64 and the CPU; determinism; what is not finite; errors."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import deform_conv_cases
import numpy as np
import pytest
import reference_deform_conv as reference
from deform_conv_cases import GRADIENTS, Half, arrays
from reference_deform_conv import Steps

from pyfocus import _C
from pyfocus.errors import ArgumentError
from test_device import on_device, on_host

pytestmark = pytest.mark.cuda
# Beside the CPU's cases: several blocks of outputs, more taps than a window holds at once, channels of many packs.
CASES = deform_conv_cases.CASES | {
    "outputs": ((1, 9, 5, 18), 140, (1, 3), Steps(pad=(0, 1), offset_groups=3)),
    "5x5": ((2, 3, 12, 20), 3, (5, 5), Steps(pad=(2, 2))),
    "one offset group": ((1, 26, 9, 17), 6, (2, 2), Steps((1, 1), (1, 0), (1, 1), 2, 1)),
}
SMALL = ("plain", "groups", "depthwise", "strided", "1x1", "outputs")


@pytest.fixture(autouse=True)
def these_cases(monkeypatch):
    monkeypatch.setattr(deform_conv_cases, "CASES", CASES)


def there(v: Any) -> Any:
    if v is None:
        return None
    if not isinstance(v, Half):
        return on_device(np.ascontiguousarray(v))
    array = _C.DeviceArray(v.bits.shape, v.dtype)
    _C.device_copy(array, v.array)
    return array


def here(array: _C.DeviceArray) -> np.ndarray:
    """Values on the host, of half types in float64."""
    if array.dtype not in ("float16", "bfloat16"):
        return on_host(array)
    half = Half(array.dtype, np.zeros(array.shape))
    _C.device_copy(half.array, array)
    return half.values()


def filled(shape: Any, dtype: str) -> _C.DeviceArray:
    """NaN in every type."""
    array = _C.DeviceArray(shape, dtype)
    _C.device_fill(array, 0xFF)
    return array


def scratch(a: dict[str, Any], s: Steps, backward: bool) -> _C.DeviceArray:
    size = _C.deform_conv_workspace(a["input"], a["weight"], **asdict(s), backward=backward)
    return filled((size,), "uint8")


def forward(a: dict[str, Any], s: Steps) -> np.ndarray:
    d = {name: there(v) for name, v in a.items()}
    out = filled(d["upstream"].shape, d["input"].dtype)
    _C.deform_conv(d["input"], d["weight"], d["offset"], d["mask"], d["bias"], out, scratch(d, s, False), **asdict(s))
    return here(out)


def backward(a: dict[str, Any], s: Steps, wanted: tuple[str, ...] = GRADIENTS) -> dict[str, np.ndarray]:
    d = {name: there(v) for name, v in a.items()}
    like = dict(d, mask=there(a["offset"][:, ::2]) if a["mask"] is None else d["mask"])
    out = {name: filled(like[name].shape, like[name].dtype) for name in wanted}
    _C.deform_conv_backward(
        d["upstream"], d["input"], d["weight"], d["offset"], d["mask"], *(out.get(name) for name in GRADIENTS),
        scratch(d, s, True), **asdict(s),
    )  # fmt: skip
    return {name: here(v) for name, v in out.items()}


def wide(a: dict[str, Any]) -> dict[str, Any]:
    return {k: None if v is None else v.values() if isinstance(v, Half) else v.astype(float) for k, v in a.items()}


def oracle(a: dict[str, Any], s: Steps) -> np.ndarray:
    w = wide(a)
    return reference.deform_conv(w["input"], w["weight"], w["offset"], w["mask"], w["bias"], s)


def oracle_backward(a: dict[str, Any], s: Steps) -> dict[str, np.ndarray]:
    w = wide(a)
    return reference.deform_conv_backward(*(w[name] for name in ("upstream", "input", "weight", "offset", "mask")), s)


def halves(a: dict[str, np.ndarray], dtype: str) -> dict[str, Any]:
    half = {name: Half(dtype, a[name]) for name in ("input", "weight", "bias", "upstream")}
    return {**half, **{name: a[name].astype(np.float32) for name in ("offset", "mask")}}


def close(got: np.ndarray, want: np.ndarray, tolerance: float) -> None:
    """Within `tolerance` of the largest value."""
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * max(np.abs(want).max(initial=0), 1e-3))


# --- values ------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_output_is_the_formula(name):
    a, s = arrays(name, np.float32), CASES[name][3]
    close(forward(a, s), oracle(a, s), 1e-5)  # worst 3.1e-6


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_the_formulas(name):
    a, s = arrays(name, np.float32), CASES[name][3]
    want = oracle_backward(a, s)
    for key, got in backward(a, s).items():
        close(got, want[key], 2e-5)  # worst 4.1e-6


@pytest.mark.parametrize("name", SMALL)
def test_float64_is_exact_enough_to_check_gradients(name):
    a, s = arrays(name), CASES[name][3]
    close(forward(a, s), oracle(a, s), 4e-15)  # worst 6.7e-16, of the gradients 7.5e-16
    want = oracle_backward(a, s)
    for key, got in backward(a, s).items():
        close(got, want[key], 1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_mask_and_bias_may_be_missing(dtype):
    s = CASES["groups"][3]
    a = dict(arrays("groups", dtype), mask=None, bias=None)
    close(forward(a, s), oracle(a, s), 1e-5)
    got, want = backward(a, s, ("input", "offset", "mask", "weight")), oracle_backward(a, s)
    for key in got:
        close(got[key], want[key], 2e-5)


# Columns, outputs and gradients are each rounded once, by up to half a step. Worst: 0.92 half steps of the largest.
@pytest.mark.parametrize("name", ["plain", "groups", "1x1", "one offset group"])
@pytest.mark.parametrize("dtype,half_step", [("float16", 2**-11), ("bfloat16", 2**-8)])
def test_half_types_are_near(name, dtype, half_step):
    s = CASES[name][3]
    a = halves(arrays(name), dtype)
    close(forward(a, s), oracle(a, s), 1.5 * half_step)
    want = oracle_backward(a, s)
    for key, got in backward(a, s).items():
        close(got, want[key], 2e-5 if key in ("offset", "mask") else 1.5 * half_step)


def test_both_sides_agree():
    a, s = arrays("tiles", np.float32), CASES["tiles"][3]
    output, grads = np.empty_like(a["upstream"]), {key: np.empty_like(a[key]) for key in GRADIENTS}
    work = np.empty(_C.deform_conv_workspace(a["input"], a["weight"], **asdict(s), backward=True), np.uint8)
    _C.deform_conv(a["input"], a["weight"], a["offset"], a["mask"], a["bias"], output, work, **asdict(s))
    _C.deform_conv_backward(
        a["upstream"], a["input"], a["weight"], a["offset"], a["mask"], *grads.values(), work, **asdict(s)
    )
    close(forward(a, s), output, 1e-5)
    for key, got in backward(a, s).items():
        close(got, grads[key], 2e-5)


# --- laws --------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, "float16"])
def test_twice_the_same_bytes(dtype):
    s, a = CASES["tiles" if dtype == np.float32 else "groups"][3], arrays("tiles", np.float32)
    if dtype == "float16":
        a = halves(arrays("groups"), "float16")
    runs = [b"".join(v.tobytes() for v in [forward(a, s), *backward(a, s).values()]) for _ in range(2)]
    assert runs[0] == runs[1]


def test_a_gradient_alone_is_the_same_as_among_all():
    for name, dtype in (("groups", np.float32), ("1x1", np.float64)):
        a, s = arrays(name, dtype), CASES[name][3]
        every = backward(a, s)
        for wanted in [(key,) for key in GRADIENTS] + [("offset", "weight"), ("input", "mask"), ()]:
            for key, got in backward(a, s, wanted).items():
                np.testing.assert_array_equal(got, every[key])


def test_at_minus_one_the_derivative_is_from_the_right():
    a, s = arrays("plain", np.float32), CASES["plain"][3]
    a["offset"][:] = 0
    got, want = backward(a, s), oracle_backward(a, s)
    for key in GRADIENTS:
        close(got[key], want[key], 2e-5)
    assert np.abs(got["offset"][0, 0, 0, 1:]).min() > 0  # in the corner it is 0 along both lines


@pytest.mark.parametrize("shift", [0, 11, 40])
def test_samples_that_all_move_stay_within_the_window_or_do_not(shift):
    """Smooth offsets move the window; wild ones go around it."""
    a, s = arrays("tiles", np.float32), CASES["tiles"][3]
    a["offset"] = np.full(a["offset"].shape, -0.25 * shift, np.float32)
    a["offset"][:, ::4, ::3] += shift
    close(backward(a, s, ("input",))["input"], oracle_backward(a, s)["input"], 2e-5)


@pytest.mark.parametrize("scale", [1e-18, 1e-8, 1e6, 1e18])
def test_gradients_keep_their_accuracy_at_any_size(scale):
    a, s = arrays("groups", np.float32), CASES["groups"][3]
    for name in ("upstream", "mask"):
        b = dict(a, **{name: a[name] * np.float32(scale)})
        want, got = oracle_backward(b, s)["input"], backward(b, s, ("input",))["input"]
        np.testing.assert_allclose(got, want, rtol=0, atol=2e-5 * np.abs(want).max())


def test_one_large_gradient_leaves_the_small_ones_accurate():
    a, s = arrays("plain", np.float32), CASES["plain"][3]
    a["offset"] = np.clip(a["offset"], -1, 1)
    a["upstream"][0, 2, 0, 0] = 1e4
    far = np.s_[:, :, 5:]  # pixels that it does not reach
    got, want = backward(a, s, ("input",))["input"][far], oracle_backward(a, s)["input"][far]
    close(got, want, 2e-5)


# --- the edges of the range --------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bad", [1e30, -1e30, np.nan, np.inf, 2.0**31])
def test_offsets_far_outside_sample_nothing(bad, dtype):
    a, s = arrays("groups", dtype), CASES["groups"][3]
    hit = np.random.default_rng(4).random(a["offset"].shape) < 0.3
    a["offset"][hit] = bad
    close(forward(a, s), oracle(a, s), 1e-5)
    got, want = backward(a, s), oracle_backward(a, s)
    for key in GRADIENTS:
        close(got[key], want[key], 2e-5)
    assert not got["offset"][hit].any()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["upstream", "weight", "mask"])
def test_what_is_not_finite_shows_in_the_gradient(name, bad):
    a, s = arrays("plain", np.float32), CASES["plain"][3]
    a[name].flat[a[name].size // 2] = bad
    assert np.isnan(backward(a, s)["input"]).all()
    a["input"][:] = np.inf  # which gradients by the image do not depend on
    assert np.isfinite(backward(arrays("plain", np.float32), s, ("input",))["input"]).all()


def test_empty_batches_and_outputs_are_nothing_to_do():
    a = arrays("plain", np.float32)
    a = {name: v[:0] if name in ("input", "offset", "mask", "upstream") else v for name, v in a.items()}
    s = CASES["plain"][3]
    assert forward(a, s).size == 0
    assert not backward(a, s)["weight"].any() and not backward(a, s)["bias"].any()
    a, s = arrays("plain", np.float32), Steps()
    a["weight"] = np.ones((5, 4, 10, 3), np.float32)
    for name, planes in (("offset", 60), ("mask", 30), ("upstream", 5)):
        a[name] = np.ones((1, planes, 0, 9), np.float32)
    assert forward(a, s).size == 0
    for key, got in backward(a, s).items():
        assert not got.any(), key
    a, s = arrays("plain", np.float32), CASES["plain"][3]
    a |= {"weight": a["weight"][:0], "bias": a["bias"][:0], "upstream": a["upstream"][:, :0]}
    assert forward(a, s).size == 0
    for key, got in backward(a, s).items():
        assert got.size == 0 or not got.any(), key


# --- errors ------------------------------------------------------------

NAMES = {
    "deform_conv_workspace": "input weight",
    "deform_conv": "input weight offset mask bias output workspace",
    "deform_conv_backward": "grad_output input weight offset mask grad_input grad_offset grad_mask grad_weight "
    "grad_bias workspace",
}


@pytest.mark.parametrize("function", NAMES)
def test_every_array_must_lie_where_the_input_lies(function):
    a, s = arrays("plain", np.float32), CASES["plain"][3]
    a |= {f"grad_{key}": a[key] for key in GRADIENTS} | {"output": a["upstream"], "grad_output": a["upstream"]}
    d = {name: there(v) for name, v in a.items()}
    d["workspace"], a["workspace"] = scratch(d, s, True), np.zeros(1 << 20, np.uint8)
    for name in NAMES[function].split():
        given = [(a if name == other else d)[other] for other in NAMES[function].split()]
        said, places = (name, "cuda:0, got cpu:0") if name != "input" else (r"\w+", "cpu:0, got cuda:0")
        with pytest.raises(ArgumentError, match=f"^{function}: {said} must be on the device .*{places}"):
            getattr(_C, function)(*given, **asdict(s))


def test_a_small_workspace_is_refused():
    a, s = {k: there(v) for k, v in arrays("plain", np.float32).items()}, CASES["plain"][3]
    out = filled(a["upstream"].shape, "float32")
    small = filled((_C.deform_conv_workspace(a["input"], a["weight"], **asdict(s)) - 1,), "uint8")
    with pytest.raises(ArgumentError, match=r"^deform_conv: workspace must have at least \d+ bytes, got \d+"):
        _C.deform_conv(a["input"], a["weight"], a["offset"], a["mask"], a["bias"], out, small, **asdict(s))
    with pytest.raises(ArgumentError, match=r"^deform_conv: offset must be float32, got float64"):
        wrong = there(arrays("plain")["offset"])
        _C.deform_conv(a["input"], a["weight"], wrong, a["mask"], a["bias"], out, small, **asdict(s))
