"""unpack on the device beside the CPU's and the formula in float64."""

from __future__ import annotations

import numpy as np
import pytest

import reference
from pyfocus import _C
from pyfocus.errors import ArgumentError
from pyfocus.raw import CFA_ORDERS, plane_offsets
from test_device import on_device, on_host

pytestmark = pytest.mark.cuda
RANDOM = np.random.default_rng(9)
EMULATED = _C.device_archs() == "host"


def same_codes(there: np.ndarray, here: np.ndarray) -> None:
    """The emulated device rounds as the CPU does; a real one may tip over where a value lies between two codes."""
    assert np.abs(there.astype(int) - here.astype(int)).max(initial=0) <= (0 if EMULATED else 1)


def run(planes, there, shape, order, dtype, how):
    """What the CPU and the device write into arrays of ``shape``, seen as planes by ``order``."""
    here, out = np.zeros(shape, dtype), on_device(np.zeros(shape, dtype))
    _C.unpack(planes, here.transpose(order), **how)
    _C.unpack(there, out.transpose(order), **how)
    same_codes(on_host(out), here)
    return on_host(out).transpose(order)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("srgb", [True, False])
@pytest.mark.parametrize(("count", "size"), [(1, (1, 1)), (2, (9, 131)), (3, (19, 257)), (4, (8, 128)), (3, (1, 5))])
def test_interleaved_and_planar_equal_the_cpu(count, size, srgb, dtype):
    top = float(np.iinfo(dtype).max)
    planes = (RANDOM.random((count, *size)) * 1.3 - 0.1).astype(np.float32)
    how = {"scale": [top, 0.9 * top, 0.5 * top, top][:count], "offset": [0.0, 0.1 * top, 3.0, 0.0][:count]}
    want = reference.unpack(planes, how["scale"], how["offset"], srgb, int(top))
    how["srgb"] = srgb
    height, width = size
    for shape, order in (
        ((height, width, count), [2, 0, 1]),
        ((count, height, width), [0, 1, 2]),
        ((width, count, height), [1, 2, 0]),
    ):
        got = run(planes, on_device(planes), shape, order, dtype, how)
        assert np.abs(got - want).max() <= 0.51  # half a code and the curve's table


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_crop_and_a_wider_destination(dtype):
    whole = RANDOM.random((3, 30, 40), np.float32)
    there = on_device(whole.transpose(1, 0, 2).copy()).part(4, 21).transpose([1, 0, 2])
    top = float(np.iinfo(dtype).max)
    how = {"scale": [top] * 3, "offset": [0.0] * 3, "srgb": True}
    run(whole[:, 4:21], there, (17, 40, 3), [2, 0, 1], dtype, how)
    here, out = np.zeros((17, 40, 4), dtype), on_device(np.zeros((4, 17, 40), dtype)).transpose([1, 2, 0])
    _C.unpack(whole[:, 4:21], here.transpose(2, 0, 1)[:3], **how)
    _C.unpack(there, out.transpose([2, 0, 1]).part(0, 3), **how)
    same_codes(on_host(out.transpose([2, 0, 1])), here.transpose(2, 0, 1))


@pytest.mark.parametrize("cfa", CFA_ORDERS)
def test_mosaic(cfa):
    planes = RANDOM.random((4, 20, 33), np.float32)
    here, out = np.zeros((40, 66), np.uint16), _C.DeviceArray((40, 66), "uint16")
    how = {"scale": [60000.0] * 4, "offset": [1024.0] * 4, "mosaic": list(plane_offsets(cfa))}
    _C.unpack(planes, here, **how)
    _C.unpack(on_device(planes), out, **how)
    same_codes(on_host(out), here)
    back = reference.mosaic_planes(on_host(out), plane_offsets(cfa))
    assert np.abs(back - (planes * 60000.0 + 1024)).max() <= 0.51


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_value_has_a_code(dtype):
    top = np.iinfo(dtype).max
    values = np.array([[[-1e30, -0.5, -1e-9, 0.0, 1.0, 1.0000001, 7.0, 1e30, np.inf, -np.inf, np.nan]]], np.float32)
    for srgb in (True, False):
        out = _C.DeviceArray(values.shape, np.dtype(dtype).name)
        _C.unpack(on_device(values), out, [float(top)], [0.0], srgb=srgb)
        np.testing.assert_array_equal(on_host(out)[0, 0], [0, 0, 0, 0, top, top, top, top, top, 0, 0])


def test_wrong_arguments_are_named():
    planes, out = np.zeros((3, 4, 4), np.float32), np.zeros((3, 4, 4), np.uint8)
    device, there = on_device(planes), _C.DeviceArray((3, 4, 4), "uint8")
    for source, destination, how, text in (
        (device, out, {}, "destination must be on the device of the first array, cuda:0, got cpu:0"),
        (planes, there, {}, "destination must be on the device of the first array, cpu:0, got cuda:0"),
        (device.transpose([0, 2, 1]), there, {}, "source must be contiguous along its rows"),
        (device, _C.DeviceArray((3, 4, 4)), {}, "destination must be uint8 or uint16, got float32"),
        (device, _C.DeviceArray((3, 4, 5), "uint8"), {}, "destination must have size 4 on axis 2, got 5"),
        (device, there, {"mosaic": [(0, 0)] * 3}, "destination must have 2 dimensions, got 3"),
    ):
        with pytest.raises(ArgumentError, match=f"unpack: {text}"):
            _C.unpack(source, destination, [255.0] * 3, [0.0] * 3, **how)
