"""Edge-aware smoothing of maps: what is alike in a guide is drawn together, what differs is kept apart.

The fast global smoother (Min et al., IEEE TIP 23, 2014): the weighted least squares problem

    minimise  sum_p (u_p - f_p)^2 + lambda sum_{p, q neighbours} exp(-|g_p - g_q| / sigma) (u_p - u_q)^2

is solved along columns and rows in turn, where it is tridiagonal, three times with falling lambda. Unlike a window's,
its reach has no end: a flat area is filled from its borders.
"""

from __future__ import annotations

import numpy as np

from .errors import ArgumentError
from .fuse import Planes

_ROUNDS = 3


def smooth_guided(maps: Planes, guide: Planes, strength: float, sigma: float) -> Planes:
    """Maps (C, h, w) float32 smoothed within what is alike in ``guide`` (h, w).

    ``strength``: lambda, the pull between equal neighbours beside that of the data; ``sigma``: differences in the guide
    that begin to keep neighbours apart. Sums of maps are kept. Deterministic. Raises ArgumentError.
    """
    if maps.ndim != 3 or maps.shape[1:] != guide.shape:
        raise ArgumentError(
            f"smooth_guided: maps and guide must be (C, h, w) and (h, w), got {maps.shape}, {guide.shape}"
        )
    if not (strength >= 0 and sigma > 0):
        raise ArgumentError(f"smooth_guided: strength must be >= 0 and sigma > 0, got {strength} and {sigma}")
    down, across = _links(guide, sigma), _links(np.ascontiguousarray(guide.T), sigma)
    out = np.array(maps, np.float32)
    for round_ in range(1, _ROUNDS + 1):
        share = np.float32(1.5 * strength * 4.0 ** (_ROUNDS - round_) / (4.0**_ROUNDS - 1))
        out = _solve(np.ascontiguousarray(out.transpose(0, 2, 1)), across * share)
        out = _solve(np.ascontiguousarray(out.transpose(0, 2, 1)), down * share)
    return out


def _links(guide: Planes, sigma: float) -> Planes:
    """How strongly each pixel holds to the one below it, (h - 1, w)."""
    return np.asarray(np.exp(np.abs(np.diff(guide, axis=0)) * np.float32(-1 / sigma)), np.float32)


def _solve(values: Planes, links: Planes) -> Planes:
    """Every column's (I + A) u = f in place, A the graph Laplacian of ``links``: Thomas' algorithm, rows at once."""
    height = values.shape[1]
    if height == 1:
        return values
    diagonal = np.ones(values.shape[1:], np.float32)
    diagonal[:-1] += links
    diagonal[1:] += links
    factor = np.empty_like(links)
    scale = 1 / diagonal[0]
    values[:, 0] *= scale
    for y in range(1, height):
        np.multiply(links[y - 1], scale, out=factor[y - 1])
        scale = 1 / (diagonal[y] - links[y - 1] * factor[y - 1])
        row = values[:, y]
        row += links[y - 1] * values[:, y - 1]
        row *= scale
    for y in range(height - 2, -1, -1):
        values[:, y] += factor[y] * values[:, y + 1]
    return values
