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

import threading
from functools import lru_cache

import numpy as np

from . import _C
from .depthmap import KEPT_BYTES, DepthMapFuser, window_weights
from .focus import UNSEEN, Scratch, votes
from .framestore import Codes, disk_room, light_of_codes
from .fuse import Planes
from .tiles import Box, whole

_LEVELS, _TILE_PX, _HALO_PX = 5, (512, 768), 64
_MANY = 48  # frames: tiles of more are half as wide, for each may have weights
_MOST_VOTES = 400_000  # of all frames in a strip of a tile
_LEAST = 1e-3  # frames whose weights are no larger anywhere in a strip are left out there
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
        room = KEPT_BYTES if self.memory is None else self.memory
        return need <= room or need <= room + _OF_DISK * disk_room(self._folder)

    def _blend(self, depth: Planes, spread: Planes) -> Planes:
        assert self._shape is not None
        image = np.empty(self._shape, np.float32)
        everything, frame, mine = whole(self._grid), whole(self._size), threading.local()

        def blend(box: Box) -> None:
            low = box.grown(_HALO_PX // 2, self._grid)
            at = low.within(everything)
            weights = self._weights(low, depth[at], spread[at])
            window = Box(2 * low.y0, min(2 * low.y1, frame.y1), 2 * low.x0, min(2 * low.x1, frame.x1))
            core = Box(2 * box.y0, min(2 * box.y1, frame.y1), 2 * box.x0, min(2 * box.x1, frame.x1))
            inner = (slice(None), *core.within(window))
            mine.scratch = getattr(mine, "scratch", None) or Scratch()
            spline = _Spline((len(image), *window.size), mine.scratch)
            part = self._add(spline, weights, window, inner)
            np.clip(spline.collapse()[inner], *part, out=image[(slice(None), *core.within(frame))])

        rows, columns = _TILE_PX if len(self._order) <= _MANY else (_TILE_PX[0], _TILE_PX[1] // 2)
        self._run(blend, 1, (rows // 2, columns // 2))
        return image

    def _add(self, spline: _Spline, weights: dict[int, Planes], window: Box, inner: tuple[slice, ...]) -> Planes:
        """All frames to a tile, each read once; the least and the largest value (2, C, h, w) of any in its middle."""
        rows, columns = window.within(whole(self._size))
        light, ends = light_of_codes(), _Ends()
        planes = spline.scratch.empty("planes", (1, len(spline), *window.size))
        for k in self._order:
            codes = self._store.codes(rows, columns, [k])
            ends.add(codes[0][inner])
            if k in weights:
                _C.roots_lookup(codes, light, planes, threads=1)
                spline.add(planes[0], weights.pop(k))
            self._store.release(rows, [k])
        return ends.values()

    def _weights(self, box: Box, depth: Planes, spread: Planes) -> dict[int, Planes]:
        """Weights (h, w) of the frames that have some in a box of the half-size grid.

        Strip by strip, because votes of hundreds of frames are large.
        """
        share, found = apart(depth), dict[int, Planes]()
        rows, _ = self._band(box.size[1], _MOST_VOTES)
        for top in range(box.y0, box.y1, rows):
            strip = Box(top, min(top + rows, box.y1), box.x0, box.x1)
            at = strip.within(box)
            for k, weight in zip(self._order, self._weigh(strip, depth[at], spread[at], share[at]), strict=True):
                if weight.max() > _LEAST:
                    if k not in found:
                        found[k] = np.zeros(box.size, np.float32)
                    found[k][at] = weight
        return found

    def _weigh(self, strip: Box, depth: Planes, spread: Planes, share: Planes) -> Planes:
        """The depth map's weights, or by ``share`` the finest detail's."""
        vote, seen = votes(self._energies, self._order, self._floor, strip)
        weights = window_weights(vote, seen, depth, spread, self.near)
        if not share.any():
            return weights
        variance = max(self._floor, _LEAST_NOISE)
        detail = self._energies[0].read(*strip.within(whole(self._grid)), self._order, _detail_of_codes(variance))[:, 0]
        sharpest = detail.max(axis=0)
        least, enough = _DETAIL
        share = share * np.clip((sharpest / variance - least) / (enough - least), 0, 1)
        detail /= np.maximum(sharpest, variance)
        np.square(np.square(detail, out=detail), out=detail)
        detail *= weights.max(axis=0) * share
        weights *= 1 - share
        weights += detail
        return weights


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


class _Ends:
    """The least and the largest of codes, (C, h, w) uint16."""

    def __init__(self) -> None:
        self._ends: tuple[Codes, Codes] | None = None

    def add(self, codes: Codes) -> None:
        if self._ends is None:
            self._ends = codes.copy(), codes.copy()
        for end, pick in zip(self._ends, (np.minimum, np.maximum), strict=True):
            pick(end, codes, out=end)

    def values(self) -> Planes:
        """Both as light, (2, C, h, w)."""
        assert self._ends is not None
        values = np.empty((2, *self._ends[0].shape), np.float32)
        _C.roots_lookup(list(self._ends), light_of_codes(), values, threads=1)
        return values


class _Spline:
    """Sums of one tile, level by level; planes (C, h, w) and weights on the grid of half their size."""

    def __init__(self, shape: tuple[int, int, int], scratch: Scratch) -> None:
        count, height, width = shape
        self.scratch = scratch
        self._levels: list[tuple[Planes, Planes]] = []  # numerators and denominators, finest first
        for level in range(_LEVELS):
            sums = scratch.zeros(f"sums {level}", (count + 1, height, width))
            self._levels.append((sums[:count], sums[count]))
            height, width = (height + 1) // 2, (width + 1) // 2
        sums = scratch.zeros("base", (count + 1, height, width))
        self._base, self._weight = sums[:count], sums[count]

    def __len__(self) -> int:
        return len(self._base)

    def add(self, planes: Planes, weight: Planes) -> None:
        """A frame by its weights."""
        new, fine, rating = self.scratch.empty, planes, weight
        for level, (numerator, denominator) in enumerate(self._levels):
            low = ((fine.shape[1] + 1) // 2, (fine.shape[2] + 1) // 2)
            coarse = new(f"coarse {level}", (len(fine), *low))
            _C.pyramid_down(fine, coarse, threads=1)
            if level:
                finer, rating = rating, new(f"rating {level}", low)
                _C.pyramid_down(finer[None], rating[None], threads=1)
            one = new(f"one {level}", low)  # of the fold's running maximum, which weights up to 1 do not need
            one.fill(1)
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
