"""Two pictures brought together: a coarse start that survives large shifts and breathing, then pyramid ECC.

Enhanced correlation coefficient (Evangelidis & Psarakis, IEEE PAMI 30(10), 2008): the step that most increases the
zero-mean correlation of the warped picture with the fixed one, blind to gain and offset. The sums over the pixels are
native (:func:`pyfocus._C.ecc`); the small system is solved here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from . import _C
from .affine import Matrix, at_pitch, corner_shift
from .burst import Frame
from .planes import luminance, planes_of

Motion = Literal["translation", "similarity", "affine", "homography"]
Image = npt.NDArray[np.float32]

_FINEST_PX = 3.2e6  # pixels of the finest level: more do not make it more accurate
_COARSEST_PX = 40  # shorter side of the coarsest level
_START_PX = 160  # shorter side of the level at which starts are compared
_SCALES = (0.91, 0.93, 0.95, 0.97, 0.985, 1.015, 1.03, 1.05, 1.07, 1.09)
_CERTAIN = 0.85  # a start that correlates like this needs no wider search
_LOWEST = 0.40  # below this the pictures do not show the same
_MOST_SCALE, _MOST_SHIFT = 0.15, 0.30  # between neighbours: change of scale, and shift as a share of the width
_EPSILON_PX = 0.004  # largest corner step that still counts as moving

#: Columns of the affine's six derivatives that make up the parameters of the smaller models.
_COLUMNS: dict[str, npt.NDArray[np.float64]] = {
    "translation": np.array([[0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1.0]]).T,
    "similarity": np.array([[1, 0, 0, 0, 1, 0], [0, -1, 0, 1, 0, 0], [0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1.0]]).T,
    "affine": np.eye(6),
    "homography": np.eye(8),
}


@dataclass(frozen=True)
class Luma:
    """A frame as registration sees it: smoothed square-root luminance at falling sizes, finest first.

    ``factor``: frame pixels per pixel of the finest level; ``size`` (h, w) of the frame.
    """

    levels: list[Image]
    factor: int
    size: tuple[int, int]


@dataclass(frozen=True)
class Pair:
    """How a frame lies to another: ``matrix`` (3, 3) from the fixed frame's pixels to the moving one's."""

    matrix: Matrix
    correlation: float
    iterations: int
    converged: bool
    good: bool


def luminance_of(frame: Frame, *, threads: int = 0) -> Luma:
    """The levels of a frame, about 1.4 x 12 MB at most whatever its size."""
    planes = planes_of(frame)
    height, width = planes.size(frame.size)
    factor = max(1, int(np.ceil(np.sqrt(height * width / _FINEST_PX))))
    factor = min(factor, max(1, min(height, width) // 16), 64)
    first = luminance(frame, factor, threads=threads)
    level = np.empty_like(first)
    _C.pyramid_smooth(first, level, threads=threads)
    levels = [level]
    while min(level.shape) >= 2 * _COARSEST_PX:
        smaller = np.empty(((level.shape[0] + 1) // 2, (level.shape[1] + 1) // 2), np.float32)
        _C.pyramid_down(level, smaller, threads=threads)
        levels.append(smaller)
        level = smaller
    return Luma(levels, factor * planes.step, frame.size)


def align_pair(
    fixed: Luma, moving: Luma, motion: Motion = "similarity", *, predicted: Matrix | None = None, threads: int = 0
) -> Pair:
    """Register ``moving`` to ``fixed``. ``predicted``: a guess of the map, such as the motion of the frame before.

    Never raises for what the pictures show: a pair that does not fit has ``good`` False and its correlation.
    """
    depth = min(len(fixed.levels), len(moving.levels))
    start = depth - 1
    while start > 0 and min(fixed.levels[start].shape) < _START_PX:
        start -= 1
    guesses = [np.eye(3)] if predicted is None else [np.eye(3), at_pitch(predicted, fixed.factor * 2.0**start)]
    a, b = fixed.levels[start], moving.levels[start]
    if not (np.ptp(a) > 1e-4 and np.ptp(b) > 1e-4):
        return Pair(np.eye(3), 0.0, 0, False, False)
    found = _best_start(fixed, moving, start, depth, [*guesses, _phase_shift(a, b)], threads)
    if found.correlation < _CERTAIN:
        wider = [_phase_shift(a, _rescaled(b, s), s) for s in _SCALES]
        other = _best_start(fixed, moving, start, depth, wider, threads)
        found = max(found, other, key=lambda f: f.correlation)
    matrix, iterations, converged, correlation = found.matrix, found.iterations, False, found.correlation
    for level in range(start, -1, -1):
        model: Motion = motion if level <= 1 or motion == "translation" else "similarity"
        step = _refine(fixed.levels[level], moving.levels[level], matrix, model, threads)
        if step is None:
            break
        matrix, correlation, converged = step.matrix, step.correlation, step.converged
        iterations += step.iterations
        if level > 0:
            matrix = _finer(matrix)
    matrix = at_pitch(matrix, 1 / fixed.factor) if level == 0 else np.eye(3)
    good = level == 0 and correlation >= _LOWEST and _plausible(matrix, fixed.size)
    return Pair(matrix, float(correlation), iterations, converged, good)


@dataclass(frozen=True)
class _Fit:
    matrix: Matrix
    correlation: float
    iterations: int
    converged: bool


def _best_start(fixed: Luma, moving: Luma, start: int, depth: int, guesses: list[Matrix], threads: int) -> _Fit:
    """Refine every guess (at level ``start``) on that level and a coarser one; the best correlation wins."""
    best = _Fit(np.eye(3), -1.0, 0, False)
    coarse = min(start + 1, depth - 1)
    for guess in guesses:
        matrix: Matrix | None = guess
        iterations = 0
        for level in range(coarse, start - 1, -1):
            assert matrix is not None
            here = _coarser(guess) if level > start else matrix
            fit = _refine(fixed.levels[level], moving.levels[level], here, "similarity", threads, most=25)
            if fit is None:
                break
            matrix = _finer(fit.matrix) if level > start else fit.matrix
            iterations += fit.iterations
            if level == start and fit.correlation > best.correlation:
                best = _Fit(fit.matrix, fit.correlation, iterations, fit.converged)
    return best


def _refine(a: Image, b: Image, matrix: Matrix, motion: Motion, threads: int, most: int = 40) -> _Fit | None:
    """Gauss-Newton on the ECC at one level; None when too little is shared or the system is singular."""
    parameters = 8 if motion == "homography" else 6
    count = _C.ecc_sum_count(parameters)
    workspace = np.empty((-(-a.shape[0] // _C.ECC_CHUNK_ROWS), count))
    sums = np.empty(count)
    best: _Fit | None = None
    into, out_of = _normaliser(a.shape), np.linalg.inv(_normaliser(b.shape, a.shape))
    current = np.linalg.inv(out_of) @ matrix @ np.linalg.inv(into)
    for iteration in range(most):
        current /= current[2, 2]
        matrix = out_of @ current @ into  # its last row keeps w = 1 at the centre, as the kernel expects
        _C.ecc(a, b, matrix, parameters, workspace, sums, threads=threads)
        solved = _solve(sums, parameters, motion)
        if solved is None:
            return best
        correlation, step = solved
        if best is None or correlation > best.correlation:
            best = _Fit(matrix / matrix[2, 2], correlation, iteration + 1, False)
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
            return _Fit(matrix / matrix[2, 2], correlation, iteration + 1, True)
    return best


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


def _finer(matrix: Matrix) -> Matrix:
    """A level's map on the next finer level: pyramid grids share pixel 0."""
    double = np.diag([2.0, 2.0, 1.0])
    out: Matrix = double @ matrix @ np.linalg.inv(double)
    return out


def _coarser(matrix: Matrix) -> Matrix:
    half = np.diag([0.5, 0.5, 1.0])
    out: Matrix = half @ matrix @ np.linalg.inv(half)
    return out


def _phase_shift(a: Image, b: Image, scale: float = 1.0) -> Matrix:
    """Translation by phase correlation (Kuglin & Hines 1975) of a and b; ``scale``: how b was resized before."""
    h, w = a.shape
    window = np.hanning(h + 2)[1:-1, None] * np.hanning(w + 2)[None, 1:-1]
    spectra = [np.fft.rfft2((p - p.mean()) * window) for p in (a, _padded(b, (h, w)))]
    cross = spectra[1] * np.conj(spectra[0])
    fy, fx = np.fft.fftfreq(h)[:, None], np.fft.rfftfreq(w)[None]
    smooth = np.exp(-20 * (fy * fy + fx * fx))  # neighbours differ in sharpness: fine detail says little
    peak = np.fft.irfft2(cross / (np.abs(cross) + 1e-9 * np.abs(cross).max()) * smooth, (h, w))
    y, x = np.unravel_index(int(np.argmax(peak)), peak.shape)
    dy, dx = (y - h if y > h // 2 else y), (x - w if x > w // 2 else x)
    shift = np.array([[1, 0, float(dx)], [0, 1, float(dy)], [0, 0, 1.0]])
    return _zoom((h, w), scale) @ shift


def _padded(b: Image, shape: tuple[int, int]) -> Image:
    """b cut or mirrored to ``shape``, so that both spectra have one size."""
    h, w = min(shape[0], b.shape[0]), min(shape[1], b.shape[1])
    return np.pad(b[:h, :w], ((0, shape[0] - h), (0, shape[1] - w)), mode="reflect")


def _zoom(shape: tuple[int, int], scale: float) -> Matrix:
    """Scale about the centre of a picture."""
    cx, cy = (shape[1] - 1) / 2, (shape[0] - 1) / 2
    return np.array([[scale, 0, cx - scale * cx], [0, scale, cy - scale * cy], [0, 0, 1.0]])


def _rescaled(b: Image, scale: float) -> Image:
    """b as seen through ``_zoom(scale)``: the same size, its edge repeated."""
    out = np.empty((1, *b.shape), np.float32)
    _C.warp(b[np.newaxis], _zoom(b.shape, scale)[np.newaxis], out, interpolation=0)
    return out[0]


def _plausible(matrix: Matrix, size: tuple[int, int]) -> bool:
    """No neighbour of a focus bracket is turned, scaled or moved this much."""
    if not np.isfinite(matrix).all():
        return False
    scale = np.sqrt(abs(np.linalg.det(matrix[:2, :2])))
    height, width = size
    middle = np.array([(width - 1) / 2, (height - 1) / 2, 1.0])
    moved = matrix @ middle
    shift = np.abs(moved[:2] / moved[2] - middle[:2]).max()
    return bool(abs(scale - 1) < _MOST_SCALE and shift < _MOST_SHIFT * max(size))
