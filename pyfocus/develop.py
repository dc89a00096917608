"""From fused linear light to the picture people look at: sRGB, upright."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from . import _C
from .burst import Array, Meta
from .errors import ArgumentError
from .fuse import Planes
from .io import develop_mosaic, upright
from .raw import UNPACK_BLACK_DN, UNPACK_WHITE_DN, plane_offsets

# Linear sRGB to CIE XYZ (D65), IEC 61966-2-1.
_SRGB_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def mosaic_of(planes: Planes, meta: Meta, *, threads: int = 0) -> tuple[Array, Meta]:
    """Mosaic (2h, 2w) uint16 of white-balanced planes (4, h, w) R G1 G2 B, and its levels.

    The camera's white balance is taken out again, so the mosaic is what the sensor would have counted, on the scale
    black 1024, white 65535: finer than the camera's, with room for noise below black.
    """
    if planes.shape[0] != 4 or meta.cfa is None:
        raise ArgumentError(f"mosaic_of: planes must be (4, h, w) of a Bayer burst, got {planes.shape}, cfa {meta.cfa}")
    r, g, b = meta.white_balance
    scale = [(UNPACK_WHITE_DN - UNPACK_BLACK_DN) / v for v in (r, g, g, b)]
    out = np.empty((2 * planes.shape[1], 2 * planes.shape[2]), np.uint16)
    offsets = list(plane_offsets(meta.cfa))
    _C.unpack(_with_rows(planes), out, scale, [float(UNPACK_BLACK_DN)] * 4, mosaic=offsets, threads=threads)
    black = float(UNPACK_BLACK_DN)
    facts = {**meta.__dict__, "black": (black, black, black, black), "white": float(UNPACK_WHITE_DN)}
    return out, Meta(**facts)


def develop(planes: Planes, meta: Meta, *, bits: int = 16, threads: int = 0) -> Array:
    """Picture (H, W, 3) or (H, W), sRGB-encoded uint16 or uint8, of fused planes (C, h, w) in linear light.

    ``meta`` is the burst's. Of a Bayer burst, (4, h, w) planes R G1 G2 B are demosaiced and developed by LibRaw to
    (2h, 2w), and (3, h, w) white-balanced camera RGB is clipped where the sensor was and brought to sRGB by the
    camera's colour matrix; both are turned upright. Planes of images are encoded as they are. Raises ArgumentError.
    """
    if bits not in (8, 16):
        raise ArgumentError(f"develop: bits must be 8 or 16, got {bits}")
    if meta.cfa is not None and planes.shape[0] == 4:
        mosaic, facts = mosaic_of(planes, meta, threads=threads)
        image = develop_mosaic(mosaic, facts)
        return image if bits == 16 else ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if meta.cfa is not None:
        planes = _to_srgb_primaries(planes, meta)
    count, height, width = planes.shape
    out = np.empty((height, width, count), np.uint16 if bits == 16 else np.uint8)
    top = [float(np.iinfo(out.dtype).max)] * count
    _C.unpack(_with_rows(planes), out.transpose(2, 0, 1), top, [0.0] * count, srgb=True, threads=threads)
    picture = out[:, :, 0] if count == 1 else out
    return upright(picture, meta.orientation) if meta.cfa is not None else picture


def camera_to_srgb(meta: Meta) -> npt.NDArray[np.float64]:
    """(3, 3) from white-balanced linear camera RGB to linear sRGB primaries; white stays white.

    As in DNG and LibRaw: the camera's response to the sRGB primaries, its rows scaled so that (1, 1, 1) gives
    (1, 1, 1), inverted. The identity when the camera's matrix is not known.
    """
    if meta.xyz_to_camera is None:
        return np.eye(3)
    response = np.reshape(meta.xyz_to_camera, (3, 3)) @ _SRGB_TO_XYZ
    return np.linalg.inv(response / response.sum(axis=1, keepdims=True))


def _with_rows(planes: Planes) -> Planes:
    """The planes as they are when their rows are contiguous, else a copy."""
    return planes if planes.strides[-1] == planes.itemsize else np.ascontiguousarray(planes)


def _to_srgb_primaries(planes: Planes, meta: Meta) -> Planes:
    """Clip to the channel that saturates first, so that blown highlights are white, then the colour matrix."""
    lowest = min(meta.white_balance)
    matrix = (camera_to_srgb(meta) / lowest).astype(np.float32)
    out = np.empty_like(planes)
    rows = max(1, (1 << 20) // planes.shape[2])
    for y in range(0, planes.shape[1], rows):
        part = np.clip(planes[:, y : y + rows], None, np.float32(lowest))
        out[:, y : y + rows] = (matrix @ part.reshape(3, -1)).reshape(part.shape)
    return out


def enlarge(plane: npt.NDArray[np.float32], *, threads: int = 0) -> npt.NDArray[np.float32]:
    """(2h, 2w) from (h, w), bilinear: a map at the size of a mosaic's planes, brought to the mosaic's."""
    height, width = plane.shape
    out = np.empty((1, 2 * height, 2 * width), np.float32)
    half = np.array([[[0.5, 0, -0.25], [0, 0.5, -0.25], [0, 0, 1.0]]])
    _C.warp(plane[np.newaxis], half, out, interpolation=0, threads=threads)
    return out.reshape(2 * height, 2 * width)
