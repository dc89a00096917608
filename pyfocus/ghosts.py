"""Ghosts: where something moved in a few frames, told from small pictures of all of them.

Defocus moves light about, but keeps its sum: averaged over a little more than what the blur grows by from frame to
frame, two neighbours differ hardly, whatever is sharp in which of them. An intruder brings light or takes it away. Of a
difference D between frames, on small pictures of linear light and with G a Gaussian,

    evidence = min( |G D| / (0.6 G|D|)           of one sign: came or went, and was not only moved about
                    |G D| / (2 G|D'|)            far above D', by which the frames before and after differ,
                    |G D| / (1.5 px |grad G L|)  above what a small shift makes of the edges there,
                    |G D| / (0.1 G L) )          and of the light L that is there

for D of frame k to one before and to one after, both of one sign, the smaller of the two. Beyond 1 it is a ghost, which
ends where the evidence falls below a third. Up to three frames in a row may show it. The first and the last frames have
neighbours on one side only; there the evidence has to be stronger. Clipped light is the one thing whose sum defocus
does not keep: a highlight shows less of it the sharper it is. Near what is clipped in a frame, darkness has to stand
out from what the frames around it do among themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import _C
from .affine import Matrix, at_pitch
from .arrays import AnyArray, Arrays
from .burst import Burst, Frame
from .equalise import gain_between
from .planes import luminance, planes_of

Planes = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

_SMALL_PX = 400  # longer side of the small pictures: a thing must be 0.3 % of it wide to be seen
_SMOOTHINGS = 2  # after halving: sigma 3 of the small picture's pixels in all, 0.75 % of its longer side
_FRAMES = 3  # in a row that may show a ghost, and no more than a third of the others
FEWEST_FRAMES = 4  # of which one may show one
_ONE_SIGN, _UNLIKE, _TREND = 0.6, 2.0, 1.5  # the trend: by which each neighbour differs from the one beyond it
_SHIFT_PX, _CHANGE, _DARK = 1.5, 0.1, 0.01
_END_ONE_SIGN, _END_UNLIKE, _END_CHANGE = 0.85, 3.0, 0.5  # where there are neighbours on one side only,
_BEYOND, _END_FEWEST = 3, 7  # of which so many more must be alike, in bursts of so many frames
_TREND_OF_CLIPPED = (
    4.0  # a highlight's disc fades from frame to frame, three quarters of it from the next to the one after
)
_CLIPPED, _CLIPPED_ROOT = 0.9, 0.955  # of white: linear light, and encoded
_NEAR = 1e-3  # of a pixel's share in the mean about a place: 8 px of the small picture away
_FADES, _REACH, _MARGIN = 0.35, 40, 2  # how faint a ghost's rim may be, how far off, and what is added; half-size px
_HOLE = 5  # half the width of a hole that is closed, half-size px: a glint in something dark


class View(NamedTuple):
    """A small picture of a frame in the reference's geometry: linear light (h, w) float32, equalised; where the frame
    saw it; and where it holds clipped pixels, both (h, w) bool."""

    light: Planes
    valid: Mask
    clipped: Mask


Read = Callable[[int], View]


class Ghosts:
    """Where frames of a burst show what their neighbours do not: ``look`` at all, ``find``, then ``cut`` each mask.

    Keeps 0.3 MB per frame. ``shares``: how much of a frame was cut, by its number, for those that show a ghost.
    """

    def __init__(self, count: int, threads: int = 0) -> None:
        self._threads, self._lock = threads, Lock()
        self._seen: list[_Seen | None] = [None] * count
        self._masks: dict[int, Mask] = {}
        self._pitch, self._size = 1, (0, 0)
        self.shares: dict[int, float] = {}

    def watch(self, burst: Burst) -> Burst:
        """The burst, whose frames are looked at when they are read."""

        def read(i: int) -> Frame:
            frame = burst[i]
            self.look(i, frame)
            return frame

        return Burst(burst.names, read)

    def look(self, number: int, frame: Frame) -> None:
        """Keep a small picture of frame ``number``, unless there is one. In any thread."""
        if self._seen[number] is not None:
            return
        planes = planes_of(frame)
        height, width = planes.size(frame.size)
        factor = min(64, max(1, -(-max(height, width) // _SMALL_PX)))
        root = luminance(frame, factor, threads=1)  # a half-precision root is as good as a frame needs
        clipped = _clipped(frame, factor * planes.step, root.shape)
        with self._lock:
            self._pitch, self._size = factor * planes.step, frame.size
            self._seen[number] = root.astype(np.float16), clipped

    def missing(self) -> list[int]:
        """The frames that were not looked at."""
        return [i for i, seen in enumerate(self._seen) if seen is None]

    def find(self, matrices: Sequence[Matrix] | Matrix, used: Sequence[int]) -> None:
        """Judge the frames ``used``, in focus order; ``matrices`` (N, 3, 3): reference to frame pixels, of all.

        Finds nothing in frames that are not of one size, or of which too few were looked at.
        """
        looked_at = [self._seen[i] for i in used]
        if len({None if seen is None else seen[0].shape for seen in looked_at}) != 1 or looked_at[0] is None:
            return
        middle = self._moved(matrices, used[len(used) // 2])

        def read(k: int) -> View:
            view = self._moved(matrices, used[k])
            gain = gain_between(middle.light[None], view.light[None], middle.valid & view.valid)
            return view._replace(light=view.light * np.float32(gain[0]))

        found = {used[k]: mask for k, mask in enumerate(find_ghosts(read, len(used), self._threads)) if mask.any()}
        self._seen = [None] * len(self._seen)
        if not found:
            return
        too_often = np.sum(list(found.values()), axis=0) > len(used) // 2
        self._masks = {number: mask & ~too_often for number, mask in found.items()}
        self.shares = {number: float(mask.mean()) for number, mask in self._masks.items() if mask.any()}

    def cut(self, number: int, valid: AnyArray, arrays: Arrays) -> AnyArray:
        """``valid`` (h, w) uint8 of the frame in the reference's geometry, 0 also where it shows a ghost."""
        if number not in self.shares:
            return valid
        seen = arrays.to_host(valid)
        mask, step = self._masks[number], round(self._size[0] / seen.shape[0])
        rows, columns = (
            np.clip(np.rint((step * np.arange(n) + (step - self._pitch) / 2) / (2 * self._pitch)), 0, m - 1).astype(int)
            for n, m in zip(seen.shape, mask.shape, strict=True)
        )
        seen[mask[rows][:, columns]] = 0
        return arrays.upload(seen)

    def _moved(self, matrices: Sequence[Matrix] | Matrix, number: int) -> View:
        """A frame in the reference's geometry, not yet equalised."""
        seen = self._seen[number]
        assert seen is not None
        there = np.stack([np.square(seen[0].astype(np.float32)), seen[1].astype(np.float32)])
        moved, valid = np.empty_like(there), np.empty(there.shape[1:], np.uint8)
        maps = np.stack([at_pitch(matrices[number], self._pitch)] * 2)
        _C.warp(there, maps, moved, valid, interpolation=0, threads=self._threads)
        return View(moved[0], valid > 0, moved[1] > 0)


_Seen = tuple[npt.NDArray[np.float16], Mask]  # the root of the light, and where it is clipped


def _clipped(frame: Frame, block: int, size: tuple[int, ...]) -> Mask:
    """Which blocks of ``block`` pixels a side, ``size`` (h, w) of them, hold clipped pixels: by every fourth or so."""
    step = next(s for s in range(max(1, block // 4), 0, -1) if block % s == 0)
    some = frame.data[: size[0] * block : step, : size[1] * block : step]
    kind = some.dtype
    if frame.is_mosaic:
        bright = some > _CLIPPED * frame.meta.white
    else:
        share = _CLIPPED_ROOT if frame.meta.encoding == "srgb" else _CLIPPED
        bright = some > (share if kind == np.float32 else kind.type(share * np.iinfo(kind).max))
    if bright.ndim == 3:
        bright = bright[..., 0] if bright.shape[2] == 1 else bright[..., 0] | bright[..., 1] | bright[..., 2]
    across = block // step
    return np.asarray(bright.reshape(size[0], across, size[1], across).any(axis=(1, 3)))


def find_ghosts(read: Read, count: int, threads: int = 0) -> Iterator[Mask]:
    """For each of ``count`` frames in focus order where it shows a ghost, (ceil(h / 2), ceil(w / 2)) bool.

    ``read(k)`` gives frame k, registered and equalised; it is asked for each frame once, a few frames ahead.
    """
    nearby = _Nearby(read, count, threads)
    for k in range(count):
        evidence = _evidence(nearby, k)
        ghost, faint = evidence > 1, evidence > _FADES
        for _ in range(_REACH if ghost.any() else 0):
            wider = (_grown(ghost) & faint) | ghost
            if np.array_equal(wider, ghost):
                break
            ghost = wider
        yield _closed(ghost) if ghost.any() else ghost
        nearby.forget(k - 2 * _FRAMES)


class _Light(NamedTuple):
    """On the half-size grid: G L, its gradient per pixel of the small picture, and what is near something clipped."""

    mean: Planes
    edge: Planes
    near_clipped: Mask


class _Nearby:
    """Frames around the one in question, and what is computed of pairs of them once, on the half-size grid."""

    def __init__(self, read: Read, count: int, threads: int) -> None:
        self.count, self._read, self._threads = count, read, threads
        self._views: dict[int, View] = {}
        self._lights: dict[int, _Light] = {}
        self._pairs: dict[tuple[int, int], tuple[Planes, Planes]] = {}

    def view(self, k: int) -> View:
        """Frame k."""
        if k not in self._views:
            self._views[k] = self._read(k)
        return self._views[k]

    def light(self, k: int) -> _Light:
        """What there is of light about each place of frame k."""
        if k not in self._lights:
            view = self.view(k)
            smooth = self._smoothed(view.light * view.valid)
            by_row, by_column = (np.gradient(smooth, axis=a) if smooth.shape[a] > 1 else 0 * smooth for a in (0, 1))
            near = self._smoothed(view.clipped.astype(np.float32)) > _NEAR
            self._lights[k] = _Light(smooth, np.asarray(np.hypot(by_row, by_column) / 2, np.float32), near)
        return self._lights[k]

    def differ(self, j: int, k: int) -> tuple[Planes, Planes]:
        """G D and G|D| of what frame k has more than frame j, where both are valid."""
        first, second = min(j, k), max(j, k)
        if (first, second) not in self._pairs:
            a, b = self.view(first), self.view(second)
            more = (b.light - a.light) * (a.valid & b.valid)
            self._pairs[first, second] = self._smoothed(more), self._smoothed(np.abs(more))
        net, total = self._pairs[first, second]
        return (net if j < k else -net), total

    def forget(self, before: int) -> None:
        """Frames before that one will not be asked for again."""
        self._views = {k: view for k, view in self._views.items() if k >= before}
        self._lights = {k: light for k, light in self._lights.items() if k >= before}
        self._pairs = {pair: differ for pair, differ in self._pairs.items() if pair[0] >= before}

    def _smoothed(self, values: Planes) -> Planes:
        half = np.empty((1, (values.shape[0] + 1) // 2, (values.shape[1] + 1) // 2), np.float32)
        _C.pyramid_down(np.ascontiguousarray(values[None]), half, threads=self._threads)
        smooth: Planes = half[0]
        for _ in range(_SMOOTHINGS):
            wider = np.empty_like(smooth)
            _C.pyramid_smooth(smooth, wider, threads=self._threads)
            smooth = wider
        return smooth


def _evidence(nearby: _Nearby, k: int) -> Planes:
    """That frame k shows a ghost, (h, w) of the half-size grid: the most that any two neighbours give."""
    reach, count = min(_FRAMES, (nearby.count - 1) // 3), nearby.count
    best = np.zeros_like(nearby.light(k).mean)
    for before in range(1, reach + 1):
        for after in range(1, reach + 2 - before):
            a, b = k - before, k + after
            if a >= 0 and b < count:
                np.maximum(best, _between(nearby, a, k, b), out=best)
    for side in (1, -1) if count >= _END_FEWEST else ():
        outside = k if side == 1 else count - 1 - k
        for away in range(1, reach + 1 - outside):
            if 0 <= k + side * (away + _BEYOND) < count:
                b = k + side * away  # those between are ghosts, too, or else a nearer one would do
                np.maximum(best, np.minimum.reduce([_beside(nearby, q, b, side) for q in range(k, b, side)]), out=best)
    return best


def _between(nearby: _Nearby, a: int, k: int, b: int) -> Planes:
    """Evidence of frame k against a, before it, and b, after it."""
    (from_a, all_a), (from_b, all_b) = nearby.differ(a, k), nearby.differ(b, k)
    size = np.where(from_a * from_b > 0, np.minimum(np.abs(from_a), np.abs(from_b)), 0)
    before, here, after = nearby.light(a), nearby.light(k), nearby.light(b)
    doubtful = np.where(from_a > 0, before.near_clipped | after.near_clipped, here.near_clipped)
    beyond = [nearby.differ(j, j + 1)[1] for j in (a - 1, b) if j >= 0 and j + 1 < nearby.count]
    if not beyond:
        size[doubtful] = 0
    trend = np.where(doubtful, _TREND_OF_CLIPPED, _TREND)
    apart = np.maximum.reduce([_UNLIKE * nearby.differ(a, b)[1], *(trend * more for more in beyond)])
    total, edge = np.maximum(all_a, all_b), np.maximum(before.edge, after.edge)
    light = np.minimum(before.mean, after.mean)
    return _share(size, _ONE_SIGN * total, apart, _SHIFT_PX * edge, _CHANGE * (light + _DARK))


def _beside(nearby: _Nearby, k: int, b: int, side: int) -> Planes:
    """Evidence of frame k, which nothing lies before, against b, after it, and those beyond b."""
    net, total = nearby.differ(b, k)
    apart = np.maximum.reduce([nearby.differ(b, b + side * n)[1] for n in range(1, _BEYOND + 1)])
    here, after = nearby.light(k), nearby.light(b)
    size = np.where(np.where(net > 0, after.near_clipped, here.near_clipped), 0, np.abs(net))
    limits = _END_ONE_SIGN * total, _END_UNLIKE * apart, _SHIFT_PX * after.edge, _END_CHANGE * (after.mean + _DARK)
    return _share(size, *limits)


def _share(size: npt.ArrayLike, *limits: npt.NDArray[np.floating[Any]]) -> Planes:
    """Of a difference over the largest of its limits, the last of which is above 0 everywhere."""
    return np.asarray(size / np.maximum.reduce(limits), np.float32)


def _closed(mask: Mask) -> Mask:
    """Without its holes, and with a margin."""
    for _ in range(_HOLE):
        mask = _grown(mask)
    mask = ~mask
    for _ in range(_HOLE - _MARGIN):
        mask = _grown(mask)
    return ~mask


def _grown(mask: Mask) -> Mask:
    """By one pixel in all eight directions."""
    wide = np.pad(mask, 1)
    tall = wide[:-2] | wide[1:-1] | wide[2:]
    return np.asarray(tall[:, :-2] | tall[:, 1:-1] | tall[:, 2:])
