"""From raw frames to one sharp picture: what ``make demo`` runs, and how the library is used.

Simulates a raw bracket of a scene with known truth (once), stacks it as it would any other, and shows the difference.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

import pyfocus
from pyfocus.simulate import Settings, procedural_scene, simulate, write_bracket

OUT = Path(sys.argv[1] if len(sys.argv) > 1 else "out")
BRACKET = OUT / "bracket"
CAMERA = Settings(frames=12, raw=True, iso=0.15, blur_px=10, breathing=0.03, jitter_px=2, rotation_deg=0.1)


def main() -> None:
    """Simulate, stack, write, compare."""
    if not (BRACKET / "scene.json").exists():  # written last: the bracket is complete when it is there
        with stage("simulate"):
            scene, depth = procedural_scene(height=800, width=1200)
            write_bracket(simulate(scene, depth, CAMERA), BRACKET, overwrite=True)

    burst = pyfocus.read_burst(BRACKET / "frames")
    result = pyfocus.stack(burst, reference="middle")  # the frame whose geometry the truth has
    for name, seconds in result.seconds.items():
        print(f"{name:14}{seconds:6.2f} s")
    with stage("write"):
        picture, depth = result.image(), result.depth()
        pyfocus.write_image(OUT / "demo.tif", picture, meta=result.meta, overwrite=True)
        if depth is not None:
            pyfocus.write_depth(OUT / "demo-depth.png", depth, frames=len(burst), overwrite=True)
    with stage("fuse to DNG"):  # mosaics fused as mosaics, for any raw developer to open
        fused = pyfocus.stack(burst, reference="middle", transforms=result.registration, domain="raw")
        pyfocus.write_dng(OUT / "demo.dng", *fused.mosaic(), overwrite=True)

    y0, x0, y1, x1 = result.crop  # the borders that not every frame saw are cut off
    middle = burst[len(burst) // 2]
    planes, _ = pyfocus.warp(middle)
    before = pyfocus.develop(planes, middle.meta)[y0:y1, x0:x1]
    pyfocus.write_image(OUT / "demo-before-after.png", side_by_side(before, picture), bits=8, overwrite=True)

    truth = pyfocus.read_burst(BRACKET / "truth.tif")[0].data[y0:y1, x0:x1]
    print(f"middle frame {psnr(before, truth):.1f} dB, fused {psnr(picture, truth):.1f} dB against the truth")
    for name in ("demo.tif", "demo.dng", "demo-depth.png", "demo-before-after.png"):
        print(OUT / name)


def side_by_side(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The middle of both pictures at full size, with a thin white line between them."""
    width = left.shape[1] * 5 // 8
    start = (left.shape[1] - width) // 2
    line = np.full((len(left), 4, 3), 65535, np.uint16)
    return np.concatenate([left[:, start : start + width], line, right[:, start : start + width]], axis=1)


def psnr(picture: np.ndarray, truth: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of two sRGB pictures, a border of 16 px left out."""
    error = (picture.astype(float) - truth)[16:-16, 16:-16] / 65535
    return float(-10 * np.log10(np.mean(error**2)))


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Print how long the block took."""
    started = time.perf_counter()
    yield
    print(f"{name:14}{time.perf_counter() - started:6.2f} s")


if __name__ == "__main__":
    main()
