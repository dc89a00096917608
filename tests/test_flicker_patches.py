"""The measure of patches: none where only a gain differs, as much as was put in where one block does."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
from flicker_patches import patches


def test_a_gain_is_no_patch_and_a_patch_is_measured():
    random = np.random.default_rng(1)
    truth = random.uniform(0.2, 0.5, (128, 192, 3))
    assert patches(truth * [1.1, 0.9, 1.3], truth) == pytest.approx((0, 0), abs=1e-12)
    patched = truth.copy()
    patched[32:64, 64:96] *= 1.012
    rms, most = patches(patched, truth)
    assert most == pytest.approx(0.012 * 23 / 24, rel=0.02) and rms == pytest.approx(0.012 * np.sqrt(23) / 24, rel=0.03)
