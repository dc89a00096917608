"""luminance against its formula in float64: every dtype, layout, factor and encoding."""

from __future__ import annotations

import numpy as np
import pytest

import reference
from pyfocus import _C
from pyfocus.burst import Frame, Meta
from pyfocus.errors import ArgumentError
from pyfocus.planes import luminance
from pyfocus.raw import CFA_ORDERS, plane_offsets

WEIGHTS = [0.25, 0.65, 0.1]


def run(source, weights, factor, size, square_root=False, **how):
    out = np.empty((size[0] // factor, size[1] // factor), np.float32)
    _C.luminance(source, weights, out, factor=factor, square_root=square_root, **how)
    return out


@pytest.mark.parametrize("factor", [1, 2, 3, 7, 64])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("square_root", [False, True])
def test_values_are_the_formula(dtype, factor, square_root):
    random = np.random.default_rng(0)
    image = random.random((133, 197, 3)).astype(np.float32) - np.float32(0.2)
    if dtype != np.float32:
        image = random.integers(0, np.iinfo(dtype).max, image.shape, dtype, endpoint=True)
    full = 1.0 if dtype == np.float32 else float(np.iinfo(dtype).max)
    how = {"scale": [1 / full, 1.1 / full, 0.9 / full], "offset": [0.0, -0.3, 0.02]}
    for source in (image.transpose(2, 0, 1), np.ascontiguousarray(image.transpose(2, 0, 1))):
        want = reference.luminance(reference.values_of(source, **how), WEIGHTS, factor, square_root)
        got = run(source, WEIGHTS, factor, (133, 197), square_root, **how)
        # worst 1.8e-7; the root is steep at 0: compared squared
        np.testing.assert_allclose(*((got**2, want**2) if square_root else (got, want)), rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_table(dtype):
    table = np.linspace(0, 1, np.iinfo(dtype).max + 1, dtype=np.float32) ** 2
    source = np.random.default_rng(1).integers(0, np.iinfo(dtype).max, (2, 40, 50), dtype, endpoint=True)
    want = reference.luminance(reference.values_of(source, table), [1.0, -0.5], 3, False)
    np.testing.assert_allclose(run(source, [1.0, -0.5], 3, (40, 50), table=table), want, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("cfa", CFA_ORDERS)
def test_mosaic(cfa):
    mosaic, offsets = np.random.default_rng(2).integers(0, 4096, (62, 90)).astype(np.uint16), list(plane_offsets(cfa))
    want = reference.luminance(reference.mosaic_planes(mosaic, offsets) / 4095, [0.25, 0.3, 0.35, 0.1], 2, True)
    got = run(mosaic, [0.25, 0.3, 0.35, 0.1], 2, (31, 45), True, mosaic=offsets, scale=[1 / 4095] * 4)
    np.testing.assert_allclose(got, want, rtol=2e-6)


def test_of_a_frame_is_the_root_of_linear_light():
    image = np.random.default_rng(3).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    linear = reference.srgb_decode(image / 255).transpose(2, 0, 1)
    np.testing.assert_allclose(luminance(Frame(image), 2), reference.luminance(linear, WEIGHTS, 2, True), rtol=5e-6)
    grey = luminance(Frame(image[:, :, 0]))
    np.testing.assert_allclose(grey, np.sqrt(linear[0]), rtol=5e-6)
    mosaic = np.random.default_rng(4).integers(600, 4000, (40, 60)).astype(np.uint16)
    meta = Meta(cfa="RGGB", black=(512.0,) * 4, white=4095.0, white_balance=(2.0, 1.0, 1.5))
    planes = reference.mosaic_planes(mosaic, plane_offsets("RGGB"))
    planes = (planes - 512) / (4095 - 512) * np.reshape([2, 1, 1, 1.5], (4, 1, 1))
    # from blocks of 3 on, every second row of a block counts
    light = np.tensordot([0.25, 0.325, 0.325, 0.1], planes, axes=1)[:20, :28].reshape(5, 4, 7, 4)
    want = np.sqrt(np.maximum(light[:, ::2].mean(axis=(1, 3)), 0))
    np.testing.assert_allclose(luminance(Frame(mosaic, meta), 4), want, rtol=5e-6)


@pytest.mark.parametrize("factor,step", [(3, 2), (4, 2), (5, 3), (4, 4)])
@pytest.mark.parametrize("interleaved", [True, False])
def test_rows_may_be_left_out(factor, step, interleaved):
    image = np.random.default_rng(7).integers(0, 65536, (37, 53, 3)).astype(np.uint16)
    source = image.transpose(2, 0, 1) if interleaved else np.ascontiguousarray(image.transpose(2, 0, 1))
    table = np.linspace(0, 1, 65536, dtype=np.float32)
    h, w = 37 // factor, 53 // factor
    light = (image / 65535 @ np.array(WEIGHTS))[: h * factor, : w * factor].reshape(h, factor, w, factor)
    out = np.empty((h, w), np.float32)
    _C.luminance(source, list(WEIGHTS), out, factor=factor, row_step=step, table=table)
    np.testing.assert_allclose(out, light[:, ::step].mean(axis=(1, 3)), rtol=2e-6)
    with pytest.raises(ArgumentError, match=f"row_step must be 1 to the factor, {factor}, got {factor + 1}"):
        _C.luminance(source, list(WEIGHTS), out, factor=factor, row_step=factor + 1, table=table)


@pytest.mark.parametrize(
    "source,weights,factor,out,text",
    [
        (np.zeros((3, 8, 8), "f4"), WEIGHTS, 0, (8, 8), "factor must be 1 to 64, got 0"),
        (np.zeros((3, 99, 99), "f4"), WEIGHTS, 65, (1, 1), "factor must be 1 to 64, got 65"),
        (np.zeros((3, 8, 8), "f4"), WEIGHTS[:2], 1, (8, 8), r"weights must have one value per plane \(3\), got 2"),
        (np.zeros((3, 8, 8), "f4"), WEIGHTS, 2, (4, 5), "destination must have size 4 on axis 1, got 5"),
        (np.zeros((3, 8, 8), "f8"), WEIGHTS, 1, (8, 8), "source must be uint8, uint16 or float32, got float64"),
        (np.zeros((5, 8, 8), "f4"), [1.0] * 5, 1, (8, 8), "source must have 1 to 4 planes, got 5"),
        (np.zeros((3, 0, 8), "f4"), WEIGHTS, 1, (0, 8), "source must not be empty, got 0 x 8"),
    ],
)
def test_wrong_arguments_are_named(source, weights, factor, out, text):
    with pytest.raises(ValueError, match=f"luminance: {text}"):
        _C.luminance(source, weights, np.empty(out, np.float32), factor=factor)
