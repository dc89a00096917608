"""How sharp a frame is where: the energy of its detail in three octaves, and what the octaves vote for.

Per frame and octave l, on grids of half, a quarter and an eighth of the frame's size,

    E_l  = smooth(down(L_l^2)),    L_l = G_l - up(G_{l+1}) of the root of the luminance      (Burt & Adelson 1983)
    vote = sum_l log(1 + E_l / (30 v_l)),    v_l the variance of the octave's detail that noise alone gives

so that each octave has a say as far as it rises above the noise, and a flat place, or one that noise covers, has none.
The root makes shot noise even, so that one number per octave tells it. Energies are kept, votes are made from them
when all frames have come, and with them the noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from . import _C
from .framestore import FrameStore, light_of_codes
from .fuse import Mask, Planes
from .tiles import Box

OCTAVES = 3
ALIGN = 1 << (OCTAVES - 1)  # boxes of the half-size grid begin at multiples of it
UNSEEN = -0.05  # the energy kept where a frame saw nothing
_LUMA = {1: (1.0,), 2: (0.5, 0.5), 3: (0.25, 0.5, 0.25), 4: (0.25, 0.25, 0.25, 0.25)}
_WHITE_NOISE = (0.8, 0.055, 0.0104)  # variance of an octave's detail for white noise of variance 1
_FLOOR = 30.0  # in noise variances: less detail than this hardly votes
_CALM = 0.15  # quantile of a frame's energies that is taken for bare noise
_LEAST_NOISE = 1e-8
_SAMPLES = 20_000
_BAND, _REACH = 512, 16  # rows of the frame at a time, and how many more are read on either side; even


def half(size: tuple[int, int]) -> tuple[int, int]:
    """Size of the next coarser grid."""
    return (size[0] + 1) // 2, (size[1] + 1) // 2


@dataclass
class Measured:
    """A frame's energies, OCTAVES arrays on ever coarser grids, its luminance's root on the first grid, its noise."""

    energies: list[Planes]
    light: Planes
    noise: float


class Scratch:
    """Arrays that are used again, by one thread: fresh memory costs more than what is written to it."""

    def __init__(self) -> None:
        self._kept: dict[str, Planes] = {}

    def empty(self, name: str, shape: tuple[int, ...]) -> Planes:
        """An uninitialised array, for the same name in the same memory."""
        size = math.prod(shape)
        kept = self._kept.get(name)
        if kept is None or kept.size < size:
            kept = self._kept[name] = np.empty(size, np.float32)
        return kept[:size].reshape(shape)

    def zeros(self, name: str, shape: tuple[int, ...]) -> Planes:
        """The same, of zeros."""
        array = self.empty(name, shape)
        array.fill(0)
        return array


def measure(planes: Planes, valid: Mask | None, threads: int = 0, scratch: Scratch | None = None) -> Measured:
    """Energies of a frame (C, H, W), UNSEEN where any of the pixels they are made of is not ``valid``.

    With ``scratch`` they lie there, until the next frame is measured.
    """
    new = (scratch or Scratch()).empty
    fine, energies, lights = planes, [], []
    for octave in range(OCTAVES):
        size = half((fine.shape[1], fine.shape[2]))
        coarse, pooled = new(f"light {octave}", (1, *size)), new(f"pooled {octave}", size)
        smooth = new(f"energy {octave}", size)
        if octave:
            _C.pyramid_measure(fine, coarse, pooled, threads=threads)
        else:
            _measure_roots(fine, coarse, pooled, new, threads)
        _C.pyramid_smooth(pooled, smooth, threads=threads)
        energies.append(smooth)
        lights.append(coarse[0])
        fine = coarse
    if valid is not None and not valid.all():
        seen = np.empty(half(valid.shape), np.uint8)
        _C.pyramid_valid(np.ascontiguousarray(valid), seen, threads=threads)
        energies[0][seen == 0] = UNSEEN
    return Measured(energies, lights[0], _calm(energies[0]))


def _measure_roots(
    planes: Planes, coarse: Planes, pooled: Planes, new: Callable[[str, tuple[int, ...]], Planes], threads: int
) -> None:
    """The first octave, from the root of the luminance, which is never there as a whole: band by band."""
    height, width = planes.shape[1:]
    for top in range(0, height, _BAND):
        first, end = max(0, top - _REACH), min(top + _BAND + _REACH, height)
        root = new("root", (1, end - first, width))
        _C.luminance(planes[:, first:end], _LUMA[len(planes)], root[0], square_root=True, threads=threads)
        size = half((end - first, width))
        below, energy = new("band's light", (1, *size)), new("band's energy", size)
        _C.pyramid_measure(root, below, energy, threads=threads)
        inner, place = slice((top - first) // 2, (top - first + _BAND) // 2), slice(top // 2, (top + _BAND) // 2)
        coarse[:, place], pooled[place] = below[:, inner], energy[inner]


def _calm(energy: Planes) -> float:
    """Variance of the finest detail where there is least of it; infinite for a frame that saw nothing."""
    step = max(1, int(np.sqrt(energy.size / _SAMPLES)))
    some = energy[::step, ::step]
    some = some[some >= 0]
    return float(np.quantile(some, _CALM)) if some.size else np.inf


def votes(kept: list[FrameStore], order: list[int], noise: float, box: Box) -> tuple[Planes, Planes]:
    """Votes (N, h, w) of the frames ``order`` in a box of the half-size grid, and where each frame saw it (1 or 0).

    ``kept``: a store of energies per octave; ``noise``: that of the first octave. The box begins at multiples of ALIGN
    and ends at some, or where the grid does. What it gives in a box is what it gives in any larger one.
    """
    finest, *others = (_size(store) for store in kept)
    inner = _halved(box.grown(ALIGN, finest))
    outer = inner.grown(ALIGN // 2, others[0])
    second = _octave(kept[2], order, _halved(outer), noise, 2)
    first = _octave(kept[1], order, outer, noise, 1)
    first += raised(second, outer.size)
    rows, columns = inner.within(outer)
    grown = box.grown(ALIGN, finest)
    coarse = raised(first[:, rows, columns], grown.size)
    rows, columns = box.within(grown)
    total = _octave(kept[0], order, box, noise, 0)
    seen = (total >= 0).astype(np.float32)
    total += coarse[:, rows, columns]
    total *= seen
    return total, seen


def _size(store: FrameStore) -> tuple[int, int]:
    assert store.shape is not None
    return store.shape[1], store.shape[2]


def _halved(box: Box) -> Box:
    """The part of the next coarser grid that lies under a box which begins at even pixels."""
    return Box(box.y0 // 2, (box.y1 + 1) // 2, box.x0 // 2, (box.x1 + 1) // 2)


def _octave(store: FrameStore, order: list[int], box: Box, noise: float, octave: int) -> Planes:
    """The octave's share of the votes (N, h, w); of the finest, -1 where a frame saw nothing."""
    rows, columns = slice(box.y0, box.y1), slice(box.x0, box.x1)
    return store.read(rows, columns, order, _votes_of_codes(noise, octave))[:, 0]


@lru_cache(maxsize=2 * OCTAVES)
def _votes_of_codes(noise: float, octave: int) -> Planes:
    """What an energy votes for, by the code that it is kept as."""
    energy = light_of_codes()
    variance = max(noise, _LEAST_NOISE) * _WHITE_NOISE[octave] / _WHITE_NOISE[0]
    table: Planes = np.log(1 + np.maximum(energy, 0) * np.float32(1 / (_FLOOR * variance))).astype(np.float32)
    if octave == 0:
        table[energy <= UNSEEN / 2] = -1
    return table


def raised(values: Planes, size: tuple[int, int]) -> Planes:
    """(N, h, w) on the next finer grid, of ``size``."""
    out = np.empty((len(values), *size), np.float32)
    _C.pyramid_up(np.ascontiguousarray(values), out, threads=1)
    return out
