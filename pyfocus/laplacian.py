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
from .arrays import HOST, AnyArray, Arrays
from .errors import ResourceError
from .fuse import Fused, Mask, Planes, _Folding

#: Variance of a level's detail for white noise of variance 1 in the frame, levels 0, 1, 2, ...
_WHITE_NOISE = (0.8, 0.055, 0.0104, 0.0025, 0.0006, 0.00016, 4e-5, 1e-5)
_COARSER = 0.1  # share of the next coarser level's energy in a rating
_FLOOR = 2.0  # the noise floor, in noise variances
_UNSURE, _SURE = 0.1, 0.5  # 1 - mean / largest rating: where the depth is a guess, and where it is 95 % right
_SMALLEST = 1e-8  # and at least this: 8-bit steps in the shadows
_SPILLED = 2  # levels whose sums leave a device that is too small: 20 of the 21.3 bytes per pixel of all of them


class _Level:
    """Accumulators and scratch of one level: fine grid (C, h, w), coarse grid (H, W).

    ``mapped``: numerator and denominator, which each frame reads and writes just once and in order, lie in the host.
    """

    def __init__(self, arrays: Arrays, planes: int, height: int, width: int, power: int, mapped: bool) -> None:
        low = ((height + 1) // 2, (width + 1) // 2)
        self.size, self.low, self.power = (height, width), low, power
        self.numerator = arrays.zeros((planes, height, width), mapped=mapped)
        self.denominator = arrays.zeros((height, width), mapped=mapped)
        self.peak = arrays.zeros(low)
        self.before = arrays.empty(low)
        self.energy = arrays.empty(low)
        self.rating = arrays.empty(low)
        self.coarse = arrays.empty((planes, *low))  # the frame's next Gaussian level
        self.seen: AnyArray | None = None  # where the frame saw all that this grid shows; made when a frame has a mask

    def spill(self, arrays: Arrays) -> None:
        """The sums, as they are, to mapped memory."""
        for name in ("numerator", "denominator"):
            there = getattr(self, name)
            mapped = arrays.empty(there.shape, mapped=True)
            _C.device_copy(mapped, there, stream=arrays.stream)
            setattr(self, name, mapped)

    def move_to_host(self, arrays: Arrays) -> None:
        """Everything to NumPy arrays, from where ``arrays`` had it."""
        for name in ("numerator", "denominator", "peak"):
            setattr(self, name, arrays.to_host(getattr(self, name)))
        for name in ("before", "energy", "rating", "coarse"):
            setattr(self, name, HOST.empty(getattr(self, name).shape))
        self.seen = None


class Laplacian(_Folding):
    """Laplacian-pyramid fusion in one pass and constant memory: about 31 bytes per pixel of three planes.

    ``arrays``: where the accumulators lie, and where frames are folded. On a CUDA device, frames are device arrays in
    C order (or NumPy arrays, which are copied there), made or uploaded in the order of ``arrays.stream``; the planes
    of ``preview`` and ``finish`` stay there, depth and confidence come to the host. ``spill``: 20 of the 31 bytes lie
    in page-locked memory of the host instead, which the device's kernels work in over the bus: slower, and the same
    bytes come of it.

    Deterministic: the same frames give the same bytes for any number of threads. A frame for which there is no memory
    (ResourceError) leaves everything as it was.
    """

    _level = _Level
    _parts = 1  # of a value of the last level: WaveletFuser's are complex

    def __init__(
        self,
        threads: int = 0,
        levels: int | None = None,
        *,
        depth: bool = True,
        arrays: Arrays = HOST,
        spill: bool = False,
    ) -> None:
        super().__init__(threads, arrays)
        self.spilled = spill
        self._want_depth = depth
        self._wanted = levels
        self._levels: list[_Level] = []
        self._thinned: dict[str, AnyArray] = {}

    def push(self, planes: AnyArray, valid: AnyArray | None = None, *, index: float | None = None) -> None:
        """Fold a frame in; see :class:`pyfocus.Fuser`."""
        place = float(self.frames if index is None else index)
        self._check_place(planes, valid)
        first = self._accept(planes, valid)
        try:  # whatever needs memory comes before what changes an accumulator
            if first:
                self._begin(*planes.shape)
            planes, valid = self._brought(planes), None if valid is None else self._brought(valid)
            if isinstance(valid, np.ndarray) and valid.all():
                valid = None
            self._measure(planes, valid)
            samples = self._samples(valid is not None)  # before the rest: a device has work meanwhile
        except ResourceError:
            self.frames -= 1
            if first:
                self._shape, self._levels = None, []
            raise
        energy, light, seen, middle = samples
        self._pool()
        self._fold(planes, valid is not None, *self._noise_floor(energy, light, seen, middle))
        last = self._levels[-1]
        _C.pyramid_base(last.coarse, last.rating, self._base, self._base_weight, **self._how)
        if self._want_depth:
            level = self._levels[self._depth_level]
            _C.pyramid_depth(
                level.rating, level.peak, level.before, place,
                self._index, self._index_weight, self._total, self._seen, **self._how,
            )  # fmt: skip

    def preview(self) -> AnyArray:
        """The fused planes (C, H, W) of the frames so far, where the accumulators lie."""
        self._need_frames("preview")
        return self._collapse(in_place=False)

    def finish(self) -> Fused:
        """The fused planes, where the accumulators lie, depth and confidence; the accumulators are given away."""
        self._need_frames("finish")
        depth, confidence = self._depth() if self._want_depth else (None, None)
        image = self._collapse(in_place=True)
        self._finished = True
        self._levels = []
        return Fused(image, depth, confidence)

    def spill(self) -> None:
        """From here on as with ``spill=True``: what was folded goes to mapped memory, for a device that ran short."""
        for level in self._levels[:_SPILLED]:
            level.spill(self.arrays)
        self.spilled = True

    def move_to_host(self) -> None:
        """From here on as with ``arrays=HOST``; what was folded stays, and no device memory is needed to bring it."""
        old = self.arrays
        for level in self._levels:
            level.move_to_host(old)
        for name in ("_base", "_base_weight", "_index", "_index_weight", "_total", "_seen"):
            if self._levels and hasattr(self, name):
                setattr(self, name, old.to_host(getattr(self, name)))
        self._thinned.clear()
        self._work_in(HOST)

    def _begin(self, count: int, height: int, width: int) -> None:
        new = self.arrays
        levels = self._wanted or max(1, int(np.log2(max(min(height, width), 16) / 8)))
        for i in range(levels):
            mapped = self.spilled and i < _SPILLED
            self._levels.append(self._level(new, count, height, width, power=4 if i == 0 else 8, mapped=mapped))
            height, width = (height + 1) // 2, (width + 1) // 2
        self._base, self._base_weight = new.zeros((self._parts * count, height, width)), new.zeros((height, width))
        self._noise: tuple[float, float] | None = None
        self._depth_level = min(1, levels - 1)
        if self._want_depth:
            grid = self._levels[self._depth_level].low
            self._index, self._index_weight = new.zeros(grid), new.zeros(grid)
            self._total, self._seen = new.zeros(grid), new.zeros(grid, np.int32)
        self._thinned.clear()

    def _measure(self, planes: AnyArray, valid: AnyArray | None) -> None:
        """Gaussian levels of the frame, the energy of its detail per level, and what the levels saw."""
        fine = planes
        for level in self._levels:
            _C.pyramid_measure(fine, level.coarse, level.rating, **self._how)
            _C.pyramid_smooth(level.rating, level.energy, **self._how)
            fine = level.coarse
            if valid is not None:
                if level.seen is None:
                    level.seen = self.arrays.empty(level.low, np.uint8)
                _C.pyramid_valid(valid, level.seen, **self._how)
                valid = level.seen

    def _pool(self) -> None:
        """Energies with those of finer levels (into ``rating``) and of coarser ones (into ``energy``).

        Level 0 has no finer level, and its energy with that of coarser ones is nobody's: _fold adds it to the rating.
        """
        finer = self._levels[0].energy
        for level in self._levels[1:]:
            _C.pyramid_down(finer, level.rating, level.energy, **self._how)
            finer = level.rating
        for level, coarser in zip(self._levels[-2:0:-1], self._levels[:1:-1], strict=True):
            _C.pyramid_up(coarser.energy, level.energy, _COARSER, level.energy, **self._how)

    def _fold(self, planes: AnyArray, masked: bool, slope: float, floor: float) -> None:
        """Ratings, level by level: pooled energy, noise floor, mask, running maximum; and the frame folded by them."""
        fine, pooled = planes, self._levels[0].energy
        for i, level in enumerate(self._levels):
            share = _FLOOR * (_WHITE_NOISE[i] if i < 8 else 4.0**-i) / _WHITE_NOISE[0]
            coarser = self._levels[i + 1] if i + 1 < len(self._levels) else None
            level.before, level.peak = level.peak, level.before
            _C.pyramid_rate(
                pooled, level.coarse, level.seen if masked else None, share * slope,
                share * floor + _FLOOR * _SMALLEST, level.before, level.rating, level.peak,
                None if coarser is None else coarser.energy, _COARSER, **self._how,
            )  # fmt: skip
            _C.pyramid_fold(
                fine, level.coarse, level.rating, level.before, level.peak, level.power,
                level.numerator, level.denominator, **self._how,
            )  # fmt: skip
            fine = level.coarse
            if coarser is not None:
                pooled = coarser.rating

    def _samples(self, masked: bool) -> tuple[Planes, Planes, Mask | None, Planes]:
        """What tells the frame's noise, on the host: energy, light, mask, and light for its middle, all thinned out."""
        level = self._levels[0]
        step = _noise_step(level.low)
        seen = self._thin("seen", level.seen, step) if masked else None
        return (
            self._thin("energy", level.energy, step), self._thin("light", level.coarse, step), seen,
            self._thin("middle", level.coarse, 8),
        )  # fmt: skip

    def _thin(self, name: str, array: AnyArray, step: int) -> AnyArray:
        """Every step-th row and column on the host."""
        if isinstance(array, np.ndarray):
            return array[..., ::step, ::step]
        there = self._thinned.get(name)
        if there is None:
            low = (-(-n // step) for n in array.shape[-2:])
            there = self._thinned[name] = self.arrays.empty((*array.shape[:-2], *low), array.dtype)
        _C.thin(array, step, step, there, stream=self.arrays.stream)
        return self.arrays.to_host(there)

    def _noise_floor(self, energy: Planes, light: Planes, seen: Mask | None, middle: Planes) -> tuple[float, float]:
        """The calmest frame's noise so far: texture only adds to what is taken for noise."""
        slope, floor = _noise_of_samples(energy, light, seen)
        if slope == floor == 0:  # a black, clipped or masked frame tells nothing, least of all that there is no noise
            return self._noise or (0.0, 0.0)
        mid = max(0.0, float(np.median(middle)))
        if self._noise is None or slope * mid + floor < self._noise[0] * mid + self._noise[1]:
            self._noise = (slope, floor)
        return self._noise

    def _depth(self) -> tuple[Planes, Planes]:
        level, host = self._levels[self._depth_level], self.arrays.to_host
        peak = host(level.peak)
        index = host(self._index) / np.maximum(host(self._index_weight), 1e-30)
        mean = host(self._total) / np.maximum(host(self._seen), 1)
        margin = 1 - np.where(peak > 0, mean / np.maximum(peak, 1e-30), 1)  # unseen: no confidence
        step = np.clip((margin - _UNSURE) / (_SURE - _UNSURE), 0, 1)
        maps = np.stack([index, step * step * (3 - 2 * step)]).astype(np.float32)
        for finer in self._levels[self._depth_level :: -1]:
            maps = self._enlarge(maps, finer.size)
        return maps[0], np.clip(maps[1], 0, 1)

    def _enlarge(self, maps: Planes, size: tuple[int, int]) -> Planes:
        """Maps (2, H, W) on a level's coarse grid at the size of its fine one."""
        full = np.empty((len(maps), *size), np.float32)
        _C.pyramid_up(maps, full, threads=self.threads)
        return full

    def _collapse(self, in_place: bool) -> AnyArray:
        """The picture level by level, coarsest first, each where the last frame's Gaussian level was.

        The finest has no such place: it goes where its own numerator is, or for a preview to an array of its own.
        """
        image = self._levels[-1].coarse
        _C.pyramid_mean(self._base, self._base_weight, image, **self._how)
        for i in reversed(range(len(self._levels))):
            level = self._levels[i]
            if i > 0:
                out = self._levels[i - 1].coarse
            else:
                out = level.numerator if in_place else self._picture(level.numerator.shape)
            _C.pyramid_collapse(level.numerator, level.denominator, image, out, **self._how)
            image = out
        return image

    def _picture(self, shape: tuple[int, ...]) -> AnyArray:
        """Room for a preview, in the host's memory where a device has none left."""
        try:
            return self.arrays.empty(shape)
        except ResourceError:
            return self.arrays.empty(shape, mapped=True)


def _noise_step(size: tuple[int, ...]) -> int:
    """Every so many rows and columns of a grid are enough to tell its noise."""
    return max(1, int(np.sqrt(size[0] * size[1] / 20_000)))


def noise_of(
    energy: Planes, light: Planes, seen: Mask | None = None, bins: int = 8, quantile: float = 0.2
) -> tuple[float, float]:
    """Noise variance of a frame's finest detail as ``slope * light + floor`` (both >= 0), linear units squared.

    ``energy`` (H, W) is the pooled squared detail of level 0 and ``light`` (C, H, W) the Gaussian level below it.
    In every range of brightness most places hold detail; the quietest fifth is taken for bare noise. Only places where
    ``seen`` (H, W) is not 0 count. (0, 0) when there are too few to tell.
    """
    step = _noise_step(energy.shape)
    if seen is not None:
        seen = seen[::step, ::step]
    return _noise_of_samples(energy[::step, ::step], light[:, ::step, ::step], seen, bins, quantile)


def _noise_of_samples(
    energy: Planes, light: Planes, seen: Mask | None, bins: int = 8, quantile: float = 0.2
) -> tuple[float, float]:
    """noise_of, of arrays that are thinned out already."""
    quiet, mean = energy.ravel(), light.mean(axis=0).ravel()
    if seen is not None:
        use = seen.ravel() > 0
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
