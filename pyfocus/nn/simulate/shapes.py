"""Outlines of what stands before the background: coverage in [0, 1], antialiased from distances to the edge.

Each takes the pixel grids ``y``, ``x`` (S, S) and draws its own numbers; distances are in pixels, positive inside.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

KINDS = ("blob", "blobs", "leaves", "hairs", "grid", "step")


def draw_coverage(random: np.random.Generator, y: Tensor, x: Tensor, edge: int) -> Tensor:
    """Coverage (S, S) of a drawn kind of occluder; something of it lies in the middle, ``edge`` px off the borders."""
    kind = random.choice(KINDS, p=(0.2, 0.2, 0.17, 0.17, 0.08, 0.18))
    side = y.shape[0]
    low, high = edge, side - edge
    inner = high - low

    def anywhere() -> tuple[float, float]:
        return float(random.uniform(low, high)), float(random.uniform(low, high))

    if kind == "step":
        return _soften(_wavy_edge(random, y, x, *anywhere(), inner))
    if kind == "grid":
        return _soften(_grid(random, y, x, inner))
    draw, count = {
        "blob": (_blob, 1),
        "blobs": (_blob, int(random.integers(2, 6))),
        "leaves": (_leaf, int(random.integers(1, 7))),
        "hairs": (_hair, int(random.integers(1, 8))),
    }[str(kind)]
    size = inner * float(random.uniform(0.15, 0.5)) / math.sqrt(count)
    inside = draw(random, y, x, *anywhere(), size)
    for _ in range(count - 1):
        inside = torch.maximum(inside, draw(random, y, x, *anywhere(), size * float(random.uniform(0.4, 1.3))))
    return _soften(inside)


def _soften(inside: Tensor) -> Tensor:
    return (inside + 0.5).clamp(0, 1)


def _turned(random: np.random.Generator, y: Tensor, x: Tensor, cy: float, cx: float) -> tuple[Tensor, Tensor]:
    """Coordinates along and across a drawn direction through (cy, cx)."""
    turn = float(random.uniform(0, 2 * math.pi))
    c, s = math.cos(turn), math.sin(turn)
    return (x - cx) * c + (y - cy) * s, (y - cy) * c - (x - cx) * s


def _blob(random: np.random.Generator, y: Tensor, x: Tensor, cy: float, cx: float, size: float) -> Tensor:
    """A rounded thing with lobes."""
    p, q = _turned(random, y, x, cy, cx)
    q = q / float(random.uniform(0.5, 1.0))
    angle, reach = torch.atan2(q, p), torch.hypot(p, q)
    rim = torch.full_like(reach, size)
    for k in (2, 3, 5, 9):
        rim = rim + size * float(random.uniform(0, 0.25 / k)) * torch.cos(k * angle + float(random.uniform(0, 6.3)))
    return rim - reach


def _leaf(random: np.random.Generator, y: Tensor, x: Tensor, cy: float, cx: float, size: float) -> Tensor:
    """A pointed, bent leaf."""
    p, q = _turned(random, y, x, cy, cx)
    long, flat = 1.3 * size, size * float(random.uniform(0.12, 0.5))
    u = p / long
    q = q + float(random.uniform(-0.3, 0.3)) * size * u * u
    across = flat * (1 - u * u) - q.abs()
    return torch.minimum(across, (1 - u.abs()) * long)


def _hair(random: np.random.Generator, y: Tensor, x: Tensor, cy: float, cx: float, size: float) -> Tensor:
    """A thin bent line across the whole picture, 0.5 to 5 px wide."""
    p, q = _turned(random, y, x, cy, cx)
    half = 0.25 * math.exp(float(random.uniform(0, math.log(10))))
    bend, wave = float(random.normal(0, 0.002)), float(random.uniform(0, 3))
    long = 1 + 2 * bend * p  # slope of the line, for distances across it
    centre = bend * p * p + wave * torch.sin(p * float(random.uniform(0.02, 0.1)))
    return half - (q - centre).abs() / torch.hypot(torch.ones_like(p), long - 1)


def _grid(random: np.random.Generator, y: Tensor, x: Tensor, inner: int) -> Tensor:
    """Bars of a fence, or of a net in two directions."""
    p, q = _turned(random, y, x, inner / 2, inner / 2)
    pitch = float(random.uniform(8, inner / 2.5))
    half = float(random.uniform(0.06, 0.25)) * pitch / 2 + 0.3
    inside = half - (torch.remainder(p, pitch) - pitch / 2).abs()
    if random.uniform() < 0.5:
        inside = torch.maximum(inside, half - (torch.remainder(q, pitch) - pitch / 2).abs())
    return inside


def _wavy_edge(random: np.random.Generator, y: Tensor, x: Tensor, cy: float, cx: float, inner: int) -> Tensor:
    """All on one side of an edge that is straight or waves."""
    p, q = _turned(random, y, x, cy, cx)
    for cycles in (1.5, 4, 13):
        high = float(random.uniform(0, 0.12)) * inner / cycles * float(random.integers(2))
        q = q + high * torch.sin(p * (2 * math.pi * cycles / inner) + float(random.uniform(0, 6.3)))
    return q
