"""align: known maps are found again under blur, noise and exposure, and strangers are turned away."""

from __future__ import annotations

from typing import get_args

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyfocus.affine import apply, corners
from pyfocus.align import align_pair, luminance_of
from pyfocus.burst import Frame
from pyfocus.ecc import Motion

Array = npt.NDArray[np.float64]
SIZE = (300, 420)
MARGIN = 120


def canvas(seed: int, size: tuple[int, int] = SIZE) -> Array:
    """A scene wider than the frame by MARGIN all round: shapes of all sizes, in [0.1, 0.9]."""
    random = np.random.default_rng(seed)
    shape = (size[0] + 2 * MARGIN, size[1] + 2 * MARGIN)
    out = np.zeros(shape)
    for sigma in (1.5, 4, 12, 40):
        part = cv2.GaussianBlur(random.normal(size=shape), (0, 0), sigma)
        out += part / part.std() * (1.0 if sigma > 3 else 0.5)
    return 0.5 + 0.4 * np.tanh(out / 2)


def look(
    scene: Array, matrix: Array, size: tuple[int, int] = SIZE, *, blur: float = 0, gain: float = 1, offset: float = 0,
    noise: float = 0, seed: int = 0,
) -> Frame:  # fmt: skip
    """The frame, linear light, that ``matrix`` maps the untouched frame's pixels to."""
    into = matrix @ np.array([[1, 0, -MARGIN], [0, 1, -MARGIN], [0, 0, 1.0]])
    if blur:
        scene = cv2.GaussianBlur(scene, (0, 0), blur)
    picture = cv2.warpPerspective(scene, into, (size[1], size[0]), flags=cv2.INTER_CUBIC)
    picture = gain * picture + offset + np.random.default_rng(seed).normal(size=size) * noise
    return Frame(np.clip(picture, 0, 1).astype(np.float32))


def similar(scale: float, degrees: float, x: float, y: float, size: tuple[int, int] = SIZE) -> Array:
    """Scale and turn about the middle, then shift."""
    a, b = scale * np.cos(np.radians(degrees)), scale * np.sin(np.radians(degrees))
    cx, cy = (size[1] - 1) / 2, (size[0] - 1) / 2
    return np.array([[a, -b, cx - a * cx + b * cy + x], [b, a, cy - b * cx - a * cy + y], [0, 0, 1.0]])


def worst(found: Array, true: Array, size: tuple[int, int] = SIZE) -> float:
    """Largest distance of a corner from where it belongs, px."""
    return float(np.linalg.norm(apply(found, corners(size)) - apply(true, corners(size)), axis=-1).max())


MOTIONS: list[tuple[Motion, Array, float]] = [
    ("translation", similar(1, 0, 5.3, -3.7), 0.05),
    ("similarity", similar(1.012, 0.4, 3.3, -2.7), 0.08),
    ("affine", similar(1.01, 0.3, 1, 2) @ np.array([[1.004, 0.006, 0], [0, 0.997, 0], [0, 0, 1]]), 0.12),
    ("homography", similar(1, 0.3, 1, 2) @ np.array([[1, 0.003, 0], [0, 1, 0], [1e-5, -8e-6, 1]]), 0.25),
]


@pytest.mark.parametrize(("motion", "true", "bar"), MOTIONS, ids=[m[0] for m in MOTIONS])
def test_finds_each_kind_of_motion(motion: Motion, true: Array, bar: float) -> None:
    scene = canvas(1)
    fixed = luminance_of(look(scene, np.eye(3), noise=0.01, seed=1), threads=1)
    moving = luminance_of(look(scene, true, blur=1.5, gain=0.8, offset=0.03, noise=0.01, seed=2), threads=1)
    pair = align_pair(fixed, moving, motion, threads=1)
    assert pair.good and pair.converged and pair.correlation > 0.9
    assert worst(pair.matrix, true) < bar
    if motion == "translation":
        np.testing.assert_array_equal(pair.matrix[:2, :2], np.eye(2))
    if motion != "homography":
        np.testing.assert_allclose(pair.matrix[2], [0, 0, 1], atol=1e-12)


@settings(max_examples=6, deadline=None, derandomize=True)
@given(
    scale=st.floats(0.95, 1.05), degrees=st.floats(-1.2, 1.2), x=st.floats(-20, 20), y=st.floats(-12, 12),
    blur=st.floats(0, 3), gain=st.floats(0.6, 1.05), noise=st.floats(0, 0.03),
)  # fmt: skip
def test_finds_any_similarity(
    scale: float, degrees: float, x: float, y: float, blur: float, gain: float, noise: float
) -> None:
    scene, true = canvas(2), similar(scale, degrees, x, y)
    fixed = luminance_of(look(scene, np.eye(3), noise=noise, seed=3), threads=1)
    moving = luminance_of(look(scene, true, blur=blur, gain=gain, noise=noise, seed=4), threads=1)
    pair = align_pair(fixed, moving, threads=1)
    assert pair.good
    assert worst(pair.matrix, true) < 0.15 + 0.1 * blur


@pytest.mark.parametrize(
    "true",
    [similar(1, 0, 21, 9), similar(1, 0, -84, 30), similar(1.08, 0, 4, 3), similar(0.92, 0, 4, 3), similar(1, 5, 0, 0)],
    ids=["5 % of the width", "20 %", "+8 % scale", "-8 % scale", "5 degrees"],
)
def test_large_motion_is_followed(true: Array) -> None:
    scene = canvas(3)
    fixed = luminance_of(look(scene, np.eye(3)), threads=1)
    pair = align_pair(fixed, luminance_of(look(scene, true, blur=1), threads=1), threads=1)
    assert pair.good and worst(pair.matrix, true) < 0.2


def test_a_24_megapixel_pair_with_jitter_of_30_px() -> None:
    size = (4000, 6000)
    true = similar(1.003, 0.05, 24, -18, size)
    scene = cv2.resize(canvas(4, (500, 750)).astype(np.float32), None, fx=8, fy=8, interpolation=cv2.INTER_CUBIC)
    flags = cv2.INTER_LINEAR
    frames = []
    for matrix in (np.eye(3), true):
        into = matrix @ np.array([[1, 0, -900], [0, 1, -900], [0, 0, 1.0]])
        picture = cv2.warpPerspective(scene, into, size[::-1], flags=flags)
        frames.append(luminance_of(Frame((picture * 255).astype(np.uint8))))
    pair = align_pair(frames[0], frames[1])
    assert pair.good and worst(pair.matrix, true, size) < 0.3
    assert sum(level.nbytes for level in frames[0].levels) < 20e6
    assert frames[0].factor == 4


def test_the_prediction_is_a_start_and_no_more() -> None:
    scene, true = canvas(5), similar(1.01, 0.2, 6, -4)
    fixed, moving = (luminance_of(look(scene, m), threads=1) for m in (np.eye(3), true))
    perspective = np.array([[1, 0, 0], [0, 1, 0], [1e-5, 0, 1.0]])
    for motion in get_args(Motion)[1:]:
        for predicted in (true, similar(0.9, 3, 60, 60), perspective @ true, np.full((3, 3), 0.0) + np.eye(3)):
            pair = align_pair(fixed, moving, motion, predicted=predicted, threads=1)
            assert pair.good and worst(pair.matrix, true) < 0.2


def test_both_directions_agree_and_self_is_identity() -> None:
    scene, true = canvas(6), similar(1.02, -0.5, 4, 7)
    a, b = (luminance_of(look(scene, m), threads=1) for m in (np.eye(3), true))
    there, back = align_pair(a, b, threads=1), align_pair(b, a, threads=1)
    assert worst(back.matrix @ there.matrix, np.eye(3)) < 0.05
    same = align_pair(a, a, threads=1)
    assert worst(same.matrix, np.eye(3)) < 1e-3 and same.correlation == pytest.approx(1, abs=1e-6)


def test_same_for_any_number_of_threads() -> None:
    scene = canvas(7)
    frames = [look(scene, m, noise=0.02, seed=i) for i, m in enumerate((np.eye(3), similar(1.01, 0.3, 5, 6)))]
    found = set()
    for n in (1, 2, 3):
        fixed, moving = (luminance_of(frame, threads=n) for frame in frames)
        found.add(align_pair(fixed, moving, threads=n).matrix.tobytes())
    assert len(found) == 1


def noise_only(seed: int) -> Frame:
    return Frame(np.random.default_rng(seed).random(SIZE).astype(np.float32))


def test_strangers_are_turned_away() -> None:
    frames = [look(canvas(seed), np.eye(3)) for seed in (8, 9)]
    sky = np.broadcast_to(np.linspace(0.9, 0.1, SIZE[0])[:, None], SIZE)  # the same large shape in both
    frames += [look(0.15 * canvas(s), np.eye(3)) for s in (10, 11)]
    for frame in frames[2:]:
        frame.data[:] = frame.data + 0.6 * sky
    frames += [noise_only(1), noise_only(2)]
    lumas = [luminance_of(frame, threads=1) for frame in frames]
    for i, a in enumerate(lumas):
        for j, b in enumerate(lumas[: i + 1]):
            assert align_pair(a, b, threads=1).good == (i == j), (i, j)


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_a_blank_frame_fits_nothing(level: float) -> None:
    blank = luminance_of(Frame(np.full(SIZE, level, np.float32)), threads=1)
    scene = luminance_of(look(canvas(12), np.eye(3)), threads=1)
    for a, b in ((blank, scene), (scene, blank), (blank, blank)):
        pair = align_pair(a, b, threads=1)
        assert not pair.good and pair.correlation == 0
        np.testing.assert_array_equal(pair.matrix, np.eye(3))


@pytest.mark.parametrize("size", [(2, 2), (3, 40), (16, 16), (20, 300), (300, 20), (41, 39), (81, 160)])
def test_tiny_frames_never_fail(size: tuple[int, int]) -> None:
    scene = canvas(13, size)
    a, b = (luminance_of(look(scene, m, size), threads=1) for m in (np.eye(3), similar(1, 0, 1, 0, size)))
    for motion in get_args(Motion):
        pair = align_pair(a, b, motion, threads=1)
        assert np.isfinite(pair.matrix).all()
        if min(size) >= 40:
            assert pair.good and worst(pair.matrix, similar(1, 0, 1, 0, size), size) < 0.6


def test_a_single_row_or_column_is_no_error() -> None:
    for size in ((1, 1), (1, 50), (50, 1)):
        luma = luminance_of(Frame(np.random.default_rng(0).random(size).astype(np.float32)), threads=1)
        assert not align_pair(luma, luma, threads=1).good
