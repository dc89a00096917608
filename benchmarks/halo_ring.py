"""The ring beside occlusion borders, where halos are: how far a picture is from its truth there.

A border parts two depths that differ by more than a tenth of the scene's. Out of focus, the nearer surface is spread
over what lies behind it, as far as its blur reaches when the frame focuses there: ``blur_px`` times the difference in
depth. The ring is that strip, on the farther side. No frame shows what is in it without either the nearer surface's
blur or its own. The error is the root mean square of sRGB, registered and with a gain per channel as the judge does it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from machine import SHARED, table

Picture = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

LEAST_JUMP = 0.1  # of the scene's depth: less is a slope
_LEVELS = 32  # of depth, to which surfaces are rounded
_NARROWEST_PX = 2.0
_CROP = 0.06  # of the shorter side, which the judge leaves out, too
_CLIPPED, _DARK = 0.98, 0.02  # where no gain can be told


class Errors(NamedTuple):
    """Root mean square errors of sRGB within the ring and outside, and the ring's share of the picture."""

    ring: float
    rest: float
    share: float


def main(arguments: list[str] | None = None) -> None:
    """Print the errors of pictures of one scene."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scene", type=Path, help="folder with truth.tif, depth.png and scene.json")
    parser.add_argument("pictures", type=Path, nargs="+", help="results, of any tool")
    parser.add_argument("--score", type=Path, default=SHARED / "tools" / "score.py", help="the judge")
    options = parser.parse_args(arguments)
    judge, where = load_judge(options.score), scene_ring(options.scene)
    truth = judge.load(options.scene / "truth.tif")
    found = [errors(judge.load(path), truth, where, judge) for path in options.pictures]
    rows = [[path.name, f"{e.ring:.4f}", f"{e.rest:.4f}"] for path, e in zip(options.pictures, found, strict=True)]
    print(table(("picture", f"in the ring ({100 * found[0].share:.0f} %)", "elsewhere"), rows))


def load_judge(path: Path) -> ModuleType:
    """The judge, a script outside the package."""
    spec = importlib.util.spec_from_file_location("score", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def scene_ring(scene: Path) -> Mask:
    """The ring of a scene's folder, (H, W), True inside."""
    settings = json.loads((scene / "scene.json").read_text())
    depth = cv2.imread(str(scene / "depth.png"), cv2.IMREAD_UNCHANGED)
    if depth is None or depth.ndim != 2:
        raise OSError(f"{scene / 'depth.png'} is not a grey picture")
    near = depth.astype(np.float32)
    near -= near.min()
    return ring(near / max(float(near.max()), 1.0), float(settings.get("blur_px", settings.get("blur"))))


def ring(depth: Picture, blur_px: float) -> Mask:
    """The ring for ``depth`` (H, W) in [0, 1], 1 = near; ``blur_px``: radius of the blur from nearest to farthest."""
    above = depth - cv2.erode(depth, np.ones((3, 3), np.uint8))  # over the farthest neighbour
    borders = above > LEAST_JUMP  # their nearer side
    inside = np.zeros(depth.shape, bool)
    for level in np.linspace(LEAST_JUMP, 1, _LEVELS):
        nearer = borders & (depth >= level)
        if nearer.any():
            away = cv2.distanceTransform((~nearer).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
            jump = level - depth
            inside |= (jump > LEAST_JUMP) & (away <= np.maximum(blur_px * jump, _NARROWEST_PX))
    return inside


def errors(picture: Picture, truth: Picture, where: Mask, judge: ModuleType) -> Errors:
    """Errors of a picture (h, w, 3), sRGB in [0, 1], of any size and place that the judge can register."""
    placed, seen, _ = judge.register(picture, truth)
    margin = int(_CROP * min(truth.shape[:2]))
    inner = np.zeros(seen.shape, bool)
    inner[margin:-margin, margin:-margin] = True
    inner &= seen
    square = np.square(_levelled(placed, truth, inner, judge) - truth).mean(axis=-1)
    parts = [float(np.sqrt(square[inner & part].mean())) if (inner & part).any() else 0.0 for part in (where, ~where)]
    return Errors(parts[0], parts[1], float(where[inner].mean()))


def _levelled(picture: Picture, truth: Picture, inner: Mask, judge: ModuleType) -> Picture:
    """The picture with the gain per channel, in linear light, that the judge would give it."""
    light, true = judge.linear(picture), judge.linear(truth)
    use = inner & (truth.max(-1) < _CLIPPED) & (picture.max(-1) < _CLIPPED)
    gains = np.ones(3)
    for i in range(3):
        told = use & (light[..., i] > _DARK)
        if told.any():
            gains[i] = np.median(true[..., i][told] / light[..., i][told])
    return np.asarray(judge.srgb(light * gains), np.float32)


if __name__ == "__main__":
    main()
