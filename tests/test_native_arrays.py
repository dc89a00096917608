"""Arrays that cross into the native functions through DLPack: which are taken, and what the others are told."""

from __future__ import annotations

import ctypes
import gc
import sys

import numpy as np
import pytest
from native_cases import BEFORE, COARSE, COUNTS, LOW, MAPS, MASK, MOSAIC, PLANES, RANDOM, RATING, TABLE, H, W

from pyfocus import _C
from pyfocus.errors import ArgumentError, ResourceError

# --- arrays in ---------------------------------------------------------


class Legacy:
    """A producer older than DLPack 1.0: no max_version."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack__(self):
        return self.array.__dlpack__()


def shrink(source, out=None):
    out = np.empty((2, 2), np.float32) if out is None else out
    _C.pyramid_down(source, out)
    return out


def test_old_and_new_dlpack_producers_give_the_same():
    plane = RANDOM.random((4, 4), np.float32)
    np.testing.assert_array_equal(shrink(Legacy(plane)), shrink(plane))
    out = np.empty((2, 2), np.float32)
    shrink(plane, Legacy(out))
    np.testing.assert_array_equal(out, shrink(plane))


@pytest.mark.parametrize(
    "thing,error,text",
    [
        ([[1.0]], TypeError, r"expected an array with __dlpack__ \(NumPy, torch, CuPy\), got list"),
        (None, TypeError, "expected an array with __dlpack__"),
        (np.zeros((4, 4), np.complex64), TypeError, "expected uint8, uint16, int32, float32 or float64 elements"),
        (np.zeros((4, 4), np.int64), TypeError, "expected uint8, uint16, int32, float32 or float64 elements"),
        (np.zeros((1, 1, 1, 4, 4), np.float32), ValueError, "expected at most 4 dimensions, got 5"),
        (np.float32(1), TypeError, "expected an array with __dlpack__"),
    ],
)
def test_what_is_no_array_for_us_is_refused(thing, error, text):
    with pytest.raises(error, match=text):
        shrink(thing)


def test_a_producer_that_returns_no_capsule():
    class Wrong:
        def __dlpack__(self, **_):
            return 7

    with pytest.raises((TypeError, ValueError)):
        shrink(Wrong())


def test_refused_arrays_are_let_go():
    for array in (np.zeros((4, 4), np.complex64), np.zeros((1,) * 5, np.float32)):
        for producer in (array, Legacy(array)):
            before = sys.getrefcount(array)
            for _ in range(3):
                with pytest.raises((TypeError, ValueError)):
                    shrink(producer)
            gc.collect()
            assert sys.getrefcount(array) == before


def test_used_arrays_are_let_go():
    source, out = RANDOM.random((4, 4), np.float32), np.empty((2, 2), np.float32)
    before = sys.getrefcount(source), sys.getrefcount(out)
    shrink(source, out)
    assert (sys.getrefcount(source), sys.getrefcount(out)) == before


class DLTensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32), ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.c_void_p), ("byte_offset", ctypes.c_uint64),
        ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p),
    )  # fmt: skip


class Elsewhere:
    """An array that says it lies on another device; its memory is never touched."""

    def __init__(self, device: int, shape: tuple[int, ...]) -> None:
        self.shape = (ctypes.c_int64 * len(shape))(*shape)
        self.tensor = DLTensor(4096, device, 0, len(shape), 2, 32, 1, self.shape, None, 0, None, None)

    def __dlpack__(self):
        new = ctypes.pythonapi.PyCapsule_New
        new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
        return new(ctypes.addressof(self.tensor), b"dltensor", None)


def test_arrays_on_other_devices_are_named():
    with pytest.raises(ArgumentError, match="pyramid_down: destination must be on the device of the first array"):
        shrink(Elsewhere(2, (4, 4)))
    with pytest.raises(ArgumentError, match="warp: destination must be on the device of the first array"):
        _C.warp(Elsewhere(2, (1, 4, 4)), np.eye(3)[None], np.empty((1, 4, 4), np.float32))
    with pytest.raises(ValueError, match="expected an array in CPU or CUDA memory"):
        shrink(Elsewhere(8, (4, 4)))  # Metal


@pytest.mark.skipif(_C.device_archs() != "", reason="this build has CUDA")
def test_a_build_without_cuda_says_so():
    there = Elsewhere(2, (1, 4, 4))
    for name, call in (
        ("warp", lambda: _C.warp(there, np.eye(3)[None], there)),
        ("thin", lambda: _C.thin(there, 1, 1, there)),
    ):
        with pytest.raises(ResourceError, match=f"{name}: this build has no CUDA"):
            call()


# --- outputs -----------------------------------------------------------


def frozen(shape: tuple[int, ...], dtype: type = np.float32) -> np.ndarray:
    out = np.zeros(shape, dtype)
    out.setflags(write=False)
    return out


@pytest.mark.parametrize(
    "call,text",
    [
        (lambda: _C.warp(PLANES, MAPS, frozen((3, 9, 9))), "warp: destination"),
        (lambda: _C.warp(PLANES, MAPS, np.empty((3, 9, 9), "f4"), frozen((9, 9), np.uint8)), "warp: valid"),
        (lambda: _C.luminance(PLANES, [1.0] * 3, frozen((H, W))), "luminance: destination"),
        (
            lambda: _C.demosaic(MOSAIC, [0, 0], [1.0] * 4, [0.0] * 4, frozen((3, *MOSAIC.shape))),
            "demosaic: destination",
        ),
        (lambda: _C.unpack(PLANES, frozen((3, H, W), np.uint8), [1.0] * 3, [0.0] * 3), "unpack: destination"),
        (lambda: _C.pyramid_down(PLANES, frozen((3, *LOW))), "pyramid_down: destination"),
        (lambda: _C.pyramid_up(COARSE, frozen((3, H, W))), "pyramid_up: destination"),
        (lambda: _C.pyramid_smooth(PLANES, frozen((3, H, W))), "pyramid_smooth: destination"),
        (lambda: _C.pyramid_energy(PLANES, COARSE, frozen(LOW)), "pyramid_energy: energy"),
        (lambda: _C.pyramid_valid(MASK, frozen(LOW, np.uint8)), "pyramid_valid: destination"),
        (lambda: _C.pyramid_rate(RATING, COARSE, None, 0, 0, BEFORE, frozen(LOW), RATING), "pyramid_rate: rating"),
        (lambda: _C.pyramid_rate(RATING, COARSE, None, 0, 0, BEFORE, RATING.copy(), frozen(LOW)), "pyramid_rate: peak"),
        (
            lambda: _C.pyramid_fold(PLANES, COARSE, RATING, RATING, RATING, 4, frozen((3, H, W)), PLANES[0].copy()),
            "pyramid_fold: numerator",
        ),
        (
            lambda: _C.pyramid_fold(PLANES, COARSE, RATING, RATING, RATING, 4, PLANES.copy(), frozen((H, W))),
            "pyramid_fold: denominator",
        ),
        (lambda: _C.pyramid_collapse(PLANES, PLANES[0], COARSE, frozen((3, H, W))), "pyramid_collapse: destination"),
    ],
)
def test_read_only_outputs_are_refused(call, text):
    with pytest.raises(ArgumentError, match=f"^{text} is written to, got a read-only array"):
        call()


def test_read_only_inputs_are_taken():
    shrink(frozen((4, 4)))
    table = TABLE.copy()
    table.setflags(write=False)
    _C.warp(COUNTS, MAPS, np.empty((3, 9, 9), np.float32), table=table)


# --- errors of warp's many arguments -----------------------------------

OUT = np.zeros((3, 20, 20), np.float32)
NAN = np.full((3, 3, 3), np.nan)
HORIZON = np.stack([np.array([[1, 0, 0], [0, 1, 0], [-0.1, 0, 1.0]])] * 3)


@pytest.mark.parametrize(
    "arguments,how,text",
    [
        ((PLANES.astype(float), MAPS, OUT), {}, "source must be uint8, uint16 or float32, got float64"),
        ((PLANES[0], MAPS, OUT), {}, r"source must be \(C, H, W\), got 2 dimensions"),
        ((np.zeros((5, 4, 4), "f4"), MAPS, OUT), {}, "source must have 1 to 4 planes, got 5"),
        ((np.zeros((0, 4, 4), "f4"), MAPS, OUT), {}, "source must have 1 to 4 planes, got 0"),
        ((np.zeros((3, 4, 0), "f4"), MAPS, OUT), {}, "source must not be empty, got 4 x 0"),
        ((PLANES, MAPS.astype("f4"), OUT), {}, "matrices must be float64, got float32"),
        ((PLANES, MAPS[0], OUT), {}, "matrices must have 3 dimensions, got 2"),
        ((PLANES, MAPS[:2], OUT), {}, "matrices must have size 3 on axis 0, got 2"),
        ((PLANES, MAPS[:, :2], OUT), {}, "matrices must"),
        ((PLANES, NAN, OUT), {}, "matrices must be finite, got nan"),
        ((PLANES, np.full((3, 3, 3), np.inf), OUT), {}, "matrices must be finite, got inf"),
        (
            (PLANES, HORIZON, OUT),
            {},
            r"matrices must keep m20 x \+ m21 y \+ m22 positive over the destination, got -0.9",
        ),
        ((PLANES, np.zeros((3, 3, 3)), OUT), {}, "positive over the destination, got 0"),
        ((PLANES, MAPS, OUT.astype(float)), {}, "destination must be float32, got float64"),
        ((PLANES, MAPS, OUT[0]), {}, "destination must have 3 dimensions, got 2"),
        ((PLANES, MAPS, OUT[:2]), {}, "destination must have size 3 on axis 0, got 2"),
        ((PLANES, MAPS, OUT[:, :, ::2]), {}, "destination must be contiguous"),
        ((PLANES, MAPS, OUT, np.empty((20, 20), "f4")), {}, "valid must be uint8, got float32"),
        ((PLANES, MAPS, OUT, np.empty((20, 21), "u1")), {}, "valid must have size 20 on axis 1, got 21"),
        ((PLANES, MAPS, OUT), {"interpolation": 3}, "interpolation must be 0, 1 or 2, got 3"),
        ((PLANES, MAPS, OUT), {"table": TABLE}, "a table needs a uint8 or uint16 source, got float32"),
        ((COUNTS, MAPS, OUT), {"table": TABLE[:256]}, "table must have size 65536 on axis 0, got 256"),
        ((COUNTS, MAPS, OUT), {"table": TABLE.astype(float)}, "table must be float32, got float64"),
        ((PLANES, MAPS, OUT), {"scale": [1.0]}, r"scale must have one value per plane \(3\), got 1"),
        ((PLANES, MAPS, OUT), {"offset": [0.0] * 4}, r"offset must have one value per plane \(3\), got 4"),
        ((PLANES, MAPS, OUT), {"mosaic": [(0, 0)] * 3}, r"a mosaic must be \(H, W\), got 3 dimensions"),
        ((MOSAIC, MAPS, OUT), {"mosaic": [(0, 2)] * 3}, r"mosaic offsets must be 0 or 1, got \(0, 2\)"),
        ((MOSAIC, MAPS, OUT), {"mosaic": [(0, 0)] * 5}, "a mosaic has 1 to 4 planes, got 5"),
        ((MOSAIC, MAPS, OUT), {"mosaic": []}, "a mosaic has 1 to 4 planes, got 0"),
    ],
)
def test_wrong_arguments_of_warp_are_named(arguments, how, text):
    with pytest.raises(ArgumentError, match=f"^warp: .*{text}"):
        _C.warp(*arguments, **how)
