"""Recycled memory is never handed out while anything still looks at it."""

from __future__ import annotations

import numpy as np
import tifffile

from pyfocus.io import read_burst
from pyfocus.io.buffers import Recycled


def test_memory_in_use_is_not_reused():
    memory = Recycled()
    first = memory.empty((4, 5), np.uint16)
    first[:] = 7
    corner = first[1:, 2:].T  # a view of a view keeps it, too
    del first
    second = memory.empty((4, 5), np.uint16)
    second[:] = 9
    assert (corner == 7).all()


def test_memory_comes_back_when_nobody_looks():
    memory = Recycled()
    first = memory.empty((64, 64), np.float32)
    address = first.ctypes.data
    del first
    assert memory.empty((64, 64), np.float32).ctypes.data == address
    assert memory.empty((64, 65), np.float32).shape == (64, 65)


def test_frames_of_a_burst_stay_what_they_are(tmp_path):
    for i in range(8):
        tifffile.imwrite(tmp_path / f"{i}.tif", np.full((32, 48, 3), i, np.uint16))
    burst = read_burst([tmp_path])
    frames = [burst[i] for i in range(8)]
    assert [int(f.data.min()) for f in frames] == [int(f.data.max()) for f in frames] == list(range(8))
