"""Patches that differing exposures leave: ``python flicker_patches.py SCENE PICTURE...``, of a simulated scene.

The picture is registered onto the truth; in linear light, after one gain per channel, means over blocks are compared.
Printed: the RMS and the largest relative difference over blocks that are neither dark nor clipped, in per cent.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from halo_ring import load_judge
from machine import ROOT

from pyfocus.colour import srgb_to_linear

SHARED = ROOT.parent / "shared"
_BLOCK_PX = 32
_DARK, _BRIGHT = 0.02, 0.8  # linear light of blocks that count


def patches(picture: npt.NDArray[Any], truth: npt.NDArray[Any]) -> tuple[float, float]:
    """RMS and largest relative difference of blocks, of linear light (H, W, 3) already registered."""
    ours, theirs = (_blocks(values) for values in (picture, truth))
    counts = (theirs > _DARK).all(2) & (theirs < _BRIGHT).all(2)
    ours, theirs = ours[counts], theirs[counts]
    ours = ours * (theirs.sum(0) / ours.sum(0))
    off = ours / theirs - 1
    return float(np.sqrt(np.square(off).mean())), float(np.abs(off).max())


def _blocks(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    height, width = (n // _BLOCK_PX for n in values.shape[:2])
    cut = values[: height * _BLOCK_PX, : width * _BLOCK_PX].astype(np.float64)
    means: npt.NDArray[np.float64] = cut.reshape(height, _BLOCK_PX, width, _BLOCK_PX, -1).mean((1, 3))
    return means


def main(scene: str, *pictures: str) -> None:
    """Print a line for each picture."""
    judge = load_judge(SHARED / "tools" / "score.py")
    truth = judge.load(Path(scene, "truth.tif"))
    inner = np.s_[_BLOCK_PX:-_BLOCK_PX, _BLOCK_PX:-_BLOCK_PX]
    for path in pictures:
        placed = judge.register(judge.load(Path(path)), truth)[0]
        light, expected = (srgb_to_linear(np.clip(v, 0, 1))[inner] for v in (placed, truth))
        rms, most = patches(light, expected)
        print(f"{path}: patches {100 * rms:.3f} % RMS, {100 * most:.2f} % at most")


if __name__ == "__main__":
    main(*sys.argv[1:])
