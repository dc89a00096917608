"""thin against slices, on the CPU and on the device."""

from __future__ import annotations

import numpy as np
import pytest

from pyfocus import _C
from pyfocus.errors import ArgumentError
from test_device import on_device, on_host

RANDOM = np.random.default_rng(2)
SHAPES = [(1, 1), (37, 70), (2, 19, 41), (3, 1, 100), (4, 33, 32), (0, 3, 3), (5, 0)]
STEPS = [(1, 1), (2, 3), (7, 1), (40, 200), (1 << 40, 1 << 40)]


def values(shape, dtype):
    return (RANDOM.random(shape) * 255).astype(dtype)


def size_of(shape, steps):
    return (*shape[:-2], -(-shape[-2] // steps[0]), -(-shape[-1] // steps[1]))


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("steps", STEPS)
def test_thin_is_a_slice(steps, shape, dtype):
    source = values(shape, dtype)
    out = np.empty(size_of(shape, steps), dtype)
    _C.thin(source, *steps, out)
    np.testing.assert_array_equal(out, source[..., :: steps[0], :: steps[1]])


def test_any_strides_and_any_number_of_threads():
    wide = values((60, 90, 3), "float32")
    for source in (wide.transpose(2, 0, 1), wide[::-1, ::2, 0], wide[5:, :, 1].T):
        want = source[..., ::3, ::2]
        for threads in (1, 3):
            out = np.empty(want.shape, np.float32)
            _C.thin(source, 3, 2, out, threads=threads)
            np.testing.assert_array_equal(out, want)


@pytest.mark.parametrize(
    "source,steps,out,text",
    [
        (np.zeros((4, 4), "u2"), (1, 1), np.zeros((4, 4), "u2"), "source must be uint8 or float32, got uint16"),
        (np.zeros(4, "f4"), (1, 1), np.zeros(4, "f4"), r"source must be \(H, W\) or \(C, H, W\), got 1 dimensions"),
        (np.zeros((4, 4), "f4"), (0, 1), np.zeros((4, 4), "f4"), "steps must be 1 or more, got 0 and 1"),
        (np.zeros((4, 4), "f4"), (1, -2), np.zeros((4, 4), "f4"), "steps must be 1 or more, got 1 and -2"),
        (np.zeros((4, 4), "f4"), (1, 1), np.zeros((4, 4), "u1"), "destination must be float32, got uint8"),
        (np.zeros((4, 4), "f4"), (1, 1), np.zeros((1, 4, 4), "f4"), "destination must have 2 dimensions, got 3"),
        (np.zeros((5, 4), "f4"), (2, 1), np.zeros((2, 4), "f4"), "destination must have size 3 on axis 0, got 2"),
        (np.zeros((5, 5), "f4"), (2, 2), np.zeros((3, 2), "f4"), "destination must have size 3 on axis 1, got 2"),
        (np.zeros((2, 5, 5), "f4"), (1, 1), np.zeros((3, 5, 5), "f4"), "destination must have size 2 on axis 0, got 3"),
        (np.zeros((4, 4), "f4"), (1, 1), np.zeros((4, 8), "f4")[:, ::2], "destination must be contiguous"),
        (np.zeros((4, 4), "f4"), (1, 1), np.broadcast_to(np.float32(0), (4, 4)), "destination"),
    ],
)
def test_wrong_arguments_are_named(source, steps, out, text):
    with pytest.raises(ArgumentError, match=f"thin: {text}"):
        _C.thin(source, *steps, out)


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("steps", STEPS)
def test_thin_on_the_device(steps, shape, dtype):
    source = values(shape, dtype)
    out = _C.DeviceArray(size_of(shape, steps), dtype)
    _C.thin(on_device(source), *steps, out)
    np.testing.assert_array_equal(on_host(out), source[..., :: steps[0], :: steps[1]])


@pytest.mark.cuda
def test_thin_on_the_device_of_a_view_and_its_errors():
    source = values((40, 50, 3), "float32")
    there, out = on_device(source).transpose([2, 0, 1]), _C.DeviceArray((3, 8, 17))
    _C.thin(there, 5, 3, out)
    np.testing.assert_array_equal(on_host(out), source.transpose(2, 0, 1)[:, ::5, ::3])
    with pytest.raises(ArgumentError, match="thin: destination must be on the device of the first array, cuda:0"):
        _C.thin(there, 5, 3, np.empty((3, 8, 17), np.float32))
    with pytest.raises(ArgumentError, match="thin: destination must have size 8 on axis 1, got 7"):
        _C.thin(there, 5, 3, _C.DeviceArray((3, 7, 17)))
