"""Complex wavelets in float64, from the filters' formula: the transform, its inverse, and the whole fold of frames.

Written with sums over taps of signals that were extended by hand: slow, and nothing is shared with the package.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

import reference
from reference import Float, Size

Complex = npt.NDArray[np.complex128]

_ROOT = 15**0.5 * 1j
LOW = 2**0.5 / 64 * np.array([-3 - _ROOT, 5 - _ROOT, 30 + 2 * _ROOT, 30 + 2 * _ROOT, 5 - _ROOT, -3 - _ROOT])
HIGH = (-1.0) ** np.arange(6) * LOW.conj()
FINER, COARSER, FLOOR, SMALLEST = 8.0, 0.025, 2.0, 1e-8


def mirrored(v: npt.NDArray[np.generic], reach: int) -> npt.NDArray[np.generic]:
    """Along axis 0: an odd length made even by the last sample once more, then mirrors that repeat the edge."""
    if len(v) % 2:
        v = np.concatenate([v, v[-1:]])
    return np.concatenate([v[:reach][::-1], v, v[::-1][:reach]])


def split_axis(x: npt.NDArray[np.generic], axis: int) -> tuple[Complex, Complex]:
    """low and high of half the length, rounded up."""
    v = np.moveaxis(np.asarray(x), axis, 0)
    half = (len(v) + 1) // 2
    wide = mirrored(v, 2)
    low, high = (np.stack([sum(f[n] * wide[2 * k + n] for n in range(6)) for k in range(half)]) for f in (LOW, HIGH))
    return np.moveaxis(low, 0, axis), np.moveaxis(high, 0, axis)


def merge_axis(low: Complex, high: Complex, axis: int, size: int) -> Complex:
    """The inverse, as the adjoint: every coefficient, and its mirrors, adds its conjugate taps."""
    a, b = np.moveaxis(low, axis, 0), np.moveaxis(high, axis, 0)
    half = len(a)
    out = np.zeros((2 * half + 8, *a.shape[1:]), complex)
    for k in range(-1, half + 1):
        inside = -1 - k if k < 0 else 2 * half - 1 - k if k >= half else k
        sign = 1 if inside == k else -1  # high is antisymmetric
        for n in range(6):
            out[2 * k + n - 2 + 4] += LOW[n].conj() * a[inside] + sign * HIGH[n].conj() * b[inside]
    return np.moveaxis(out[4 : 4 + size], 0, axis)


def split(x: npt.NDArray[np.generic]) -> tuple[Complex, Complex]:
    """low (..., H, W) and bands (3, ..., H, W): low down and high across, high and low, high and high."""
    low, high = split_axis(x, -2)
    (both_low, across), (down, both_high) = split_axis(low, -1), split_axis(high, -1)
    return both_low, np.stack([across, down, both_high])


def merge(low: Complex, bands: Complex, size: Size) -> Complex:
    """The inverse of :func:`split`."""
    top = merge_axis(low, bands[0], -1, size[1])
    return merge_axis(top, merge_axis(bands[1], bands[2], -1, size[1]), -2, size[0])


def pool(a: npt.NDArray[np.generic]) -> Float:
    """(1 3 3 1)/8 in both directions, every second place."""

    def one(v: Float) -> Float:
        wide = mirrored(v, 1)
        return np.stack([np.array([1, 3, 3, 1]) @ wide[2 * k : 2 * k + 4] for k in range((len(v) + 1) // 2)]) / 8

    return one(one(np.asarray(a, np.float64)).T).T


def spread(a: npt.NDArray[np.generic], size: Size) -> Float:
    """Linear interpolation from the centres of pairs."""

    def one(v: Float, n: int) -> Float:
        at = (np.arange(n) - 0.5) / 2
        below = np.floor(at).astype(int)
        part = (at - below)[:, None]
        last = len(v) - 1
        return (1 - part) * v[np.clip(below, 0, last)] + part * v[np.clip(below + 1, 0, last)]

    return one(one(np.asarray(a, np.float64), size[0]).T, size[1]).T


def valid_below(valid: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    """1 where at least two of 2 x 2 pixels are."""
    wide = np.pad(valid.astype(int), [(0, n % 2) for n in valid.shape], mode="edge")
    return (wide[::2, ::2] + wide[1::2, ::2] + wide[::2, 1::2] + wide[1::2, 1::2] >= 2).astype(np.uint8)


def _levels(frame: npt.NDArray[np.generic], count: int) -> tuple[list[Complex], list[Complex]]:
    low, lows, bands = np.asarray(frame, complex), [], []
    for _ in range(count):
        low, high = split(low)
        lows.append(low)
        bands.append(high)
    return lows, bands


def _energies(bands: list[Complex]) -> list[Float]:
    return [reference.smooth((np.abs(b) ** 2).mean(axis=(0, 1))) for b in bands]


def running_noise(
    frames: Sequence[npt.NDArray[np.generic]], masks: Sequence[npt.NDArray[np.generic] | None]
) -> list[tuple[float, float]]:
    """The calmest noise seen up to each frame, from the finest bands."""
    best: tuple[float, float] | None = None
    out = []
    for frame, mask in zip(frames, masks, strict=True):
        lows, bands = _levels(frame, 1)
        light = lows[0].real / 2
        slope, floor = reference.noise_of(_energies(bands)[0], light, None if mask is None else valid_below(mask))
        middle = max(0.0, float(np.median(light[:, ::8, ::8])))
        if (slope > 0 or floor > 0) and (best is None or slope * middle + floor < best[0] * middle + best[1]):
            best = (slope, floor)
        out.append(best or (0.0, 0.0))
    return out


def _ratings(
    lows: list[Complex], bands: list[Complex], mask: npt.NDArray[np.generic] | None, noise: tuple[float, float]
) -> list[Float]:
    own = _energies(bands)
    finer, coarser = [own[0]], [own[-1]]
    for e in own[1:]:
        finer.append(e + FINER * pool(finer[-1]))
    for e in own[-2::-1]:
        coarser.insert(0, e + COARSER * spread(coarser[0], e.shape))
    out = []
    for i, e in enumerate(own):
        light = np.maximum(lows[i].real.mean(axis=0), 0) / 2 ** (i + 1)
        rating = finer[i] + coarser[i] - e + FLOOR * (noise[0] * light + noise[1] + SMALLEST)
        if mask is not None:
            mask = valid_below(mask)
            rating = rating * mask
        out.append(rating)
    return out


def wavelet(
    frames: Sequence[npt.NDArray[np.generic]],
    masks: Sequence[npt.NDArray[np.generic] | None],
    places: Sequence[float] | None = None,
) -> tuple[Float, Float, Float]:
    """Image (C, h, w), depth (h, w) and confidence (h, w) of frames (C, h, w), all at once."""
    size = frames[0].shape[-2:]
    count = max(1, int(np.log2(max(min(size), 16) / 8)))
    noise = running_noise(frames, masks)
    split_up = [_levels(frame, count) for frame in frames]
    ratings = [_ratings(*s, m, n) for s, m, n in zip(split_up, masks, noise, strict=True)]
    weight = np.stack([r[-1] + 1e-12 for r in ratings])[:, None]
    low = (weight * np.stack([lows[-1] for lows, _ in split_up])).sum(axis=0) / weight.sum(axis=0)
    sizes = [size, *(low.shape[-2:] for low in split_up[0][0])]
    for i in range(count - 1, -1, -1):
        rating = np.stack([r[i] for r in ratings])
        top = rating.max(axis=0)
        weight = (rating / np.where(top > 0, top, 1)) ** (4 if i == 0 else 8)
        total = weight.sum(axis=0)
        sums = sum(w * bands[i] for w, (_, bands) in zip(weight, split_up, strict=True))
        low = merge(low, sums / np.where(total > 0, total, 1), sizes[i])
    level = min(1, count - 1)
    depth, confidence = reference._depth([r[level] for r in ratings], places)
    for i in range(level, -1, -1):
        depth, confidence = spread(depth, sizes[i]), spread(confidence, sizes[i])
    return low.real, depth, np.clip(confidence, 0, 1)
