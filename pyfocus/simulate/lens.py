"""A thin lens: one picture and its depth, seen with the focus at any distance, occlusion included.

Within a surface the disc of confusion varies from pixel to pixel without steps, so one surface never shows a
seam; surfaces are then composited far to near, the premultiplied colour and the coverage blurred by the same
discs, in linear light, so a near edge dissolves over a background that is really there (``surfaces.py``).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from .surfaces import Float, Surface, cut_surfaces


@dataclass
class Lens:
    """Surfaces far to near, and the discs that blur them.

    ``spread_px`` is the disc radius per unit of depth between a point and the focus; ``reach_px`` bounds it.
    The outer ``reach_px`` pixels of the canvas ``shape`` feed the blur but are not rendered.
    """

    surfaces: list[Surface]
    shape: tuple[int, int]
    spread_px: float
    reach_px: int
    rungs: Float = field(init=False)
    side: int = field(init=False)
    _spectra: dict[int, Float] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        ladder = [0.0]
        while ladder[-1] < self.reach_px:  # steps that two neighbouring discs can be blended over unseen
            ladder.append(ladder[-1] + max(0.25, ladder[-1] / 8))
        self.rungs = np.asarray(ladder, np.float32)
        self.side = next(n for n in (192, 256, 320, 384, 512, 768, 1024, 2048, 4096) if n >= 8 * self.reach_px)

    def render(self, focus: float) -> Float:
        """The scene (H - 2 reach, W - 2 reach, 3) in linear light with the focus at depth ``focus``."""
        edge, core = self.reach_px, self.side - 2 * self.reach_px
        rows, columns = self.shape[0] - 2 * edge, self.shape[1] - 2 * edge
        out = np.empty((3, rows, columns), np.float32)
        for y in range(0, rows, core):
            for x in range(0, columns, core):
                h, w = min(core, rows - y), min(core, columns - x)
                out[:, y : y + h, x : x + w] = self._tile(y, x, focus)[:, :h, :w]
        return np.ascontiguousarray(out.transpose(1, 2, 0))

    def _tile(self, y: int, x: int, focus: float) -> Float:
        """Surfaces composited far to near over one tile whose window starts at canvas row y, column x."""
        core = self.side - 2 * self.reach_px
        total = np.zeros((4, core, core), np.float32)
        for surface in self.surfaces:
            window = self._window(surface, y, x)
            if window is not None:
                layer = self._blur(*window, focus)
                total = layer + (1 - layer[3]) * total
        # Coverage is below one only where an extension ended early; what is seen there is shared out again.
        return np.asarray(total[:3] / np.maximum(total[3], 1e-3), np.float32)

    def _window(self, surface: Surface, y: int, x: int) -> tuple[Float, Float] | None:
        """Light (4, side, side) and depth (core, core) of a surface in a tile, or None where it is absent."""
        h, w = surface.depth.shape
        y0, x0 = max(y, surface.top), max(x, surface.left)
        y1, x1 = min(y + self.side, surface.top + h), min(x + self.side, surface.left + w)
        if y0 >= y1 or x0 >= x1:
            return None
        inside = np.s_[y0 - surface.top : y1 - surface.top, x0 - surface.left : x1 - surface.left]
        if not surface.light[3][inside].any():
            return None
        light = np.zeros((4, self.side, self.side), np.float32)
        depth = np.full((self.side, self.side), np.nan, np.float32)
        light[:, y0 - y : y1 - y, x0 - x : x1 - x] = surface.light[(slice(None), *inside)]
        depth[y0 - y : y1 - y, x0 - x : x1 - x] = surface.depth[inside]
        edge = self.reach_px
        return light, depth[edge : self.side - edge, edge : self.side - edge]

    def _blur(self, light: Float, depth: Float, focus: float) -> Float:
        """Light under a disc whose radius follows ``depth``: a blend of two discs of the ladder."""
        edge, n = self.reach_px, self.side
        core = np.s_[:, edge : n - edge, edge : n - edge]
        radius = np.nan_to_num(self.spread_px * np.abs(depth - focus), nan=0.0)
        level = np.interp(radius**2, self.rungs**2, np.arange(len(self.rungs))).astype(np.float32)  # keeps variance
        used = np.unique(np.concatenate([np.unique(np.floor(level)), np.unique(np.ceil(level))])).astype(int)
        if used[-1] == 0:
            return light[core]
        opaque = bool(light[3].min() == 1)
        spectrum = np.fft.rfft2(light[:3] if opaque else light)
        out = np.ones((4, n - 2 * edge, n - 2 * edge), np.float32)
        part = out[:3] if opaque else out
        part[:] = 0
        for rung in used:
            weight = np.clip(1 - np.abs(level - rung), 0, 1)
            disc = np.fft.irfft2(spectrum * self._disc_spectrum(rung), (n, n)) if rung else light[: len(part)]
            part += weight * disc[core]
        return out

    def _disc_spectrum(self, rung: int) -> Float:
        """Spectrum (side, side / 2 + 1) of a disc of the ladder: real, because a disc is symmetric."""
        if rung not in self._spectra:
            kernel = disc_kernel(float(self.rungs[rung]))
            half, tile = len(kernel) // 2, np.zeros((self.side, self.side), np.float32)
            tile[: len(kernel), : len(kernel)] = kernel
            centred = np.roll(tile, (-half, -half), (0, 1))
            self._spectra[rung] = np.ascontiguousarray(np.fft.rfft2(centred).real.astype(np.float32))
        return self._spectra[rung]


def disc_kernel(radius_px: float) -> Float:
    """An antialiased disc (2h+1, 2h+1) of sum 1, h = ceil(radius) + 1; a radius of 0 px gives a point.

    Points spread evenly over a disc are each shared among their four nearest pixels. Sharing blurs by itself,
    so the points lie on a slightly smaller disc: the variance is radius^2 / 4 per axis, as a sharp disc's.
    """
    count = max(48, int(8 * radius_px))
    axis = (np.arange(count) + 0.5) * (2 / count) - 1
    y, x = np.meshgrid(axis, axis, indexing="ij")
    keep = x * x + y * y <= 1
    scale = _matched_scale(x[keep], radius_px)
    half = int(np.ceil(radius_px)) + 1
    kernel = np.zeros((2 * half + 1, 2 * half + 1))
    y, x = y[keep] * scale + half, x[keep] * scale + half
    row, column = np.floor(y).astype(int), np.floor(x).astype(int)
    fy, fx = y - row, x - column
    for dy, wy in ((0, 1 - fy), (1, fy)):
        for dx, wx in ((0, 1 - fx), (1, fx)):
            np.add.at(kernel, (np.minimum(row + dy, 2 * half), np.minimum(column + dx, 2 * half)), wy * wx)
    return np.asarray(kernel / kernel.sum(), np.float32)


def _matched_scale(x: npt.NDArray[np.float64], radius_px: float) -> float:
    """Radius at which points ``x`` of the unit disc, shared between pixels, vary by radius_px^2 / 4."""
    low, high = 0.0, radius_px
    for _ in range(40):
        middle = (low + high) / 2
        fraction = (middle * x) % 1
        variance = np.mean((middle * x) ** 2 + fraction * (1 - fraction))
        low, high = (middle, high) if variance < radius_px**2 / 4 else (low, middle)
    return low


def build_lens(photo: Float, depth: Float, blur_px: float, span: float) -> Lens:
    """A lens before ``photo`` (H, W, 3), linear, at ``depth`` (H, W), larger = nearer.

    ``blur_px`` is the disc radius at a depth distance of ``span``, the largest one. The lens renders all but
    a border of ``reach_px`` pixels, which the caller provides (mirrored, say).
    """
    reach = int(np.ceil(blur_px)) + 1
    span = max(span, 1e-6)
    jump = span * float(np.clip(0.4 / max(blur_px, 1e-6), 0.02, 0.1))  # a step of 0.4 px in blur is not seen
    surfaces = cut_surfaces(photo, depth, jump, 2 * reach)
    return Lens(surfaces, (int(depth.shape[0]), int(depth.shape[1])), blur_px / span, reach)
