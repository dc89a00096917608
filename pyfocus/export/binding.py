"""ONNX Runtime over arrays where they lie: inputs are read and outputs written there, on a card as on the host."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..arrays import AnyArray


def run_bound(session: Any, inputs: Mapping[str, AnyArray], outputs: Mapping[str, AnyArray]) -> None:
    """Run a session once. All arrays are float32 in C order, NumPy's or a card's; the outputs are overwritten.

    The work that fills the inputs must be done; the outputs are when this returns.
    """
    binding = session.io_binding()
    for name, array in inputs.items():
        binding.bind_input(name, *_place(array))
    for name, array in outputs.items():
        binding.bind_output(name, *_place(array))
    session.run_with_iobinding(binding)


def _place(array: AnyArray) -> tuple[str, int, Any, list[int], int]:
    """Device, its number, type, shape and address, as bindings take them."""
    if isinstance(array, np.ndarray):
        return "cpu", 0, np.float32, list(array.shape), array.ctypes.data
    return "cuda", int(array.device), np.float32, list(array.shape), address_of(array.__dlpack__())


class _Tensor(ctypes.Structure):
    """DLTensor of DLPack's C header."""

    _fields_ = (
        ("data", ctypes.c_void_p), ("device", ctypes.c_int32 * 2), ("ndim", ctypes.c_int32),
        ("dtype", ctypes.c_uint8 * 4), ("shape", ctypes.c_void_p), ("strides", ctypes.c_void_p),
        ("byte_offset", ctypes.c_uint64),
    )  # fmt: skip


def address_of(capsule: Any) -> int:
    """Where the values of a DLPack capsule lie; the capsule stays its owner's."""
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    tensor = _Tensor.from_address(pointer(capsule, b"dltensor"))
    return int(tensor.data or 0) + int(tensor.byte_offset)
