"""Oracles: every operation again, in NumPy float64, from its formula. Slow, short, and it may not import pyfocus.

Written from the definitions and in other ways than the kernels where there are any: interpolation weights as functions
of distance, gathers by index arrays, the fold as one batch instead of a running maximum.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]
Size = tuple[int, int]

# --- interpolation -----------------------------------------------------


def _triangle(d: Float) -> Float:
    return np.maximum(0, 1 - np.abs(d))


def _keys(d: Float) -> Float:
    a = np.abs(d)
    near, far = (1.5 * a - 2.5) * a * a + 1, ((-0.5 * a + 2.5) * a - 4) * a + 2
    return np.where(a <= 1, near, np.where(a < 2, far, 0))


def _lanczos3(d: Float) -> Float:
    return np.where(np.abs(d) < 3, np.sinc(d) * np.sinc(d / 3), 0)


KERNELS: tuple[tuple[int, Callable[[Float], Float]], ...] = ((1, _triangle), (2, _keys), (3, _lanczos3))


def signed_root(v: Float) -> Float:
    """sign(v) sqrt|v|."""
    return np.sign(v) * np.sqrt(np.abs(v))


def positions(matrix: Float, size: Size) -> tuple[Float, Float]:
    """Source x and y, each (h, w), of every destination pixel."""
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float64)
    m = np.asarray(matrix, np.float64)
    w = m[2, 0] * x + m[2, 1] * y + m[2, 2]
    return (m[0, 0] * x + m[0, 1] * y + m[0, 2]) / w, (m[1, 0] * x + m[1, 1] * y + m[1, 2]) / w


def sample(plane: Float, x: Float, y: Float, kernel: int) -> Float:
    """The plane at continuous positions, edge pixels repeated; kernel 0, 1, 2: bilinear, bicubic, Lanczos-3."""
    radius, weight = KERNELS[kernel]
    h, w = plane.shape
    x, y = np.clip(x, -8, w + 8), np.clip(y, -8, h + 8)  # farther out everything is edge
    x0, y0 = np.floor(x).astype(int), np.floor(y).astype(int)
    taps = range(1 - radius, radius + 1)
    wx = np.stack([weight(x - (x0 + k)) for k in taps])
    wy = np.stack([weight(y - (y0 + k)) for k in taps])
    wx, wy = wx / wx.sum(axis=0), wy / wy.sum(axis=0)
    out = np.zeros(x.shape)
    for j, dy in enumerate(taps):
        for i, dx in enumerate(taps):
            out += wy[j] * wx[i] * plane[np.clip(y0 + dy, 0, h - 1), np.clip(x0 + dx, 0, w - 1)]
    return out


def warp(
    source: Float, matrices: Float, size: Size, kernel: int, root: bool = False, square: bool = False
) -> tuple[Float, npt.NDArray[np.uint8]]:
    """(C, h, w) and valid (h, w) of values (C, H, W); matrices (C, 3, 3): destination to source."""
    values = signed_root(source) if root else np.asarray(source, np.float64)
    out, valid = np.empty((len(values), *size)), np.ones(size, bool)
    for p, plane in enumerate(values):
        x, y = positions(matrices[p], size)
        out[p] = sample(plane, x, y, kernel)
        valid &= (x >= -1e-6) & (x <= plane.shape[1] - 1 + 1e-6) & (y >= -1e-6) & (y <= plane.shape[0] - 1 + 1e-6)
    return (np.sign(out) * out * out if square else out), valid.astype(np.uint8)


def mosaic_planes(mosaic: npt.NDArray[np.generic], offsets: Sequence[tuple[int, int]]) -> Float:
    """Every second pixel from each offset (y, x)."""
    h, w = mosaic.shape[0] // 2, mosaic.shape[1] // 2
    return np.stack([mosaic[y : 2 * h : 2, x : 2 * w : 2] for y, x in offsets]).astype(np.float64)


def values_of(
    counts: npt.NDArray[np.generic],
    table: npt.NDArray[np.generic] | None = None,
    scale: Sequence[float] | None = None,
    offset: Sequence[float] | None = None,
) -> Float:
    """table[count] * scale + offset per plane of (C, H, W)."""
    v = counts.astype(np.float64) if table is None else np.asarray(table, np.float64)[counts.astype(int)]
    shape = (-1, 1, 1)
    return v * np.reshape(scale or [1.0], shape) + np.reshape(offset or [0.0], shape)


# --- light and counts --------------------------------------------------


def luminance(values: Float, weights: Sequence[float], factor: int, square_root: bool) -> Float:
    """Weighted sum of planes (C, H, W), mean over factor x factor blocks."""
    h, w = values.shape[1] // factor, values.shape[2] // factor
    total = np.tensordot(np.asarray(weights, np.float64), values, 1)[: h * factor, : w * factor]
    mean = total.reshape(h, factor, w, factor).mean(axis=(1, 3))
    return np.sqrt(np.maximum(mean, 0)) if square_root else mean


def srgb_encode(linear: npt.ArrayLike) -> Float:
    """IEC 61966-2-1, input clamped to [0, 1]."""
    v = np.clip(np.asarray(linear, np.float64), 0, 1)
    return np.where(v <= 0.0031308, 12.92 * v, 1.055 * v ** (1 / 2.4) - 0.055)


def srgb_decode(encoded: npt.ArrayLike) -> Float:
    """The inverse of :func:`srgb_encode`."""
    v = np.asarray(encoded, np.float64)
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)


def unpack(planes: Float, scale: Sequence[float], offset: Sequence[float], srgb: bool, largest: int) -> Float:
    """Counts before rounding, (C, h, w)."""
    v = srgb_encode(planes) if srgb else np.asarray(planes, np.float64)
    shape = (-1, 1, 1)
    return np.clip(v * np.reshape(scale, shape) + np.reshape(offset, shape), 0, largest)


def demosaic(mosaic: npt.NDArray[np.generic], cfa: str, scale: Sequence[float], offset: Sequence[float]) -> Float:
    """(3, H, W) roots of R, G, B; scale and offset by position in the 2x2 block; cfa such as "RGGB"."""
    h, w = mosaic.shape
    site = (np.arange(h)[:, None] % 2) * 2 + np.arange(w) % 2
    s = signed_root(mosaic * np.asarray(scale, np.float64)[site] + np.asarray(offset, np.float64)[site])
    pad = 8
    s = np.pad(s, pad, mode="reflect") if min(h, w) > pad else s[np.ix_(_mirror(pad, h), _mirror(pad, w))]
    colour = np.array(list(cfa))[(np.arange(-pad, h + pad)[:, None] % 2) * 2 + np.arange(-pad, w + pad) % 2]

    def at(a: Float, dy: int, dx: int) -> Float:
        return np.roll(a, (-dy, -dx), axis=(0, 1))  # wraps only in the pad

    def direction(dy: int, dx: int) -> tuple[Float, Float]:
        before, after = at(s, -dy, -dx), at(s, dy, dx)
        bend = 2 * s - at(s, -2 * dy, -2 * dx) - at(s, 2 * dy, 2 * dx)
        activity = np.abs(after - before) + np.abs(bend)
        box = sum(at(activity, j, i) for j in (-1, 0, 1) for i in (-1, 0, 1)) / 9
        return (before + after) / 2 + bend / 4, 1 / (box**2 + 1e-8)

    (across, wa), (along, wb) = direction(0, 1), direction(1, 0)
    green = np.where(colour == "G", s, (across * wa + along * wb) / (wa + wb))
    out = [green]
    tent = np.outer([0.5, 1, 0.5], [0.5, 1, 0.5])  # bilinear from the sites two pixels apart
    for name, place in (("R", 0), ("B", 2)):
        difference = np.where(colour == name, s - green, 0.0)
        full = sum(tent[j + 1, i + 1] * at(difference, j, i) for j in (-1, 0, 1) for i in (-1, 0, 1))
        out.insert(place, green + full)
    return np.stack(out)[:, pad:-pad, pad:-pad]


# --- pyramid -----------------------------------------------------------


def _mirror(reach: int, n: int, step: int = 1, count: int | None = None) -> npt.NDArray[np.intp]:
    """Indices -reach .. reading as a mirror that does not repeat the edge."""
    i = np.arange(-reach, (n if count is None else count) + reach) * step
    if n == 1:
        return np.zeros_like(i)
    period = 2 * (n - 1)
    i = i % period
    return np.where(i < n, i, period - i)


BINOMIAL = np.array([1, 4, 6, 4, 1]) / 16


def _along(a: Float, axis: int, f: Callable[[Float], Float]) -> Float:
    return np.moveaxis(f(np.moveaxis(a, axis, 0)), 0, axis)


def smooth(a: npt.NDArray[np.generic]) -> Float:
    """5-tap binomial in both directions of (..., h, w)."""

    def one(v: Float) -> Float:
        m = v[_mirror(2, len(v))]
        return sum(BINOMIAL[k] * m[k : k + len(v)] for k in range(5))

    return _along(_along(np.asarray(a, np.float64), -1, one), -2, one)


def down(a: npt.NDArray[np.generic]) -> Float:
    """Smoothed, every second sample."""
    return smooth(a)[..., ::2, ::2]


def up(a: npt.NDArray[np.generic], size: Size) -> Float:
    """(..., h, w) from the half grid: (1 6 1)/8 on even samples, (4 4)/8 between them, edges repeated."""

    def one(v: Float, n: int) -> Float:
        m = np.concatenate([v[:1], v, v[-1:]])
        out = np.empty((2 * len(v), *v.shape[1:]))
        out[::2] = (m[:-2] + 6 * m[1:-1] + m[2:]) / 8
        out[1::2] = (m[1:-1] + m[2:]) / 2
        return out[:n]

    a = np.asarray(a, np.float64)
    return _along(_along(a, -1, lambda v: one(v, size[1])), -2, lambda v: one(v, size[0]))


def energy(fine: npt.NDArray[np.generic], coarse: npt.NDArray[np.generic]) -> Float:
    """Mean squared detail, pooled to the coarse grid."""
    detail = np.asarray(fine, np.float64) - up(coarse, fine.shape[-2:])
    return down((detail**2).mean(axis=0))


def valid_below(valid: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    """1 where the 5x5 pixels below are all 1; the edge repeats."""
    v = np.pad(valid, 2, mode="edge")
    h, w = valid.shape
    all_of = np.min([v[j : j + h, i : i + w] for j in range(5) for i in range(5)], axis=0)
    return all_of[::2, ::2].astype(np.uint8)


# --- the Laplacian fold ------------------------------------------------

WHITE_NOISE = (0.8, 0.055, 0.0104, 0.0025, 0.0006, 0.00016, 4e-5, 1e-5)
COARSER, FLOOR, SMALLEST = 0.1, 2.0, 1e-8
UNSURE, SURE = 0.1, 0.5


def fit_line(x: Float, y: Float) -> tuple[float, float]:
    """Non-negative slope and floor of y over x; least squares of the relative error, by its normal equations."""
    u = 1 / y
    a, b, c = (u * u * x * x).sum(), (u * u * x).sum(), (u * u).sum()
    p, q = (u * x).sum(), u.sum()
    determinant = a * c - b * b
    slope, floor = (p * c - q * b) / determinant, (a * q - b * p) / determinant
    if floor < 0:
        return float(np.median(y / np.maximum(x, 1e-6))), 0.0
    return (0.0, float(np.median(y))) if slope < 0 else (float(slope), float(floor))


def noise_of(quiet: Float, light: Float, seen: npt.NDArray[np.generic] | None = None) -> tuple[float, float]:
    """Slope and floor of the quietest fifth of the energy per brightness octile."""
    step = max(1, int(np.sqrt(quiet.size / 60_000)))
    e, mean = quiet[::step, ::step].ravel(), light[:, ::step, ::step].mean(axis=0).ravel()
    if seen is not None:
        e, mean = e[seen[::step, ::step].ravel() > 0], mean[seen[::step, ::step].ravel() > 0]
    points: list[tuple[float, float]] = []
    edges = np.quantile(mean, np.linspace(0.02, 0.98, 9)) if mean.size else np.zeros(1)
    for low, high in itertools.pairwise(edges):
        inside = (mean >= low) & (mean <= high) & (mean > 0) & (mean < 0.9)
        if inside.sum() > 50:
            points.append((mean[inside].mean(), np.quantile(e[inside], 0.2) + 1e-12))
    return fit_line(*np.array(points).T) if points else (0.0, 0.0)


@dataclass
class Rated:
    """One frame's pyramid: details, ratings and masks of its levels, and the last Gaussian level."""

    detail: list[Float]
    rating: list[Float]
    base: Float


def gaussian(frame: npt.NDArray[np.generic], levels: int) -> list[Float]:
    """The frame and ``levels`` coarser ones."""
    out = [np.asarray(frame, np.float64)]
    for _ in range(levels):
        out.append(down(out[-1]))
    return out


def rate(
    frame: npt.NDArray[np.generic], valid: npt.NDArray[np.generic] | None, noise: tuple[float, float], levels: int
) -> Rated:
    """Ratings with the given noise (slope, floor)."""
    g = gaussian(frame, levels)
    own = [smooth(energy(g[i], g[i + 1])) for i in range(levels)]
    from_finer = [own[0]]
    for e in own[1:]:
        from_finer.append(e + down(from_finer[-1]))
    with_coarser = list(own)
    ratings = list(from_finer)
    for i in range(levels - 2, -1, -1):
        below = COARSER * up(with_coarser[i + 1], own[i].shape)
        ratings[i], with_coarser[i] = from_finer[i] + below, own[i] + below
    for i in range(levels):
        share = FLOOR * WHITE_NOISE[i] / WHITE_NOISE[0]
        light = np.maximum(g[i + 1].mean(axis=0), 0)
        ratings[i] = ratings[i] + share * noise[0] * light + share * noise[1] + FLOOR * SMALLEST
        if valid is not None:
            valid = valid_below(valid)
            ratings[i] = ratings[i] * valid
    detail = [g[i] - up(g[i + 1], g[i].shape[-2:]) for i in range(levels)]
    return Rated(detail, ratings, g[-1])


def running_noise(
    frames: Sequence[npt.NDArray[np.generic]], masks: Sequence[npt.NDArray[np.generic] | None]
) -> list[tuple[float, float]]:
    """The calmest noise seen up to each frame, compared at that frame's middle brightness."""
    best: tuple[float, float] | None = None
    out = []
    for frame, mask in zip(frames, masks, strict=True):
        light = down(frame)
        slope, floor = noise_of(smooth(energy(frame, light)), light, None if mask is None else valid_below(mask))
        middle = max(0.0, float(np.median(light[:, ::8, ::8])))
        measured = slope > 0 or floor > 0
        if measured and (best is None or slope * middle + floor < best[0] * middle + best[1]):
            best = (slope, floor)
        out.append(best or (0.0, 0.0))
    return out


def laplacian(
    frames: Sequence[npt.NDArray[np.generic]],
    masks: Sequence[npt.NDArray[np.generic] | None],
    places: Sequence[float] | None = None,
) -> tuple[Float, Float, Float]:
    """Image (C, h, w), depth (h, w) and confidence (h, w) of frames (C, h, w), all at once."""
    h, w = frames[0].shape[-2:]
    levels = max(1, int(np.log2(max(min(h, w), 16) / 8)))
    noise = running_noise(frames, masks)
    rated = [rate(f, m, n, levels) for f, m, n in zip(frames, masks, noise, strict=True)]
    weight = np.stack([r.rating[-1] + 1e-12 for r in rated])[:, None]
    image = (weight * np.stack([r.base for r in rated])).sum(axis=0) / weight.sum(axis=0)
    for i in range(levels - 1, -1, -1):
        size = rated[0].detail[i].shape[-2:]
        rating = np.stack([up(r.rating[i], size) for r in rated])[:, None]
        top = rating.max(axis=0)
        weight = (rating / np.where(top > 0, top, 1)) ** (4 if i == 0 else 8)
        total = weight.sum(axis=0)
        detail = (weight * np.stack([r.detail[i] for r in rated])).sum(axis=0)
        image = up(image, size) + np.where(total > 0, detail / np.where(total > 0, total, 1), 0)
    depth, confidence = _depth([r.rating[min(1, levels - 1)] for r in rated], places)
    for i in range(min(1, levels - 1), -1, -1):
        size = rated[0].detail[i].shape[-2:]
        depth, confidence = up(depth, size), up(confidence, size)
    return image, depth, np.clip(confidence, 0, 1)


def _depth(ratings: list[Float], places: Sequence[float] | None) -> tuple[Float, Float]:
    r = np.stack(ratings)
    top = r.max(axis=0)
    weight = (r / np.where(top > 0, top, 1)) ** 8
    where = np.arange(len(r), dtype=np.float64) if places is None else np.asarray(places, np.float64)
    index = np.tensordot(where, weight, 1) / np.maximum(weight.sum(axis=0), 1e-30)
    mean = r.sum(axis=0) / np.maximum((r > 0).sum(axis=0), 1)
    margin = np.where(top > 0, 1 - mean / np.where(top > 0, top, 1), 0)  # nothing seen: no confidence
    step = np.clip((margin - UNSURE) / (SURE - UNSURE), 0, 1)
    return index, step * step * (3 - 2 * step)
