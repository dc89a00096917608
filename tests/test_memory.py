"""``--memory`` under a limit of the system's: bursts far larger than it go through, to the same bits."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import command
import numpy as np
import pytest
import tifffile

LIMIT = 520_000_000
SIZE, FRAMES = (1200, 1600), 30  # as planes they are 690 MB, and 230 MB as they are kept


@pytest.fixture(scope="module")
def frames(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("frames")
    random = np.random.default_rng(3)
    picture = np.repeat(np.repeat(random.integers(3000, 60000, (SIZE[0] // 8, SIZE[1] // 8, 3)), 8, 0), 8, 1)
    for k in range(3):
        soft = picture
        for axis in (0, 1):
            soft = sum(np.roll(soft, step, axis) for step in range(-k, k + 1)) // (2 * k + 1)
        tifffile.imwrite(folder / f"{k}.tif", soft.astype(np.uint16), photometric="rgb")
    for i in range(FRAMES):
        os.link(folder / f"{i % 3}.tif", folder / f"frame_{i:03d}.tif")
    for k in range(3):
        (folder / f"{k}.tif").unlink()
    return folder


def test_auto_keeps_to_its_memory_under_a_limit_of_the_process(frames, tmp_path):
    """RLIMIT_DATA counts what the process has of its own, heaps and stacks, touched or not."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT))

    words = ("stack", frames, "--no-align", "-q")
    done = command.run(*words, "-o", "free.tif", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = command.run(*words, "-o", "kept.tif", "--memory", f"{LIMIT // 1_000_000}MB", cwd=tmp_path, preexec_fn=limit)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "kept.tif"), tifffile.imread(tmp_path / "free.tif"))
    done = command.run(*words, "-o", "folded.tif", "--fuser", "laplacian", "--memory", "60MB", cwd=tmp_path)
    assert done.returncode == 1 and "memory allows 0.06 GB; raise it" in done.stderr
