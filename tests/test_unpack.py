"""unpack against its formula in float64: the sRGB curve to half a code, clamping, every layout."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reference
from pyfocus import _C
from pyfocus.raw import CFA_ORDERS, plane_offsets


def run(planes, dtype, srgb=True, scale=None, offset=None):
    count, height, width = planes.shape
    out = np.empty((height, width, count), dtype)
    top = float(np.iinfo(dtype).max)
    _C.unpack(planes, out.transpose(2, 0, 1), scale or [top] * count, offset or [0.0] * count, srgb=srgb)
    return out.transpose(2, 0, 1)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_srgb_is_right_to_half_a_code(dtype):
    linear = np.linspace(0, 1, 3 * 400 * 500, dtype=np.float32).reshape(3, 400, 500)
    top = np.iinfo(dtype).max
    want = reference.unpack(linear, [top] * 3, [0] * 3, True, top)
    assert np.abs(run(linear, dtype) - want).max() <= 0.51  # worst 0.5008 at 16 bit: half a code and the curve's table


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_code_comes_back(dtype):
    codes = np.arange(np.iinfo(dtype).max + 1).reshape(1, -1, 256)
    linear = reference.srgb_decode(codes / codes.max()).astype(np.float32)
    np.testing.assert_array_equal(run(linear, dtype), codes)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_what_is_outside_is_clamped(dtype):
    top = np.iinfo(dtype).max
    values = np.array([[[-1e30, -0.5, -1e-9, 0.0, 1.0, 1.0000001, 7.0, 1e30, np.inf, -np.inf, np.nan]]], np.float32)
    want = [0, 0, 0, 0, top, top, top, top, top, 0, 0]
    np.testing.assert_array_equal(run(values, dtype)[0, 0], want)
    np.testing.assert_array_equal(run(values, dtype, srgb=False)[0, 0], want)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_linear_scale_and_offset_per_plane(dtype):
    planes = np.random.default_rng(0).random((4, 37, 53), np.float32) - np.float32(0.1)
    top = np.iinfo(dtype).max
    scale, offset = [top * v for v in (1.2, 0.9, 0.8, 0.5)], [top * v for v in (0.0, 0.1, -0.05, 0.3)]
    want = reference.unpack(planes, scale, offset, False, top)
    got = run(planes, dtype, srgb=False, scale=scale, offset=offset)
    assert np.abs(got - want).max() <= 0.51  # worst 0.504


@pytest.mark.parametrize("cfa", CFA_ORDERS)
def test_mosaic(cfa):
    planes = np.random.default_rng(1).random((4, 20, 33), np.float32)
    out = np.zeros((40, 66), np.uint16)
    _C.unpack(planes, out, [60000.0] * 4, [1024.0] * 4, mosaic=list(plane_offsets(cfa)))
    back = reference.mosaic_planes(out, plane_offsets(cfa))
    assert np.abs(back - (planes * 60000.0 + 1024)).max() <= 0.51


def test_planar_and_strided_destinations():
    planes = np.random.default_rng(2).random((3, 21, 30), np.float32)
    want = run(planes, np.uint8)
    planar, wide = np.empty((3, 21, 30), np.uint8), np.zeros((21, 60, 4), np.uint8)
    for out in (planar, wide.transpose(2, 0, 1)[:3, :, ::2]):
        _C.unpack(planes, out, [255.0] * 3, [0.0] * 3, srgb=True)
        np.testing.assert_array_equal(out, want)
    assert not wide[..., 3].any() and not wide[:, 1::2].any()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1, width=32), min_size=2, max_size=60))
def test_never_falls(values):
    ordered = np.sort(np.array(values, np.float32)).reshape(1, 1, -1)
    assert np.all(np.diff(run(ordered, np.uint16)[0, 0].astype(int)) >= 0)


@pytest.mark.parametrize(
    "source,out,how,text",
    [
        (np.zeros((3, 4, 4), "f8"), (3, 4, 4), {}, "source must be float32, got float64"),
        (np.zeros((3, 4, 8), "f4")[:, :, ::2], (3, 4, 4), {}, "source must be contiguous along its rows"),
        (np.zeros((3, 4, 4), "f4"), (3, 4, 5), {}, "destination must have size 4 on axis 2, got 5"),
        (np.zeros((3, 4, 4), "f4"), (2, 4, 4), {}, "destination must have size 3 on axis 0, got 2"),
        (np.zeros((3, 4, 4), "f4"), (4, 4), {}, "destination must have 3 dimensions, got 2"),
        (np.zeros((3, 4, 4), "f4"), (8, 8), {"mosaic": [(0, 0)] * 2}, r"one value per plane \(3\)"),
        (np.zeros((3, 4, 4), "f4"), (8, 8), {"mosaic": [(0, 2)] * 3}, r"offsets must be 0 or 1, got \(0, 2\)"),
        (np.zeros((3, 4, 4), "f4"), (8, 6), {"mosaic": [(0, 0)] * 3}, "destination must have size 8 on axis 1, got 6"),
    ],
)
def test_wrong_arguments_are_named(source, out, how, text):
    with pytest.raises(ValueError, match=f"unpack: .*{text}"):
        _C.unpack(source, np.empty(out, np.uint8), [255.0] * 3, [0.0] * 3, **how)


def test_other_destination_dtypes_are_refused():
    with pytest.raises(ValueError, match="unpack: destination must be uint8 or uint16, got float32"):
        _C.unpack(np.zeros((1, 2, 2), "f4"), np.zeros((1, 2, 2), "f4"), [1.0], [0.0])
