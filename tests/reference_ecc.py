"""Oracle of the registration sums and step: Evangelidis & Psarakis 2008 in NumPy float64, pixel by pixel arrays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]


def jacobian(
    moving: npt.ArrayLike, matrix: npt.ArrayLike, shape: tuple[int, int], parameters: int
) -> tuple[Float, Float, npt.NDArray[np.bool_]]:
    """(h w, P) derivatives, (h w) samples, (h w) whether they fall inside, for every pixel of a picture (h, w).

    Coordinates of both pictures are centred and divided by half the longer side of the fixed one.
    """
    image = np.asarray(moving, np.float64)
    m = np.asarray(matrix, np.float64)
    h, w = shape
    high, wide = image.shape
    y, x = np.mgrid[:h, :w].astype(np.float64)
    depth = m[2, 0] * x + m[2, 1] * y + m[2, 2]
    sx, sy = (m[0, 0] * x + m[0, 1] * y + m[0, 2]) / depth, (m[1, 0] * x + m[1, 1] * y + m[1, 2]) / depth
    inside = (sx >= 0) & (sx <= wide - 1) & (sy >= 0) & (sy <= high - 1)
    sx, sy = np.where(inside, sx, 0), np.where(inside, sy, 0)
    ix, iy = np.minimum(sx.astype(int), wide - 2), np.minimum(sy.astype(int), high - 2)
    fx, fy = sx - ix, sy - iy
    corner = [[image[iy + j, ix + i] for i in (0, 1)] for j in (0, 1)]
    gx = (1 - fy) * (corner[0][1] - corner[0][0]) + fy * (corner[1][1] - corner[1][0])
    gy = (1 - fx) * (corner[1][0] - corner[0][0]) + fx * (corner[1][1] - corner[0][1])
    value = (1 - fy) * ((1 - fx) * corner[0][0] + fx * corner[0][1]) + fy * (
        (1 - fx) * corner[1][0] + fx * corner[1][1]
    )
    scale = max(h, w) / 2
    u, v = (x - (w - 1) / 2) / scale, (y - (h - 1) / 2) / scale
    gx, gy = gx * scale / depth, gy * scale / depth
    columns = [gx * u, gx * v, gx, gy * u, gy * v, gy]
    if parameters == 8:
        along = -(gx * (sx - (wide - 1) / 2) + gy * (sy - (high - 1) / 2)) / scale
        columns += [along * u, along * v]
    return np.stack(columns, axis=-1).reshape(-1, parameters), value.ravel(), inside.ravel()


def sums(
    fixed: npt.ArrayLike, moving: npt.ArrayLike, matrix: npt.ArrayLike, parameters: int, mask: npt.ArrayLike | None
) -> Float:
    """[upper triangle of J'J by rows, J'i, J't, J'1, 1'i, 1't, i'i, t't, i't, n]."""
    still = np.asarray(fixed, np.float64)
    columns, value, use = jacobian(moving, matrix, (still.shape[0], still.shape[1]), parameters)
    if mask is not None:
        use = use & (np.asarray(mask).ravel() != 0)
    j, i, t = columns[use], value[use], still.ravel()[use]
    square = (j.T @ j)[np.triu_indices(parameters)]
    last = [i.sum(), t.sum(), i @ i, t @ t, i @ t, float(len(i))]
    return np.concatenate([square, j.T @ i, j.T @ t, j.sum(axis=0), last])


def correlation(fixed: npt.ArrayLike, moving: npt.ArrayLike, matrix: npt.ArrayLike) -> float:
    """Zero-mean correlation over the pixels both see."""
    still = np.asarray(fixed, np.float64)
    _, value, use = jacobian(moving, matrix, (still.shape[0], still.shape[1]), 6)
    return float(np.corrcoef(still.ravel()[use], value[use])[0, 1])
