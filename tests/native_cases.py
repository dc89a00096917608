"""What the tests of all native functions are run on: odd sizes, every type, a turn with perspective."""

from __future__ import annotations

import numpy as np

RANDOM = np.random.default_rng(11)
H, W = 150, 331
LOW = ((H + 1) // 2, (W + 1) // 2)
PLANES = RANDOM.random((3, H, W), np.float32)
COUNTS = RANDOM.integers(0, 65536, (H, W, 3)).astype(np.uint16).transpose(2, 0, 1)
MOSAIC = RANDOM.integers(0, 4096, (H, W // 2 * 2)).astype(np.uint16)
COARSE = RANDOM.random((3, *LOW), np.float32)
RATING = RANDOM.random(LOW, np.float32)
BEFORE = RANDOM.random(LOW, np.float32)
MASK = (RANDOM.random((H, W)) > 0.01).astype(np.uint8)
TABLE = np.linspace(0, 1, 65536, dtype=np.float32)
TURN = np.array([[0.98, -0.07, 9.3], [0.06, 1.01, -5.2], [2e-5, 1e-5, 1]])
MAPS = np.stack([TURN, TURN, TURN + np.array([[0, 0, 0.5], [0, 0, 0], [0, 0, 0]])])
