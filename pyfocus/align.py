"""Two pictures brought together: a coarse start that survives large shifts and breathing, then pyramid ECC.

Starts are nothing, the motion of the frame before, and the peak of phase correlation, alone or over several scales; the
best of them after a few steps at about 160 px is followed up to the finest level, see :mod:`pyfocus.ecc`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from . import _C
from .affine import Matrix, at_pitch
from .arrays import HOST, AnyArray, Arrays
from .burst import Frame
from .ecc import Fit, Image, Motion, at_level, maximise, trimmed
from .planes import luminance, planes_of

_FINEST_PX = 1.6e6  # pixels of the finest level: within 0.04 px of a 12 MP frame, and twice that gains 0.01
_COARSEST_PX = 40  # shorter side of the coarsest level
_START_PX = 160  # shorter side of the level at which starts are compared
_SCALES = (0.91, 0.93, 0.95, 0.97, 0.985, 1.015, 1.03, 1.05, 1.07, 1.09)
_SEARCHED_ON_HOST = 2  # levels from here on, too small to be worth a device's while
_FOLLOWED = 3  # starts that are refined beyond the coarsest level
_SURE = 0.97  # a guess that correlates like this needs no phase correlation
_CERTAIN = 0.85  # a start that correlates like this needs no wider search
_LOWEST = 0.40  # below this the pictures do not show the same,
_LOWEST_DETAIL = 0.25  # nor below this without their large shapes: 0.65 for the worst neighbours, 0.1 for strangers
_DETAIL_PASSES = 8  # smoothings, 1 px each, whose result is "large shapes"
_MOST_SCALE, _MOST_SHIFT = 0.15, 0.30  # between neighbours: change of scale, and shift as a share of the width


@dataclass(frozen=True)
class Luma:
    """A frame as registration sees it: smoothed square-root luminance at falling sizes, finest first.

    ``levels`` lie where the frame does; ``small`` are the same from ``first_small`` on, in the host's memory, where the
    coarse search is done. ``factor``: frame pixels per pixel of the finest level; ``size`` (h, w) of the frame.
    """

    levels: list[AnyArray]
    factor: int
    size: tuple[int, int]
    first_small: int
    small: list[Image]

    def on_host(self, level: int) -> Image:
        """A coarse level in the host's memory."""
        return self.small[level - self.first_small]


@dataclass(frozen=True)
class Pair:
    """How a frame lies to another: ``matrix`` (3, 3) from the fixed frame's pixels to the moving one's."""

    matrix: Matrix
    correlation: float
    iterations: int
    converged: bool
    good: bool


def luminance_of(frame: Frame, *, threads: int = 0, arrays: Arrays = HOST) -> Luma:
    """The levels of a frame, about 1.4 x 12 MB at most whatever its size. ``arrays``: where the frame lies."""
    planes = planes_of(frame, arrays=arrays)
    height, width = planes.size(frame.size)
    factor = max(1, int(np.ceil(np.sqrt(height * width / _FINEST_PX))))
    factor = min(factor, max(1, min(height, width) // 16), 64)
    first = luminance(frame, factor, threads=threads, arrays=arrays)
    level, how = arrays.empty(first.shape), {"threads": threads, "stream": arrays.stream}
    _C.pyramid_smooth(first, level, **how)  # twice: bilinear samples then keep their contrast everywhere,
    _C.pyramid_smooth(level, first, **how)  # and a slightly sharper neighbour looks more alike
    level = first
    levels = [level]
    while min(level.shape) >= 2 * _COARSEST_PX:
        smaller = arrays.empty(((level.shape[0] + 1) // 2, (level.shape[1] + 1) // 2))
        _C.pyramid_down(level, smaller, **how)
        levels.append(smaller)
        level = smaller
    first_small = min(_SEARCHED_ON_HOST, _start_level(levels)) if arrays.is_device else 0
    small = [arrays.to_host(level) for level in levels[first_small:]]
    return Luma(levels, factor * planes.step, frame.size, first_small, small)


def _start_level(levels: list[AnyArray]) -> int:
    """The level at which starts are compared."""
    start = len(levels) - 1
    while start > 0 and min(levels[start].shape) < _START_PX:
        start -= 1
    return start


def align_pair(
    fixed: Luma,
    moving: Luma,
    motion: Motion = "similarity",
    *,
    predicted: Matrix | None = None,
    threads: int = 0,
    arrays: Arrays = HOST,
) -> Pair:
    """Register ``moving`` to ``fixed``. ``predicted``: a guess of the map, such as the motion of the frame before.

    Never raises for what the pictures show: a pair that does not fit has ``good`` False and its correlation.
    """
    depth = min(len(fixed.levels), len(moving.levels))
    start = _start_level(fixed.levels[:depth])
    first: Motion = "translation" if motion == "translation" else "similarity"
    guesses = [np.eye(3)]
    if predicted is not None:
        guesses.append(_without_perspective(at_pitch(predicted, fixed.factor * 2.0**start)))
    a, b = fixed.on_host(start), moving.on_host(start)
    if min(*a.shape, *b.shape) < 2 or not (np.ptp(a) > 1e-4 and np.ptp(b) > 1e-4):
        return Pair(np.eye(3), 0.0, 0, False, False)
    found = _best_start(fixed, moving, start, depth, guesses, first, threads)
    if found.correlation < _SURE:
        other = _best_start(fixed, moving, start, depth, [_phase_shift(a, b)], first, threads)
        found = max(found, other, key=lambda f: f.correlation)
    if found.correlation < _CERTAIN and first != "translation":
        wider = [_phase_shift(a, _rescaled(b, s), s) for s in _SCALES]
        other = _best_start(fixed, moving, start, depth, wider, first, threads)
        found = max(found, other, key=lambda f: f.correlation)
    if not _detail_correlation(a, b, found.matrix, threads) >= _LOWEST_DETAIL:
        return Pair(np.eye(3), max(found.correlation, 0.0), found.iterations, False, False)
    return _refine(fixed, moving, start, found, (first, motion), threads, arrays)


def _refine(
    fixed: Luma, moving: Luma, start: int, found: Fit, motions: tuple[Motion, Motion], threads: int, arrays: Arrays
) -> Pair:
    """The fit of level ``start`` followed to the finest; by the first motion, on the two finest by the second."""
    matrix, iterations, converged, correlation = found.matrix, found.iterations, False, found.correlation
    for level in range(start, -1, -1):
        model = motions[level <= 1]
        there = arrays if level <= 1 else HOST
        step: Fit | None = Fit(matrix, correlation, 0, False)
        if level > 0 or start == 0:
            a, b = (luma.on_host(level) if there is HOST else luma.levels[level] for luma in (fixed, moving))
            step = maximise(a, b, matrix, model, threads, arrays=there)
        if step is None:
            break
        if level <= 1 and step.correlation >= _LOWEST:
            step = trimmed((fixed.levels, moving.levels), level, step, model, threads, arrays=arrays)
        matrix, correlation, converged = step.matrix, step.correlation, step.converged
        iterations += step.iterations
        if level > 0:
            matrix = at_level(matrix, -1)
    matrix = at_pitch(matrix, 1 / fixed.factor) if level == 0 else np.eye(3)
    good = level == 0 and correlation >= _LOWEST and _plausible(matrix, fixed.size)
    return Pair(matrix, float(correlation), iterations, converged, good)


def _best_start(
    fixed: Luma, moving: Luma, start: int, depth: int, guesses: list[Matrix], model: Motion, threads: int
) -> Fit:
    """Refine every guess (at level ``start``) on a coarser level, the few best of them on ``start``; the best wins."""
    coarse = min(start + 1, depth - 1)
    tried: list[Fit] = []
    for guess in guesses:
        here = at_level(guess, coarse - start)
        fit = maximise(fixed.on_host(coarse), moving.on_host(coarse), here, model, threads, most=25)
        if fit is not None:
            tried.append(replace(fit, matrix=at_level(fit.matrix, start - coarse)))
    tried = sorted(tried, key=lambda f: -f.correlation)[:_FOLLOWED]
    best = Fit(np.eye(3), -1.0, 0, False)
    for rough in tried:
        fit = maximise(fixed.on_host(start), moving.on_host(start), rough.matrix, model, threads, most=25)
        if fit is not None and fit.correlation > best.correlation:
            best = replace(fit, iterations=rough.iterations + fit.iterations)
    return best


def _detail_correlation(a: Image, b: Image, matrix: Matrix, threads: int) -> float:
    """Correlation of what is left of both without their large shapes: a bright sky fits any other bright sky."""
    warped, seen = np.empty((1, *a.shape), np.float32), np.empty(a.shape, np.uint8)
    _C.warp(_detail(b, threads)[np.newaxis], matrix[np.newaxis], warped, seen, interpolation=0, threads=threads)
    inside = seen.view(np.bool_)
    fixed, moving = _detail(a, threads)[inside].astype(np.float64), warped[0][inside].astype(np.float64)
    norm = np.sqrt(np.square(fixed).sum() * np.square(moving).sum())
    # a sum of products, not a dot product: BLAS would wake threads that then spin beside ours
    return float((fixed * moving).sum() / norm) if norm > 1e-9 * fixed.size else 0.0


def _detail(level: Image, threads: int) -> Image:
    low, other = level, np.empty_like(level)
    for _ in range(_DETAIL_PASSES):
        _C.pyramid_smooth(low, other, threads=threads)
        low, other = other, np.empty_like(level) if low is level else low
    difference: Image = level - low
    return difference


def _without_perspective(matrix: Matrix) -> Matrix:
    """The affine part: coarse levels are too small for more."""
    return np.vstack([matrix[:2] / matrix[2, 2], [0.0, 0.0, 1.0]])


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
    found: Matrix = _zoom((h, w), scale) @ shift
    return found


def _padded(b: Image, shape: tuple[int, int]) -> Image:
    """b cut or mirrored to ``shape``, so that both spectra have one size."""
    h, w = min(shape[0], b.shape[0]), min(shape[1], b.shape[1])
    padded: Image = np.pad(b[:h, :w], ((0, shape[0] - h), (0, shape[1] - w)), mode="reflect")
    return padded


def _zoom(shape: tuple[int, int], scale: float) -> Matrix:
    """Scale about the centre of a picture."""
    cx, cy = (shape[1] - 1) / 2, (shape[0] - 1) / 2
    return np.array([[scale, 0, cx - scale * cx], [0, scale, cy - scale * cy], [0, 0, 1.0]])


def _rescaled(b: Image, scale: float) -> Image:
    """b as seen through ``_zoom(scale)``: the same size, its edge repeated."""
    out = np.empty((1, *b.shape), np.float32)
    _C.warp(b[np.newaxis], _zoom(b.shape, scale)[np.newaxis], out, interpolation=0)
    rescaled: Image = out[0]
    return rescaled


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
