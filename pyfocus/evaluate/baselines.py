"""The two baselines of the paper's Table 3 as they were published, to be judged on any scenes: `laplace`, `wavelets`.

Not for stacking: they are how the paper's figures were made, signs and all (Araujo, Ponce & Mairal 2023, section 4, and
the code published with it). Both see encoded pictures in [0, 1], as the paper's were, and pick, per place, one frame:

laplace    the frame whose second derivative is largest, with its sign, of the mean of the channels under a 5 x 5
           binomial: dark detail from where it is sharpest, bright detail from where it is most blurred;
wavelets   per channel and place the coefficient of the largest magnitude, on six levels of a complex Daubechies
           transform (6 taps, circular) and in the low-pass band below them, which holds no detail: there the largest
           light wins.

Raws are compared as camera RGB under the sRGB curve. The published code ran both in overlapping tiles; here the picture
is one tile, whose sides are made multiples of 64 for `wavelets` by repeating the edge.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..colour import linear_to_srgb, srgb_to_linear
from ..fuse import Fused, Mask, Planes, _Folding

Complex = npt.NDArray[np.complex64]
Float = npt.NDArray[np.float64]

_LEVELS = 6
_TAPS = np.array([-3 - 15**0.5 * 1j, 5 - 15**0.5 * 1j, 30 + 2 * 15**0.5 * 1j]) * 2**0.5 / 64
_LOW = np.concatenate([_TAPS, _TAPS[::-1]])
_HIGH = (-1) ** np.arange(6) * _LOW.conj()
_BINOMIAL, _SECOND = (1, 4, 6, 4, 1), (1, 0, -2, 0, 1)


class _Baseline(_Folding):
    """What both have alike: encoded frames in, light out, no depth. Masked pixels take part: the paper has no masks."""

    gives_depth = False

    def push(self, planes: Planes, valid: Mask | None = None, *, index: float | None = None) -> None:
        """Compare a frame with what was picked so far; see :class:`pyfocus.Fuser`."""
        first = self._accept(planes, valid)
        self._pick(linear_to_srgb(np.clip(planes, 0, 1)).astype(np.float32), first)

    def preview(self) -> Planes:
        """The picture so far."""
        self._need_frames("preview")
        return srgb_to_linear(np.clip(self._picture(), 0, 1)).astype(np.float32)

    def finish(self) -> Fused:
        """The picture, without depth."""
        image = self.preview()
        self._finished = True
        return Fused(image)

    def _pick(self, frame: Planes, first: bool) -> None:
        raise NotImplementedError

    def _picture(self) -> npt.NDArray[Any]:
        raise NotImplementedError


class LaplaceBaseline(_Baseline):
    """`laplace`: the pixels of the frame with the largest signed Laplacian."""

    def _pick(self, frame: Planes, first: bool) -> None:
        response = signed_laplacian(frame.mean(axis=0, dtype=np.float64))
        if first:
            self._best, self._image = response, frame.copy()
            return
        better = response > self._best
        self._best[better] = response[better]
        self._image[:, better] = frame[:, better]

    def _picture(self) -> Planes:
        return self._image


class WaveletsBaseline(_Baseline):
    """`wavelets`: the coefficients of the largest magnitude, the low-pass band's among them."""

    def _pick(self, frame: Planes, first: bool) -> None:
        height, width = frame.shape[-2:]
        pad = ((0, 0), (0, -height % 2**_LEVELS), (0, -width % 2**_LEVELS))
        bands = decompose(np.pad(frame, pad, mode="edge").astype(np.complex64), _LEVELS)
        if first:
            self._bands = bands
            return
        for kept, new in zip(self._bands, bands, strict=True):
            np.copyto(kept, new, where=_squared(new) > _squared(kept))

    def _picture(self) -> npt.NDArray[Any]:
        assert self._shape is not None  # a frame was pushed
        return recompose(self._bands).real[:, : self._shape[1], : self._shape[2]]


BASELINES: dict[str, type[_Baseline]] = {"laplace": LaplaceBaseline, "wavelets": WaveletsBaseline}


def signed_laplacian(grey: Float) -> Float:
    """(H, W): a 5 x 5 binomial, then the sum of both second derivatives of 5 taps; borders mirrored about the edge."""
    smooth = _filtered(_filtered(grey, _BINOMIAL, 0), _BINOMIAL, 1) / 256
    across = _filtered(_filtered(smooth, _SECOND, 1), _BINOMIAL, 0)
    return across + _filtered(_filtered(smooth, _SECOND, 0), _BINOMIAL, 1)


def _filtered(picture: Float, taps: tuple[int, ...], axis: int) -> Float:
    pad = [(0, 0), (0, 0)]
    pad[axis] = (2, 2)
    wide = np.pad(picture, pad, mode="reflect" if picture.shape[axis] > 2 else "edge")
    size = picture.shape[axis]
    parts = (np.take(wide, range(k, k + size), axis=axis) * tap for k, tap in enumerate(taps) if tap)
    return np.asarray(sum(parts), np.float64)


def decompose(picture: Complex, levels: int) -> list[Complex]:
    """Bands of (C, H, W), sides multiples of 2^levels: (3, C, H/2, W/2), (3, C, H/4, W/4), ..., the low-pass band."""
    bands = []
    for _ in range(levels):
        low, high = _split(picture, -2)
        (picture, across), (down, both) = _split(low, -1), _split(high, -1)
        bands.append(np.stack([across, down, both]))
    return [*bands, picture]


def recompose(bands: list[Complex]) -> Complex:
    """The inverse of :func:`decompose`."""
    picture = bands[-1]
    for across, down, both in bands[-2::-1]:
        picture = _merge(_merge(picture, across, -1), _merge(down, both, -1), -2)
    return picture


def _split(picture: Complex, axis: int) -> tuple[Complex, Complex]:
    """low[k] = sum_n h[n] x[2k + n], high with g, around a circle."""
    x = np.moveaxis(picture, axis, -1)
    wide = np.concatenate([x, x[..., :4]], axis=-1) if x.shape[-1] >= 4 else np.concatenate([x, x, x], axis=-1)
    size = x.shape[-1]
    taps = [wide[..., n : n + size : 2] for n in range(6)]
    low, high = (sum(f[n] * taps[n] for n in range(6)) for f in (_LOW, _HIGH))
    return _turned(low, axis), _turned(high, axis)


def _merge(low: Complex, high: Complex, axis: int) -> Complex:
    """x[2k + n] += conj(h[n]) low[k] + conj(g[n]) high[k], around a circle."""
    a, b = np.moveaxis(low, axis, -1), np.moveaxis(high, axis, -1)
    out = np.zeros((*a.shape[:-1], 2 * a.shape[-1]), np.complex64)
    for n in range(6):
        part = _LOW[n].conj() * a + _HIGH[n].conj() * b
        out[..., n % 2 :: 2] += np.roll(part, n // 2, axis=-1)
    return _turned(out, axis)


def _turned(values: Any, axis: int) -> Complex:
    return np.ascontiguousarray(np.moveaxis(values, -1, axis), dtype=np.complex64)


def _squared(values: Complex) -> Planes:
    return np.asarray(values.real**2 + values.imag**2, np.float32)
