"""Oracle of the registration sums, step and loop: Evangelidis & Psarakis 2008 in NumPy float64."""

from __future__ import annotations

from collections.abc import Callable

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


# --- the loop over steps ------------------------------------------------

#: Columns of the affine's six derivatives that make up the parameters of the smaller models.
COLUMNS: dict[str, Float] = {
    "translation": np.array([[0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1.0]]).T,
    "similarity": np.array([[1, 0, 0, 0, 1, 0], [0, -1, 0, 1, 0, 0], [0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1.0]]).T,
    "affine": np.eye(6),
    "homography": np.eye(8),
}


def solve(sums: Float, motion: str) -> tuple[float, Float] | None:
    """(correlation, step of the parameters) from the sums; None when there is nothing to go by."""
    parameters = 8 if motion == "homography" else 6
    n = sums[-1]
    if not np.isfinite(sums).all() or n < 256:
        return None
    columns = COLUMNS[motion]
    triangle = parameters * (parameters + 1) // 2
    hessian = np.zeros((parameters, parameters))
    hessian[np.triu_indices(parameters)] = sums[:triangle]
    hessian = hessian + np.triu(hessian, 1).T
    ji, jt, j1 = sums[triangle : triangle + 3 * parameters].reshape(3, parameters) @ columns
    si, st, sii, stt, sit = sums[-6:-1]
    ii, tt, it = sii - si * si / n, stt - st * st / n, sit - si * st / n
    if ii <= max(1e-12 * n, 1e-6 * sii) or tt <= max(1e-12 * n, 1e-6 * stt):  # what rounding makes of flat ones
        return None
    hessian = columns.T @ hessian @ columns - np.outer(j1, j1) / n
    ji, jt = ji - j1 * si / n, jt - j1 * st / n
    hessian[np.diag_indices_from(hessian)] *= 1 + 1e-7
    try:
        solved_i, solved_t = np.linalg.solve(hessian, np.stack([ji, jt], axis=1)).T
    except np.linalg.LinAlgError:
        return None
    gain, shared = ii - ji @ solved_i, it - jt @ solved_i
    if shared > 0:
        scale = gain / shared
    else:  # their eq. 17
        scale = max(np.sqrt(max(ji @ solved_i, 0) / max(jt @ solved_t, 1e-30)), -shared / max(jt @ solved_t, 1e-30))
    return float(it / np.sqrt(ii * tt)), scale * solved_t - solved_i


def normaliser(shape: tuple[int, ...], scale_of: tuple[int, ...]) -> Float:
    """From pixels to coordinates centred on the picture, half the longer side of ``scale_of`` being 1."""
    scale = 0.5 * max(scale_of)
    return np.array(
        [[1 / scale, 0, -(shape[1] - 1) / 2 / scale], [0, 1 / scale, -(shape[0] - 1) / 2 / scale], [0, 0, 1.0]]
    )


def largest_shift(matrix: Float, shape: tuple[int, int]) -> float:
    """How far the map moves the corner that it moves most, px."""
    h, w = shape
    points = np.array([[0, 0, 1], [w - 1, 0, 1], [0, h - 1, 1], [w - 1, h - 1, 1.0]]).T
    moved = matrix @ points
    return float(np.hypot(*(moved[:2] / moved[2] - points[:2])).max())


def maximise(
    sums_at: Callable[[Float], Float],
    shapes: tuple[tuple[int, int], tuple[int, int]],
    start: npt.ArrayLike,
    motion: str,
    most: int = 40,
) -> tuple[Float, float, int, bool] | None:
    """(matrix, correlation, iterations, converged); ``sums_at`` a matrix, ``shapes`` of fixed and moving picture."""
    parameters = 8 if motion == "homography" else 6
    best: tuple[Float, float, int, bool] | None = None
    into, out_of = normaliser(shapes[0], shapes[0]), np.linalg.inv(normaliser(shapes[1], shapes[0]))
    current = np.linalg.inv(out_of) @ np.asarray(start, np.float64) @ np.linalg.inv(into)
    for iteration in range(most):
        current /= current[2, 2]
        matrix = out_of @ current @ into
        solved = solve(sums_at(matrix), motion)
        if solved is None:
            return best
        correlation, step = solved
        if best is None or correlation > best[1]:
            best = (matrix / matrix[2, 2], correlation, iteration + 1, False)
        elif correlation < best[1] - 1e-3:
            return best
        change = np.zeros(9)
        change[:parameters] = COLUMNS[motion] @ step
        moved = current + change.reshape(3, 3)
        if not np.isfinite(moved).all():
            return best
        shift = largest_shift(out_of @ moved @ np.linalg.inv(current) @ np.linalg.inv(out_of), shapes[0])
        current = moved
        if shift < 0.004:
            matrix = out_of @ (current / current[2, 2]) @ into
            return matrix / matrix[2, 2], correlation, iteration + 1, True
    return best
