"""Small raw brackets that move, and how near planes of the camera's colours are: what tests of data sets share."""

from __future__ import annotations

from typing import Any

import numpy as np

from pyfocus.simulate import procedural_scene, simulate
from pyfocus.simulate.camera import NEUTRAL

HEIGHT, WIDTH, FRAMES = 96, 128, 4
CAMERA = np.array(NEUTRAL, np.float32)[:, None, None]  # response to white: takes the white balance out


def bracket_of(seed: int, **changes: Any) -> Any:
    """A small raw bracket that moves."""
    picture, depth = procedural_scene(HEIGHT, WIDTH)
    settings = {"frames": FRAMES, "blur_px": 6.0, "breathing": 0.02, "jitter_px": 1.0, "raw": True, "seed": seed}
    return simulate(picture[:, ::-1] if seed % 2 else picture, depth, **{**settings, **changes})


def shown(planes: np.ndarray) -> np.ndarray:
    return np.clip(planes, 0, 1) ** (1 / 2.2)


def psnr(one: np.ndarray, two: np.ndarray) -> float:
    return float(-10 * np.log10(np.square(shown(one) - shown(two)).mean()))
