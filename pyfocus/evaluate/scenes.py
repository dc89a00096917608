"""What fusers are judged by: scenes whose truth is known, wherever they come from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from ..burst import Array, Burst
from ..errors import ReadError
from ..register import Registration
from .brackets import FRAMES, TRUTHS, find_brackets
from .stored import CONTENT, SPLITS, find_stored


class Scene(Protocol):
    """A burst with truth. ``reference``: index of the frame in whose geometry the truth is; ``name`` for tables."""

    @property
    def name(self) -> str:
        """What it is called among the others."""

    @property
    def folder(self) -> Path:
        """Where it lies."""

    @property
    def reference(self) -> int:
        """Which frame's geometry the truth is in, counted from 0."""

    def burst(self) -> Burst:
        """Its frames in focus order."""

    def registration(self) -> Registration | None:
        """Where the frames lie, None when that is to be found."""

    def truth_picture(self) -> Array:
        """(H, W, 3) or (H, W), of the frames' size, encoded for viewing: uint8, uint16 or float32 in [0, 1]."""


def find_scenes(folder: str | os.PathLike[str], split: str | None = None) -> Sequence[Scene]:
    """The scene that ``folder`` is, all scenes below it, or the bursts of a data set that ``pyfocus dataset`` wrote.

    ``split``: of a data set "train", "val", "test" (the default) or "all". Raises ReadError when there is none, for a
    bracket without truth, and for a split of a folder that is no data set.
    """
    top = Path(folder)
    if not top.is_dir():
        raise ReadError(f"{top}: no such folder" if not top.exists() else f"{top}: is a file; name a folder of scenes")
    if (top / CONTENT).is_file():
        return find_stored(top, split or "test")
    if split not in (None, "all"):
        raise ReadError(f"{top}: is no data set ({CONTENT}), so it has no part {split!r}; leave the split out")
    scenes = find_brackets(top)
    if not scenes:
        raise ReadError(f"{top}: no scenes in this folder; a scene has {FRAMES}/, {TRUTHS[0]} and scene.json")
    return scenes


__all__ = ["SPLITS", "Scene", "find_scenes"]
