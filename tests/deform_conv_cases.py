"""What the tests of deform_conv are run on: cases, their arrays, half types made by hand, a workspace full of NaN."""

from __future__ import annotations

import ctypes
from dataclasses import asdict
from typing import Any

import numpy as np
import reference_deform_conv as reference
from reference_deform_conv import Steps

from pyfocus import _C

GRADIENTS = ("input", "offset", "mask", "weight", "bias")
# Image (N, C, H, W), output channels, kernel, steps: groups of both kinds, odd sizes, single rows, more than one tile.
CASES = {
    "plain": ((1, 4, 9, 11), 5, (3, 3), Steps(pad=(1, 1))),
    "one of all": ((1, 1, 1, 1), 1, (1, 1), Steps()),
    "one pixel, 3x3": ((2, 3, 1, 1), 2, (3, 3), Steps(pad=(1, 1))),
    "groups": ((2, 6, 8, 7), 4, (3, 3), Steps(pad=(1, 1), groups=2, offset_groups=3)),
    "depthwise": ((1, 6, 7, 9), 6, (3, 3), Steps(pad=(1, 1), groups=6, offset_groups=2)),
    "group per channel": ((1, 5, 9, 8), 3, (3, 2), Steps(offset_groups=5)),
    "strided": ((1, 4, 13, 10), 3, (3, 3), Steps((2, 3), (2, 0), (1, 2))),
    "dilated 2x5": ((1, 2, 12, 17), 7, (2, 5), Steps((1, 2), (3, 4), (4, 2), 1, 2)),
    "1x1": ((3, 8, 6, 5), 9, (1, 1), Steps(groups=1, offset_groups=4)),
    "tiles": ((2, 9, 23, 41), 37, (3, 3), Steps(pad=(1, 1), offset_groups=1)),
    "wide": ((1, 70, 6, 90), 8, (3, 3), Steps((1, 1), (1, 1), (2, 2), 2, 10)),
}


class Handmade:
    """A DLPack producer of any type and shape over given memory, in the layout of DLPack before 1.0."""

    class Tensor(ctypes.Structure):
        _fields_ = (
            ("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32),
            ("ndim", ctypes.c_int32), ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16),
            ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.c_void_p), ("byte_offset", ctypes.c_uint64),
            ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p),
        )  # fmt: skip

    def __init__(self, data: int, shape: tuple[int, ...], code: int, bits: int) -> None:
        self.shape = (ctypes.c_int64 * len(shape))(*shape)
        self.tensor = self.Tensor(data, 1, 0, len(shape), code, bits, 1, self.shape, None, 0, None, None)

    def __dlpack__(self) -> object:
        new = ctypes.pythonapi.PyCapsule_New
        new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
        return new(ctypes.addressof(self.tensor), b"dltensor", None)


class Half:
    """An array whose values are exact in float16 or bfloat16, and how the kernels see it."""

    def __init__(self, dtype: str, values: np.ndarray) -> None:
        self.bits = np.ascontiguousarray(self.encode(dtype, values))
        self.dtype, code = dtype, 2 if dtype == "float16" else 4
        self.array = Handmade(self.bits.ctypes.data, self.bits.shape, code, 16)

    @staticmethod
    def encode(dtype: str, values: np.ndarray) -> np.ndarray:
        if dtype == "float16":
            return values.astype(np.float16).view(np.uint16)
        bits = values.astype(np.float32).view(np.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)

    def values(self) -> np.ndarray:
        if self.dtype == "float16":
            return self.bits.view(np.float16).astype(float)
        return (self.bits.astype(np.uint32) << 16).view(np.float32).astype(float)


def arrays(name: str, dtype: Any = np.float64, seed: int = 0) -> dict[str, np.ndarray]:
    """Inputs of a case. Positions keep 0.05 from whole numbers, where the gradient jumps."""
    shape, outputs, kernel, s = CASES[name]
    random, area = np.random.default_rng(seed), reference.output_size(shape[2:], kernel, s)
    planes = s.offset_groups * kernel[0] * kernel[1]
    whole = random.integers(-3, 3, (shape[0], 2 * planes, *area))
    return {
        "input": random.standard_normal(shape).astype(dtype),
        "weight": random.standard_normal((outputs, shape[1] // s.groups, *kernel)).astype(dtype),
        "offset": (whole + random.uniform(0.05, 0.95, whole.shape)).astype(dtype),
        "mask": random.random((shape[0], planes, *area)).astype(dtype),
        "bias": random.standard_normal(outputs).astype(dtype),
        "upstream": random.standard_normal((shape[0], outputs, *area)).astype(dtype),
    }


def scratch(a: dict[str, Any], s: Steps, backward: bool = False) -> np.ndarray:
    """A workspace full of NaN, at an odd address."""
    size = _C.deform_conv_workspace(a["input"], a["weight"], **asdict(s), backward=backward)
    return np.full(size + 1, 0xFF, np.uint8)[1:]
