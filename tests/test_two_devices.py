"""What belongs to another device, of every function that takes a stream: an array, a stream; on two real or emulated
devices. With one card these tests skip and say so.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pyfocus import _C
from pyfocus.arrays import arrays_of
from pyfocus.errors import ArgumentError
from test_device import on_host

pytestmark = pytest.mark.cuda
H, W = 12, 18
LOW = (H // 2, W // 2)
Make = Callable[..., Any]


@pytest.fixture(autouse=True)
def two_devices() -> None:
    if _C.device_count() < 2:
        pytest.skip(f"two devices are needed, there are {_C.device_count()}")


class Maker:
    """Makes a call's arrays, zeros, on ``device``, but number ``astray`` on the other one; ``made`` counts them."""

    def __init__(self, device: int, astray: int | None = None) -> None:
        self.device, self.astray, self.made = device, astray, 0

    def __call__(self, *shape: int, dtype: str = "float32") -> _C.DeviceArray:
        array = _C.DeviceArray(shape, dtype, self.device ^ (self.made == self.astray))
        self.made += 1
        _C.device_fill(array)
        return array


def call_ecc(a: Make, **on: int) -> None:
    chunks, count = _C.ecc_chunk_count(H, W, 1, True), _C.ecc_sum_count(6)
    matrix = a(3, 3, dtype="float64")
    workspace, sums = a(chunks, count, dtype="float64"), a(count, dtype="float64")
    _C.ecc(a(H, W), a(H, W), matrix, 6, workspace, sums, a(H, W, dtype="uint8"), **on)


def call_ecc_maximise(a: Make, **on: int) -> None:
    chunks, count = _C.ecc_chunk_count(H, W, 1, True), _C.ecc_sum_count(6)
    state, workspace = a(_C.ECC_STATE_SIZE, dtype="float64"), a(chunks, count, dtype="float64")
    _C.ecc_maximise(a(H, W), a(H, W), state, 2, 1, workspace, a(H, W, dtype="uint8"), **on)


def call_deform_conv(a: Make, **on: int) -> None:
    image, weight = a(1, 4, H, W), a(5, 4, 3, 3)
    scratch = a(_C.deform_conv_workspace(image, weight, pad=[1, 1]), dtype="uint8")
    offset, mask = a(1, 18, H, W), a(1, 9, H, W)
    _C.deform_conv(image, weight, offset, mask, a(5), a(1, 5, H, W), scratch, pad=[1, 1], **on)


def call_deform_conv_backward(a: Make, **on: int) -> None:
    image, weight = a(1, 4, H, W), a(5, 4, 3, 3)
    scratch = a(_C.deform_conv_workspace(image, weight, pad=[1, 1], backward=True), dtype="uint8")
    gradients = a(1, 4, H, W), a(1, 18, H, W), a(1, 9, H, W), a(5, 4, 3, 3), a(5)
    upstream, offset, mask = a(1, 5, H, W), a(1, 18, H, W), a(1, 9, H, W)
    _C.deform_conv_backward(upstream, image, weight, offset, mask, *gradients, scratch, pad=[1, 1], **on)


MAPS = np.stack([np.eye(3)] * 3)
CALLS: dict[str, Callable[..., None]] = {
    "warp": lambda a, **on: _C.warp(
        a(3, H, W, dtype="uint8"), MAPS, a(3, H, W), a(H, W, dtype="uint8"), table=a(256), **on
    ),
    "luminance": lambda a, **on: _C.luminance(a(1, H, W, dtype="uint8"), [1.0], a(H, W), table=a(256), **on),
    "demosaic": lambda a, **on: _C.demosaic(a(H, W, dtype="uint16"), [0, 0], [1.0] * 4, [0.0] * 4, a(3, H, W), **on),
    "unpack": lambda a, **on: _C.unpack(a(1, H, W), a(1, H, W, dtype="uint8"), [1.0], [0.0], **on),
    "thin": lambda a, **on: _C.thin(a(1, H, W), 2, 2, a(1, *LOW), **on),
    "tile_gather": lambda a, **on: _C.tile_gather(a(1, H, W), a(2, 2, dtype="int32"), a(2, 1, 4, 4), **on),
    "tile_scatter": lambda a, **on: _C.tile_scatter(
        a(2, 1, 4, 4), a(2, 2, dtype="int32"), a(4, 4), a(1, H, W), a(H, W), **on
    ),
    "tile_divide": lambda a, **on: _C.tile_divide(a(1, H, W), a(H, W), **on),
    "pyramid_down": lambda a, **on: _C.pyramid_down(a(3, H, W), a(3, *LOW), a(3, *LOW), **on),
    "pyramid_up": lambda a, **on: _C.pyramid_up(a(3, *LOW), a(3, H, W), 1.0, a(3, H, W), **on),
    "pyramid_smooth": lambda a, **on: _C.pyramid_smooth(a(H, W), a(H, W), **on),
    "pyramid_energy": lambda a, **on: _C.pyramid_energy(a(3, H, W), a(3, *LOW), a(*LOW), **on),
    "pyramid_measure": lambda a, **on: _C.pyramid_measure(a(3, H, W), a(3, *LOW), a(*LOW), **on),
    "pyramid_rate": lambda a, **on: _C.pyramid_rate(
        a(H, W), a(3, H, W), a(H, W, dtype="uint8"), 1.0, 1.0, a(H, W), a(H, W), a(H, W), a(*LOW), 1.0, **on
    ),
    "pyramid_fold": lambda a, **on: _C.pyramid_fold(
        a(3, H, W), a(3, *LOW), a(*LOW), a(*LOW), a(*LOW), 4, a(3, H, W), a(H, W), **on
    ),
    "pyramid_collapse": lambda a, **on: _C.pyramid_collapse(a(3, H, W), a(H, W), a(3, *LOW), a(3, H, W), **on),
    "pyramid_valid": lambda a, **on: _C.pyramid_valid(a(H, W, dtype="uint8"), a(*LOW, dtype="uint8"), **on),
    "pyramid_base": lambda a, **on: _C.pyramid_base(a(3, H, W), a(H, W), a(3, H, W), a(H, W), **on),
    "pyramid_depth": lambda a, **on: _C.pyramid_depth(
        a(H, W), a(H, W), a(H, W), 1.0, a(H, W), a(H, W), a(H, W), a(H, W, dtype="int32"), **on
    ),
    "pyramid_mean": lambda a, **on: _C.pyramid_mean(a(3, H, W), a(H, W), a(3, H, W), **on),
    "wavelet_measure": lambda a, **on: _C.wavelet_measure(a(3, H, W), a(6, *LOW), a(*LOW), **on),
    "wavelet_fold": lambda a, **on: _C.wavelet_fold(
        a(3, H, W), a(*LOW), a(*LOW), a(*LOW), 4, a(3, 6, *LOW), a(*LOW), **on
    ),
    "wavelet_merge": lambda a, **on: _C.wavelet_merge(a(6, *LOW), a(3, 6, *LOW), a(*LOW), a(3, H, W), **on),
    "wavelet_pool": lambda a, **on: _C.wavelet_pool(a(H, W), a(*LOW), 1.0, a(*LOW), **on),
    "wavelet_spread": lambda a, **on: _C.wavelet_spread(a(*LOW), a(H, W), 1.0, a(H, W), **on),
    "wavelet_valid": lambda a, **on: _C.wavelet_valid(a(H, W, dtype="uint8"), a(*LOW, dtype="uint8"), **on),
    "agree_residual": lambda a, **on: _C.agree_residual(a(H, W), a(H, W), 1.0, 0.0, a(H, W), **on),
    "agree_mask": lambda a, **on: _C.agree_mask(a(*LOW), 1.0, a(H, W, dtype="uint8"), **on),
    "ecc": call_ecc,
    "ecc_maximise": call_ecc_maximise,
    "deform_conv": call_deform_conv,
    "deform_conv_backward": call_deform_conv_backward,
    "device_copy": lambda a, **on: _C.device_copy(a(H, W), np.ones((H, W), np.float32), **on),
    "device_fill": lambda a, **on: _C.device_fill(a(H, W), 1, **on),
}


def test_these_are_all_functions_that_take_a_stream():
    taking = {name for name in dir(_C) if re.search(r"\bstream: ", getattr(_C, name).__doc__ or "")}
    assert taking == set(CALLS)


@pytest.mark.parametrize("device", [0, 1])
@pytest.mark.parametrize("name", CALLS)
def test_a_stream_of_the_other_device_is_refused_and_one_of_the_own_taken(name, device):
    own, other = _C.Stream(device), _C.Stream(1 - device)
    text = f"^{name}: stream must be of the device of the arrays, cuda:{device}, got one of cuda:{1 - device}$"
    with pytest.raises(ArgumentError, match=text):
        CALLS[name](Maker(device), stream=other.handle)
    CALLS[name](Maker(device), stream=own.handle)
    own.synchronize()
    CALLS[name](Maker(device))
    for default in (1, 2):  # CUDA's handles of the two default streams, which every device has
        CALLS[name](Maker(device), stream=default)


@pytest.mark.parametrize("name", [name for name in CALLS if not name.startswith("device_")])  # those take any device
def test_each_array_on_the_other_device_is_refused(name):
    whole = Maker(0)
    CALLS[name](whole)
    assert whole.made > 1
    text = rf"^({name}|deform_conv_workspace): \w+ must be on the device of the first array, cuda:[01], got cuda:[01]$"
    for astray in range(whole.made):
        with pytest.raises(ArgumentError, match=text):
            CALLS[name](Maker(0, astray))


def test_what_is_computed_on_the_second_device_is_right():
    picture = np.random.default_rng(2).random((3, H, W), np.float32)
    arrays = arrays_of("cuda:1")
    there, out = arrays.upload(picture), arrays.empty((H, W))
    assert there.device == out.device == arrays.queue.device == 1
    _C.luminance(there, [0.2, 0.3, 0.5], out, stream=arrays.stream)
    expected = np.tensordot(np.array([0.2, 0.3, 0.5]), picture.astype(np.float64), 1)
    np.testing.assert_allclose(arrays.to_host(out), expected, rtol=1e-6)


def test_copies_from_device_to_device_go_on_a_stream_of_the_destinations():
    values = np.random.default_rng(3).random((H, W), np.float32)
    first, second = arrays_of("cuda:0"), arrays_of("cuda:1")
    there, beyond = first.upload(values), second.empty((H, W))
    first.wait()
    with pytest.raises(ArgumentError, match="device_copy: stream must be of the device of the arrays, cuda:1, got one"):
        _C.device_copy(beyond, there, stream=first.stream)
    _C.device_copy(beyond, there, stream=second.stream)
    np.testing.assert_array_equal(second.to_host(beyond), values)


def test_events_keep_to_their_device_and_streams_wait_for_any():
    here, there = _C.Stream(0), _C.Stream(1)
    mine, yours = _C.Event(0), _C.Event(1)
    with pytest.raises(ArgumentError, match=r"^Stream\.record: event must be of the same device, cuda:0, got"):
        here.record(yours)
    here.record(mine)
    there.record(yours)
    with pytest.raises(ArgumentError, match=r"^Event\.milliseconds_since: start must be of the same device, cuda:1"):
        yours.milliseconds_since(mine)
    there.wait(mine)
    there.synchronize()


def test_a_thousand_refused_calls_leave_nothing():
    a, other = Maker(0), _C.Stream(1)
    picture, out, astray = a(1, H, W), a(H, W), Maker(1)(H, W)
    before = _C.device_in_use(), _C.mapped_in_use()
    for _ in range(1000):
        with pytest.raises(ArgumentError, match="luminance: stream must be"):
            _C.luminance(picture, [1.0], out, stream=other.handle)
        with pytest.raises(ArgumentError, match="luminance: destination must be on the device"):
            _C.luminance(picture, [1.0], astray)
        with pytest.raises(ArgumentError, match="deform_conv: stream must be"):
            CALLS["deform_conv"](a, stream=other.handle)
    assert (_C.device_in_use(), _C.mapped_in_use()) == before
    _C.device_fill(picture, 0x11)
    _C.luminance(picture, [2.0], out)
    value = np.array([0x11111111], np.uint32).view(np.float32)[0]
    np.testing.assert_array_equal(on_host(out), np.full((H, W), 2 * value))
