"""The fuser ``auto``: a depth map decides, a pyramid blends.

The depth map's weights say which frames make a place; blending them pixel by pixel leaves hard borders where depth is
a guess or frames differ in brightness all around, as beside bright things out of focus. So each scale is blended by
itself, as wide as it is coarse (the multiresolution spline of Burt & Adelson, ACM TOG 2, 1983):

    L_l,k = detail of frame k on level l;  R_0,k = w_k, R_l,k = down(R_{l-1,k});  w_k of :mod:`pyfocus.depthmap`
    O_l   = sum_k up(R_l,k)^p L_l,k / sum_k up(R_l,k)^p,   p = 1 on the finest level and 2 above

and the picture is what the O_l collapse to; below the last level frames are averaged by R. The finest level holds most
of the noise, which averaging lessens; above it, sharper weights keep silhouettes narrow. Tile by tile, of frames that
have a weight there. Two things keep halos out:

- Votes see a few pixels around, so beside a silhouette they may name its frame, which shows the ground behind only as
  a blur. Where depths lie side by side the finest detail of all, (E_0 + 2 v)^4, decides instead, if there is any.
- No value leaves the range that the frames have at its pixel: what scales of different frames add up to beside a bright
  edge can be darker than any of them.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from . import _C
from .depthmap import DepthMapFuser, window_weights
from .focus import UNSEEN, votes
from .framestore import disk_room, half_of_memory, light_of_codes
from .fuse import Planes
from .tiles import Box, whole

_LEVELS, _TILE_PX, _HALO_PX = 5, 512, 64
_LEAST = 1e-3  # frames whose weights are no larger anywhere in a tile are left out
_APART = (2.0, 4.0)  # frames: depths side by side that are one surface, and that are two
_NOISE, _DETAIL = 2.0, (5.0, 11.0)  # in noise variances: added to the finest energy; of both, no detail and some
_LEAST_NOISE = 1e-8
_KEPT_BYTES = 6.7  # per pixel of three planes
_OF_DISK = 0.9  # of what is free there


class CombinedFuser(DepthMapFuser):
    """The depth map's choice of frames, blended scale by scale: see :mod:`pyfocus.combine`. By name ``auto``.

    Arguments, memory and promises are those of :class:`pyfocus.DepthMapFuser`.
    """

    def has_room(self, frames: int, size: tuple[int, int]) -> bool:
        """True when so many frames of (h, w) can be kept, in RAM and on the disk."""
        need = _KEPT_BYTES * frames * size[0] * size[1]
        room = half_of_memory() if self.memory is None else self.memory
        return need <= room or need <= room + _OF_DISK * disk_room(self._folder)

    def _blend(self, depth: Planes, spread: Planes) -> Planes:
        assert self._shape is not None
        image = np.empty(self._shape, np.float32)
        everything, frame = whole(self._grid), whole(self._size)

        def blend(box: Box) -> None:
            low = box.grown(_HALO_PX // 2, self._grid)
            at = low.within(everything)
            weights = self._weights(low, depth[at], spread[at])
            window = Box(2 * low.y0, min(2 * low.y1, frame.y1), 2 * low.x0, min(2 * low.x1, frame.x1))
            core = Box(2 * box.y0, min(2 * box.y1, frame.y1), 2 * box.x0, min(2 * box.x1, frame.x1))
            spline = _Spline((self._shape[0], *window.size))  # type: ignore[index]
            for k, number in enumerate(self._order):
                if weights[k].max() > _LEAST:
                    spline.add(self._store.tile(*window.within(frame), [number])[0], weights[k])
            part = spline.collapse()[(slice(None), *core.within(window))]
            place = (slice(None), *core.within(frame))
            np.clip(part, *self._range(core), out=image[place])

        self._run(blend, 1, (_TILE_PX // 2, _TILE_PX // 2))
        return image

    def _weights(self, box: Box, depth: Planes, spread: Planes) -> Planes:
        """Weights (N, h, w) of the frames in a box of the half-size grid: the depth map's, or the finest detail's."""
        vote, seen = votes(self._energies, self._order, self._floor, box)
        weights = window_weights(vote, seen, depth, spread, self.near)
        share = apart(depth)
        if share.any():
            variance = max(self._floor, _LEAST_NOISE)
            detail = self._energies[0].read(*box.within(whole(self._grid)), self._order, _detail_of_codes(variance))
            sharpest = detail[:, 0].max(axis=0)
            least, enough = _DETAIL
            share *= np.clip((sharpest / variance - least) / (enough - least), 0, 1)
            detail = np.square(np.square(detail[:, 0] / np.maximum(sharpest, variance)))
            detail *= weights.max(axis=0) * share
            weights *= 1 - share
            weights += detail
        return weights

    def _range(self, box: Box) -> tuple[Planes, Planes]:
        """The least and the largest value (C, h, w) of all frames."""
        first, *others = self._store.codes(*box.within(whole(self._size)), self._order)
        low, high = first.copy(), first.copy()
        for codes in others:
            np.minimum(low, codes, out=low)
            np.maximum(high, codes, out=high)
        self._store.release()
        values = np.empty((2, *low.shape), np.float32)
        _C.roots_lookup([low, high], light_of_codes(), values, threads=1)
        return values[0], values[1]


def apart(depth: Planes) -> Planes:
    """Where depths (h, w), in frames, differ by more than one surface's do within 7 x 7 places: from 0 to 1."""
    low = high = depth
    for axis in (0, 1):
        low, high = _around(low, axis, np.minimum), _around(high, axis, np.maximum)
    share: Planes = np.clip((high - low - _APART[0]) / (_APART[1] - _APART[0]), 0, 1).astype(np.float32)
    if share.any():
        once = np.empty_like(share)
        _C.pyramid_smooth(share, once, threads=1)
        _C.pyramid_smooth(once, share, threads=1)
    return share


def _around(values: Planes, axis: int, pick: np.ufunc) -> Planes:
    """The extreme of a value and of three to each side along an axis."""
    padded = np.pad(values, [(3, 3) if a == axis else (0, 0) for a in (0, 1)], mode="edge")
    padded = np.moveaxis(padded, axis, 0)
    count = values.shape[axis]
    three: Planes = pick(pick(padded[:-2], padded[1:-1]), padded[2:])
    seven: Planes = pick(pick(three[:count], three[2 : count + 2]), three[4 : count + 4])
    return np.ascontiguousarray(np.moveaxis(seven, 0, axis))


@lru_cache(maxsize=2)
def _detail_of_codes(variance: float) -> Planes:
    """The finest energy and the noise's, by the code that it is kept as; 0 where a frame saw nothing."""
    energy = light_of_codes()
    table: Planes = np.where(energy <= UNSEEN / 2, 0, np.maximum(energy, 0) + _NOISE * variance).astype(np.float32)
    return table


class _Spline:
    """Sums of one tile, level by level; planes (C, h, w) and weights on the grid of half their size."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        count, height, width = shape
        self._levels: list[tuple[Planes, Planes]] = []  # numerators and denominators, finest first
        for _ in range(_LEVELS):
            self._levels.append((np.zeros((count, height, width), np.float32), np.zeros((height, width), np.float32)))
            height, width = (height + 1) // 2, (width + 1) // 2
        self._base, self._weight = np.zeros((count, height, width), np.float32), np.zeros((height, width), np.float32)

    def add(self, planes: Planes, weight: Planes) -> None:
        """A frame by its weights."""
        fine, rating = planes, np.ascontiguousarray(weight)
        for level, (numerator, denominator) in enumerate(self._levels):
            low = ((fine.shape[1] + 1) // 2, (fine.shape[2] + 1) // 2)
            coarse = np.empty((len(fine), *low), np.float32)
            _C.pyramid_down(fine, coarse, threads=1)
            if level:
                finer, rating = rating, np.empty(low, np.float32)
                _C.pyramid_down(finer[None], rating[None], threads=1)
            one = np.ones(low, np.float32)  # of the fold's running maximum, which weights up to 1 do not need
            _C.pyramid_fold(fine, coarse, rating, one, one, 2 if level else 1, numerator, denominator, threads=1)
            fine = coarse
        _C.pyramid_base(fine, rating, self._base, self._weight, threads=1)

    def collapse(self) -> Planes:
        """The picture of the tile; takes the sums' place."""
        image = self._base
        _C.pyramid_mean(self._base, self._weight, image, threads=1)
        for numerator, denominator in reversed(self._levels):
            _C.pyramid_collapse(numerator, denominator, image, numerator, threads=1)
            image = numerator
        return image
