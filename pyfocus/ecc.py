"""The enhanced correlation coefficient of two pictures, maximised over the map between them.

Evangelidis & Psarakis, IEEE PAMI 30(10), 2008: the step that most increases the zero-mean correlation of the warped
picture with the fixed one, blind to gain and offset. The steps are native (:func:`pyfocus._C.ecc_maximise`); here is
what to ask of them, and which pixels to trust. Pictures lie in the host's memory or on a device, as ``arrays`` says.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from . import _C
from .affine import Matrix, corner_shift
from .arrays import HOST, AnyArray, Arrays

Motion = Literal["translation", "similarity", "affine", "homography"]
Image = npt.NDArray[np.float32]
Images = list[AnyArray]

_MOTIONS = ("translation", "similarity", "affine", "homography")  # by the kernel's numbers
_CORRELATION, _ITERATIONS, _CONVERGED, _FAILED, _DONE = range(9, 14)  # of its state, behind the matrix
_PLENTY_PX = 0.8e6  # of a picture with more pixels every second row is enough
_AT_ONCE = 8  # steps given to a device before the state is looked at: most fits need fewer
_KEPT = 0.7  # share of the pixels, those that agree best, which decide in the end
_TRIMS, _SETTLED_PX = 3, 0.01  # rounds of choosing them, and the corner step after which another changes nothing


@dataclass(frozen=True)
class Fit:
    """Where the correlation is largest: ``matrix`` (3, 3) from fixed to moving pixels, and how it was found."""

    matrix: Matrix
    correlation: float
    iterations: int
    converged: bool


def maximise(
    a: AnyArray,
    b: AnyArray,
    matrix: Matrix,
    motion: Motion,
    threads: int,
    *,
    mask: AnyArray | None = None,
    most: int = 40,
    arrays: Arrays = HOST,
) -> Fit | None:
    """Gauss-Newton from ``matrix`` on; None when too little is shared or the system is singular.

    ``a`` fixed (h, w) and ``b`` moving (H, W); ``mask`` (h, w): pixels of ``a`` to use; ``most`` steps at most, one or
    more. The steps end where no corner moves by as much as 0.004 px, or where the correlation falls.
    """
    height, width = a.shape
    rows = 2 if height * width > _PLENTY_PX else 1
    chunks = _C.ecc_chunk_count(height, width, rows, arrays.is_device)
    workspace = arrays.empty((chunks, _C.ecc_sum_count(8 if motion == "homography" else 6)), np.float64)
    found = np.zeros(_C.ECC_STATE_SIZE)
    found[:9] = matrix.ravel()
    state = arrays.upload(found)
    how: dict[str, Any] = {"row_step": rows, "threads": threads, "stream": arrays.stream}
    at_once = _AT_ONCE if arrays.is_device else most
    for begin in range(0, most, at_once):
        steps = min(at_once, most - begin)
        _C.ecc_maximise(a, b, state, _MOTIONS.index(motion), steps, workspace, mask, begin=begin, **how)
        found = arrays.to_host(state)
        if found[_DONE]:
            break
    if found[_FAILED]:
        return None
    return Fit(
        found[:9].reshape(3, 3).copy(), float(found[_CORRELATION]), int(found[_ITERATIONS]), bool(found[_CONVERGED])
    )


def trimmed(
    levels: tuple[Images, Images], level: int, fit: Fit, motion: Motion, threads: int, *, arrays: Arrays = HOST
) -> Fit:
    """The fit again, by those pixels alone that agree under it, chosen anew until they stay the same.

    Between two frames of a bracket the blur changes. An edge that hides something unsharp is pulled towards its blurred
    side; its residual gives it away (least trimmed squares: Rousseeuw 1984). ``levels`` of the fixed and the moving
    picture, finest first; residuals are looked at one level coarser. ``correlation`` stays that of all pixels.
    """
    a, b = levels[0][level], levels[1][level]
    coarse = min(level + 1, len(levels[0]) - 1, len(levels[1]) - 1)
    for _ in range(_TRIMS):
        guess = at_level(fit.matrix, coarse - level)
        mask = _agreeing(levels[0][coarse], levels[1][coarse], guess, a.shape, threads, arrays)
        if mask is None:
            break
        again = maximise(a, b, fit.matrix, motion, threads, mask=mask, most=12, arrays=arrays)
        if again is None:
            break
        moved = corner_shift(again.matrix @ np.linalg.inv(fit.matrix), a.shape)
        iterations = fit.iterations + again.iterations
        fit = replace(again, correlation=fit.correlation, iterations=iterations)
        if moved < _SETTLED_PX:
            break
    return fit


def at_level(matrix: Matrix, levels: int) -> Matrix:
    """The map as it is ``levels`` coarser in the pyramids (finer if negative); their grids share pixel 0."""
    scale = np.diag([0.5**levels, 0.5**levels, 1.0])
    out: Matrix = scale @ matrix @ np.linalg.inv(scale)
    return out


def _agreeing(
    a: AnyArray, b: AnyArray, matrix: Matrix, shape: tuple[int, int], threads: int, arrays: Arrays
) -> AnyArray | None:
    """Where the pooled difference after gain and offset is among the smaller ones; None when there is no gain.

    The mask has ``shape``: that of ``a``, or of the picture twice as fine.
    """
    how: dict[str, Any] = {"threads": threads, "stream": arrays.stream}
    warped, pooled, mask = arrays.empty((1, *a.shape)), arrays.empty(a.shape), arrays.empty(shape, np.uint8)
    maps = np.ascontiguousarray(matrix)[np.newaxis]
    _C.warp(b.reshape([1, *b.shape]), maps, warped, interpolation=0, **how)
    difference = warped.reshape(a.shape)
    x = _some(difference, arrays).ravel().astype(np.float64)
    y = _some(a, arrays).ravel().astype(np.float64)
    spread = float(np.square(x - x.mean()).sum())
    if not spread > 0:
        return None
    gain = float(((x - x.mean()) * y).sum()) / spread  # not by BLAS, whose threads would spin beside ours
    _C.agree_residual(difference, a, gain, float(y.mean() - gain * x.mean()), difference, **how)
    _C.pyramid_smooth(difference, pooled, **how)
    _C.pyramid_smooth(pooled, difference, **how)
    _C.agree_mask(difference, float(np.quantile(_some(difference, arrays), _KEPT)), mask, **how)
    return mask


def _some(image: AnyArray, arrays: Arrays) -> Image:
    """As many pixels, on a grid and in the host's memory, as a quantile needs."""
    height, width = image.shape
    rows, columns = 1 + height // 128, 1 + width // 128
    if not arrays.is_device:
        return np.asarray(image)[::rows, ::columns]
    few = arrays.empty((-(-height // rows), -(-width // columns)))
    _C.thin(image, rows, columns, few, stream=arrays.stream)
    return arrays.to_host(few)
