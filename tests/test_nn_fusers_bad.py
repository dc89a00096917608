"""Networks as fusers: frames, domains and arguments that they refuse."""

from __future__ import annotations

import numpy as np
import pytest
from network_stubs import NOISE, Pick, Stub, textured

import pyfocus
from pyfocus.burst import Frame
from pyfocus.errors import ArgumentError, BurstError
from pyfocus.stacker import Stacker

torch = pytest.importorskip("torch")

from pyfocus import nn  # noqa: E402
from pyfocus.nn import fusers  # noqa: E402
from pyfocus.nn.burst_fuser import BurstFuser  # noqa: E402
from pyfocus.nn.stream_fuser import StreamFuser  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("make", [lambda: StreamFuser(Stub(), noise=NOISE), lambda: BurstFuser(Pick("rgb", 2, 0))])
def test_frames_that_no_network_takes(make):
    fuser, good = make(), textured(1, (3, 24, 24))[0]
    with pytest.raises(BurstError, match="no frames were pushed"):
        fuser.finish()
    fuser.push(good)
    bad = good.copy()
    bad[1, 5, 5] = np.nan
    with pytest.raises(BurstError, match=r"frame 1 has pixels that are not finite numbers \(NaN"):
        fuser.push(bad)
    with pytest.raises(BurstError, match="the first was"):
        fuser.push(textured(1, (3, 24, 32))[0])
    with pytest.raises(ArgumentError, match=r"takes 1 or 3 planes, got 4; stack with domain='rgb' \(--domain rgb\)"):
        fuser.push(textured(1, (4, 24, 24))[0])
    with pytest.raises(ArgumentError, match="float64"):
        fuser.push(good.astype(float))
    fuser.push(good)  # what was refused left it as it was
    fuser.finish()
    with pytest.raises(ArgumentError, match="already taken with finish"):
        fuser.push(good)


def test_domains():
    with pytest.raises(ArgumentError, match="domain must be 'rgb' for this network, got 'raw'"):
        Stacker(StreamFuser(Stub(), noise=NOISE), domain="raw")
    raw = BurstFuser(Pick("mosaic", 2, 0))
    with pytest.raises(ArgumentError, match="domain must be 'raw' for this network"):
        pyfocus.stack([np.zeros((64, 64, 3), np.uint8)] * 2, fuser=raw)
    with pytest.raises(BurstError, match=r"takes mosaics \(mosaic\), .* is a picture"):
        raw.begin(Frame(np.zeros((8, 8, 3), np.uint8)))
    with pytest.raises(ArgumentError, match="takes 4 planes, got 3; stack with domain='raw'"):
        raw.push(textured(1)[0])
    with pytest.raises(ArgumentError, match="half the size"):
        BurstFuser(nn.UNet("rggb", 2, 2))


def test_arguments():
    with pytest.raises(ArgumentError, match="tile_px must be 8 or more, got 4"):
        StreamFuser(Stub(), tile_px=4)
    for noise in ((1e-3,), (-1.0, 0.0), (2.0, 0.0)):
        with pytest.raises(ArgumentError, match="noise must be"):
            StreamFuser(Stub(), noise=noise)
    with pytest.raises(ArgumentError, match="encoding must be 'srgb' or 'linear'"):
        BurstFuser(Pick("rgb", 2, 0), encoding="gamma")
    with pytest.raises(ArgumentError, match="Linear does neither"):
        fusers.fuser_of(torch.nn.Linear(2, 2))
    with pytest.raises(ArgumentError, match="noise is for networks that are told of it, Pick is not"):
        fusers.fuser_of(Pick("rgb", 2, 0), noise=NOISE)
    assert fusers.fuser_of(Pick("rgb", 2, 0), {"encoding": "linear"})._encoding == "linear"
