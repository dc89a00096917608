"""What several test files share: the oracles' path, the big shared data, one small bracket with its truth."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(Path(__file__).parent))  # so that tests say `import reference`


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real stacks, raws and brackets: PYFOCUS_SHARED, or ``shared`` beside the repository."""
    folder = Path(os.environ.get("PYFOCUS_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no shared data at {folder}; set PYFOCUS_SHARED to run this test")
    return folder


@pytest.fixture(scope="session")
def small_bracket() -> Any:
    """Five still frames (160, 200, 3) float32 in [0, 1] of a textured two-plane scene: near on the left half.

    Frame 0 is sharp at the far plane, frame 4 at the near one. Attributes: ``frames`` linear light (5, H, W, 3),
    ``truth`` (H, W, 3), ``near`` (H, W) bool.
    """
    return TwoPlanes(160, 200)


class TwoPlanes:
    """A textured scene of two planes, each blurred by its distance from the frame's focus."""

    def __init__(self, height: int, width: int, count: int = 5, seed: int = 3) -> None:
        random = np.random.default_rng(seed)
        coarse = np.kron(random.random((height // 8 + 1, width // 8 + 1, 3)), np.ones((8, 8, 1)))[:height, :width]
        self.truth = (0.1 + 0.35 * random.random((height, width, 3)) + 0.35 * coarse).astype(np.float32)
        self.near = np.broadcast_to(np.arange(width) < width // 2, (height, width))
        frames = []
        for k in range(count):
            far, near = _blur(self.truth, 1.2 * k), _blur(self.truth, 1.2 * (count - 1 - k))
            frames.append(np.where(self.near[..., None], near, far))
        self.frames = np.stack(frames).astype(np.float32)

    def planes(self) -> np.ndarray:
        """(N, 3, H, W) float32, C order."""
        return np.ascontiguousarray(self.frames.transpose(0, 3, 1, 2))


def _blur(image: np.ndarray, sigma: float) -> np.ndarray:
    if sigma == 0:
        return image
    reach = int(np.ceil(3 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    for axis in (0, 1):
        pad = [(0, 0)] * 3
        pad[axis] = (reach, reach)
        wide = np.pad(image, pad, mode="reflect")
        size = image.shape[axis]
        image = sum(w * np.take(wide, range(k, k + size), axis=axis) for k, w in enumerate(kernel))
    return image
