"""Scenes with truth as ``pyfocus simulate`` writes them, a folder each.

scene/
  frames/      the bracket, any files that ``pyfocus stack`` reads
  truth.tif    the same scene sharp everywhere, in the reference frame's geometry; or .tiff, .png, .jpg
  scene.json   {"reference": k, ...}; without it the first frame is the reference
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..burst import Array, Burst
from ..colour import linear_to_srgb
from ..errors import ReadError
from ..io import natural_key, read_burst, read_image
from ..register import Registration

FRAMES = "frames"
TRUTHS = ("truth.tif", "truth.tiff", "truth.png", "truth.jpg")


@dataclass(frozen=True)
class BracketScene:
    """A bracket of files with its truth; see :class:`pyfocus.evaluate.Scene`."""

    name: str
    folder: Path
    reference: int
    truth: Path

    def burst(self) -> Burst:
        """The bracket, its raws as mosaics. Raises ReadError when the reference is not one of its frames."""
        burst = read_burst(self.folder / FRAMES, domain="auto")
        if self.reference >= len(burst):
            raise ReadError(
                f"{self.folder / 'scene.json'}: reference must be below the number of frames, {len(burst)}, "
                f"got {self.reference}; it counts from 0"
            )
        return burst

    def registration(self) -> Registration | None:
        """None: the frames lie as the camera saw them."""
        return None

    def truth_picture(self) -> Array:
        """The truth as its file has it. Raises ReadError."""
        frame = read_image(self.truth)
        if frame.data.dtype != np.float32:
            return frame.data
        if not np.isfinite(frame.data).all():
            raise ReadError(f"{self.truth}: holds NaN or infinity, which nothing can be compared with")
        return np.clip(linear_to_srgb(frame.data) if frame.meta.encoding == "linear" else frame.data, 0, 1)


def find_brackets(top: Path) -> list[BracketScene]:
    """The scene that the folder is, or all scenes below it, at any depth, in natural order; none if there are none.

    Raises ReadError for a bracket in ``frames/`` that has no truth beside it.
    """
    brackets = [top / FRAMES] if (top / FRAMES).is_dir() else [path for path in top.rglob(FRAMES) if path.is_dir()]
    folders = sorted((path.parent for path in brackets), key=lambda path: natural_key(str(path)))
    return [_scene(path, top) for path in folders]


def _scene(folder: Path, top: Path) -> BracketScene:
    truth = next((folder / name for name in TRUTHS if (folder / name).is_file()), None)
    if truth is None:
        raise ReadError(f"{folder}: has {FRAMES}/ but no truth to compare with; expected {', '.join(TRUTHS)} beside it")
    name = folder.resolve().name if folder == top else folder.relative_to(top).as_posix()
    return BracketScene(name, folder, _reference(folder / "scene.json"), truth)


def _reference(path: Path) -> int:
    """Which frame's geometry the truth is in, by a scene's facts; 0 when there are none."""
    if not path.exists():
        return 0
    try:
        facts = json.loads(path.read_bytes())
    except OSError as error:
        raise ReadError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:  # no UTF-8 or no JSON
        raise ReadError(f"{path}: is not JSON: {error}") from error
    reference = facts.get("reference", 0) if isinstance(facts, dict) else None
    if type(reference) is not int or reference < 0:
        raise ReadError(f"{path}: reference must be the number of a frame, counted from 0, got {reference!r}")
    return reference
