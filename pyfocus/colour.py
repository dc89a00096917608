"""sRGB to linear light and back: the piecewise curve of IEC 61966-2-1, and tables for whole pictures."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import ArgumentError

Array = npt.NDArray[Any]

# The dark end of the curve rises 12.92 times faster than linear light, so 2^20 entries keep the encoded error
# under one code of 65535 while the table (2 MB) still fits a second-level cache.
_ENCODE_STEPS = (1 << 20) - 1
_CHUNK = 1 << 18


def srgb_to_linear(values: npt.ArrayLike) -> Array:
    """Linear light of sRGB values in [0, 1], any shape; float32 stays float32, the rest becomes float64."""
    v = _as_float(values)
    return np.where(v <= 0.04045, v / 12.92, ((np.maximum(v, 0.0) + 0.055) / 1.055) ** 2.4).astype(v.dtype)


def linear_to_srgb(values: npt.ArrayLike) -> Array:
    """sRGB values of linear light, any shape; below 0 the straight part goes on, above 1 the curve does."""
    v = _as_float(values)
    curve = 1.055 * np.maximum(v, 0.0) ** (1.0 / 2.4) - 0.055
    return np.where(v <= 0.0031308, v * 12.92, curve).astype(v.dtype)


@lru_cache(maxsize=4)
def decode_lut(dtype: npt.DTypeLike) -> Array:
    """Linear light (float32) of every code of ``uint8`` or ``uint16``: ``decode_lut(a.dtype)[a]``."""
    return _table(_linear_codes(dtype))


@lru_cache(maxsize=2)
def root_lut(dtype: npt.DTypeLike) -> Array:
    """Square root of the linear light (float32) of every code of ``uint8`` or ``uint16``."""
    return _table(np.sqrt(_linear_codes(dtype)))


def _linear_codes(dtype: npt.DTypeLike) -> Array:
    kind = np.dtype(dtype)
    if kind not in (np.uint8, np.uint16):
        raise ArgumentError(f"decode_lut: dtype must be uint8 or uint16, got {kind}")
    top = int(np.iinfo(kind).max)
    return srgb_to_linear(np.arange(top + 1) / top)


def _table(values: Array) -> Array:
    table: Array = values.astype(np.float32)
    table.setflags(write=False)
    return table


@lru_cache(maxsize=1)
def _encode_table() -> Array:
    table: Array = np.rint(linear_to_srgb(np.arange(_ENCODE_STEPS + 1) / _ENCODE_STEPS) * 65535).astype(np.uint16)
    table.setflags(write=False)
    return table


def encode_u16(linear: Array) -> Array:
    """sRGB in uint16 (65535 = white) of linear light, any shape; clipped to [0, 1], NaN becomes 0.

    Within one code of the exact curve. Works through the array in cache-sized pieces, so it needs no second
    picture of scratch memory.
    """
    if linear.dtype not in (np.float32, np.float64):
        raise ArgumentError(f"encode_u16: linear must be float32 or float64, got {linear.dtype}")
    flat = np.ascontiguousarray(linear).reshape(-1)
    out = np.empty(flat.shape, np.uint16)
    table = _encode_table()
    scaled = np.empty(min(_CHUNK, flat.size), flat.dtype)
    for start in range(0, flat.size, _CHUNK):
        part = flat[start : start + _CHUNK]
        s = scaled[: part.size]
        np.fmax(part, 0.0, out=s)  # fmax and fmin drop NaN, maximum would keep it
        np.fmin(s, 1.0, out=s)
        s *= _ENCODE_STEPS
        s += 0.5
        # the index is in range by the clipping above: mode="clip" only spares NumPy's own check
        np.take(table, s.astype(np.int32), out=out[start : start + _CHUNK], mode="clip")
    return out.reshape(linear.shape)


def _as_float(values: npt.ArrayLike) -> Array:
    array = np.asarray(values)
    return array if array.dtype == np.float32 else array.astype(np.float64)
