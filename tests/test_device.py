"""Device arrays, copies, streams and events, on a real CUDA device or on the emulated one."""

from __future__ import annotations

import numpy as np
import pytest

from pyfocus import _C
from pyfocus.errors import ArgumentError, ResourceError

pytestmark = pytest.mark.cuda


def on_device(array: np.ndarray) -> _C.DeviceArray:
    there = _C.DeviceArray(array.shape, str(array.dtype))
    _C.device_copy(there, array)
    return there


def on_host(array: _C.DeviceArray) -> np.ndarray:
    here = np.empty(array.shape, array.dtype)
    _C.device_copy(here, array)
    return here


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32", "float64"])
def test_what_is_copied_there_comes_back(dtype):
    values = np.arange(2 * 3 * 5).reshape(2, 3, 5).astype(dtype)
    there = on_device(values)
    assert there.shape == (2, 3, 5) and there.dtype == dtype and there.nbytes == values.nbytes
    np.testing.assert_array_equal(on_host(there), values)
    np.testing.assert_array_equal(on_host(there.reshape([5, 6])), values.reshape(5, 6))
    np.testing.assert_array_equal(on_host(there.part(1, 2)), values[1:2])


def test_fill_sets_every_byte():
    there = _C.DeviceArray((7, 3), "uint16")
    _C.device_fill(there, 0x11)
    assert (on_host(there) == 0x1111).all()


def test_views_keep_the_memory_alive_and_nothing_is_left_behind():
    before = _C.device_in_use()
    there = on_device(np.arange(12, dtype=np.float32).reshape(3, 4))
    part = there.part(2, 3)
    del there
    np.testing.assert_array_equal(on_host(part), [[8, 9, 10, 11]])
    assert _C.device_in_use() == before + 48
    capsule = part.__dlpack__()
    del part
    assert _C.device_in_use() == before + 48
    del capsule
    assert _C.device_in_use() == before


def test_transposed_views_are_read_where_they_lie():
    picture = np.random.default_rng(1).random((6, 5, 3), np.float32)
    planes = on_device(picture).transpose([2, 0, 1])
    assert planes.shape == (3, 6, 5)
    out = _C.DeviceArray((6, 5))
    _C.luminance(planes, [0.2, 0.3, 0.5], out)
    np.testing.assert_allclose(on_host(out), picture @ np.array([0.2, 0.3, 0.5]), rtol=1e-6)
    with pytest.raises(ArgumentError, match="must be contiguous"):
        planes.reshape([90])
    with pytest.raises(ArgumentError, match="must be contiguous"):
        on_host(planes)
    with pytest.raises(ArgumentError, match="each axis once"):
        planes.transpose([0, 0, 1])


def test_pinned_memory_is_an_array():
    pinned = _C.PinnedArray((3, 4), "uint16")
    view = np.asarray(pinned)
    view[...] = 7
    there = _C.DeviceArray((3, 4), "uint16")
    stream, start, end = _C.Stream(), _C.Event(), _C.Event()
    stream.record(start)
    _C.device_copy(there, view, stream=stream.handle)
    stream.record(end)
    stream.wait(end)
    stream.synchronize()
    end.synchronize()
    assert end.milliseconds_since(start) >= 0
    assert (on_host(there) == 7).all()


def test_wrong_calls_say_what_is_wrong():
    there, here = _C.DeviceArray((4,)), np.zeros(4, np.float32)
    for call, text in (
        (lambda: _C.device_copy(here, here), "one of the arrays must be on a device"),
        (lambda: _C.device_copy(there, here[:3]), "as many elements as the source, 3, got 4"),
        (lambda: _C.device_copy(there, here.astype(np.float64)), "must be float64 like the source, got float32"),
        (lambda: _C.device_copy(there, np.zeros(8, np.float32)[::2]), "source must be contiguous"),
        (lambda: _C.device_fill(here), "must be on a device"),
        (lambda: _C.device_fill(there, 256), "byte must be 0 to 255, got 256"),
        (lambda: _C.DeviceArray((-1,)), "sizes must not be negative"),
        (lambda: _C.DeviceArray((1 << 30, 1 << 30)), "more than 2^40 elements"),
        (lambda: _C.DeviceArray((1,), "complex64"), "got complex64"),
        (lambda: there.part(3, 5), "must lie within the 4 rows"),
        (lambda: there.reshape((5,)), "as many elements as before, 4, got 5"),
        (lambda: _C.device_facts(99), "device must be 0"),
        (lambda: _C.luminance(np.zeros((1, 4, 4), np.float32), [1.0], _C.DeviceArray((4, 4))), "cpu:0, got cuda:0"),
    ):
        with pytest.raises(ArgumentError, match=text.replace("^", r"\^")):
            call()


def test_too_much_memory_is_one_error_and_leaves_nothing():
    before = _C.device_in_use()
    _C.device_limit(before + 1000)
    try:
        with pytest.raises(ResourceError, match="out of memory on device 0"):
            _C.DeviceArray((1 << 38,), "float64")
    finally:
        _C.device_limit(0)
    assert _C.device_in_use() == before


def test_mapped_arrays_are_the_hosts_and_kernels_take_them():
    before, mapped = _C.device_in_use(), _C.mapped_in_use()
    picture = np.random.default_rng(1).random((3, 6, 5), np.float32)
    source, out = _C.DeviceArray((3, 6, 5), mapped=True), _C.DeviceArray((6, 5), mapped=True)
    assert source.mapped and not _C.DeviceArray((1,)).mapped
    assert source.device == 0 and source.reshape([18, 5]).mapped and source.__dlpack_device__() == (2, 0)
    assert _C.device_in_use() == before and _C.mapped_in_use() == mapped + 4 * 6 * 5 * 4
    _C.device_copy(source, picture)
    _C.luminance(source, [0.2, 0.3, 0.5], out)
    expected = np.tensordot(np.array([0.2, 0.3, 0.5]), picture.astype(np.float64), 1)
    np.testing.assert_allclose(on_host(out), expected, rtol=1e-6)
    there = _C.DeviceArray((6, 5))
    _C.device_copy(there, out)
    _C.device_fill(out, 0)
    assert not on_host(out).any() and np.allclose(on_host(there), expected)
    part = source.part(1, 2)
    del source, out, there
    np.testing.assert_array_equal(on_host(part), picture[1:2])
    assert _C.mapped_in_use() == mapped + picture.nbytes
    del part
    assert (_C.device_in_use(), _C.mapped_in_use()) == (before, mapped)


def test_mapped_arrays_do_not_count_as_device_memory():
    if _C.device_archs() != "host":
        pytest.skip("a real device's memory cannot be made to run out here")
    _C.device_limit(_C.device_in_use() + 100)
    try:
        assert _C.DeviceArray((1000,), mapped=True).nbytes == 4000
        with pytest.raises(ResourceError, match="out of memory on device 0"):
            _C.DeviceArray((1000,))
    finally:
        _C.device_limit(0)
