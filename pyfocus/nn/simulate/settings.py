"""What training bursts are drawn from: every range and share of the simulation in one place."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from ...errors import ArgumentError

Range = tuple[float, float]


@dataclass(frozen=True)
class SimulationSettings:
    """Ranges (low, high) are drawn from evenly; shares are in [0, 1].

    * ``step_px``: growth of the disc's radius from one frame's focus to the next; no disc grows past ``blur_px``.
    * ``layers``: how many surfaces a scene has, the background among them.
    * ``one_picture``: share of scenes whose surfaces all show one picture, so that depth steps without a trace.
    * ``photos``: share of surfaces that show a photo, where there are photos; the others are painted.
    * ``pool``: how many pictures are painted for the others.
    * ``window``: share of bursts that are a part of a longer bracket, so that some of the scene is never in focus;
      ``beyond_px``: how large the discs of what lies farthest past its ends then stay.
    * ``reversed``: share of bursts that focus from far to near.
    * ``raw``: share of rgb bursts that go through a mosaic; ``clean``: share of the others without noise;
      ``coded``: share of the others that were 8-bit sRGB.
    * ``softness_px``: Gaussian sigma of lens and filter, of frames and truth alike.
    * ``still``: share of bursts in which nothing moved and nothing is resampled.
    * ``drift``: largest relative error of exposure that is left; ``shift_px``: standard deviation of the shift that
      is left by registration, more in some bursts than in others, at most ``shift_limit_px``; ``scale``: largest error
      of scale that is left.
    * ``breathing``: largest change of scale that registration has undone.
    """

    step_px: Range = (0.5, 3.0)
    blur_px: float = 20.0
    layers: tuple[int, int] = (2, 5)
    one_picture: float = 0.3
    photos: float = 0.6
    pool: int = 16
    window: float = 0.4
    beyond_px: Range = (2.0, 14.0)
    reversed: float = 0.15
    raw: float = 0.55
    clean: float = 0.4
    coded: float = 0.6
    softness_px: Range = (0.0, 0.9)
    still: float = 0.15
    drift: float = 0.01
    shift_px: float = 0.3
    shift_limit_px: float = 1.5
    scale: float = 5e-4
    breathing: float = 0.02

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            pair = value if isinstance(value, tuple) else (value, value)
            if len(pair) != 2 or not 0 <= pair[0] <= pair[1] < math.inf:
                raise ArgumentError(
                    f"SimulationSettings: {field.name} must be finite, >= 0 and rise from low to high, got {value}"
                )
        for name in ("one_picture", "photos", "window", "still", "reversed", "raw", "clean", "coded"):
            if getattr(self, name) > 1:
                raise ArgumentError(f"SimulationSettings: {name} is a share, 0 to 1, got {getattr(self, name)}")
        if self.layers[0] < 1 or self.pool < 1:
            raise ArgumentError(
                f"SimulationSettings: layers and pool must be at least 1, got {self.layers} and {self.pool}"
            )
        if self.blur_px < 0.5:
            raise ArgumentError(f"SimulationSettings: blur_px must be at least 0.5, got {self.blur_px}")
        for name, limit in (("drift", 0.5), ("scale", 0.01), ("breathing", 0.03), ("shift_limit_px", 4.0),
                            ("softness_px", 2.0), ("blur_px", 64.0)):  # fmt: skip
            value = getattr(self, name)
            if (value[1] if isinstance(value, tuple) else value) > limit:
                raise ArgumentError(f"SimulationSettings: {name} must be at most {limit}, got {value}")
