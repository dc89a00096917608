"""Scenes to simulate: depth for pictures that have none, and a picture for those who have no picture."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ..errors import ArgumentError
from .camera import soften
from .foliage import (
    Box,
    Canvas,
    Leaf,
    fractal,
    leaf_outline,
    light_up,
    paint_ground,
    paint_leaf,
    paint_needle,
    shade,
)

Float = npt.NDArray[np.float32]


def synthetic_depth(shape: tuple[int, int], seed: int = 0) -> Float:
    """Depth (H, W) float32 in [0, 1], 1 = near: a curved, tilted ground, crisp rounded objects before it."""
    h, w = shape
    if h < 1 or w < 1:
        raise ArgumentError(f"synthetic_depth: shape must be (height, width), both >= 1, got {shape}")
    random = np.random.default_rng([seed, 2])
    size = max(min(h, w), 2)
    y, x = np.meshgrid(np.arange(h) / size, np.arange(w) / size, indexing="ij")
    turn = random.uniform(-0.5, 0.5)
    slope = y * np.cos(turn) + x * np.sin(turn)
    ground = (slope - slope.min()) / max(float(np.ptp(slope)), 1e-9)
    wave = 0.05 * np.sin(2 * np.pi * (x * random.uniform(0.5, 1.2) + y * 0.6 + random.uniform()))
    depth = 0.02 + 0.5 * ground + np.clip(wave, -0.02, 0.05)
    for level in np.linspace(0.3, 0.9, 9) + random.uniform(-0.03, 0.03, 9):
        cy, cx = random.uniform(0, h / size), random.uniform(0, w / size)
        radius = random.uniform(0.07, 0.2)
        angle = np.arctan2(y - cy, x - cx)
        lobes = sum(random.uniform(0, 0.22 / k) * np.cos(k * angle + random.uniform(0, 6.3)) for k in (2, 3, 5))
        ratio = np.hypot(y - cy, x - cx) / (radius * (1 + lobes))
        tilt = random.normal(0, 0.12) * (x - cx) + random.normal(0, 0.12) * (y - cy)
        here = level + tilt + 0.06 * (1 - ratio**2)
        depth = np.where((ratio < 1) & (here > depth + 0.04), here, depth)
    depth -= depth.min()
    return np.asarray(depth / max(float(depth.max()), 1e-9), np.float32)


def lay_leaves(width: int, height: int, random: np.random.Generator) -> list[Leaf]:
    """Leaves far to near: spread over a jittered grid, the last one in the middle, whole and in full view."""
    size = min(height, width)
    rows, columns = 3, max(2, round(3 * width / height))
    places = random.permutation([(r, c) for r in range(rows) for c in range(columns)])
    leaves = []
    for k, (row, column) in enumerate(places):
        length, heading = size * random.uniform(0.44, 0.64), random.uniform(-np.pi, np.pi)
        x = width * (column + random.uniform(0.15, 0.85)) / columns - 0.5 * length * np.cos(heading)
        y = height * (row + random.uniform(0.15, 0.85)) / rows - 0.5 * length * np.sin(heading)
        depth = 0.2 + 0.5 * k / len(places)
        leaves.append(_leaf(x, y, length, heading, depth, k, random))
    heading, length = -0.62, 0.66 * size
    x, y = 0.5 * width - 0.5 * length * np.cos(heading), 0.54 * height - 0.5 * length * np.sin(heading)
    return [*leaves, _leaf(x, y, length, heading, 0.82, 1, random)]


def _leaf(
    x: float, y: float, length: float, heading: float, depth: float, kind: int, random: np.random.Generator
) -> Leaf:
    palette = (3, 1, 0, 2, 5, 4)[kind % 6]
    width, bend = random.uniform(0.20, 0.27), float(np.clip(random.normal(0, 0.07), -0.12, 0.12))
    return Leaf(x, y, length, heading, depth, palette, width, bend, int(random.integers(24, 40)))


def paint_dew(canvas: Canvas, leaf: Leaf, random: np.random.Generator) -> None:
    """A drop of water on a leaf: it turns what lies under it upside down and gathers light."""
    u = random.uniform(0.08, 0.92)
    v = random.uniform(-0.85, 0.85) * float(leaf_outline(leaf, u)) + leaf.bend * u * (u - 0.55)
    cx = leaf.x + leaf.length * (u * np.cos(leaf.heading) - v * np.sin(leaf.heading))
    cy = leaf.y + leaf.length * (u * np.sin(leaf.heading) + v * np.cos(leaf.heading))
    radius = canvas.size * 0.0035 * float(np.exp(min(random.exponential(0.45), 1.25)))
    box = canvas.box(cx, cy, 2.2 * radius + 2)
    y, x = np.mgrid[box].astype(np.float32)
    if y.size == 0:
        return
    p, q = (x - cx) / radius, (y - cy) / radius
    reach = np.hypot(p, q * (1 + 0.12 * np.sin(u * 40)))
    alpha = np.clip((1 - reach) * radius + 0.5, 0, 1)
    h, w = canvas.depth.shape
    under_y = np.clip(cy - 0.75 * radius * q * reach, 0, h - 1).astype(int)
    under_x = np.clip(cx - 0.75 * radius * p * reach, 0, w - 1).astype(int)
    side = (p + q) / np.sqrt(2)  # -1 towards the light
    gather = 0.62 + 0.75 * np.clip(side * reach, -0.55, 1) - 0.35 * np.clip(reach - 0.86, 0, 1) * 4
    color = canvas.color[under_y, under_x] * gather[..., None]
    glint = 1.5 * np.exp(-(((p + 0.42) ** 2 + (q + 0.46) ** 2) / 0.022)) + 0.10 * np.exp(-(((side - 0.72) / 0.2) ** 2))
    color = color + glint[..., None] * np.array([1.0, 1.0, 0.97], np.float32)
    depth = leaf.depth + 0.05 * (u - 0.5) + 0.012 * np.clip(1 - reach, 0, 1)
    canvas.paint(box, alpha.astype(np.float32), color.astype(np.float32), depth.astype(np.float32), 0.35 * radius)


def paint_ladybird(canvas: Canvas, leaf: Leaf) -> None:
    """A seven-spot ladybird walking up a leaf."""
    cx = leaf.x + leaf.length * 0.52 * np.cos(leaf.heading) - 0.04 * leaf.length * np.sin(leaf.heading)
    cy = leaf.y + leaf.length * 0.52 * np.sin(leaf.heading) + 0.04 * leaf.length * np.cos(leaf.heading)
    turn, unit = leaf.heading + 0.35, 0.075 * canvas.size
    box = canvas.box(cx, cy, 2.2 * unit)
    y, x = np.mgrid[box].astype(np.float32)
    p = ((x - cx) * np.cos(turn) + (y - cy) * np.sin(turn)) / unit
    q = ((y - cy) * np.cos(turn) - (x - cx) * np.sin(turn)) / unit
    _paint_legs(canvas, box, p, q, unit, leaf.depth + 0.03)
    grain = canvas.noise(p * 60, q * 60)
    black, white = np.array([0.010, 0.009, 0.010], np.float32), np.array([0.62, 0.57, 0.44], np.float32)
    for centre, long, wide, kind in (
        (1.13, 0.20, 0.28, "head"),
        (0.86, 0.33, 0.55, "shield"),
        (0, 1.0, 0.80, "wings"),
    ):
        reach = np.hypot((p - centre) / long, q / wide)
        alpha = np.clip((1 - reach) * unit * min(long, wide) + 0.5, 0, 1).astype(np.float32)
        dome = np.sqrt(np.clip(1 - reach**2, 0, 1))
        color = np.empty((*p.shape, 3), np.float32)
        color[:] = black
        if kind == "wings":
            _paint_wings(color, p, q, grain, unit)
        else:
            spot = np.hypot((p - centre - 0.02) / (0.35 * long), (np.abs(q) - 0.72 * wide) / (0.25 * wide))
            color += np.clip((1 - spot) * 6, 0, 1)[..., None] * (white - color)
        diffuse, glint = shade((unit * 0.55 * wide / 0.8 * dome + 0.05 * grain).astype(np.float32), 1.4, 90)
        sky = 0.07 * np.clip(-(p * np.cos(turn) - q * np.sin(turn)) - (p * np.sin(turn) + q * np.cos(turn)), 0, 1)
        color = light_up(color, diffuse, glint + sky * dome.astype(np.float32))
        depth = leaf.depth + 0.04 + 0.14 * dome * wide
        canvas.paint(box, alpha, color, depth.astype(np.float32), 0.16 * unit)


def _paint_wings(color: Float, p: Float, q: Float, grain: Float, unit: float) -> None:
    """Red wing cases with seven spots and the seam between them, into ``color``."""
    red = np.array([0.58, 0.030, 0.008], np.float32) * np.exp(0.05 * grain)[..., None]
    spots = np.hypot(p - 0.60, q) / 0.17
    for along, across, radius in ((0.34, 0.52, 0.17), (-0.16, 0.40, 0.20), (-0.60, 0.30, 0.14)):
        spots = np.minimum(spots, np.hypot(p - along, np.abs(q) - across) / radius)
    dark = np.clip((1 - spots) * 0.16 * unit + 0.5, 0, 1)
    dark = np.maximum(dark, 0.8 * np.exp(-((q * unit / 0.9) ** 2)))
    color += (1 - dark)[..., None] * (red - color)


def _paint_legs(canvas: Canvas, box: Box, p: Float, q: Float, unit: float, depth: float) -> None:
    """Six legs of two joints and two feelers."""
    limbs = (  # three joints each, along and across the body, in half body lengths; then half the thickness
        (((0.62, 0.45), (0.86, 0.86), (1.12, 0.98)), 0.050),
        (((0.05, 0.60), (0.02, 1.00), (-0.16, 1.22)), 0.050),
        (((-0.45, 0.50), (-0.78, 0.86), (-1.08, 0.94)), 0.050),
        (((1.22, 0.12), (1.40, 0.28), (1.47, 0.40)), 0.026),
    )
    distance = np.full(p.shape, 9, np.float32)
    for joints, width in limbs:
        for (p0, q0), (p1, q1) in pairwise(joints):
            dp, dq = p1 - p0, q1 - q0
            t = np.clip(((p - p0) * dp + (np.abs(q) - q0) * dq) / (dp * dp + dq * dq), 0, 1)
            away = np.hypot(p - p0 - t * dp, np.abs(q) - q0 - t * dq) - width
            distance = np.minimum(distance, away)
    alpha = np.clip(0.5 - distance * unit, 0, 1).astype(np.float32)
    color = (0.02 + 0.10 * np.clip(-distance / 0.05, 0, 1))[..., None] * np.array([1.0, 0.72, 0.5], np.float32)
    canvas.paint(box, alpha, color.astype(np.float32), np.full_like(p, depth), 0.10 * unit)


def finish(canvas: Canvas) -> tuple[Float, Float]:
    """Light falling off towards the corners, a shoulder for the highlights, and depth stretched to [0, 1]."""
    h, w = canvas.depth.shape
    y, x = np.mgrid[:h, :w].astype(np.float32)
    pool = np.hypot((x / w - 0.46) / 0.75, (y / h - 0.46) / 0.75)
    color = canvas.color * (1.12 - 0.55 * np.clip(pool, 0, 1.2) ** 2)[..., None]
    color = np.clip(soften(color, 0.45), 0, None)  # about the sharpness of a good lens at pixel level
    shoulder = 0.6 + 0.4 * np.tanh((color - 0.6) / 0.4)
    color = np.where(color > 0.6, shoulder, color)
    depth = canvas.depth - canvas.depth.min()
    return np.asarray(np.clip(color, 0, 1), np.float32), np.asarray(depth / depth.max(), np.float32)


def procedural_scene(height: int, width: int, seed: int = 5) -> tuple[Float, Float]:
    """The demo's picture (H, W, 3), linear RGB in [0, 1], and its depth (H, W) in [0, 1], 1 = near.

    Wet autumn leaves and needles over pebbles, dew on them, and a ladybird nearest to the lens.
    """
    if min(height, width) < 16:
        raise ArgumentError(f"procedural_scene: height and width must be at least 16, got {height}, {width}")
    random = np.random.default_rng([seed, 3])
    canvas = Canvas(
        np.zeros((height, width, 3), np.float32),
        np.zeros((height, width), np.float32),
        float(min(height, width)),
        fractal(random, 1.35),
    )
    paint_ground(canvas, random)
    for depth in np.linspace(0.12, 0.16, 40):
        paint_needle(canvas, random, float(depth))
    leaves = lay_leaves(width, height, random)
    for k, leaf in enumerate(leaves):
        paint_leaf(canvas, leaf, random)
        for _ in range(9 if k > 2 else 0):
            paint_dew(canvas, leaf, random)
        if k % 3 == 2:
            paint_needle(canvas, random, leaf.depth + 0.03)
    paint_ladybird(canvas, leaves[-1])
    return finish(canvas)
