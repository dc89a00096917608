"""Plane maps as (3, 3) matrices: algebra, resolutions, and what part of a picture several frames share.

Convention: a matrix maps destination (reference) pixels (x, y, 1) to source (frame) pixels; pixel centres at integers,
so shrinking by a factor s puts pixel X of the small picture at ``s X + (s - 1) / 2`` of the large one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .errors import ArgumentError

Matrix = npt.NDArray[np.float64]
Rect = tuple[int, int, int, int]
_GRID = 96  # points per side at which the shared part is looked for before it is refined to a pixel


def as_matrix(function: str, transform: npt.ArrayLike) -> Matrix:
    """(3, 3) float64 of a (2, 3) or (3, 3) transform. Raises ArgumentError for other shapes and non-finite values."""
    matrix = np.asarray(transform, np.float64)
    if matrix.shape not in ((2, 3), (3, 3)) or not np.isfinite(matrix).all():
        raise ArgumentError(f"{function}: transform must be (2, 3) or (3, 3) and finite, got shape {matrix.shape}")
    square: Matrix = matrix if matrix.shape == (3, 3) else np.vstack([matrix, [0.0, 0.0, 1.0]])
    return square


def pitch(factor: float) -> Matrix:
    """(3, 3) from the pixels of a picture shrunk by ``factor`` to the pixels of the original."""
    middle = (factor - 1) / 2
    return np.array([[factor, 0, middle], [0, factor, middle], [0, 0, 1.0]])


def at_pitch(matrix: Matrix, factor: float) -> Matrix:
    """The same map between the two pictures shrunk by ``factor`` (or enlarged, for a factor below 1)."""
    scale = pitch(factor)
    small: Matrix = np.linalg.inv(scale) @ matrix @ scale
    small /= small[2, 2]
    return small


def apply(matrix: Matrix, points: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Points (..., 2) as (x, y) through a (3, 3) matrix, or through each of (N, 3, 3): then (N, ..., 2)."""
    xy = np.asarray(points, np.float64)
    flat = np.concatenate([xy.reshape(-1, 2), np.ones((xy.size // 2, 1))], axis=1)
    mapped = flat @ np.swapaxes(matrix, -1, -2)
    with np.errstate(divide="ignore", invalid="ignore"):
        out: npt.NDArray[np.float64] = mapped[..., :2] / mapped[..., 2:]
    return out.reshape(*matrix.shape[:-2], *xy.shape)


def corners(size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """The four corner pixels (x, y) of a picture of ``size`` (h, w)."""
    h, w = size
    return np.array([[0, 0], [w - 1, 0], [0, h - 1], [w - 1, h - 1]], np.float64)


def corner_shift(matrix: Matrix, size: tuple[int, int]) -> float:
    """How far the map moves the corner it moves most, px."""
    points = corners(size)
    return float(np.abs(np.linalg.norm(apply(matrix, points) - points, axis=-1)).max())


def sees(matrices: Matrix, points: npt.ArrayLike, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Where every one of (N, 3, 3) maps sends points (..., 2) inside frames of ``size`` (h, w)."""
    h, w = size
    xy = apply(matrices, points)
    inside = (xy[..., 0] >= -1e-6) & (xy[..., 0] <= w - 1 + 1e-6) & (xy[..., 1] >= -1e-6) & (xy[..., 1] <= h - 1 + 1e-6)
    result: npt.NDArray[np.bool_] = np.asarray(inside.all(axis=0))
    return result


def common_valid_rect(matrices: npt.ArrayLike, size: tuple[int, int]) -> Rect:
    """(y0, x0, y1, x1), the largest upright rectangle of the reference that every frame sees; empty: all zeros.

    ``matrices`` (N, 3, 3) reference to frame, all of ``size`` (h, w). What a frame sees is convex, so a rectangle is
    seen when its corners are. Found on a grid, then grown to the last pixel: within a few px of the largest.
    """
    maps = np.asarray(matrices, np.float64)
    h, w = size
    ys = np.unique(np.linspace(0, h - 1, min(h, _GRID)).round().astype(int))
    xs = np.unique(np.linspace(0, w - 1, min(w, _GRID)).round().astype(int))
    grid = np.stack(np.meshgrid(xs, ys), axis=-1).astype(np.float64)
    top, left, bottom, right = _largest_rectangle(sees(maps, grid, size), ys, xs)
    if bottom < top or right < left:
        return (0, 0, 0, 0)
    rect = [top, left, bottom, right]
    for side, limit in ((0, 0), (1, 0), (2, h - 1), (3, w - 1)) * 2:
        _grow(rect, side, limit, maps, size)
    return rect[0], rect[1], rect[2] + 1, rect[3] + 1


def _grow(rect: list[int], side: int, limit: int, maps: Matrix, size: tuple[int, int]) -> None:
    """Move one side of (top, left, bottom, right) outwards as far as all corners stay seen."""
    near, far = rect[side], limit
    while near != far:
        middle = (near + far + (1 if far > near else 0)) // 2
        trial = [*rect[:side], middle, *rect[side + 1 :]]
        top, left, bottom, right = trial
        if sees(maps, [[left, top], [right, top], [left, bottom], [right, bottom]], size).all():
            near = middle
        else:
            far = middle - 1 if far > near else middle + 1
    rect[side] = near


def _largest_rectangle(
    seen: npt.NDArray[np.bool_], ys: npt.NDArray[np.int_], xs: npt.NDArray[np.int_]
) -> tuple[int, int, int, int]:
    """Largest all-true rectangle of a grid, by the area between the grid lines; rows, columns inclusive."""
    best, found = -1.0, (0, 0, -1, -1)
    above = np.zeros(len(xs), int)  # how many rows up to this one are seen
    for row in range(len(ys)):
        above = np.where(seen[row], above + 1, 0)
        open_columns: list[tuple[int, int]] = []  # (first column, rows), rows increasing
        for column in range(len(xs) + 1):
            rows = int(above[column]) if column < len(xs) else 0
            first = column
            while open_columns and open_columns[-1][1] >= rows:
                first, tall = open_columns.pop()
                if tall:
                    top = row - tall + 1
                    area = float(ys[row] - ys[top] + 1) * float(xs[column - 1] - xs[first] + 1)
                    if area > best:
                        best, found = area, (int(ys[top]), int(xs[first]), int(ys[row]), int(xs[column - 1]))
            open_columns.append((first, rows))
    return found


def central_view(matrices: npt.ArrayLike, size: tuple[int, int]) -> int:
    """Index of the frame that the others are nearest to: the one whose farthest frame lies least far away.

    With it as the reference frames are scaled and moved least, which keeps most of their detail. Far is the largest
    distance of a corner, px; of frames as good as the best to 5 % or a tenth of a pixel the one nearest the middle.
    ``matrices`` (N, 3, 3) from any one common picture to each frame of ``size`` (h, w).
    """
    maps, points = np.asarray(matrices, np.float64), corners(size)
    moved = (np.linalg.norm(apply(maps @ np.linalg.inv(m), points) - points, axis=-1) for m in maps)
    farthest = np.array([shift.max() for shift in moved])
    close = np.flatnonzero(farthest <= max(1.05 * farthest.min(), farthest.min() + 0.1))
    return int(close[np.argmin(np.abs(close - len(maps) // 2))])
