"""A fuser over complex wavelets: the Laplacian fuser's fold, with the transform of Forster et al. 2004.

Six-tap complex Daubechies filters; their magnitudes tell where detail is, whatever its phase. A place has one rating
for the three bands of all colours, from the energy of all of them around it and on neighbouring levels: the bands agree
by construction and neighbours nearly do, which Forster et al. reach by two majority votes over the index maps of all
frames, and which a fold could not take back. What is left below the last level is averaged by rating, not picked.
"""

from __future__ import annotations

import numpy as np

from . import _C
from .arrays import HOST, AnyArray, Arrays
from .fuse import Mask, Planes
from .laplacian import _FLOOR, _SMALLEST, Laplacian, _noise_step

# Of the rating's energies, per coefficient; one of the next coarser level is 4 times as large for the same contrast.
_FINER = 8.0  # a finer level's contrast counts twice
_COARSER = 0.025  # and a coarser one's a tenth


class _Level:
    """Accumulators and scratch of one level: bands and ratings on the grid (H, W) below the one that is split.

    ``mapped``: the bands' sums, which each frame reads and writes just once and in order, lie in the host.
    """

    def __init__(self, arrays: Arrays, planes: int, height: int, width: int, power: int, mapped: bool) -> None:
        low = ((height + 1) // 2, (width + 1) // 2)
        self.size, self.low, self.power = (height, width), low, power
        self.sums = arrays.zeros((3, 2 * planes, *low), mapped=mapped)
        self.weight = arrays.zeros(low)
        self.peak = arrays.zeros(low)
        self.before = arrays.empty(low)
        self.energy = arrays.empty(low)
        self.rating = arrays.empty(low)
        self.coarse = arrays.empty((2 * planes, *low))  # the frame's next level, real parts first
        self.seen: AnyArray | None = None  # where the frame saw all that this grid shows; made when a frame has a mask

    def light(self) -> AnyArray:
        """The real parts of the next level: the frame's light, times 2 per level."""
        planes = self.coarse.shape[0] // 2
        return self.coarse[:planes] if isinstance(self.coarse, np.ndarray) else self.coarse.part(0, planes)

    def spill(self, arrays: Arrays) -> None:
        """The sums, as they are, to mapped memory."""
        mapped = arrays.empty(self.sums.shape, mapped=True)
        _C.device_copy(mapped, self.sums, stream=arrays.stream)
        self.sums = mapped

    def move_to_host(self, arrays: Arrays) -> None:
        """Everything to NumPy arrays, from where ``arrays`` had it."""
        for name in ("sums", "weight", "peak"):
            setattr(self, name, arrays.to_host(getattr(self, name)))
        for name in ("before", "energy", "rating", "coarse"):
            setattr(self, name, HOST.empty(getattr(self, name).shape))
        self.seen = None


class WaveletFuser(Laplacian):
    """Complex-wavelet fusion in one pass and constant memory: about 41 bytes per pixel of three planes.

    Takes, gives and promises what :class:`pyfocus.Laplacian` does, with the same arguments: noise floor, masks, depth
    index and confidence, equal bytes for any number of threads, a device or the host.
    """

    _levels: list[_Level]  # type: ignore[assignment]
    _level = _Level  # type: ignore[assignment]
    _parts = 2

    def _measure(self, planes: AnyArray, valid: AnyArray | None) -> None:
        """The frame's levels, the energy of their bands, and what they saw."""
        fine = planes
        for level in self._levels:
            _C.wavelet_measure(fine, level.coarse, level.rating, **self._how)
            _C.pyramid_smooth(level.rating, level.energy, **self._how)
            fine = level.coarse
            if valid is not None:
                if level.seen is None:
                    level.seen = self.arrays.empty(level.low, np.uint8)
                _C.wavelet_valid(valid, level.seen, **self._how)
                valid = level.seen

    def _pool(self) -> None:
        """Energies with those of finer levels (into ``rating``) and of coarser ones (into ``energy``).

        Level 0 has no finer level, and its energy with that of coarser ones is nobody's: _fold adds it to the rating.
        """
        finer = self._levels[0].energy
        for level in self._levels[1:]:
            _C.wavelet_pool(finer, level.rating, _FINER, level.energy, **self._how)
            finer = level.rating
        for level, coarser in zip(self._levels[-2:0:-1], self._levels[:1:-1], strict=True):
            _C.wavelet_spread(coarser.energy, level.energy, _COARSER, level.energy, **self._how)

    def _fold(self, planes: AnyArray, masked: bool, slope: float, floor: float) -> None:
        """Ratings, level by level: pooled energy, noise floor, mask, running maximum; and the frame folded by them.

        The filters are orthonormal: white noise has the same variance in the bands of all levels.
        """
        fine, pooled = planes, self._levels[0].energy
        for i, level in enumerate(self._levels):
            coarser = self._levels[i + 1] if i + 1 < len(self._levels) else None
            if coarser is not None:
                _C.wavelet_spread(coarser.energy, pooled, _COARSER, pooled, **self._how)
            level.before, level.peak = level.peak, level.before
            _C.pyramid_rate(
                pooled, level.light(), level.seen if masked else None, _FLOOR * slope * 0.5 ** (i + 1),
                _FLOOR * (floor + _SMALLEST), level.before, level.rating, level.peak, **self._how,
            )  # fmt: skip
            _C.wavelet_fold(
                fine, level.rating, level.before, level.peak, level.power, level.sums, level.weight, **self._how
            )
            fine = level.coarse
            if coarser is not None:
                pooled = coarser.rating

    def _samples(self, masked: bool) -> tuple[Planes, Planes, Mask | None, Planes]:
        """What tells the frame's noise, on the host: energy, light, mask, and light for its middle, all thinned out."""
        level = self._levels[0]
        step = _noise_step(level.low)
        light, seen = level.light(), self._thin("seen", level.seen, step) if masked else None
        return (
            self._thin("energy", level.energy, step), self._thin("light", light, step) * np.float32(0.5), seen,
            self._thin("middle", light, 8) * np.float32(0.5),
        )  # fmt: skip

    def _enlarge(self, maps: Planes, size: tuple[int, int]) -> Planes:
        """Maps on a level's grid at the size of the level above it, whose samples lie half a pixel aside."""
        full = np.empty((len(maps), *size), np.float32)
        for source, destination in zip(maps, full, strict=True):
            _C.wavelet_spread(source, destination, threads=self.threads)
        return full

    def _collapse(self, in_place: bool) -> AnyArray:
        """The picture level by level, coarsest first, each where the last frame's level was.

        The finest has no such place; at the end the room for it is what is no longer needed.
        """
        low = self._levels[-1].coarse
        _C.pyramid_mean(self._base, self._base_weight, low, **self._how)
        for i in reversed(range(len(self._levels))):
            level = self._levels[i]
            if in_place:
                level.before = level.energy = level.rating = level.peak = None
            out = self._levels[i - 1].coarse if i > 0 else self._picture((low.shape[0] // 2, *level.size))
            _C.wavelet_merge(low, level.sums, level.weight, out, **self._how)
            if in_place:
                level.sums = level.weight = level.coarse = None
            low = out
        return low
