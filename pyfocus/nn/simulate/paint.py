"""Painted pictures: dead leaves, lines of writing, and noise whose spectrum falls as nature's does. NumPy, seeded.

Each is (side, side, 3) float32 in linear light, painted without antialiasing at a size that is halved at least once
before anyone sees it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float32]


def paint(number: int, seed: int, side: int = 1024) -> Float:
    """Picture ``number`` of a pool: the three kinds take turns, leaves twice as often as the others."""
    random = np.random.default_rng([seed, 77, number])
    kind = number % 4
    if kind in (0, 2):
        return paint_leaves(random, side)
    return paint_writing(random, side) if kind == 1 else paint_cloud(random, side)


def palette(random: np.random.Generator, count: int) -> Float:
    """Colours (count, 3) of linear light around a few hues, dark ones more often than bright ones."""
    hues = random.uniform(0.05, 1.0, (5, 3)) ** 1.5
    pick = hues[random.integers(0, 5, count)] * np.exp(random.normal(0, 0.7, (count, 1)))
    grey = pick.mean(1, keepdims=True)
    mixed = grey + (pick - grey) * random.uniform(0.2, 1.0, (count, 1))
    return np.asarray(np.clip(mixed, 0.004, 1.0), np.float32)


def paint_cloud(random: np.random.Generator, side: int, slope: float | None = None) -> Float:
    """Noise of spectrum 1 / f^slope, in three channels that mostly agree."""
    slope = float(random.uniform(0.9, 1.6)) if slope is None else slope
    fy, fx = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :]
    fall = 1 / np.maximum(np.hypot(fy, fx), 1 / side) ** slope
    waves = []
    for _ in range(2):
        noise = np.fft.irfft2(np.fft.rfft2(random.standard_normal((side, side))) * fall, (side, side))
        waves.append((noise - noise.mean()) / noise.std())
    first, second = palette(random, 2)
    weight = 1 / (1 + np.exp(-1.5 * waves[1]))[..., None]
    tint = first * weight + second * (1 - weight)
    return np.asarray(np.clip(tint * np.exp(0.6 * waves[0])[..., None], 0, 1.5), np.float32)


def paint_leaves(random: np.random.Generator, side: int) -> Float:
    """Dead leaves (Lee, Mumford & Huang 2001): shapes of radii spread as r^-3 that hide one another."""
    count = 2600
    picture = paint_cloud(random, side)
    low, high = 3.0, side / 5
    u = np.sort(random.uniform(0, 1, count) * 0.9 + 0.1 * np.linspace(0, 1, count))[::-1]
    radii = 1 / np.sqrt(1 / low**2 + (1 / high**2 - 1 / low**2) * (1 - u[::-1]))
    radii = radii[random.permutation(count)]
    colours = palette(random, count)
    grain = paint_cloud(random, side).mean(2)
    grain = grain / grain.mean()
    for radius, colour in zip(radii, colours, strict=True):
        _paint_shape(picture, grain, random, float(radius), colour)
    return picture


def _paint_shape(picture: Float, grain: Float, random: np.random.Generator, radius: float, colour: Float) -> None:
    """One ellipse, box or stripe, shaded along a direction and grained, into ``picture``."""
    side = len(picture)
    cy, cx, turn = random.uniform(0, side), random.uniform(0, side), random.uniform(0, np.pi)
    long, flat, kind = radius, radius * random.uniform(0.3, 1.0), random.integers(0, 4)
    if kind == 3:
        long, flat = 1.8 * radius, max(0.15 * radius, 1.0)
    reach = 1.5 * max(long, flat)
    y0, y1 = max(int(cy - reach), 0), min(int(cy + reach) + 1, side)
    x0, x1 = max(int(cx - reach), 0), min(int(cx + reach) + 1, side)
    y, x = np.arange(y0, y1, dtype=np.float32)[:, None] - cy, np.arange(x0, x1, dtype=np.float32)[None, :] - cx
    p, q = (x * np.cos(turn) + y * np.sin(turn)) / long, (y * np.cos(turn) - x * np.sin(turn)) / flat
    inside = (p * p + q * q < 1) if kind < 2 else (np.maximum(np.abs(p), np.abs(q)) < 1)
    texture = random.uniform(0, 0.8)
    light = (1 + random.uniform(-0.5, 0.5) * p) * (1 - texture + texture * grain[y0:y1, x0:x1])
    if random.uniform() < 0.2:  # stripes
        light = light * np.where(np.sin(p * random.uniform(4, 40)) > 0, 1.0, random.uniform(0.1, 0.8))
    picture[y0:y1, x0:x1][inside] = np.clip(light[inside][:, None] * colour, 0, 1.5)


def paint_writing(random: np.random.Generator, side: int) -> Float:
    """Lines of invented letters, strokes on a small lattice, dark on light or light on dark, of several sizes."""
    ink = np.zeros((side, side), np.float32)
    letters = [_letter(random) for _ in range(26)]
    y = 0.0
    while y < side:
        height = float(random.choice([14, 20, 28, 44, 80]))
        width, thick = height * 0.62, height * random.uniform(0.07, 0.16)
        x = -random.uniform(0, width)
        while x < side:
            if random.uniform() > 0.16:
                _stroke(ink, letters[random.integers(0, 26)], y, x, height, thick)
            x += width * 1.25
        y += height * random.uniform(1.25, 2.0)
    paper, pen = palette(random, 2)
    if random.uniform() < 0.7:
        paper, pen = 0.5 + 0.5 * paper, 0.15 * pen
    ground = paint_cloud(random, side).mean(2, keepdims=True)
    shade = (ground / ground.mean()) ** random.uniform(0.05, 0.5)
    return np.asarray(np.clip(shade * (paper + ink[..., None] * (pen - paper)), 0, 1.5), np.float32)


def _letter(random: np.random.Generator) -> npt.NDArray[np.float64]:
    """Two to four strokes (n, 2, 2) between points of a 3 x 2 lattice in the unit square, as (y, x)."""
    points = random.integers(0, 3, (random.integers(3, 6), 2)) / np.array([2, 2])
    return np.stack([points[:-1], points[1:]], 1)


def _stroke(ink: Float, letter: npt.NDArray[np.float64], top: float, left: float, height: float, thick: float) -> None:
    side, pad = len(ink), thick + 1
    y0, y1 = int(max(top - pad, 0)), int(min(top + height + pad, side))
    x0, x1 = int(max(left - pad, 0)), int(min(left + 0.62 * height + pad, side))
    if y0 >= y1 or x0 >= x1:
        return
    y, x = np.arange(y0, y1, dtype=np.float32)[:, None], np.arange(x0, x1, dtype=np.float32)[None, :]
    for (ya, xa), (yb, xb) in letter * np.array([height, 0.62 * height]) + np.array([top, left]):
        dy, dx = yb - ya, xb - xa
        along = np.clip(((y - ya) * dy + (x - xa) * dx) / max(dy * dy + dx * dx, 1e-9), 0, 1)
        near = np.hypot(y - ya - along * dy, x - xa - along * dx) < thick / 2
        ink[y0:y1, x0:x1][near] = 1
