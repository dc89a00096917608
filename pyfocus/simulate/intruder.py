"""Something that walks through the scene while the bracket is taken: a beetle that a few frames see, each elsewhere.

It is composited before everything else, by the lens' own discs, so it is sharp in the frames that focus on it and
blurred in the others. The truth is the scene without it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .foliage import fractal
from .surfaces import Float, Surface

_SIZE = 0.13  # half its length over the picture's shorter side
_STEP = 0.35  # of its half length, from frame to frame
_COLORS = ((0.035, 0.028, 0.022), (0.55, 0.50, 0.38))  # linear light of a dark one and of a pale one
# Legs as (where they leave the body, where the knee is, where the foot is), in half lengths, for one side.
_LEGS = (
    ((0.45, 0.2), (0.75, 0.75), (1.15, 0.95)),
    ((0.05, 0.3), (0.05, 0.85), (-0.15, 1.2)),
    ((-0.4, 0.25), (-0.7, 0.7), (-1.1, 1.0)),
)
_LEG_WIDTH = 0.035


def walk_through(
    shape: tuple[int, int], focus: Float, count: int, edge_px: int, reach_px: int, seed: int
) -> dict[int, Surface]:
    """The frames that see it, in a row, and what they see: a surface for a lens' canvas.

    ``shape`` (h, w) of the reference frame, which begins ``edge_px`` from the canvas' border; ``focus`` (N,) of the
    frames. It is as deep as its middle frame focuses.
    """
    random = np.random.default_rng([seed, 3])
    first = int(random.integers(0, len(focus) - count + 1))
    half = max(4.0, _SIZE * min(shape))
    x, y = (random.uniform(0.3, 0.7) * size + edge_px for size in (shape[1], shape[0]))
    heading, color = random.uniform(-np.pi, np.pi), np.array(_COLORS[seed % 2], np.float32)
    grain = fractal(random, 1.0)
    depth = float(focus[first + count // 2])
    found = {}
    for k in range(count):
        along = _STEP * half * (k - (count - 1) / 2)
        place = (x + along * np.cos(heading), y + along * np.sin(heading))
        found[first + k] = _surface(place, heading + 0.1 * k, half, color, grain, depth, reach_px)
    return found


def _surface(
    place: tuple[float, float], heading: float, half: float, color: Float, grain: Float, depth: float, reach_px: int
) -> Surface:
    """The beetle at ``place`` (x, y) of the canvas, with room around it for its blur."""
    side = int(np.ceil(1.7 * half)) + 2 * reach_px
    top, left = max(0, int(place[1]) - side), max(0, int(place[0]) - side)
    y, x = np.mgrid[top : int(place[1]) + side, left : int(place[0]) + side].astype(np.float32)
    p = ((x - place[0]) * np.cos(heading) + (y - place[1]) * np.sin(heading)) / half
    q = ((y - place[1]) * np.cos(heading) - (x - place[0]) * np.sin(heading)) / half
    body = np.minimum((1 - np.hypot(p / 0.7, q / 0.38)) * 0.38, 0.4)
    head = (1 - np.hypot((p - 0.75) / 0.25, q / 0.2)) * 0.2
    nearest = np.maximum(body, head)  # how far inside, in half lengths
    for leg in _LEGS:
        for start, end in ((leg[0], leg[1]), (leg[1], leg[2])):
            nearest = np.maximum(nearest, _LEG_WIDTH - _distance(p, np.abs(q), start, end))
    alpha = np.clip(nearest * half + 0.5, 0, 1).astype(np.float32)
    rows, columns = (np.rint(v * 60).astype(np.intp) & 511 for v in (p, q))
    light = color[:, None, None] * np.clip(1 + 0.35 * grain[rows, columns] + 0.6 * np.clip(body, 0, 1), 0.2, 1.7)
    return Surface(
        top, left, np.concatenate([light * alpha, alpha[None]]).astype(np.float32), np.full(p.shape, depth, np.float32)
    )


def _distance(
    p: npt.NDArray[np.float32], q: npt.NDArray[np.float32], start: tuple[float, float], end: tuple[float, float]
) -> npt.NDArray[np.float32]:
    """From points (p, q) to a segment."""
    (a, b), (c, d) = start, (end[0] - start[0], end[1] - start[1])
    along = np.clip(((p - a) * c + (q - b) * d) / (c * c + d * d), 0, 1)
    return np.asarray(np.hypot(p - a - along * c, q - b - along * d), np.float32)
