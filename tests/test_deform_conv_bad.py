"""Every text that deform_conv refuses an argument with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from deform_conv_cases import CASES, GRADIENTS, Handmade, arrays, scratch

from pyfocus import _C
from pyfocus.errors import ArgumentError

Z = np.zeros
WRONG: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"input": Z((1, 4, 9, 11), "u1")}, {}, "input must be float32, float64, float16 or bfloat16, got uint8"),
    ({"input": Z((4, 9, 11))}, {}, "input must have 4 dimensions, got 3"),
    ({"input": Z((1, 4, 9, 22))[..., ::2]}, {}, "input must be contiguous"),
    ({"input": Z((1, 4, 0, 11))}, {}, "input must have a channel, a row and a column, got 4 x 0 x 11"),
    ({"input": Handmade(4096, (1, 1, 65536, 32768), 2, 64)}, {}, r"input must have fewer than 2\^31 elements"),
    ({"input": Handmade(4096, (1, 1, 1, 2**30), 2, 64)}, {}, r"input must have fewer than 2\^31 pixels with"),
    ({"input": Z((1, 2048, 1, 1)), "weight": Z((0, 2048, 1024, 1024))}, {}, r"weight must have fewer than 2\^31 taps"),
    ({"weight": Z((5, 4, 3, 3), "f4")}, {}, "weight must be float64, got float32"),
    ({"weight": Z((5, 3, 3, 3))}, {}, "weight must have size 4 on axis 1, got 3"),
    ({"weight": Z((5, 4, 0, 3))}, {}, "weight must have from 1 to 1024 taps a side, got 0 x 3"),
    ({"weight": Z((5, 4, 3, 6))[..., ::2]}, {}, "weight must be contiguous"),
    ({}, {"stride": (0, 1)}, r"stride must be from 1 to 1048576, got \(0, 1\)"),
    ({}, {"pad": (1, -1)}, r"pad must be from 0 to 1048576, got \(1, -1\)"),
    ({}, {"dilation": (1, 0)}, r"dilation must be from 1 to 1048576, got \(1, 0\)"),
    ({}, {"pad": (2**40, 1)}, r"pad must be from 0 to 1048576, got \(1099511627776, 1\)"),
    ({}, {"groups": 0}, "groups and offset_groups must be 1 or more, got 0 and 1"),
    ({}, {"groups": 3}, "groups and offset_groups must divide the 4 input channels, got 3 and 1"),
    ({}, {"offset_groups": 3}, "groups and offset_groups must divide the 4 input channels, got 1 and 3"),
    ({}, {"groups": 2}, "groups must divide the 5 output channels, got 2"),
]  # fmt: skip
BOTH: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"offset": Z((1, 18, 9, 11), "f4")}, {}, "offset must be float64, got float32"),
    ({"offset": Z((1, 17, 9, 11))}, {}, "offset must have size 18 on axis 1, got 17"),
    ({"offset": Z((2, 18, 9, 11))}, {}, "offset must have size 1 on axis 0, got 2"),
    ({"mask": Z((1, 18, 9, 11))}, {}, "mask must have size 9 on axis 1, got 18"),
    ({"mask": Z((1, 9, 9, 11), "f4")}, {}, "mask must be float64, got float32"),
    ({"workspace": Z(9, "u1")}, {}, r"workspace must have at least \d+ bytes, got 9"),
    ({"workspace": Z(9)}, {}, "workspace must be uint8, got float64"),
    ({}, {"stride": (2, 1)}, "must have size 5 on axis 2, got 9"),
]  # fmt: skip


def call(function: str, given: dict[str, Any], how: dict[str, Any]) -> None:
    a = arrays("plain")
    a |= {"output": a["upstream"].copy(), "workspace": scratch(a, CASES["plain"][3], True)}
    a |= {f"grad_{key}": Z(a[key].shape) for key in GRADIENTS}
    a |= given
    names = {
        "deform_conv_workspace": "input weight",
        "deform_conv": "input weight offset mask bias output workspace",
        "deform_conv_backward": "upstream input weight offset mask grad_input grad_offset grad_mask grad_weight "
        "grad_bias workspace",
    }
    getattr(_C, function)(*(a[name] for name in names[function].split()), **{"pad": (1, 1), **how})


@pytest.mark.parametrize("function", ["deform_conv_workspace", "deform_conv", "deform_conv_backward"])
@pytest.mark.parametrize("given,how,text", WRONG)
def test_wrong_images_weights_and_steps_are_named(function, given, how, text):
    with pytest.raises(ArgumentError, match=f"^{function}: {text}"):
        call(function, given, how)


@pytest.mark.parametrize("function", ["deform_conv", "deform_conv_backward"])
@pytest.mark.parametrize("given,how,text", BOTH)
def test_wrong_arguments_are_named(function, given, how, text):
    with pytest.raises(ArgumentError, match=f"^{function}: .*{text}"):
        call(function, given, how)


@pytest.mark.parametrize("name", ["output", *(f"grad_{key}" for key in GRADIENTS), "bias", "upstream"])
def test_wrong_outputs_are_named(name):
    function = "deform_conv" if name in ("output", "bias") else "deform_conv_backward"
    said = "grad_output" if name == "upstream" else name
    good = arrays("plain")[name.removeprefix("grad_").replace("output", "upstream")]
    with pytest.raises(ArgumentError, match=f"^{function}: {said} must be float64, got float32"):
        call(function, {name: good.astype("f4")}, {})
    with pytest.raises(ArgumentError, match=f"^{function}: {said} must have size"):
        call(function, {name: np.concatenate([good, good])}, {})
    if name not in ("bias", "upstream"):
        frozen = good.copy()
        frozen.setflags(write=False)
        with pytest.raises(ArgumentError, match=f"^{function}: {said} is written to, got a read-only array"):
            call(function, {name: frozen}, {})
