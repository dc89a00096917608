"""The lens of the simulation: surfaces blurred by apertures whose size follows each pixel's depth, then composited.

    radius = step |depth - place|,   surface_k = sum_r w_r(radius) (light_k * aperture_r),   far to near:
    view = surface + (1 - coverage) view

Within a surface two apertures of a ladder are blended so that their variance is the wanted one. Every aperture is the
same turned by 180 degrees, so one blurred stack serves the frames before and behind the focus alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[np.float64]
Gauge = Callable[[Array, Array], Array]  # (y, x) in radii: below 1 inside

STEPS_PER_PX = 64  # of the table from radius to rung
REACH = 1.2  # of the longest aperture, in radii of the disc of its variance


class Lens:
    """Apertures of a pool as spectra on a canvas of ``side`` px, each made when first asked for."""

    def __init__(self, side: int, blur_px: float, seed: int, place: torch.device, pool: int = 24) -> None:
        self.side, self.pool, self._seed, self._place = side, pool, seed, place
        ladder = [0.0]
        while ladder[-1] < blur_px:  # steps over which two apertures can be blended unseen
            ladder.append(min(ladder[-1] + max(0.4, ladder[-1] / 5), blur_px))
        self.rungs = tuple(ladder)
        fine = np.arange(math.ceil(blur_px * STEPS_PER_PX) + 1) / STEPS_PER_PX
        table = np.interp(fine**2, np.square(ladder), np.arange(len(ladder)))
        self._table = torch.as_tensor(table, dtype=torch.float32, device=place)
        self._spectra: dict[int, Tensor] = {}

    def spectra(self, number: int) -> Tensor:
        """Spectra (R, side, side / 2 + 1) of aperture ``number``; 0 is a disc."""
        if number not in self._spectra:
            shape = _disc if number == 0 else draw_aperture(np.random.default_rng([self._seed, 78, number]))
            tiles = np.zeros((len(self.rungs), self.side, self.side), np.float32)
            for tile, radius in zip(tiles, self.rungs, strict=True):
                kernel = aperture_kernel(shape, radius)
                half = len(kernel) // 2
                tile[: len(kernel), : len(kernel)] = kernel
                tile[:] = np.roll(tile, (-half, -half), (0, 1))
            spectra = torch.fft.rfft2(torch.from_numpy(tiles)).real.contiguous()
            self._spectra[number] = spectra.to(self._place)
        return self._spectra[number]

    def render(self, light: Tensor, depth: Tensor, places: Tensor, step_px: float, edge: int, aperture: int) -> Tensor:
        """Views (N, 3, V, V), V = side - 2 edge, of surfaces (K, 4, side, side) focused at ``places`` (N,)."""
        spectra, crop = self.spectra(aperture), slice(edge, self.side - edge)
        inside = depth[:, crop, crop]
        level = self.levels(step_px * (inside[:, None] - places[None, :, None, None]).abs())  # (K, N, V, V)
        low = level.amin((1, 2, 3)).floor().int().tolist()
        high = level.amax((1, 2, 3)).ceil().int().tolist()
        view = light.new_zeros(len(places), 3, *inside.shape[1:])
        for k in range(len(light)):
            source = light[k, :3] if k == 0 else light[k]  # the background covers everything
            first = min(int(low[k]), len(self.rungs) - 2)
            last = max(int(high[k]), first + 1)
            spectrum = torch.view_as_real(torch.fft.rfft2(source)) * spectra[first : last + 1, None, :, :, None]
            stack = torch.fft.irfft2(torch.view_as_complex(spectrum), s=(self.side, self.side))
            seen = _blend(stack[..., crop, crop], level[k] - first)
            view = seen if k == 0 else seen[:, :3] + (1 - seen[:, 3:]) * view
        return view

    def levels(self, radius: Tensor) -> Tensor:
        """Places on the ladder, fractional, between whose two apertures the variance is that of ``radius`` px."""
        return self._table[(radius * STEPS_PER_PX + 0.5).clamp_max(len(self._table) - 1).long()]


def _blend(stack: Tensor, level: Tensor) -> Tensor:
    """From blurred light (R, C, V, V), the two nearest ``level`` (N, V, V) blended: (N, C, V, V)."""
    below = level.floor().clamp_(0, len(stack) - 2)
    weight = (level - below)[:, None]
    index = below.long()[:, None].expand(-1, stack.shape[1], -1, -1)
    return torch.lerp(stack.gather(0, index), stack.gather(0, index + 1), weight)


# --- apertures, each of the variance of the unit disc ---


def _disc(y: Array, x: Array) -> Array:
    """The disc itself."""
    return np.hypot(y, x)


def draw_aperture(random: np.random.Generator) -> Gauge:
    """A disc, a polygon of 6 to 10 rounded blades, or the cat's eye that vignetting cuts from a disc."""
    kind, turn = random.integers(3), random.uniform(0, np.pi)
    blades, cut, round_ = int(random.choice([6, 8, 10])), random.uniform(0.05, 0.25), random.uniform(0, 0.7)

    def gauge(y: Array, x: Array) -> Array:
        p: Array
        q: Array
        p, q = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
        if kind == 0:
            return np.hypot(y, x)
        if kind == 1:
            angle = np.mod(np.arctan2(q, p), 2 * np.pi / blades) - np.pi / blades
            flat: Array = np.hypot(p, q) * np.cos(angle) / np.cos(np.pi / blades) ** 0.5
            return round_ * np.hypot(p, q) + (1 - round_) * flat
        return np.hypot(np.abs(p) + cut, q)

    axis = (np.arange(256) + 0.5) / 64 - 2
    inside = gauge(axis[:, None], axis[None, :]) < 1
    scale = math.sqrt(2 * float(np.add.outer(axis**2, axis**2)[inside].mean()))
    return lambda y, x: gauge(y * scale, x * scale)


def aperture_kernel(shape: Gauge, radius_px: float) -> npt.NDArray[np.float32]:
    """An antialiased aperture (2h+1, 2h+1) of sum 1 and the variance of a disc of ``radius_px``: radius^2 / 4 per axis.

    Averaging over pixels adds to the variance, so apertures are painted smaller until it is right; below 1.4 px the
    three nearest pixels of each axis share the light instead.
    """
    if radius_px < 1.4:
        v = radius_px**2 / 8
        row = np.array([v, 1 - 2 * v, v])
        return np.asarray(row[:, None] * row[None, :], np.float32)
    half, fine = math.ceil(radius_px * REACH) + 1, 8 if radius_px < 6 else 4
    axis = (np.arange((2 * half + 1) * fine) + 0.5) / fine - half - 0.5
    pixel = np.arange(-half, half + 1.0) ** 2
    painted = math.sqrt(radius_px**2 - 1 / 3)
    for _ in range(4):
        rim = 1 - shape(axis[:, None] / painted, axis[None, :] / painted)
        inside = np.clip(rim * painted * fine + 0.5, 0, 1)  # the rim is one fine step wide
        kernel = inside.reshape(2 * half + 1, fine, 2 * half + 1, fine).sum((1, 3))
        kernel = (kernel + kernel[::-1, ::-1]) / (2 * kernel.sum())
        found = 2 * float((np.add.outer(pixel, pixel) * kernel).sum())  # radius^2 when right
        painted += (radius_px**2 - found) / (2 * painted)
    return np.asarray(kernel, np.float32)
