"""demosaic on the device beside the CPU's and the formula in float64."""

from __future__ import annotations

import numpy as np
import pytest

import reference
from pyfocus import _C
from pyfocus.errors import ArgumentError
from pyfocus.raw import CFA_ORDERS, plane_offsets
from test_device import on_device, on_host

pytestmark = pytest.mark.cuda
RANDOM = np.random.default_rng(8)
SCALE, OFFSET = [2.1 / 4000, 1 / 4000, 1.1 / 4000, 1.6 / 4000], [-0.13, -0.064, -0.07, -0.1]
EMULATED = _C.device_archs() == "host"


def scene(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    light = 1500 + 900 * np.sin(x / 3.7 + y / 5.1) + 700 * ((x - y) % 23 > 11)
    return np.clip(light + RANDOM.normal(0, 60, (height, width)), 100, 4095).astype(np.uint16)


def check(mosaic: np.ndarray, there: _C.DeviceArray, cfa: str) -> None:
    red = list(plane_offsets(cfa)[0])
    here, out = np.empty((3, *mosaic.shape), np.float32), _C.DeviceArray((3, *mosaic.shape))
    _C.demosaic(mosaic, red, SCALE, OFFSET, here)
    _C.demosaic(there, red, SCALE, OFFSET, out)
    if EMULATED:
        np.testing.assert_array_equal(on_host(out), here)
    np.testing.assert_allclose(on_host(out), here, rtol=0, atol=2e-6)
    want = reference.demosaic(mosaic, cfa, SCALE, OFFSET)
    np.testing.assert_allclose(on_host(out), want, rtol=0, atol=2e-6)


@pytest.mark.parametrize("cfa", CFA_ORDERS)
@pytest.mark.parametrize("size", [(6, 6), (34, 58), (66, 130), (8, 120), (96, 10)])
def test_demosaic_equals_the_cpu(size, cfa):
    mosaic = scene(*size)
    check(mosaic, on_device(mosaic), cfa)


def test_demosaic_of_a_view():
    mosaic = scene(40, 62)
    check(mosaic.T, on_device(mosaic).transpose([1, 0]), "GBRG")


def test_wrong_arguments_are_named():
    mosaic, out = np.zeros((8, 8), np.uint16), np.zeros((3, 8, 8), np.float32)
    device, there = on_device(mosaic), _C.DeviceArray((3, 8, 8))
    for source, red, destination, text in (
        (device, (0, 0), out, "destination must be on the device of the first array, cuda:0, got cpu:0"),
        (mosaic, (0, 0), there, "destination must be on the device of the first array, cpu:0, got cuda:0"),
        (device.part(0, 7), (0, 0), there, "source must have even sides of 6 or more, got 7 x 8"),
        (_C.DeviceArray((8, 8)), (0, 0), there, "source must be uint16, got float32"),
        (device, (0, 2), there, r"red must lie at 0 or 1, got \(0, 2\)"),
        (device, (0, 0), _C.DeviceArray((3, 8, 9)), "destination must have size 8 on axis 2, got 9"),
        (device, (0, 0), there.transpose([0, 2, 1]), "destination must be contiguous"),
    ):
        with pytest.raises(ArgumentError, match=f"demosaic: {text}"):
            _C.demosaic(source, list(red), SCALE, OFFSET, destination)
