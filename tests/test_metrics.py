"""PSNR and SSIM against the formulas in float64, and against scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from pyfocus import metrics
from pyfocus.errors import ArgumentError
from pyfocus.metrics import psnr, ssim

RANDOM = np.random.default_rng(6)
TRUTH = np.kron(RANDOM.integers(0, 230, (10, 12, 3)), np.ones((9, 9, 1))).astype(np.uint8)  # (90, 108, 3)
RESULT = np.clip(TRUTH + RANDOM.normal(4, 12, TRUTH.shape), 0, 255).astype(np.uint8)


def similarity(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """SSIM of each whole 11 x 11 window of planes in [0, 1], one window at a time: (h - 10, w - 10)."""
    y, x = np.mgrid[-5:6, -5:6]
    weights = np.exp(-(x * x + y * y) / (2 * 1.5**2))
    weights /= weights.sum()
    out = np.empty((one.shape[0] - 10, one.shape[1] - 10))
    for i, j in np.ndindex(out.shape):
        a, b = one[i : i + 11, j : j + 11], two[i : i + 11, j : j + 11]
        m, n = (weights * a).sum(), (weights * b).sum()
        v, w = (weights * (a - m) ** 2).sum(), (weights * (b - n) ** 2).sum()
        shared = (weights * (a - m) * (b - n)).sum()
        out[i, j] = (2 * m * n + 1e-4) * (2 * shared + 9e-4) / ((m * m + n * n + 1e-4) * (v + w + 9e-4))
    return out


@pytest.mark.parametrize("border", [0, 4, 17])
def test_psnr_is_that_of_one_mean(border: int):
    inner = np.s_[border : 90 - border, border : 108 - border]
    apart = (RESULT[inner].astype(np.float64) - TRUTH[inner]) / 255
    assert psnr(RESULT, TRUTH, border=border) == pytest.approx(-10 * np.log10((apart**2).mean()), abs=1e-9)
    theirs = peak_signal_noise_ratio(TRUTH[inner], RESULT[inner], data_range=255)
    assert psnr(RESULT, TRUTH, border=border) == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize("border", [0, 4])
def test_ssim_is_scikit_images_with_the_papers_window(border: int):
    inner = np.s_[border : 90 - border, border : 108 - border]
    theirs = structural_similarity(
        TRUTH[inner], RESULT[inner], channel_axis=2, data_range=255, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False,
    )  # fmt: skip
    assert ssim(RESULT, TRUTH, border=border) == pytest.approx(theirs, abs=1e-9)


def test_ssim_is_the_mean_over_windows_and_channels():
    one, two = RESULT[:30, :26] / 255, TRUTH[:30, :26] / 255
    want = np.stack([similarity(one[..., c], two[..., c]) for c in range(3)], axis=-1)
    assert ssim(one, two) == pytest.approx(want.mean(), abs=1e-10)
    assert ssim(one[..., 0], two[..., 0]) == pytest.approx(want[..., 0].mean(), abs=1e-10)
    where = RANDOM.random((30, 26)) < 0.4
    assert ssim(one, two, where=where) == pytest.approx(want[where[5:-5, 5:-5]].mean(), abs=1e-10)
    assert psnr(one, two, where=where) == pytest.approx(-10 * np.log10(((one - two)[where] ** 2).mean()), abs=1e-9)


def test_a_known_difference_has_a_known_psnr():
    grey = np.full((20, 30), 0.25)
    assert psnr(grey + 0.1, grey) == pytest.approx(20)
    assert psnr(grey + 0.01, grey.astype(np.float32)) == pytest.approx(40)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32, np.float64])
def test_equal_pictures(kind: type):
    same = TRUTH.astype(kind) if kind is np.uint8 else TRUTH.astype(kind) * 257
    same = same / kind(65535) if np.dtype(kind).kind == "f" else same
    assert psnr(same, same) == np.inf and ssim(same, same) == pytest.approx(1, abs=1e-12)
    assert psnr(same, TRUTH) > 130 and ssim(TRUTH, same) == pytest.approx(1, abs=1e-9)  # of different types


def test_pieces_make_no_difference(monkeypatch: pytest.MonkeyPatch):
    want = psnr(RESULT, TRUTH), ssim(RESULT, TRUTH)
    for rows in (1, 7, 1000):
        monkeypatch.setattr(metrics, "_ROWS", rows)
        assert (psnr(RESULT, TRUTH), ssim(RESULT, TRUTH)) == pytest.approx(want, rel=1e-12)


NOWHERE = np.zeros((90, 108), bool)


@pytest.mark.parametrize(
    ("arguments", "how", "text"),
    [
        ((RESULT[:50], TRUTH), {}, r"one shape, got \(50, 108, 3\) and \(90, 108, 3\)"),
        ((RESULT[..., 0], TRUTH), {}, "one shape"),
        ((RESULT.astype(np.int32), TRUTH), {}, "result must be .* got .* int32"),
        ((RESULT, TRUTH[None]), {}, r"truth must be \(H, W, 3\)"),
        ((RESULT / 255, np.where(TRUTH > 200, np.nan, TRUTH / 255)), {}, "truth must be finite"),
        ((RESULT, TRUTH), {"border": -1}, "border must be 0 or more"),
        ((RESULT, TRUTH), {"border": 45}, "leave something of 108 x 90 px, got 45"),
        ((RESULT, TRUTH), {"where": NOWHERE}, "where leaves no pixel"),
        ((RESULT, TRUTH), {"where": NOWHERE[1:]}, r"where must be \(90, 108\) bool"),
        ((RESULT, TRUTH), {"where": NOWHERE.astype(np.uint8)}, "where must be"),
    ],
)
@pytest.mark.parametrize("metric", [psnr, ssim])
def test_what_cannot_be_compared(metric, arguments, how, text):
    with pytest.raises(ArgumentError, match=f"^{metric.__name__}: .*{text}"):
        metric(*arguments, **how)


def test_ssim_needs_a_window():
    with pytest.raises(ArgumentError, match="at least 11 px wide and high inside the border, got 28 x 10 px"):
        ssim(RESULT, TRUTH, border=40)
