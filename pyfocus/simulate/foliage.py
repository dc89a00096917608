"""A picture made of arithmetic: wet autumn leaves over pebbles, needles between them, a ladybird on top.

It gives the demo a scene with fine detail in every plane of focus, without a photograph to download.
Everything is drawn far to near in linear light; heights are turned to shading by one light from the upper
left.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .camera import soften

Float = npt.NDArray[np.float32]
Box = tuple[slice, slice]

LIGHT = np.array([-0.52, -0.58, 0.63]) / np.linalg.norm([-0.52, -0.58, 0.63])  # x right, y down, z to the viewer
SKY = np.array([0.80, 0.92, 1.10], np.float32)
SUN = np.array([1.16, 1.02, 0.80], np.float32)
# Blade near the midrib, blade at the margin, veins: linear RGB.
PALETTES = np.array(
    [
        [[0.34, 0.105, 0.012], [0.30, 0.020, 0.010], [0.62, 0.34, 0.07]],  # orange to crimson
        [[0.52, 0.270, 0.020], [0.44, 0.100, 0.012], [0.72, 0.50, 0.13]],  # gold to rust
        [[0.16, 0.205, 0.026], [0.40, 0.190, 0.018], [0.46, 0.44, 0.12]],  # green to gold
        [[0.20, 0.018, 0.014], [0.11, 0.010, 0.022], [0.46, 0.16, 0.07]],  # crimson to plum
        [[0.055, 0.13, 0.030], [0.12, 0.150, 0.022], [0.28, 0.34, 0.10]],  # deep green
        [[0.46, 0.185, 0.016], [0.36, 0.045, 0.010], [0.70, 0.42, 0.10]],  # amber to red
    ],
    np.float32,
)


@dataclass
class Canvas:
    """Colour (H, W, 3) and depth (H, W) drawn so far; ``size`` is the shorter side in pixels."""

    color: Float
    depth: Float
    size: float
    grain: Float

    def box(self, x: float, y: float, radius: float) -> Box:
        """The square around a point, cut to the canvas."""
        h, w = self.depth.shape
        y0, y1 = np.clip([int(y - radius), int(y + radius) + 1], 0, h)
        x0, x1 = np.clip([int(x - radius), int(x + radius) + 1], 0, w)
        return slice(y0, y1), slice(x0, x1)

    def paint(self, box: Box, alpha: Float, color: Float, depth: Float, shadow_px: float) -> None:
        """Lay colour (h, w, 3) with coverage (h, w) over a box, its shadow first, in two softnesses."""
        for fall, dark in ((1.0, 0.55), (0.35, 0.45)):
            blurred = blur_fast(alpha, max(shadow_px * fall * 0.7, 0.5))
            moved = shift(blurred, int(0.8 * shadow_px * fall), int(0.9 * shadow_px * fall))
            self.color[box] *= 1 - dark * moved[..., None]
        self.color[box] += alpha[..., None] * (color - self.color[box])
        self.depth[box] = np.where(alpha > 0.5, depth, self.depth[box])

    def noise(self, y: Float, x: Float) -> Float:
        """Fractal noise of variance 1 at any coordinates, in periods of 512, interpolated."""
        row, column = np.floor(y).astype(int), np.floor(x).astype(int)
        fy, fx = (y - row).astype(np.float32), (x - column).astype(np.float32)
        grain = self.grain.ravel()
        r0, c0, r1, c1 = (row & 511) << 9, column & 511, (row + 1 & 511) << 9, column + 1 & 511
        upper = grain[r0 + c0] * (1 - fx) + grain[r0 + c1] * fx
        return np.asarray(upper * (1 - fy) + (grain[r1 + c0] * (1 - fx) + grain[r1 + c1] * fx) * fy)


def blur_fast(image: Float, sigma_px: float) -> Float:
    """Gaussian blur of (h, w), wide ones on a thinned grid: shadows need no more."""
    step = max(int(sigma_px / 2.5), 1)
    if step == 1:
        return soften(image[..., None], sigma_px)[..., 0]
    h, w = image.shape
    padded = np.pad(image, ((0, -h % step), (0, -w % step)), mode="edge")
    small = padded.reshape(padded.shape[0] // step, step, -1, step).mean((1, 3))
    small = soften(small[..., None], sigma_px / step)[..., 0]
    large = np.repeat(np.repeat(small, step, 0), step, 1)[:h, :w]
    return soften(large[..., None], step / 2)[..., 0]


def shift(image: Float, dx: int, dy: int) -> Float:
    """Image (h, w) moved right and down by whole pixels, zeros moving in."""
    out = np.zeros_like(image)
    h, w = image.shape
    if dy < h and dx < w:
        out[dy:, dx:] = image[: h - dy, : w - dx]
    return out


def fractal(random: np.random.Generator, power: float) -> Float:
    """A periodic (512, 512) field whose amplitude falls with frequency to ``power``; mean 0, variance 1."""
    fy, fx = np.meshgrid(np.fft.fftfreq(512), np.fft.rfftfreq(512), indexing="ij")
    falloff = np.maximum(np.hypot(fy, fx), 1 / 512) ** -power
    field = np.fft.irfft2(np.fft.rfft2(random.standard_normal((512, 512))) * falloff)
    return np.asarray((field - field.mean()) / field.std(), np.float32)


def cells(y: Float, x: Float, random: np.random.Generator) -> tuple[Float, Float, npt.NDArray[np.intp]]:
    """Distances to the nearest and the next of jittered grid points, and the nearest one's number < 4096."""
    py, px = random.uniform(0.08, 0.92, (2, 4096)).astype(np.float32)
    row, column = np.floor(y).astype(np.intp), np.floor(x).astype(np.intp)
    fy, fx = (y - row).astype(np.float32), (x - column).astype(np.float32)
    first, second = np.full(y.shape, 9, np.float32), np.full(y.shape, 9, np.float32)
    number = np.zeros(y.shape, np.intp)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            cell = ((row + dy & 63) << 6) + (column + dx & 63)
            square = (py[cell] + dy - fy) ** 2 + (px[cell] + dx - fx) ** 2
            second = np.minimum(second, np.maximum(first, square))
            number = np.where(square < first, cell, number)
            first = np.minimum(first, square)
    return np.sqrt(first), np.sqrt(second), number


def shade(height: Float, gloss: float, sharpness: float) -> tuple[Float, Float]:
    """Diffuse and specular light (h, w) on a surface whose ``height`` (h, w) is in pixels."""
    gy, gx = np.gradient(height)
    length = np.sqrt(gx * gx + gy * gy + 1)
    normal = -gx / length, -gy / length, 1 / length
    diffuse = np.clip(normal[0] * LIGHT[0] + normal[1] * LIGHT[1] + normal[2] * LIGHT[2], 0, 1)
    toward = LIGHT + np.array([0, 0, 1])
    half = toward / np.linalg.norm(toward)
    glint = np.clip(normal[0] * half[0] + normal[1] * half[1] + normal[2] * half[2], 0, 1)
    return diffuse.astype(np.float32), np.asarray(gloss * glint**sharpness, np.float32)


def light_up(color: Float, diffuse: Float, glint: Float) -> Float:
    """Colour (h, w, 3) under the sun, the sky's fill, and a highlight."""
    lit = 1.45 * diffuse[..., None] * SUN + 0.30 * SKY
    return np.asarray(color * lit + glint[..., None] * SKY, np.float32)


def paint_ground(canvas: Canvas, random: np.random.Generator) -> None:
    """Slate pebbles of two sizes in dark earth, wet, with mineral grain and a few bright specks."""
    h, w = canvas.depth.shape
    y, x = np.mgrid[:h, :w].astype(np.float32)
    color = np.empty((h, w, 3), np.float32)
    color[:] = (0.020, 0.016, 0.013)
    fine = canvas.noise(y * 0.9, x * 0.9)
    height = 1.2 * fine
    wobble = 0.05 * canvas.noise(y * 0.35, x * 0.35)
    for pitch in (canvas.size / 46, canvas.size / 17):
        first, second, number = cells(y / pitch + wobble, x / pitch + wobble, random)
        tint = random.uniform(0.35, 1.0, (4096, 1)) * np.array([0.105, 0.125, 0.150])
        tint += random.normal(0, 0.006, (4096, 3)) + (random.random((4096, 1)) < 0.2) * [0.10, 0.055, 0.02]
        present = (random.random(4096) < 0.8)[number]
        gap = second - first
        edge = np.clip((gap - 0.07) * pitch * 0.6, 0, 1) * present
        dome = pitch * 0.55 * np.sqrt(np.clip(1 - (1 - np.clip(gap, 0, 0.8) / 0.8) ** 2, 0, 1))
        stone = (
            np.clip(tint, 0.01, 1)[number] * np.exp(0.22 * fine + 0.25 * canvas.noise(y * 0.2 + 90, x * 0.5))[..., None]
        )
        color += edge[..., None] * (stone.astype(np.float32) - color)
        height = np.where(edge > 0.5, dome + 0.35 * fine, height)
    near, _, number = cells(y / 11, x / 11, random)
    specks = (random.random(4096) ** 12)[number] * np.clip(1.5 - near * 11, 0, 1)  # mica: a few, of any brightness
    diffuse, glint = shade(height, 0.35, 60)
    canvas.color[:] = light_up(color, diffuse, glint * np.exp(0.5 * fine) + specks) * 0.8
    canvas.depth[:] = 0.02 + 0.12 * y / h + 0.02 * x / w


def paint_needle(canvas: Canvas, random: np.random.Generator, depth: float) -> None:
    """One dry pine needle: a thin bent line, round in section."""
    h, w = canvas.depth.shape
    length, width = canvas.size * random.uniform(0.12, 0.30), max(canvas.size * 0.0022, 1.0)
    cx, cy, turn = random.uniform(0, w), random.uniform(0, h), random.uniform(0, np.pi)
    box = canvas.box(cx, cy, length / 2 + 8 * width)
    y, x = np.mgrid[box].astype(np.float32)
    if y.size == 0:
        return
    u = (x - cx) * np.cos(turn) + (y - cy) * np.sin(turn)
    v = (y - cy) * np.cos(turn) - (x - cx) * np.sin(turn) - random.normal(0, 0.35) / length * u * u
    body = width * (1.05 - 0.6 * np.abs(u) / length)
    alpha = np.clip(body - np.abs(v) + 0.5, 0, 1) * np.clip(length / 2 - np.abs(u) + 0.5, 0, 1)
    across = np.clip(v / body, -1, 1)
    tone = 0.55 + 0.6 * np.sqrt(1 - across**2) - 0.35 * across * np.cos(turn + 0.8)
    base = np.array([0.26, 0.13, 0.035]) * random.uniform(0.6, 1.4) + random.uniform(0, 0.05, 3)
    color = base * (tone * np.exp(0.25 * canvas.noise(u * 1.5, v)))[..., None]
    canvas.paint(box, alpha, color.astype(np.float32), np.full_like(u, depth), canvas.size * 0.006)


@dataclass(frozen=True)
class Leaf:
    """Where a leaf lies: base of the blade (x, y), length in pixels, heading in radians, middle depth."""

    x: float
    y: float
    length: float
    heading: float
    depth: float
    palette: int
    width: float
    bend: float
    teeth: int


def leaf_outline(leaf: Leaf, u: npt.ArrayLike) -> Float:
    """Half width of the blade, in leaf lengths, along the midrib 0 <= u <= 1: oval, pointed, serrate."""
    t = np.clip(u, 0, 1)
    oval = t**0.60 * (1 - t) ** 0.98 / (0.38**0.60 * 0.62**0.98)
    saw = (t * leaf.teeth + 0.6 * np.sin(9 * t + leaf.width * 90)) % 1
    return np.asarray(leaf.width * oval * (1 + (0.05 + 0.02 * np.sin(31 * t)) * (saw - 0.5)), np.float32)


def leaf_veins(leaf: Leaf, u: Float, v: Float, canvas: Canvas, random: np.random.Generator) -> tuple[Float, ...]:
    """Midrib and side veins, fine net (both 0..1), and the blade's swell between the veins (0..1)."""
    px = 1 / leaf.length
    side, count = np.abs(v), max(leaf.teeth // 3, 7)
    phase = (u - 0.75 * side - 1.1 * side**2 / leaf.width) * count + np.where(v > 0, 0.5, 0.0)
    phase = phase + 0.05 * canvas.noise(u * 60 + leaf.x, v * 60)
    rib = np.abs(phase - np.rint(phase)) / count / 1.25
    reach = side / np.maximum(leaf_outline(leaf, u), 1e-3)
    lateral = np.exp(-((rib / (0.0042 * (1.25 - reach) + 0.7 * px)) ** 2)) * np.clip(1.6 - 1.3 * reach, 0.25, 1)
    midrib = np.exp(-((v / (0.0125 * (1.15 - u) + 0.8 * px)) ** 2))
    ladder = side * count * 2.6 + 0.35 * canvas.noise(u * 150, v * 150 + leaf.y)
    rung = np.abs(ladder - np.rint(ladder)) / count / 2.6
    third = 0.55 * np.exp(-((rung / (0.0016 + 0.6 * px)) ** 2))
    pitch = max(0.016, 5.5 * px)
    first, second, _ = cells(u / pitch + 7, v / pitch + 31, random)
    net = 0.45 * np.exp(-(((second - first) / 0.16) ** 2))
    swell = np.sin(np.pi * (phase % 1)) ** 0.7 * np.clip(side * 14, 0, 1)
    return np.maximum(midrib, lateral), np.maximum(third, net), swell


def paint_leaf(canvas: Canvas, leaf: Leaf, random: np.random.Generator) -> None:
    """One leaf with veins, blotches, a worn margin, a stalk, and the gloss of rain."""
    cos, sin = np.cos(leaf.heading), np.sin(leaf.heading)
    box = canvas.box(leaf.x + 0.42 * leaf.length * cos, leaf.y + 0.42 * leaf.length * sin, 0.72 * leaf.length)
    y, x = np.mgrid[box].astype(np.float32)
    if y.size == 0:
        return
    u = ((x - leaf.x) * cos + (y - leaf.y) * sin) / leaf.length
    v = ((y - leaf.y) * cos - (x - leaf.x) * sin) / leaf.length
    v = v - leaf.bend * u * (u - 0.55) - np.where(u < 0, 12 * leaf.bend * u * u, 0)
    ragged = 0.004 * canvas.noise(u * 220 + leaf.y, v * 220)
    margin = (leaf_outline(leaf, u) + ragged - np.abs(v)) * leaf.length
    blade = np.clip(margin * 0.85 + 0.5, 0, 1) * ((u > 0) & (u < 1))
    stalk = np.clip((0.0062 + 0.012 * u * u - np.abs(v)) * leaf.length + 0.5, 0, 1) * ((u > -0.22) & (u <= 0.03))
    alpha = np.maximum(blade, stalk).astype(np.float32)
    veins, net, swell = leaf_veins(leaf, u, v, canvas, random)
    broad = canvas.noise(u * 26 + leaf.x, v * 26 + leaf.y)
    fine = canvas.noise(y * 0.8 + leaf.y, x * 0.8)
    height = leaf.length * (0.012 * swell + 0.010 * broad - 0.010 * veins - 0.0022 * net - 0.30 * v * v)
    diffuse, glint = shade((height + 0.16 * fine).astype(np.float32), 0.30, 26)
    color = leaf_color(canvas, leaf, u, v, margin, veins, net)
    color *= np.exp(0.07 * fine)[..., None]
    color = light_up(color, diffuse, glint * np.clip(0.75 + 0.35 * broad, 0, 1.5) * (1 - 0.5 * net))
    depth = leaf.depth + 0.05 * (u - 0.5) - 0.35 * v * v + 0.004 * broad
    canvas.paint(box, alpha, color, depth.astype(np.float32), canvas.size * 0.022)


def leaf_color(canvas: Canvas, leaf: Leaf, u: Float, v: Float, margin: Float, veins: Float, net: Float) -> Float:
    """Pigment (h, w, 3): midrib to margin, mottled, paler along veins, browned at the edge and in spots."""
    inner, outer, vein = PALETTES[leaf.palette]
    mottle = canvas.noise(u * 70 + leaf.y, v * 70 + leaf.x)
    speckle = canvas.noise(u * 420 + leaf.x, v * 420)
    turn = np.clip(0.15 + 4.2 * np.abs(v) + 0.5 * (u - 0.4) + 0.28 * mottle, 0, 1)[..., None]
    color = inner + (outer - inner) * turn
    color = color * np.exp(0.16 * mottle + 0.10 * speckle)[..., None]
    color = color + (vein - color) * (0.62 * veins + 0.24 * net)[..., None]
    worn = np.exp(-np.clip(margin, 0, None) / (0.012 * leaf.length)) * np.clip(0.5 + 0.4 * mottle, 0, 1)
    spots = np.clip((canvas.noise(u * 160 + 3 * leaf.x, v * 160) - 1.75) * 3, 0, 1)
    brown = np.array([0.060, 0.026, 0.010], np.float32)
    color = color + (brown - color) * np.clip(0.85 * worn + 0.75 * spots, 0, 1)[..., None]
    return np.asarray(color, np.float32)
