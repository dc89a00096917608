"""The default fuser: a fold over Laplacian pyramids that picks detail and averages what is alike.

Per level, frames are averaged with weights ``rating ** power``. A frame's rating at a place is the energy of its
detail there, pooled over finer and coarser levels, plus the noise floor of the burst. Where one frame is sharper its
weight dwarfs the others; where all are flat the ratings are equal and the frames average, so noise falls with their
number. Burt & Adelson 1983 for the pyramid, Ogden et al. 1985 for fusing by it; rating and weights are ours.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from . import _C
from .fuse import Fused, Mask, Planes, _Folding

#: Variance of a level's detail for white noise of variance 1 in the frame, levels 0, 1, 2, ...
_WHITE_NOISE = (0.8, 0.055, 0.0104, 0.0025, 0.0006, 0.00016, 4e-5, 1e-5)
_COARSER = 0.1  # share of the next coarser level's energy in a rating
_FLOOR = 2.0  # the noise floor, in noise variances
_UNSURE, _SURE = 0.1, 0.5  # 1 - mean / largest rating: where the depth is a guess, and where it is 95 % right
_SMALLEST = 1e-8  # and at least this: 8-bit steps in the shadows


class _Level:
    """Accumulators and scratch of one level: fine grid (C, h, w), coarse grid (H, W)."""

    def __init__(self, planes: int, height: int, width: int, power: int) -> None:
        low = ((height + 1) // 2, (width + 1) // 2)
        self.size, self.power = (height, width), power
        self.numerator = np.zeros((planes, height, width), np.float32)
        self.denominator = np.zeros((height, width), np.float32)
        self.peak = np.zeros(low, np.float32)
        self.before = np.empty(low, np.float32)
        self.energy = np.empty(low, np.float32)
        self.rating = np.empty(low, np.float32)
        self.coarse = np.empty((planes, *low), np.float32)  # the frame's next Gaussian level


class Laplacian(_Folding):
    """Laplacian-pyramid fusion in one pass and constant memory: about 31 bytes per pixel of three planes.

    Deterministic: the same frames give the same bytes for any number of threads.
    """

    def __init__(self, threads: int = 0, levels: int | None = None, *, depth: bool = True) -> None:
        super().__init__(threads)
        self._want_depth = depth
        self._wanted = levels
        self._levels: list[_Level] = []

    def push(self, planes: Planes, valid: Mask | None = None, *, index: float | None = None) -> None:
        """Fold a frame in; see :class:`pyfocus.Fuser`."""
        place = float(self.frames if index is None else index)
        if self._accept(planes, valid):
            self._begin(planes)
        planes = np.ascontiguousarray(planes)
        if valid is not None:
            valid = None if valid.all() else np.ascontiguousarray(valid)
        self._measure(planes)
        self._rate(planes, valid)
        fine = planes
        for level in self._levels:
            _C.pyramid_fold(
                fine, level.coarse, level.rating, level.before, level.peak, level.power,
                level.numerator, level.denominator, threads=self.threads,
            )  # fmt: skip
            fine = level.coarse
        weight = self._levels[-1].rating + np.float32(1e-12)
        self._base += fine * weight
        self._base_weight += weight
        if self._want_depth:
            self._follow_depth(place)

    def preview(self) -> Planes:
        """The fused planes (C, H, W) of the frames so far."""
        self._need_frames("preview")
        return self._collapse(in_place=False)

    def finish(self) -> Fused:
        """The fused planes, depth and confidence; the accumulators are given away."""
        self._need_frames("finish")
        depth, confidence = self._depth() if self._want_depth else (None, None)
        image = self._collapse(in_place=True)
        self._finished = True
        self._levels = []
        return Fused(image, depth, confidence)

    def _begin(self, planes: Planes) -> None:
        count, height, width = planes.shape
        levels = self._wanted or max(1, int(np.log2(max(min(height, width), 16) / 8)))
        for i in range(levels):
            self._levels.append(_Level(count, height, width, power=4 if i == 0 else 8))
            height, width = (height + 1) // 2, (width + 1) // 2
        self._base = np.zeros((count, height, width), np.float32)
        self._base_weight = np.zeros((height, width), np.float32)
        self._noise: tuple[float, float] | None = None
        self._depth_level = min(1, levels - 1)
        grid = self._levels[self._depth_level].rating.shape
        self._index, self._index_weight = np.zeros(grid, np.float32), np.zeros(grid, np.float32)
        self._total, self._seen = np.zeros(grid, np.float32), np.zeros(grid, np.int32)

    def _measure(self, planes: Planes) -> None:
        """Gaussian levels of the frame, and the energy of its detail per level."""
        fine = planes
        for level in self._levels:
            _C.pyramid_down(fine, level.coarse, threads=self.threads)
            _C.pyramid_energy(fine, level.coarse, level.rating, threads=self.threads)
            _C.pyramid_smooth(level.rating, level.energy, threads=self.threads)
            fine = level.coarse

    def _rate(self, planes: Planes, valid: Mask | None) -> None:
        """Ratings: energy pooled across levels, noise floor, mask, running maximum."""
        seen: list[Mask | None] = [valid]
        for level in self._levels if valid is not None else ():
            seen.append(np.empty(level.rating.shape, np.uint8))
            _C.pyramid_valid(seen[-2], seen[-1], threads=self.threads)
        slope, floor = self._noise_floor(seen[min(1, len(seen) - 1)])
        finer = None
        for level in self._levels:
            np.copyto(level.rating, level.energy)
            if finer is not None:
                _C.pyramid_down(finer.rating, level.rating, add=True, threads=self.threads)
            finer = level
        for level, coarser in zip(self._levels[-2::-1], self._levels[:0:-1], strict=True):
            _C.pyramid_up(coarser.energy, level.rating, _COARSER, add=True, threads=self.threads)
            _C.pyramid_up(coarser.energy, level.energy, _COARSER, add=True, threads=self.threads)
        for i, level in enumerate(self._levels):
            share = _FLOOR * (_WHITE_NOISE[i] if i < 8 else 4.0**-i) / _WHITE_NOISE[0]
            _C.pyramid_rate(
                level.rating, level.coarse, seen[i + 1] if valid is not None else None,
                share * slope, share * floor + _FLOOR * _SMALLEST, level.peak, level.before, threads=self.threads,
            )  # fmt: skip

    def _noise_floor(self, seen: Mask | None) -> tuple[float, float]:
        """The calmest frame's noise so far: texture only adds to what is taken for noise."""
        light = self._levels[0].coarse
        slope, floor = noise_of(self._levels[0].energy, light, seen)
        if slope == floor == 0:  # a black, clipped or masked frame tells nothing, least of all that there is no noise
            return self._noise or (0.0, 0.0)
        middle = max(0.0, float(np.median(light[:, ::8, ::8])))
        if self._noise is None or slope * middle + floor < self._noise[0] * middle + self._noise[1]:
            self._noise = (slope, floor)
        return self._noise

    def _follow_depth(self, place: float) -> None:
        """Mean of the frames' places, weighted by the eighth power of their rating on the second level."""
        level = self._levels[self._depth_level]
        peak = np.maximum(level.peak, np.float32(1e-30))
        new, old = level.rating / peak, level.before / peak
        for _ in range(3):
            new *= new
            old *= old
        self._index *= old
        self._index += np.float32(place) * new
        self._index_weight *= old
        self._index_weight += new
        self._total += level.rating
        self._seen += level.rating > 0

    def _depth(self) -> tuple[Planes, Planes]:
        level = self._levels[self._depth_level]
        index = self._index / np.maximum(self._index_weight, 1e-30)
        mean = self._total / np.maximum(self._seen, 1)
        margin = 1 - np.where(level.peak > 0, mean / np.maximum(level.peak, 1e-30), 1)  # unseen: no confidence
        step = np.clip((margin - _UNSURE) / (_SURE - _UNSURE), 0, 1)
        maps = np.stack([index, step * step * (3 - 2 * step)]).astype(np.float32)
        for finer in self._levels[self._depth_level :: -1]:
            full = np.empty((2, *finer.size), np.float32)
            _C.pyramid_up(maps, full, threads=self.threads)
            maps = full
        return maps[0], np.clip(maps[1], 0, 1)

    def _collapse(self, in_place: bool) -> Planes:
        image: Planes = self._base / self._base_weight
        for level in reversed(self._levels):
            out = level.numerator if in_place else np.empty_like(level.numerator)
            _C.pyramid_collapse(level.numerator, level.denominator, image, out, threads=self.threads)
            image = out
        return image


def noise_of(
    energy: Planes, light: Planes, seen: Mask | None = None, bins: int = 8, quantile: float = 0.2
) -> tuple[float, float]:
    """Noise variance of a frame's finest detail as ``slope * light + floor`` (both >= 0), linear units squared.

    ``energy`` (H, W) is the pooled squared detail of level 0 and ``light`` (C, H, W) the Gaussian level below it.
    In every range of brightness most places hold detail; the quietest fifth is taken for bare noise. Only places where
    ``seen`` (H, W) is not 0 count. (0, 0) when there are too few to tell.
    """
    step = max(1, int(np.sqrt(energy.size / 20_000)))
    quiet = energy[::step, ::step].ravel()
    mean = light[:, ::step, ::step].mean(axis=0).ravel()
    if seen is not None:
        use = seen[::step, ::step].ravel() > 0
        quiet, mean = quiet[use], mean[use]
    if mean.size == 0:
        return 0.0, 0.0
    edges = np.quantile(mean, np.linspace(0.02, 0.98, bins + 1))
    x, y = [], []
    for low, high in pairwise(edges):
        inside = (mean >= low) & (mean <= high) & (mean > 0) & (mean < 0.9)
        if inside.sum() > 50:
            x.append(float(mean[inside].mean()))
            y.append(float(np.quantile(quiet[inside], quantile)) + 1e-12)
    if not x:
        return 0.0, 0.0
    return _fit_line(np.array(x), np.array(y))


def _fit_line(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Non-negative slope and floor of y over x, least squares of the relative error."""
    weights = 1 / y
    design = np.stack([x, np.ones_like(x)], axis=1) * weights[:, None]
    slope, floor = np.linalg.lstsq(design, y * weights, rcond=None)[0]
    if floor < 0:
        return float(np.median(y / np.maximum(x, 1e-6))), 0.0
    if slope < 0:
        return 0.0, float(np.median(y))
    return float(slope), float(floor)
