"""A depth map first, then the picture from it: which frame is sharpest, smoothed within what belongs together.

    push    frame -> FrameStore (16 bits a value), energies of its detail -> FrameStores (a tenth more)    focus
    finish  1. votes of all frames, tile by tile; the peak over the frames, a nearer one before a farther one
            2. parabola through the peak: sub-frame depth; how wide the peak is: confidence
            3. depth smoothed where the guide, an all-in-focus luminance, has no edge                      guided
            4. picture: frames averaged with weights exp(4 vote) within a window about the smoothed depth

Frames that are equally sharp have equal votes and are averaged, so noise falls with their number.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
import numpy.typing as npt

from . import _C
from .burst import Frame
from .errors import ArgumentError, ResourceError
from .focus import ALIGN, OCTAVES, Scratch, half, measure, raised, votes
from .framestore import FrameStore, light_of_codes
from .fuse import Fused, Mask, Planes, _Folding
from .guided import smooth_guided
from .tiles import Box, whole

Near = Literal["first", "last", "none"]
NEAR: tuple[Near, ...] = ("first", "last", "none")
Places = npt.NDArray[np.float64]

_MOST_VOTES, _MOST_READ = 1_280_000, 400_000  # of all frames in a tile of the half-size grid, also where it is blended
_MOST_ROWS, _MOST_COLUMNS = 32, 1024  # of a tile; where it is blended
KEPT_BYTES = 320_000_000  # of frames and energies in RAM, unless told otherwise: ten frames of 12 MP take 800 MB
_FULL_SHARE = 0.7  # of the memory, for frames; energies take a tenth of them, but are read more often
_STRENGTH, _EDGE = 3.0, 0.02  # of the smoothing; the edge in units of the luminance's root
_NARROW = 0.5  # frames: the window about a depth that is certain
_DOUBT = 0.1  # frames squared: variance of a depth that is certain
_PARTIAL = 0.02  # of the certainty, where some frame, perhaps the sharpest, saw nothing
_SURE = 0.2  # confidence from which the parabola is taken, not the centroid
_RULE = (3.0, 3.0, 6.0)  # votes: below the highest, deep as a valley, clear by itself; see cut_behind
_NOTHING = 1e-9  # weight of a frame that saw nothing, where no frame saw anything

Told = Callable[[str, float, int], None]


class DepthMapFuser(_Folding):
    """Fusion by a depth map, in two passes over frames that are kept: in RAM up to ``memory``, then in one file.

    ``memory``: bytes of frames and energies to keep in RAM (default: 320 MB, or what the pipeline leaves of what it
    was given); ``folder``: where the file lies, as for :class:`pyfocus.framestore.FrameStore`. RAM does not grow with
    the number of frames; the file takes 6.7 bytes per pixel of three planes and frame. ``near``: which end of the burst
    shows near things. Where two depths are seen one through the other, the nearer one is taken; "none" takes the
    sharper one. ``depth``: also give depth and confidence, 8 bytes per pixel. Frames may come in any order of
    ``index``. On the host only: frames are NumPy arrays.

    Deterministic, for any number of threads.
    """

    def __init__(
        self,
        threads: int = 0,
        *,
        near: Near = "first",
        memory: int | None = None,
        folder: str | os.PathLike[str] | None = None,
        depth: bool = True,
    ) -> None:
        super().__init__(threads)
        if near not in NEAR:
            raise ArgumentError(f"DepthMapFuser: near must be one of {', '.join(NEAR)}, got {near!r}")
        self.near, self.memory, self._folder, self._gives_maps = near, memory, folder, depth
        self.tell: Told | None = None
        self._places: list[float] = []
        self._store, self._energies = FrameStore(0), [FrameStore(0)]  # of no frames, which take nothing
        self._noise, self._is_full = float(np.inf), False
        self._scratch = Scratch()

    def begin(self, frame: Frame) -> None:
        """A burst begins, or begins anew: what was kept is given away."""
        self.frames, self._shape, self._places, self._finished = 0, None, [], False
        self._close()

    def push(self, planes: Planes, valid: Mask | None = None, *, index: float | None = None) -> None:
        """Keep a frame and measure it; see :class:`pyfocus.Fuser`. Raises ResourceError when the disk is full; then
        ``finish`` gives what the frames before make, and further frames are refused."""
        if not isinstance(planes, np.ndarray):
            raise ArgumentError(f"DepthMapFuser.push: planes must be a NumPy array, got {type(planes).__name__}")
        place = float(self.frames if index is None else index)
        if self._accept(planes, valid):
            self._begin((planes.shape[1], planes.shape[2]))
        planes = np.ascontiguousarray(planes)
        found = measure(planes, valid, self.threads, self._scratch)
        try:
            if self._is_full:
                raise ResourceError("DepthMapFuser.push: an earlier frame found no room; finish, or begin anew")
            for store, energy in zip(self._energies, found.energies, strict=True):
                store.push(energy[None])
            self._store.push(planes)
        except ResourceError:
            self.frames, self._is_full = self.frames - 1, True
            raise
        self._places.append(place)
        self._noise = min(self._noise, found.noise)
        weight = np.maximum(found.energies[0], 0, out=found.energies[0])
        np.square(weight, out=weight)
        weight += np.float32(1e-20)
        self._guide_weight += weight
        weight *= found.light
        self._guide += weight

    def preview(self) -> Planes:
        """What ``finish`` would give now; takes as long."""
        self._need_frames("preview")
        return self._compose().image

    def finish(self) -> Fused:
        """The picture, depth and confidence; the frames are given away."""
        self._need_frames("finish")
        self._finished = True
        return self._compose()

    def _close(self) -> None:
        for store in (self._store, *self._energies):
            store.close()
        self._scratch = Scratch()

    def _begin(self, size: tuple[int, int]) -> None:
        room = KEPT_BYTES if self.memory is None else self.memory
        self._store = FrameStore(int(_FULL_SHARE * room), self._folder, self.threads)
        rest = room - int(_FULL_SHARE * room)
        shares = [4.0**-octave for octave in range(OCTAVES)]
        self._energies = [FrameStore(int(rest * share / sum(shares)), self._folder, self.threads) for share in shares]
        self._size, self._grid = size, half(size)
        self._guide, self._guide_weight = np.zeros(self._grid, np.float32), np.zeros(self._grid, np.float32)
        self._noise, self._is_full = np.inf, False

    def _compose(self) -> Fused:
        self._scratch = Scratch()  # makes room
        self._order = [int(i) for i in np.argsort(self._places, kind="stable")]
        self._steps = np.array([self._places[i] for i in self._order])
        self._floor = self._noise if np.isfinite(self._noise) else 0.0
        maps, confidence = self._peaks()
        # noise of the guide, as the finest octave's tells it: 0.075 is the share of white noise that `down` leaves
        edge = _EDGE + 2 * float(np.sqrt(0.075 / 0.8 * self._floor))
        depth, weight, spread = smooth_guided(maps, self._guide / self._guide_weight, _STRENGTH, edge, self.threads)
        depth /= weight
        spread /= weight
        del maps, weight
        if self._finished:
            self._guide = self._guide_weight = np.zeros((0, 0), np.float32)
        image = self._blend(depth, spread)
        if self._finished:
            self._close()  # before the maps take their room
        if not self._gives_maps:
            return Fused(image)
        small = np.stack([self._placed(depth), confidence]).astype(np.float32)
        full = raised(small, self._size)
        return Fused(image, full[0], np.clip(full[1], 0, 1, out=full[1]))

    def _placed(self, depth: Planes) -> Planes:
        """Places in focus order of depths that count the frames."""
        return np.asarray(np.interp(depth, np.arange(len(self._steps)), self._steps), np.float32)

    def _peaks(self) -> tuple[Planes, Planes]:
        """Depth, 1 and its variance, each times its certainty, (3, h, w) of the half-size grid; and the confidence."""
        maps, confidence = np.empty((3, *self._grid), np.float32), np.empty(self._grid, np.float32)

        def look(box: Box) -> None:
            vote, seen = votes(self._energies, self._order, self._floor, box)
            at = box.within(whole(self._grid))
            depth, spread, confidence[at] = read_peaks(vote, seen, self.near)
            certainty = np.where(seen.min(0) > 0, 1, _PARTIAL) / (spread + _DOUBT)
            maps[0][at], maps[1][at], maps[2][at] = certainty * depth, certainty, certainty * spread

        self._run(look, 0)
        return maps, confidence

    def _blend(self, depth: Planes, spread: Planes) -> Planes:
        """The picture, (C, H, W), from depth and its variance on the half-size grid."""
        assert self._shape is not None
        image = np.empty(self._shape, np.float32)
        everything = whole(self._size)

        def blend(box: Box) -> None:
            wide = box.grown(ALIGN, self._grid)
            vote, seen = votes(self._energies, self._order, self._floor, wide)
            at = wide.within(whole(self._grid))
            weights = window_weights(vote, seen, depth[at], spread[at], self.near)
            rows, columns = Box(
                2 * box.y0, min(2 * box.y1, self._size[0]), 2 * box.x0, min(2 * box.x1, self._size[1])
            ).within(everything)
            top, left = 2 * (box.y0 - wide.y0), 2 * (box.x0 - wide.x0)
            codes = self._store.codes(rows, columns, self._order)
            _C.depth_blend(codes, light_of_codes(), weights, top, left, 2 * _NOTHING, image[:, rows, columns])
            self._store.release(rows, self._order)

        self._run(blend, 1, self._band(min(self._grid[1], _MOST_COLUMNS), _MOST_READ))
        return image

    def _run(self, work: Callable[[Box], None], part: int, tile: tuple[int, int] | None = None) -> None:
        """All tiles, by threads; what they write does not overlap. ``part`` of the two that finishing has."""
        tiles = whole(self._grid).cut(*(tile or self._band(self._grid[1], _MOST_VOTES)))
        with ThreadPoolExecutor(self.threads or _C.threads()) as pool:
            for done, _ in enumerate(pool.map(work, tiles)):
                if self.tell is not None:
                    self.tell("finish", part * len(tiles) + done + 1, 2 * len(tiles))

    def _band(self, columns: int, most: int) -> tuple[int, int]:
        """Rows and columns of a tile, whole rows if it can be: of a file, all of a row comes with any part of it."""
        rows = most // (columns * len(self._order))
        return min(max(ALIGN, rows // ALIGN * ALIGN), _MOST_ROWS), columns


def read_peaks(vote: Planes, seen: Planes, near: Near = "first") -> tuple[Planes, Planes, Planes]:
    """Depth in frames, its variance in frames squared, and confidence, of votes (N, h, w); which are changed.

    The depth is the vertex of the parabola through the highest vote and its neighbours, no further than half a frame
    from it; where nothing stands out, the centroid. The variance is that of the frames' numbers under the weights
    exp(4 vote). Confidence is 0 when all frames that saw a place vote alike, and near 1 when one of them stands out.
    """
    depth, spread, confidence = (np.empty(vote.shape[1:], np.float32) for _ in range(3))
    _C.depth_peaks(vote, seen, near, _RULE, _SURE, depth, spread, confidence)
    return depth, spread, confidence


def cut_behind(vote: Planes, near: Near) -> None:
    """Where a near peak stands before a farther one, lower the votes behind it to the valley between them.

    A peak counts when it is clear by itself (6), at most 3 under the highest vote, and when a valley of 3 parts it from
    what comes behind: a surface seen through the blur of a nearer one has its own, farther peak.
    """
    _C.depth_cut(vote, near, _RULE)


def window_weights(vote: Planes, seen: Planes, depth: Planes, spread: Planes, near: Near = "none") -> Planes:
    """Weights (N, h, w) in [0, 1] of the frames: exp(4 vote), in a window about the depth as wide as its doubt.

    They take the place of the votes, which are cut first as ``near`` says.
    """
    _C.depth_weights(
        vote, seen, near, _RULE, np.ascontiguousarray(depth), np.ascontiguousarray(spread), _NARROW, _NOTHING
    )
    return vote
