"""The default fuser: a depth map decides, a pyramid blends.

The depth map's weights say which frames make a place; blending them pixel by pixel leaves hard borders where depth is
a guess or frames differ in brightness all around, as beside bright things out of focus. So each scale is blended by
itself, as wide as it is coarse (the multiresolution spline of Burt & Adelson, ACM TOG 2, 1983):

    L_l,k = detail of frame k on level l;  R_0,k = w_k, R_l,k = down(R_{l-1,k});  w_k of :mod:`pyfocus.depthmap`
    O_l   = sum_k up(R_l,k)^p L_l,k / sum_k up(R_l,k)^p,   p = 1 on the finest level and 2 above

and the picture is what the O_l collapse to; below the last level frames are averaged by R. The finest level holds most
of the noise, which averaging lessens; above it, sharper weights keep silhouettes narrow. Tile by tile, of frames that
have a weight there.
"""

from __future__ import annotations

import numpy as np

from . import _C
from .depthmap import DepthMapFuser, window_weights
from .focus import votes
from .framestore import disk_room, half_of_memory
from .fuse import Planes
from .tiles import Box, whole

_LEVELS, _TILE_PX, _HALO_PX = 5, 512, 64
_LEAST = 1e-3  # frames whose weights are no larger anywhere in a tile are left out
_KEPT_BYTES = 6.7  # per pixel of three planes
_OF_DISK = 0.9  # of what is free there


class CombinedFuser(DepthMapFuser):
    """The depth map's choice of frames, blended scale by scale: see :mod:`pyfocus.combine`. The default, ``auto``.

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
            vote, seen = votes(self._energies, self._order, self._floor, low)
            at = low.within(everything)
            weights = window_weights(vote, seen, depth[at], spread[at], self.near)
            window = Box(2 * low.y0, min(2 * low.y1, frame.y1), 2 * low.x0, min(2 * low.x1, frame.x1))
            core = Box(2 * box.y0, min(2 * box.y1, frame.y1), 2 * box.x0, min(2 * box.x1, frame.x1))
            spline = _Spline((self._shape[0], *window.size))  # type: ignore[index]
            for k, number in enumerate(self._order):
                if weights[k].max() > _LEAST:
                    spline.add(self._store.tile(*window.within(frame), [number])[0], weights[k])
            inner = (slice(None), *core.within(window))
            image[(slice(None), *core.within(frame))] = spline.collapse()[inner]

        self._run(blend, 1, (_TILE_PX // 2, _TILE_PX // 2))
        return image


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
