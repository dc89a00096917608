"""A picture and its depth, cut into surfaces that go on behind one another.

A *surface* is a region inside which depth changes gently. Behind the nearer surfaces that hide a part of it,
it goes on for a little way, mirrored about their border: a defocused edge lets the eye see past it, and what
is seen there must be background, not a smear of the edge.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Index = npt.NDArray[np.intp]

MAX_SURFACES = 96
MIN_SURFACE_PX = 40


@dataclass(frozen=True)
class Surface:
    """A part of the scene at rows ``top``.. and columns ``left``.. of the canvas.

    ``light`` (4, h, w) is colour times coverage, then coverage; ``depth`` (h, w) is NaN out of the lens'
    reach.
    """

    top: int
    left: int
    light: Float
    depth: Float


def cut_surfaces(photo: Float, depth: Float, jump: float, far_px: int) -> list[Surface]:
    """Surfaces of ``photo`` (H, W, 3), linear, far to near.

    ``depth`` (H, W), 1 = near, is cut where neighbours differ by ``jump`` or more; hidden parts go on for
    ``far_px`` pixels.
    """
    labels, depth = find_surfaces(sharpen_edges(depth, jump), jump)
    order = sort_surfaces(labels, depth)
    rank = np.empty(len(order), np.intp)
    rank[order] = np.arange(len(order))
    ranks = rank[labels]
    return [_extend(photo, depth, ranks, k, far_px) for k in range(len(order))]


def sharpen_edges(depth: Float, jump: float) -> Float:
    """Make soft depth edges crisp: beside a jump, each pixel takes the nearer end of its 5x5 range of depths.

    A depth half-way between an object and its background belongs to neither. (Toggle mapping, Kramer &
    Bruckner 1975.)
    """
    for _ in range(2):
        padded = np.pad(depth, 2, mode="edge")
        sides = [padded[:, i : i + depth.shape[1]] for i in range(5)]
        low, high = np.minimum.reduce(sides), np.maximum.reduce(sides)
        low = np.minimum.reduce([low[i : i + len(depth)] for i in range(5)])
        high = np.maximum.reduce([high[i : i + len(depth)] for i in range(5)])
        toggled = np.where(depth - low < high - depth, low, high)
        # Only a ramp steep enough to be an edge is touched; a tilted surface stays as it is.
        depth = np.where(high - low > 3 * jump, toggled, depth).astype(np.float32)
    return depth


def find_surfaces(depth: Float, jump: float) -> tuple[Index, Float]:
    """Label (H, W) the regions within which neighbours differ by less than ``jump``; 0 .. K - 1.

    Regions too small to matter take the label and the depth of what surrounds them; the depth that results is
    returned too.
    """
    starts = np.ones(depth.shape, bool)
    starts[:, 1:] = np.abs(np.diff(depth, axis=1)) >= jump
    runs = (np.cumsum(starts.ravel()) - 1).reshape(depth.shape)
    joined = np.abs(np.diff(depth, axis=0)) < jump
    upper, lower = runs[:-1][joined], runs[1:][joined]
    parent = np.arange(int(runs[-1, -1]) + 1)
    while True:  # hook each root to the smallest neighbour, then flatten
        a, b = parent[upper], parent[lower]
        if np.array_equal(a, b):
            break
        differ = a != b
        np.minimum.at(parent, np.maximum(a, b)[differ], np.minimum(a, b)[differ])
        while not np.array_equal(parent, flat := parent[parent]):
            parent = flat
    _, labels = np.unique(parent[runs], return_inverse=True)
    labels = labels.reshape(depth.shape)
    sizes = np.bincount(labels.ravel())
    kept = np.argsort(-sizes, kind="stable")[:MAX_SURFACES]
    kept = kept[(sizes[kept] >= MIN_SURFACE_PX) | (kept == kept[0])]
    renamed = np.full(len(sizes), -1, np.intp)
    renamed[kept] = np.arange(len(kept))
    return _absorb(renamed[labels], depth)


def _absorb(labels: Index, depth: Float) -> tuple[Index, Float]:
    """Give pixels of label -1 the label and depth of a labelled neighbour, ring by ring."""
    labels, depth = labels.copy(), depth.copy()
    h, w = depth.shape
    rows, columns = np.nonzero(labels < 0)
    while len(rows):
        found = np.full(len(rows), -1, np.intp)
        value = np.zeros(len(rows), np.float32)
        for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0)):
            y, x = np.clip(rows + dy, 0, h - 1), np.clip(columns + dx, 0, w - 1)
            take = (found < 0) & (labels[y, x] >= 0)
            found[take], value[take] = labels[y, x][take], depth[y, x][take]
        done = found >= 0
        labels[rows[done], columns[done]] = found[done]
        depth[rows[done], columns[done]] = value[done]
        rows, columns = rows[~done], columns[~done]
    return labels, depth


def sort_surfaces(labels: Index, depth: Float) -> list[int]:
    """Surfaces far to near: of two that touch, the one nearer along their border comes later."""
    count = int(labels.max()) + 1
    lead = np.zeros((count, count))
    for a, b in ((np.s_[:, 1:], np.s_[:, :-1]), (np.s_[1:], np.s_[:-1])):
        border = labels[a] != labels[b]
        first, second = labels[a][border], labels[b][border]
        np.add.at(lead, (first, second), depth[a][border] - depth[b][border])
    above = (lead - lead.T) > 0  # above[i, j]: i lies over j
    mean = np.bincount(labels.ravel(), depth.ravel()) / np.bincount(labels.ravel())
    left, order = set(range(count)), []
    while left:
        rest = sorted(left)
        free = [i for i in rest if not above[i, rest].any()] or rest  # a ring of overlaps: take the farthest
        order.append(min(free, key=lambda i: mean[i]))
        left.remove(order[-1])
    return order


def _extend(photo: Float, depth: Float, ranks: Index, rank: int, far_px: int) -> Surface:
    """The surface of one rank with its continuation up to ``far_px`` behind the surfaces that hide it."""
    rows, columns = np.nonzero((ranks == rank).any(1))[0], np.nonzero((ranks == rank).any(0))[0]
    top, left = max(rows[0] - far_px, 0), max(columns[0] - far_px, 0)
    box = np.s_[top : rows[-1] + far_px + 1, left : columns[-1] + far_px + 1]
    own, nearer = ranks[box] == rank, ranks[box] > rank
    color, surface_depth = photo[box].copy(), np.where(own, depth[box], np.nan).astype(np.float32)
    y, x = np.nonzero(~own)
    py, px, distance = nearest(own, y, x, far_px)
    close = distance <= far_px
    y, x, py, px, distance = y[close], x[close], py[close], px[close], distance[close]
    surface_depth[y, x] = surface_depth[py, px]
    # Hidden parts begin only at borders with what hides them: elsewhere the surface really ends.
    touching = own & _grow(nearer, 2)
    hidden = nearer[y, x] & touching[py, px]
    y, x, py, px, distance = y[hidden], x[hidden], py[hidden], px[hidden], distance[hidden]
    # Mirror about the border, a little inwards: pixels right at it hold a mixture of both surfaces.
    reach = 1 + 2.0 / distance
    my = np.clip(np.rint(py - (y - py) * reach).astype(int), 0, own.shape[0] - 1)
    mx = np.clip(np.rint(px - (x - px) * reach).astype(int), 0, own.shape[1] - 1)
    inside = own[my, mx]
    my, mx = np.where(inside, my, py), np.where(inside, mx, px)
    alpha = own.astype(np.float32)
    alpha[y, x] = 1
    color[y, x] = color[my, mx]
    light = np.concatenate([np.moveaxis(color * alpha[..., None], -1, 0), alpha[None]])
    return Surface(int(top), int(left), np.ascontiguousarray(light), surface_depth)


def _grow(mask: Mask, px: int) -> Mask:
    """The mask (H, W) widened by ``px`` pixels in all eight directions."""
    padded = np.pad(mask, px)
    wide = np.logical_or.reduce([padded[:, i : i + mask.shape[1]] for i in range(2 * px + 1)])
    return np.asarray(np.logical_or.reduce([wide[i : i + len(mask)] for i in range(2 * px + 1)]))


def nearest(known: Mask, y: Index, x: Index, far_px: int) -> tuple[Index, Index, npt.NDArray[np.float64]]:
    """For points (y, x) the nearest True pixel of ``known`` and its distance; inf past ``far_px``."""
    h, w = known.shape
    row = np.arange(h)[:, None]
    above = np.maximum.accumulate(np.where(known, row, -4 * h), axis=0)
    below = np.minimum.accumulate(np.where(known, row, 5 * h)[::-1], axis=0)[::-1]
    column_best = np.where(row - above <= below - row, above, below)
    best = np.full(len(y), np.inf)
    by, bx = np.zeros(len(y), np.intp), np.zeros(len(y), np.intp)
    for dx in range(-far_px, far_px + 1):
        cx = np.clip(x + dx, 0, w - 1)
        cy = column_best[y, cx]
        squared = (cx - x) ** 2 + (cy - y) ** 2
        better = squared < best
        best[better], by[better], bx[better] = squared[better], cy[better], cx[better]
    distance = np.sqrt(best)
    distance[distance > far_px] = np.inf
    return by, bx, distance
