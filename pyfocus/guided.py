"""Edge-aware smoothing of maps: what is alike in a guide is drawn together, what differs is kept apart.

The fast global smoother (Min et al., IEEE TIP 23, 2014): the weighted least squares problem

    minimise  sum_p (u_p - f_p)^2 + lambda sum_{p, q neighbours} exp(-|g_p - g_q| / sigma) (u_p - u_q)^2

is solved along columns and rows in turn, where it is tridiagonal, three times with falling lambda. Unlike a window's,
its reach has no end: a flat area is filled from its borders.
"""

from __future__ import annotations

import numpy as np

from . import _C
from .errors import ArgumentError
from .fuse import Planes

_ROUNDS = 3


def smooth_guided(maps: Planes, guide: Planes, strength: float, sigma: float, threads: int = 0) -> Planes:
    """Maps (C, h, w) float32 smoothed within what is alike in ``guide`` (h, w).

    ``strength``: lambda, the pull between equal neighbours beside that of the data; ``sigma``: differences in the guide
    that begin to keep neighbours apart. At most four maps, whose sums are kept. Deterministic. Raises ArgumentError.
    """
    if maps.ndim != 3 or maps.shape[1:] != guide.shape:
        raise ArgumentError(
            f"smooth_guided: maps and guide must be (C, h, w) and (h, w), got {maps.shape}, {guide.shape}"
        )
    if not (strength >= 0 and sigma > 0):
        raise ArgumentError(f"smooth_guided: strength must be >= 0 and sigma > 0, got {strength} and {sigma}")
    down, across = _links(guide, 0, sigma), _links(guide, 1, sigma)
    work = np.empty(down.size, np.float32), np.empty(across.size, np.float32)
    out = np.array(maps, np.float32, order="C")
    for round_ in range(1, _ROUNDS + 1):
        share = 1.5 * strength * 4.0 ** (_ROUNDS - round_) / (4.0**_ROUNDS - 1)
        _C.guided_across(out, across, share, work[1].reshape(across.shape), threads=threads)
        _C.guided_down(out, down, share, work[0].reshape(down.shape), threads=threads)
    return out


def _links(guide: Planes, axis: int, sigma: float) -> Planes:
    """How strongly each pixel holds to the next one along an axis."""
    apart = np.diff(guide, axis=axis)
    np.abs(apart, out=apart)
    apart *= np.float32(-1 / sigma)
    return np.asarray(np.exp(apart, out=apart), np.float32)
