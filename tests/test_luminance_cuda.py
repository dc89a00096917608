"""luminance on the device beside the CPU."""

from __future__ import annotations

import numpy as np
import pytest

from pyfocus import _C
from test_device import on_device, on_host

pytestmark = pytest.mark.cuda
RANDOM = np.random.default_rng(5)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize(("size", "factor", "row_step"), [((1, 1), 1, 1), ((67, 131), 1, 1), ((70, 99), 3, 2)])
def test_luminance_equals_the_cpu(dtype, size, factor, row_step):
    values = (RANDOM.random((*size, 3)) * (255 if dtype != np.float32 else 1)).astype(dtype).transpose(2, 0, 1)
    how = {"factor": factor, "row_step": row_step, "square_root": True, "scale": [0.003, 0.002, 0.001]}
    here = np.empty((size[0] // factor, size[1] // factor), np.float32)
    _C.luminance(np.ascontiguousarray(values), [0.3, 0.6, 0.1], here, **how)
    there = _C.DeviceArray(here.shape)
    _C.luminance(on_device(np.ascontiguousarray(values)), [0.3, 0.6, 0.1], there, **how)
    np.testing.assert_allclose(on_host(there), here, rtol=2e-6, atol=1e-7)
