"""Fusers judged by scenes with truth: each scene stacked as users stack it, compared by a protocol, told as a table."""

from __future__ import annotations

from .baselines import BASELINES
from .judge import Score, check_fusers, evaluate
from .pictures import TILE_PX, Worst, picture_names, write_worst
from .protocols import PROTOCOLS, Protocol
from .scenes import SPLITS, Scene, find_scenes
from .tables import FORMATS, PUBLISHED, Format, Published, evaluation_report, report_text

__all__ = [
    "BASELINES",
    "FORMATS",
    "PROTOCOLS",
    "PUBLISHED",
    "SPLITS",
    "TILE_PX",
    "Format",
    "Protocol",
    "Published",
    "Scene",
    "Score",
    "Worst",
    "check_fusers",
    "evaluate",
    "evaluation_report",
    "find_scenes",
    "picture_names",
    "report_text",
    "write_worst",
]
