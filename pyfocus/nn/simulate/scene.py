"""A scene: surfaces of light far to near, each opaque where it covers, each at a smooth depth of its own.

Depth is in places of the focus order: at depth p the frame of place p is in focus; smaller is nearer. Surfaces go on
behind nearer ones, so what a blurred edge uncovers is really there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .pictures import Pictures
from .settings import SimulationSettings
from .shapes import draw_coverage

GAP = 0.15  # places between a surface and what lies behind it, at least


@dataclass(frozen=True)
class Scene:
    """``light`` (K, 4, S, S): premultiplied linear colour and coverage, far to near; ``depth`` (K, S, S) in places."""

    light: Tensor
    depth: Tensor


def draw_scene(
    random: np.random.Generator,
    settings: SimulationSettings,
    pictures: Pictures,
    frames: int,
    step_px: float,
    side: int,
    edge: int,
) -> Scene:
    """A scene for ``frames`` frames on a canvas (side, side); its middle, ``edge`` px off the borders, is looked at."""
    axis = torch.arange(side, dtype=torch.float32, device=pictures.place)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    near, far = 0.0, frames - 1.0
    if random.uniform() < settings.window:  # a part of a longer bracket: past an end, or past both
        which, beyond = random.integers(3), random.uniform(*settings.beyond_px, 2) / max(step_px, 1e-3)
        near -= float(min(beyond[0], frames + 1)) * float(which != 0)
        far += float(min(beyond[1], frames + 1)) * float(which != 1)
    count = int(random.integers(settings.layers[0], settings.layers[1] + 1))
    inner = side - 2 * edge
    v, u = (y - side / 2) / inner, (x - side / 2) / inner
    depth = [_draw_ground(random, v, u, near, far)]
    ground = _draw_surface(random, settings, pictures, side)
    light = [_with_coverage(ground, None)]
    same = bool(random.uniform() < settings.one_picture)
    places = np.sort(random.uniform(near, far, count - 1))[::-1]
    for place in places:
        tilt = random.normal(0, 0.12 * (far - near), 2)
        here = float(place) + float(tilt[0]) * v + float(tilt[1]) * u - _dome(random, v, u, far - near)
        depth.append(torch.minimum(here, depth[-1] - GAP))
        cover = draw_coverage(random, y, x, edge)
        shown = ground if same else _draw_surface(random, settings, pictures, side)
        light.append(_with_coverage(shown, cover))
    return Scene(torch.stack(light), torch.stack(depth))


def _draw_ground(random: np.random.Generator, v: Tensor, u: Tensor, near: float, far: float) -> Tensor:
    """Depth (S, S) of the background: even, a ramp, or a ramp with hills."""
    span = far - near
    kind = random.choice(3, p=(0.2, 0.5, 0.3))
    middle = far - span * float(random.uniform(0, 0.6)) if kind else far - span * float(random.uniform(0, 0.3))
    depth = torch.full_like(v, middle)
    if kind:
        turn = float(random.normal(0, 0.7))
        if random.uniform() < 0.2:
            turn += math.pi
        slope = span * float(random.uniform(0.1, 1.1))
        depth = depth - slope * (v * math.cos(turn) + u * math.sin(turn))
    if kind == 2:
        for _ in range(3):
            fy, fx = random.normal(0, 1.2, 2)
            wave = torch.sin(2 * math.pi * (v * float(fy) + u * float(fx)) + float(random.uniform(0, 6.3)))
            depth = depth + 0.12 * span * float(random.uniform(0, 1)) * wave
    return depth.clamp(near, far)


def _dome(random: np.random.Generator, v: Tensor, u: Tensor, span: float) -> Tensor:
    """What a rounded object comes nearer in the middle."""
    cy, cx = random.uniform(-0.4, 0.4, 2)
    height = span * float(random.uniform(0, 0.15)) * float(random.integers(2))
    return height * (1 - 4 * ((v - float(cy)) ** 2 + (u - float(cx)) ** 2)).clamp_min(0)


def _with_coverage(colour: Tensor, cover: Tensor | None) -> Tensor:
    if cover is None:
        return torch.cat([colour, torch.ones_like(colour[:1])])
    return torch.cat([colour * cover, cover[None]])


def _draw_surface(random: np.random.Generator, settings: SimulationSettings, pictures: Pictures, side: int) -> Tensor:
    """Colour (3, side, side) of a surface: a photo, a painted picture or a smooth gradient; some with bright points."""
    if random.uniform() < 0.06:
        colour = _draw_gradient(random, side).to(pictures.place)
    else:
        colour = pictures.cut(random, side, bool(random.uniform() < settings.photos))
        if random.uniform() < 0.5:
            colour = colour ** float(random.uniform(0.8, 1.3))
        if random.uniform() < 0.6:
            colour = colour * math.exp(float(random.uniform(-1.2, 0.3)))
        if random.uniform() < 0.3:
            tint = torch.as_tensor(random.uniform(0.5, 1.2, 3), dtype=torch.float32)
            colour = colour * tint.to(colour.device)[:, None, None]
    if random.uniform() < 0.15:
        colour = _add_points(random, colour)
    return colour


def _draw_gradient(random: np.random.Generator, side: int) -> Tensor:
    """A clear sky: between two colours along a direction."""
    axis = torch.linspace(0, 1, side)
    turn = float(random.uniform(0, 2 * math.pi))
    t = (math.cos(turn) * axis[:, None] + math.sin(turn) * axis[None, :]).clamp(-1, 1) * 0.5 + 0.5
    first, second = (torch.as_tensor(random.uniform(0.05, 1.0, 3), dtype=torch.float32)[:, None, None] for _ in "ab")
    return first + (second - first) * t


def _add_points(random: np.random.Generator, colour: Tensor) -> Tensor:
    """Lamps and glints far brighter than white, about a pixel wide."""
    colour, side, half = colour.clone(), colour.shape[1], 3
    axis = torch.arange(-half, half + 1, dtype=torch.float32)
    for _ in range(int(random.integers(1, 40))):
        y, x = random.integers(half, side - half, 2)
        dy, dx = random.uniform(-0.5, 0.5, 2)
        sigma = float(random.uniform(0.4, 0.9))
        spot = torch.exp(-((axis[:, None] - float(dy)) ** 2 + (axis[None, :] - float(dx)) ** 2) / (2 * sigma**2))
        tint = torch.as_tensor(random.uniform(0.6, 1.0, 3), dtype=torch.float32)
        power = math.exp(float(random.uniform(0, 3.2)))
        rows, columns = slice(y - half, y + half + 1), slice(x - half, x + half + 1)
        colour[:, rows, columns] += (power * tint[:, None, None] * spot).to(colour.device)
    return colour
