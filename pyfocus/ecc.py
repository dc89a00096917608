"""The enhanced correlation coefficient of two pictures, maximised over the map between them.

Evangelidis & Psarakis, IEEE PAMI 30(10), 2008: the step that most increases the zero-mean correlation of the warped
picture with the fixed one, blind to gain and offset. The sums over the pixels are native (:func:`pyfocus._C.ecc`);
the small system is solved here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from . import _C
from .affine import Matrix, corner_shift

Motion = Literal["translation", "similarity", "affine", "homography"]
Image = npt.NDArray[np.float32]
Images = list[Image]
Mask = npt.NDArray[np.uint8]

_PLENTY_PX = 0.8e6  # of a picture with more pixels every second row is enough
_EPSILON_PX = 0.004  # largest corner step that still counts as moving
_KEPT = 0.7  # share of the pixels, those that agree best, which decide in the end
_TRIMS, _SETTLED_PX = 3, 0.01  # rounds of choosing them, and the corner step after which another changes nothing

#: Columns of the affine's six derivatives that make up the parameters of the smaller models.
_COLUMNS: dict[str, npt.NDArray[np.float64]] = {
    "translation": np.array([[0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1.0]]).T,
    "similarity": np.array([[1, 0, 0, 0, 1, 0], [0, -1, 0, 1, 0, 0], [0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1.0]]).T,
    "affine": np.eye(6),
    "homography": np.eye(8),
}


@dataclass(frozen=True)
class Fit:
    """Where the correlation is largest: ``matrix`` (3, 3) from fixed to moving pixels, and how it was found."""

    matrix: Matrix
    correlation: float
    iterations: int
    converged: bool


def maximise(
    a: Image, b: Image, matrix: Matrix, motion: Motion, threads: int, *, mask: Mask | None = None, most: int = 40
) -> Fit | None:
    """Gauss-Newton from ``matrix`` on; None when too little is shared or the system is singular.

    ``a`` fixed (h, w) and ``b`` moving (H, W); ``mask`` (h, w): pixels of ``a`` to use; ``most`` steps at most.
    """
    parameters = 8 if motion == "homography" else 6
    count = _C.ecc_sum_count(parameters)
    workspace = np.empty((-(-a.shape[0] // _C.ECC_CHUNK_ROWS), count))
    sums = np.empty(count)
    rows = 2 if a.size > _PLENTY_PX else 1
    best: Fit | None = None
    into, out_of = _normaliser(a.shape), np.linalg.inv(_normaliser(b.shape, a.shape))
    current = np.linalg.inv(out_of) @ matrix @ np.linalg.inv(into)
    for iteration in range(most):
        current /= current[2, 2]
        matrix = out_of @ current @ into  # its last row keeps w = 1 at the centre, as the kernel expects
        _C.ecc(a, b, matrix, parameters, workspace, sums, mask, row_step=rows, threads=threads)
        solved = _solve(sums, parameters, motion)
        if solved is None:
            return best
        correlation, step = solved
        if best is None or correlation > best.correlation:
            best = Fit(matrix / matrix[2, 2], correlation, iteration + 1, False)
        elif correlation < best.correlation - 1e-3:
            return best
        change = np.zeros(9)
        change[:parameters] = _COLUMNS[motion] @ step
        moved = current + change.reshape(3, 3)
        if not np.isfinite(moved).all():
            return best
        shift = corner_shift(out_of @ moved @ np.linalg.inv(current) @ np.linalg.inv(out_of), a.shape)
        current = moved
        if shift < _EPSILON_PX:
            current /= current[2, 2]
            matrix = out_of @ current @ into
            return Fit(matrix / matrix[2, 2], correlation, iteration + 1, True)
    return best


def trimmed(levels: tuple[Images, Images], level: int, fit: Fit, motion: Motion, threads: int) -> Fit:
    """The fit again, by those pixels alone that agree under it, chosen anew until they stay the same.

    Between two frames of a bracket the blur changes. An edge that hides something unsharp is pulled towards its blurred
    side; its residual gives it away (least trimmed squares: Rousseeuw 1984). ``levels`` of the fixed and the moving
    picture, finest first; residuals are looked at one level coarser. ``correlation`` stays that of all pixels.
    """
    a, b = levels[0][level], levels[1][level]
    coarse = min(level + 1, len(levels[0]) - 1, len(levels[1]) - 1)
    for _ in range(_TRIMS):
        mask = _agreeing(levels[0][coarse], levels[1][coarse], at_level(fit.matrix, coarse - level), threads)
        if mask is not None and coarse > level:
            mask = np.ascontiguousarray(mask.repeat(2, axis=0).repeat(2, axis=1)[: a.shape[0], : a.shape[1]])
        again = None if mask is None else maximise(a, b, fit.matrix, motion, threads, mask=mask, most=12)
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


def _agreeing(a: Image, b: Image, matrix: Matrix, threads: int) -> Mask | None:
    """Where the pooled difference after gain and offset is among the smaller ones; None when there is no gain."""
    warped = np.empty((1, *a.shape), np.float32)
    _C.warp(b[np.newaxis], np.ascontiguousarray(matrix)[np.newaxis], warped, interpolation=0, threads=threads)
    difference = warped[0]
    some = np.s_[:: 1 + a.shape[0] // 128, :: 1 + a.shape[1] // 128]  # as many as a quantile needs
    x, y = difference[some].ravel().astype(np.float64), a[some].ravel().astype(np.float64)
    spread = float(np.square(x - x.mean()).sum())
    if not spread > 0:
        return None
    gain = float(((x - x.mean()) * y).sum()) / spread  # not by BLAS, whose threads would spin beside ours
    difference *= np.float32(gain)
    difference += np.float32(y.mean() - gain * x.mean())
    difference -= a
    np.abs(difference, out=difference)
    pooled = np.empty_like(difference)
    _C.pyramid_smooth(difference, pooled, threads=threads)
    _C.pyramid_smooth(pooled, difference, threads=threads)
    mask: Mask = (difference <= np.quantile(difference[some], _KEPT)).view(np.uint8)
    return mask


def _solve(
    sums: npt.NDArray[np.float64], parameters: int, motion: Motion
) -> tuple[float, npt.NDArray[np.float64]] | None:
    """(correlation, parameter step) from the kernel's sums; None when there is nothing to go by."""
    n = sums[-1]
    if not np.isfinite(sums).all() or n < 256:
        return None
    columns = _COLUMNS[motion]
    triangle = parameters * (parameters + 1) // 2
    hessian = np.zeros((parameters, parameters))
    hessian[np.triu_indices(parameters)] = sums[:triangle]
    hessian = hessian + np.triu(hessian, 1).T
    ji, jt, j1 = sums[triangle : triangle + 3 * parameters].reshape(3, parameters) @ columns
    si, st, sii, stt, sit = sums[-6:-1]
    ii, tt, it = sii - si * si / n, stt - st * st / n, sit - si * st / n
    if ii <= 1e-12 * n or tt <= 1e-12 * n:
        return None
    hessian = columns.T @ hessian @ columns - np.outer(j1, j1) / n
    ji, jt = ji - j1 * si / n, jt - j1 * st / n
    hessian[np.diag_indices_from(hessian)] *= 1 + 1e-7
    try:
        solved_i, solved_t = np.linalg.solve(hessian, np.stack([ji, jt], axis=1)).T
    except np.linalg.LinAlgError:
        return None
    gain = ii - ji @ solved_i
    shared = it - jt @ solved_i
    if shared > 0:
        scale = gain / shared
    else:  # the step that at least makes the correlation positive (their eq. 17)
        scale = max(np.sqrt(max(ji @ solved_i, 0) / max(jt @ solved_t, 1e-30)), -shared / max(jt @ solved_t, 1e-30))
    return float(it / np.sqrt(ii * tt)), scale * solved_t - solved_i


def _normaliser(shape: tuple[int, ...], scale_of: tuple[int, ...] | None = None) -> Matrix:
    """From pixels to coordinates centred on the picture, half the longer side (of ``scale_of``) being 1."""
    scale = 0.5 * max(scale_of or shape)
    return np.array(
        [[1 / scale, 0, -(shape[1] - 1) / 2 / scale], [0, 1 / scale, -(shape[0] - 1) / 2 / scale], [0, 0, 1.0]]
    )
