"""A simulated camera: how linear light in the reference geometry becomes the pixels of one frame."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..burst import Array
from ..colour import encode_u16

Float = npt.NDArray[np.float32]
Affine = npt.NDArray[np.float64]

NEUTRAL = (0.5, 1.0, 0.625)  # camera response to white; its reciprocal is the white balance
BLACK_DN, WHITE_DN = 512, 16383


def invert(transform: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The inverse (2, 3) of an affine (2, 3)."""
    return np.linalg.inv(np.vstack([transform, [0, 0, 1]]))[:2]


def move(view: Float, transform: npt.NDArray[np.float64], shape: tuple[int, int], margin: int) -> Float:
    """The view (h + 2m, w + 2m, 3), m = ``margin``, in reference geometry, as the frame (h, w, 3) sees it.

    Two passes of Lanczos-3, columns then rows (Catmull & Smith 1980), exact for any affine near the identity.
    """
    if margin == 0:
        return view
    (a, b, tx), (c, d, ty) = invert(transform)  # frame pixel -> reference pixel
    h, w = shape
    x = np.arange(w)[None, :]
    v = np.arange(-margin, h + margin)[:, None]  # reference row, while columns become the frame's
    # y = (v - c x - ty) / d solves the second row of the map; the first then gives the reference column.
    columns = a * x + b * (v - c * x - ty) / d + tx + margin
    half = _resample(view, np.broadcast_to(columns, (len(view), w)), axis=1)
    rows = c * x + d * np.arange(h)[:, None] + ty + margin
    return _resample(half, np.broadcast_to(rows, (h, w)), axis=0)


def _resample(image: Float, position: npt.NDArray[np.float64], axis: int) -> Float:
    """Lanczos-3 along one axis at ``position`` (h, w), in pixels; weights are normalised."""
    base = np.floor(position).astype(np.intp)
    fraction = (position - base).astype(np.float32)
    out = np.zeros((*position.shape, image.shape[2]), np.float32)
    total = np.zeros(position.shape, np.float32)
    for tap in range(-2, 4):
        distance = fraction - tap
        weight = (np.sinc(distance) * np.sinc(distance / 3)).astype(np.float32)
        index = np.clip(base + tap, 0, image.shape[axis] - 1)
        line = np.arange(position.shape[1 - axis])
        taken = image[line[:, None], index] if axis == 1 else image[index, line[None, :]]
        out += weight[..., None] * taken
        total += weight
    return np.asarray(out / total[..., None], np.float32)


def soften(image: Float, sigma_px: float) -> Float:
    """Gaussian blur of an image (H, W, 3), borders mirrored; 0 returns it as it is."""
    if sigma_px == 0:
        return image
    half = int(np.ceil(4 * sigma_px))
    kernel = np.exp(-0.5 * (np.arange(-half, half + 1) / sigma_px) ** 2)
    kernel /= kernel.sum()
    for axis in (0, 1):
        width = [(half, half) if i == axis else (0, 0) for i in range(3)]
        padded, length = np.pad(image, width, mode="symmetric"), image.shape[axis]
        image = np.zeros_like(image)
        for i, weight in enumerate(kernel.astype(np.float32)):
            image += weight * (padded[i : i + length] if axis == 0 else padded[:, i : i + length])
    return image


def expose(light: Float, raw: bool, noise: tuple[float, float], random: np.random.Generator) -> Array:
    """What the camera stores for linear light (H, W, 3): a noisy mosaic or sRGB image, uint16."""
    shot, read = noise
    value = mosaic(light) if raw else light
    value = np.maximum(value, 0)
    if shot > 0:
        value = value + np.sqrt(shot * value + read) * random.standard_normal(value.shape, np.float32)
    if raw:
        count = BLACK_DN + value * (WHITE_DN - BLACK_DN)
        return np.rint(np.clip(count, 0, WHITE_DN)).astype(np.uint16)  # below black stays: noise has no bias
    return encode_u16(value)


def mosaic(light: Float) -> Float:
    """The RGGB mosaic (H, W) of white-balanced linear light (H, W, 3), balance taken out."""
    out = light[..., 1] * np.float32(NEUTRAL[1])
    out[0::2, 0::2] = light[0::2, 0::2, 0] * np.float32(NEUTRAL[0])
    out[1::2, 1::2] = light[1::2, 1::2, 2] * np.float32(NEUTRAL[2])
    return out
