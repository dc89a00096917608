"""The paper's two baselines: their arithmetic beside OpenCV's and a float64 transform, what makes them score low."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import reference_wavelet as oracle

import pyfocus
import reference
from pyfocus.errors import BurstError
from pyfocus.evaluate import BASELINES, check_fusers, evaluate, find_scenes
from pyfocus.evaluate.baselines import decompose, recompose, signed_laplacian


def fuse(name, frames):
    fuser = BASELINES[name]()
    for frame in frames:
        fuser.push(frame)
    return fuser.finish().image


def encoded(seed, size=(64, 64), planes=3):
    return np.random.default_rng(seed).random((planes, *size))


def light(pictures):
    return reference.srgb_decode(pictures).astype(np.float32)


@pytest.mark.parametrize("size", [(40, 51), (5, 3), (3, 3)])
def test_the_laplacian_is_opencvs(size):
    grey = encoded(0, size, 1)[0]
    want = cv2.Laplacian(cv2.GaussianBlur(grey, (5, 5), 0), cv2.CV_64F, ksize=5)
    np.testing.assert_allclose(signed_laplacian(grey), want, rtol=0, atol=1e-12)


def test_laplace_takes_the_largest_signed_response():
    frames = np.stack([encoded(k) for k in range(4)])
    response = [cv2.Laplacian(cv2.GaussianBlur(f.mean(0), (5, 5), 0), cv2.CV_64F, ksize=5) for f in frames]
    chosen = np.argmax(response, axis=0)
    want = np.take_along_axis(frames, chosen[None, None], axis=0)[0]
    got = reference.srgb_encode(fuse("laplace", light(frames)))
    wrong = np.abs(got - want).max(axis=0) > 1e-5  # ties within float32 rounding of the frames
    assert wrong.mean() < 0.001


def test_laplace_prefers_a_blurred_bright_spot():
    """Its first fault: of a bright spot, sharp in one frame and blurred in the other, the blurred one is picked."""
    sharp, blurred = np.full((2, 3, 64, 64), 0.2)
    sharp[:, 32, 32] = 0.9
    blurred[:] = cv2.GaussianBlur(sharp[0], (15, 15), 3)
    got = fuse("laplace", light(np.stack([sharp, blurred])))
    np.testing.assert_allclose(got[:, 32, 32], light(blurred[:, 32, 32]), rtol=1e-5)


def test_the_transform_is_the_formula_and_comes_back():
    picture = encoded(1, (128, 192), 2).astype(np.complex64)
    bands = decompose(picture, 6)
    assert [b.shape for b in bands[:2]] == [(3, 2, 64, 96), (3, 2, 32, 48)] and bands[-1].shape == (2, 2, 3)
    np.testing.assert_allclose(recompose(bands), picture, rtol=0, atol=5e-6)
    energy = sum(float((np.abs(b.astype(complex)) ** 2).sum()) for b in bands)
    assert energy == pytest.approx(float((np.abs(picture.astype(complex)) ** 2).sum()), rel=1e-5)
    low, high = oracle.split(picture[:, :32, :32])  # away from the borders, with taps two samples earlier
    np.testing.assert_allclose(bands[0][..., 1:12, 1:12], high[..., 2:13, 2:13], atol=2e-6)
    np.testing.assert_allclose(decompose(picture, 1)[-1][..., 1:12, 1:12], low[..., 2:13, 2:13], atol=2e-6)


def test_wavelets_take_the_largest_coefficient_of_every_band():
    frames = np.stack([encoded(k, (70, 64)) for k in range(3)])
    padded = np.pad(frames, ((0, 0), (0, 0), (0, 58), (0, 0)), mode="edge").astype(np.complex64)
    stacks = [decompose(f, 6) for f in padded]
    chosen = []
    for bands in zip(*stacks, strict=True):
        every = np.stack(bands)
        chosen.append(np.take_along_axis(every, np.abs(every).argmax(axis=0)[None], axis=0)[0])
    want = recompose(chosen).real[:, :70].clip(0, 1)
    got = reference.srgb_encode(fuse("wavelets", light(frames)))
    assert np.quantile(np.abs(got - want), 0.999) < 1e-4


def test_wavelets_take_the_brightest_low_pass():
    """Its fault: where frames are flat the brightest wins, and each channel for itself."""
    frames = np.broadcast_to(np.array([[0.3, 0.5, 0.4], [0.4, 0.4, 0.4]])[..., None, None], (2, 3, 64, 64))
    got = reference.srgb_encode(fuse("wavelets", light(frames)))
    np.testing.assert_allclose(got[:, 20:40, 20:40].mean(axis=(1, 2)), [0.4, 0.5, 0.4], atol=1e-4)


@pytest.mark.parametrize("name", BASELINES)
def test_one_frame_comes_back_and_odd_sizes_are_taken(name):
    frame = light(encoded(2, (37, 51)))
    np.testing.assert_allclose(fuse(name, [frame, frame]), frame, rtol=0, atol=1e-5)
    with pytest.raises(BurstError, match="no frames were pushed"):
        BASELINES[name]().finish()


def test_they_are_judged_by_name_but_not_stacked_with(tmp_path, small_bracket):
    folder = tmp_path / "scene" / "frames"
    folder.mkdir(parents=True)
    for k in (0, 2, 4):
        pyfocus.write_image(folder / f"{k}.png", _codes(small_bracket.frames[k]))
    pyfocus.write_image(tmp_path / "scene" / "truth.tif", _codes(small_bracket.truth))
    names = ["laplace", "wavelets", "wavelet", "laplacian"]
    check_fusers(names)
    scores, _ = evaluate(names, find_scenes(tmp_path))
    psnr = {score.fuser: score.psnr for score in scores}
    # measured 24.1, 33.4, 34.4, 34.8: the order of the paper's Table 3, and both below what picks well
    assert psnr["laplace"] < psnr["wavelets"] - 5 and psnr["wavelets"] + 0.5 < psnr["wavelet"] < psnr["laplacian"]
    with pytest.raises(pyfocus.errors.ArgumentError, match=r"fuser must be one of auto, average, .*got 'wavelets'"):
        pyfocus.stack(list(small_bracket.frames), fuser="wavelets")


def _codes(values):
    return np.rint(reference.srgb_encode(values) * 255).astype(np.uint8)
