"""Simulated focus brackets with their truth: an occlusion-aware thin lens over one sharp picture and its depth."""

from __future__ import annotations

from .bracket import Bracket, Settings, frame_name, iso_noise, simulate, write_bracket
from .scene import procedural_scene, synthetic_depth

__all__ = [
    "Bracket",
    "Settings",
    "frame_name",
    "iso_noise",
    "procedural_scene",
    "simulate",
    "synthetic_depth",
    "write_bracket",
]
