"""The weights that ship: what they are, and what they must do on brackets that they never saw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import pyfocus  # noqa: E402
from pyfocus.colour import linear_to_srgb  # noqa: E402
from pyfocus.metrics import psnr  # noqa: E402
from pyfocus.nn.checkpoint import load_model  # noqa: E402
from pyfocus.nn.fusers import SHIPPED, WEIGHTS, StreamFuser  # noqa: E402
from pyfocus.simulate import procedural_scene, simulate  # noqa: E402

BRACKETS = Path(__file__).resolve().parents[2] / "shared" / "data" / "brackets"
CLEAN = (1e-6, 1e-8)  # shot and read of frames without noise


@pytest.fixture(scope="module")
def shipped():
    return load_model(WEIGHTS / SHIPPED["focusdeep"])


def bracket(**changes):
    photo, depth = procedural_scene(160, 224, seed=4)
    return simulate(photo, depth, frames=8, blur_px=8.0, breathing=0.0, jitter_px=0.0, seed=6, **changes)


def test_they_are_small_named_and_half_precision(shipped):
    net, facts = shipped
    files = list(WEIGHTS.glob("*.pt"))
    assert files and sum(path.stat().st_size for path in files) <= 20e6
    assert type(net).__name__ == "FocusDeepStream" and net.config["size"] == "lite"
    assert facts["precision"] == "float16" and facts["licence"] and facts["step"] > 1000
    assert all(torch.equal(p, p.half().float()) for p in net.parameters())
    card = (WEIGHTS / "README.md").read_text(encoding="utf-8")
    for word in ("Data", "Licence", "Limits", f"{facts['step']} steps"):
        assert word in card


def test_backwards_the_depth_turns_round_and_the_picture_hardly_moves(shipped):
    net, _ = shipped
    made = bracket()
    frames = [np.asarray(frame) for frame in made]
    there = pyfocus.stack(frames, fuser=StreamFuser(net, noise=CLEAN), align=False)
    back = pyfocus.stack(frames[::-1], fuser=StreamFuser(net, noise=CLEAN), align=False)
    pictures = [np.asarray(one.image(16)) for one in (there, back)]
    truth = np.round(65535 * linear_to_srgb(made.truth.clip(0, 1))).astype(np.uint16)
    # Measured: 37.5 dB apart, 31.7 at best from the truth: about half as far.
    assert psnr(pictures[0], pictures[1]) > max(psnr(picture, truth) for picture in pictures) + 5
    sure = np.minimum(there.confidence(), back.confidence()) > 0.5
    assert sure.mean() > 0.2
    turned = (len(frames) - 1 - back.depth() - there.depth())[sure]
    assert np.median(np.abs(turned)) < 0.3
    assert np.corrcoef(there.depth()[sure], back.depth()[sure])[0, 1] < -0.8


def test_depth_is_the_scene_s(shipped):
    made = bracket()
    out = pyfocus.stack([np.asarray(f) for f in made], fuser=StreamFuser(shipped[0], noise=CLEAN), align=False)
    nearest = np.abs(made.depth[None] - made.focus[:, None, None]).argmin(0)
    sure = out.confidence() > 0.5
    assert sure.mean() > 0.2
    assert np.median(np.abs(out.depth() - nearest)[sure]) < 0.6


def test_colours_stay(shipped):
    made = bracket()
    frames = [np.asarray(f) for f in made]
    network, fold = (
        pyfocus.stack(frames, fuser=fuser, align=False).image(16).astype(float)
        for fuser in (StreamFuser(shipped[0], noise=CLEAN), "laplacian")
    )
    truth = 65535 * linear_to_srgb(made.truth.clip(0, 1)).mean((0, 1))
    shift, classical = (np.abs(picture.mean((0, 1)) / truth - 1) for picture in (network, fold))
    # Measured: 1.2, 1.0, 1.2 % from the truth, the classical picture 1.1, 1.2, 1.7 %, each other 0.1, 0.2, 0.5 %.
    assert (shift < classical + 0.002).all()
    assert np.abs(network.mean((0, 1)) / fold.mean((0, 1)) - 1).max() < 0.006


@pytest.mark.skipif(not BRACKETS.is_dir(), reason="the shared brackets are not here")
def test_noisy_raws_are_cleaner_than_any_fold_makes_them(shipped):
    from pyfocus.evaluate import evaluate, find_scenes

    scenes = [s for s in find_scenes(BRACKETS) if s.name == "raw_noisy"]
    scores, _ = evaluate(["focusdeep", "laplacian"], scenes, protocol="score")
    network, fold = (next(s.psnr for s in scores if s.fuser == name) for name in ("focusdeep", "laplacian"))
    assert network > fold + 2.0
