"""How near a picture comes to its truth: PSNR and SSIM, as the paper's figures are made (Araujo et al. 2023, Table 3).

PSNR is that of one mean over all pixels and channels. SSIM is that of Wang et al. 2004: Gaussian windows of 11 x 11 px
and sigma 1.5, K1 = 0.01, K2 = 0.03, only windows that lie wholly inside, per channel and then their mean.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .burst import Array
from .errors import ArgumentError

Real = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

WINDOW_PX = 11
_SIGMA_PX, _K1, _K2 = 1.5, 0.01, 0.03
_ROWS = 64  # windows' rows at a time: scratch that stays in the cache
_REACH = WINDOW_PX // 2
_taps = np.exp(-0.5 * (np.arange(-_REACH, _REACH + 1) / _SIGMA_PX) ** 2)
_TAPS: tuple[float, ...] = tuple(_taps / _taps.sum())


def psnr(result: Array, truth: Array, *, border: int = 0, where: Mask | None = None) -> float:
    """Peak signal-to-noise ratio in dB, of all pixels and channels; infinite for equal pictures.

    Both (H, W, 3) or (H, W), as encoded for viewing: uint8, uint16 (full scale is 1) or float in [0, 1]; not
    necessarily of one type. ``border`` px of every side are left out, and pixels that ``where`` (H, W) has False.
    Raises ArgumentError.
    """
    one, two, seen = _checked("psnr", result, truth, border, where)
    total, count = 0.0, 0
    for row in range(0, one.shape[0], _ROWS):
        rows = np.s_[row : row + _ROWS]
        squares = np.square(_unit(one[rows]) - _unit(two[rows])).sum(axis=2)
        total += float(squares.sum() if seen is None else squares[seen[rows]].sum())
        count += squares.size if seen is None else int(np.count_nonzero(seen[rows]))
    _need("psnr", count)
    mean = total / (count * one.shape[2])
    return float("inf") if mean == 0 else float(-10 * np.log10(mean))


def ssim(result: Array, truth: Array, *, border: int = 0, where: Mask | None = None) -> float:
    """Structural similarity, at most 1, of pictures as :func:`psnr` takes them, at least 11 px wide inside the border.

    Of ``where`` the centre of a window counts. Raises ArgumentError.
    """
    one, two, seen = _checked("ssim", result, truth, border, where)
    if min(one.shape[:2]) < WINDOW_PX:
        raise ArgumentError(
            f"ssim: pictures must be at least {WINDOW_PX} px wide and high inside the border, "
            f"got {one.shape[1]} x {one.shape[0]} px; use a smaller border"
        )
    total, count = 0.0, 0
    for row in range(0, one.shape[0] - WINDOW_PX + 1, _ROWS):
        rows = np.s_[row : row + _ROWS + WINDOW_PX - 1]
        maps = [_similarity(_unit(one[rows, :, c]), _unit(two[rows, :, c])) for c in range(one.shape[2])]
        centres = None if seen is None else seen[row + _REACH :][: len(maps[0]), _REACH : one.shape[1] - _REACH]
        for found in maps:
            part = found if centres is None else found[centres]
            total += float(part.sum())
            count += part.size
    _need("ssim", count)
    return total / count


def _similarity(one: Real, two: Real) -> Real:
    """SSIM of every whole window, (h - 10, w - 10)."""
    c1, c2 = _K1**2, _K2**2
    m, n = _smooth(one), _smooth(two)
    squares, product = m * m + n * n, m * n
    spread, shared = _smooth(one * one + two * two) - squares, _smooth(one * two) - product
    return np.asarray((2 * product + c1) * (2 * shared + c2) / ((squares + c1) * (spread + c2)))


def _smooth(plane: Real) -> Real:
    """The Gaussian mean of every whole window."""
    for axis in (0, 1):
        length = plane.shape[axis] - WINDOW_PX + 1
        parts = [plane[k : k + length] if axis == 0 else plane[:, k : k + length] for k in range(WINDOW_PX)]
        out = _TAPS[_REACH] * parts[_REACH]
        for k in range(_REACH):
            out += _TAPS[k] * (parts[k] + parts[-1 - k])
        plane = out
    return plane


def _unit(pixels: Array) -> Real:
    """float64 on a scale where white is 1."""
    return pixels.astype(np.float64) / (1 if pixels.dtype.kind == "f" else np.iinfo(pixels.dtype).max)


def _checked(
    name: str, result: Array, truth: Array, border: int, where: Mask | None
) -> tuple[Array, Array, Mask | None]:
    """Both as (h, w, C), and the mask, without the border."""
    for what, picture in (("result", result), ("truth", truth)):
        if picture.ndim not in (2, 3) or (picture.dtype.kind != "f" and picture.dtype not in (np.uint8, np.uint16)):
            raise ArgumentError(
                f"{name}: {what} must be (H, W, 3) or (H, W), uint8, uint16 or float, "
                f"got {picture.shape} {picture.dtype}"
            )
        if picture.dtype.kind == "f" and not np.isfinite(picture).all():
            raise ArgumentError(f"{name}: {what} must be finite, got NaN or infinity")
    if result.shape != truth.shape:
        raise ArgumentError(f"{name}: result and truth must have one shape, got {result.shape} and {truth.shape}")
    height, width = truth.shape[:2]
    if where is not None and (where.shape != (height, width) or where.dtype != np.bool_):
        raise ArgumentError(f"{name}: where must be ({height}, {width}) bool, got {where.shape} {where.dtype}")
    if border < 0 or 2 * border >= min(height, width):
        raise ArgumentError(
            f"{name}: border must be 0 or more and leave something of {width} x {height} px, got {border}"
        )
    inner = np.s_[border : height - border, border : width - border]
    one, two = (picture.reshape(height, width, -1)[inner] for picture in (result, truth))
    return one, two, None if where is None else where[inner]


def _need(name: str, count: int) -> None:
    if count == 0:
        raise ArgumentError(f"{name}: where leaves no pixel to compare; it must be True somewhere")
