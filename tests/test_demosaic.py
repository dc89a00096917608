"""demosaic against its formula in float64, for every CFA order and across tile borders."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reference
from pyfocus import _C
from pyfocus.raw import CFA_ORDERS, plane_offsets

LEVELS = {"scale": [2.1 / 4000, 1 / 4000, 1 / 4000, 1.6 / 4000], "offset": [-0.13, -0.064, -0.064, -0.1]}


def run(mosaic, cfa, scale, offset, **how):
    out = np.empty((3, *mosaic.shape), np.float32)
    _C.demosaic(mosaic, list(plane_offsets(cfa)[0]), scale, offset, out, **how)
    return out


def scene(height, width, seed=0):
    """Edges in all directions, a colour slope and noise, some of it below black."""
    y, x = np.mgrid[:height, :width]
    light = 1500 + 900 * np.sin(x / 3.7 + y / 5.1) + 700 * ((x - y) % 23 > 11) + 500 * ((x // 9 + y // 7) % 2)
    random = np.random.default_rng(seed)
    return np.clip(light + random.normal(0, 60, (height, width)), 200, 4095).astype(np.uint16)


@pytest.mark.parametrize("cfa", CFA_ORDERS)
@pytest.mark.parametrize("size", [(6, 6), (34, 258), (66, 520), (100, 40), (32, 256)])
def test_values_are_the_formula(cfa, size):
    mosaic = scene(*size)
    # worst 3.8e-7: where both directions are flat the weights 1 / (a^2 + 1e-8) swing with rounding, but then both
    # directions say the same
    want = reference.demosaic(mosaic, cfa, LEVELS["scale"], LEVELS["offset"])
    np.testing.assert_allclose(run(mosaic, cfa, **LEVELS), want, rtol=0, atol=2e-6)


def test_values_below_black_keep_their_sign():
    mosaic = np.random.default_rng(1).integers(0, 500, (40, 44)).astype(np.uint16)
    scale, offset = [1 / 250.0] * 4, [-1.0] * 4
    out = run(mosaic, "RGGB", scale, offset)
    np.testing.assert_allclose(
        out, reference.demosaic(mosaic, "RGGB", scale, offset), rtol=0, atol=3e-6
    )  # worst 5.3e-7
    assert (out < 0).any()


def test_view_with_strides():
    mosaic = scene(60, 80)
    wide = np.zeros((120, 160), np.uint16)
    wide[::2, ::2] = mosaic
    np.testing.assert_array_equal(run(wide[::2, ::2], "GRBG", **LEVELS), run(mosaic, "GRBG", **LEVELS))


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(CFA_ORDERS),
    st.tuples(*[st.integers(0, 4000)] * 3),
    st.tuples(st.integers(3, 40), st.integers(3, 140)),
)
def test_a_constant_colour_is_exact(cfa, colour, half):
    mosaic = np.zeros((2 * half[0], 2 * half[1]), np.uint16)
    for (y, x), count in zip(plane_offsets(cfa), (colour[0], colour[1], colour[1], colour[2]), strict=True):
        mosaic[y::2, x::2] = count
    out = run(mosaic, cfa, [1 / 4000] * 4, [0.0] * 4)
    want = np.sqrt(np.array(colour) / 4000).reshape(3, 1, 1)
    # a colour's own sites, and where it is grey; away from it the other colours bend nothing, as their detail is 0
    np.testing.assert_allclose(out, np.broadcast_to(want, out.shape), rtol=0, atol=3e-7)  # worst 3.5e-8


@pytest.mark.parametrize("cfa", CFA_ORDERS)
def test_measured_sites_are_kept(cfa):
    mosaic = scene(50, 300)
    out = run(mosaic, cfa, **LEVELS)
    site = (np.arange(50)[:, None] % 2) * 2 + np.arange(300) % 2
    root = reference.signed_root(mosaic * np.array(LEVELS["scale"])[site] + np.array(LEVELS["offset"])[site])
    for channel, name in enumerate("RGB"):
        own = np.array(list(cfa))[site] == name
        np.testing.assert_allclose(out[channel][own], root[own], rtol=0, atol=1e-6)  # worst 1.1e-7


@pytest.mark.parametrize(
    "source,red,out,text",
    [
        (np.zeros((7, 8), "u2"), (0, 0), (3, 7, 8), "source must have even sides of 6 or more, got 7 x 8"),
        (np.zeros((4, 8), "u2"), (0, 0), (3, 4, 8), "source must have even sides of 6 or more, got 4 x 8"),
        (np.zeros((8, 8), "f4"), (0, 0), (3, 8, 8), "source must be uint16, got float32"),
        (np.zeros((1, 8, 8), "u2"), (0, 0), (3, 8, 8), "source must have 2 dimensions, got 3"),
        (np.zeros((8, 8), "u2"), (0, 2), (3, 8, 8), r"red must lie at 0 or 1, got \(0, 2\)"),
        (np.zeros((8, 8), "u2"), (0, 0), (4, 8, 8), "destination must have size 3 on axis 0, got 4"),
        (np.zeros((8, 8), "u2"), (0, 0), (3, 8, 9), "destination must have size 8 on axis 2, got 9"),
    ],
)
def test_wrong_arguments_are_named(source, red, out, text):
    with pytest.raises(ValueError, match=f"demosaic: {text}"):
        _C.demosaic(source, list(red), [1.0] * 4, [0.0] * 4, np.empty(out, np.float32))
