"""affine: the algebra's laws, and the shared rectangle against trying every rectangle."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyfocus import affine
from pyfocus.errors import ArgumentError

number = st.floats(-0.2, 0.2, allow_subnormal=False)


@st.composite
def maps(draw: st.DrawFn) -> np.ndarray:
    """Plausible homographies: some shear, shift up to 20 px, a trace of perspective."""
    rows = [[1 + draw(number), draw(number), 100 * draw(number)], [draw(number), 1 + draw(number), 100 * draw(number)]]
    return np.array([*rows, [1e-4 * draw(number), 1e-4 * draw(number), 1.0]])


@settings(max_examples=25, deadline=None)
@given(maps(), maps(), st.sampled_from([2.0, 3.0, 0.5, 8.0]))
def test_pitch_keeps_the_map(a: np.ndarray, b: np.ndarray, factor: float) -> None:
    points = np.array([[0.0, 0.0], [31.5, 7.0], [200.0, 120.0]])
    large = affine.apply(affine.pitch(factor), points)
    small = affine.apply(affine.at_pitch(a, factor), points)
    np.testing.assert_allclose(affine.apply(affine.pitch(factor), small), affine.apply(a, large), atol=1e-7)
    np.testing.assert_allclose(affine.at_pitch(affine.at_pitch(a, factor), 1 / factor), a / a[2, 2], atol=1e-8)
    both, apart = affine.at_pitch(a @ b, factor), affine.at_pitch(a, factor) @ affine.at_pitch(b, factor)
    np.testing.assert_allclose(both, apart / apart[2, 2], atol=1e-8)


@settings(max_examples=25, deadline=None)
@given(maps(), maps())
def test_apply_composes_and_inverts(a: np.ndarray, b: np.ndarray) -> None:
    points = np.random.default_rng(0).uniform(0, 90, (2, 5, 2))
    np.testing.assert_allclose(affine.apply(a @ b, points), affine.apply(a, affine.apply(b, points)), atol=1e-7)
    np.testing.assert_allclose(affine.apply(np.linalg.inv(a), affine.apply(a, points)), points, atol=1e-7)
    stacked = affine.apply(np.stack([a, b]), points)
    assert stacked.shape == (2, 2, 5, 2)
    np.testing.assert_allclose(stacked[1], affine.apply(b, points))


def test_pitch_matches_block_centres() -> None:
    np.testing.assert_allclose(affine.apply(affine.pitch(2), [[0, 0], [3, 1]]), [[0.5, 0.5], [6.5, 2.5]])


def test_corner_shift_is_the_largest() -> None:
    assert affine.corner_shift(np.eye(3), (10, 20)) == 0
    assert affine.corner_shift(np.array([[1, 0, 3], [0, 1, -4], [0, 0, 1.0]]), (10, 20)) == pytest.approx(5)
    assert affine.corner_shift(np.diag([1.1, 1.0, 1.0]), (11, 21)) == pytest.approx(2)
    assert affine.corners((3, 5)).tolist() == [[0, 0], [4, 0], [0, 2], [4, 2]]


def test_as_matrix() -> None:
    np.testing.assert_array_equal(affine.as_matrix("f", [[1, 0, 2], [0, 1, 3]]), [[1, 0, 2], [0, 1, 3], [0, 0, 1]])
    np.testing.assert_array_equal(affine.as_matrix("f", np.eye(3, dtype=np.float32)), np.eye(3))


@pytest.mark.parametrize("bad", [np.eye(2), np.zeros(6), np.full((3, 3), np.nan), np.eye(4), [[1, 0, np.inf]] * 2])
def test_as_matrix_refuses(bad: object) -> None:
    with pytest.raises(ArgumentError, match=r"f: transform must be \(2, 3\) or \(3, 3\) and finite, got shape"):
        affine.as_matrix("f", bad)  # type: ignore[arg-type]


def largest(seen: np.ndarray) -> int:
    """Area of the largest all-true rectangle, by trying all of them."""
    h = len(seen)
    best = 0
    for top in range(h):
        for bottom in range(top, h):
            run = 0
            for ok in np.atleast_1d(seen[top : bottom + 1].all(axis=0)):
                run = run + 1 if ok else 0
                best = max(best, run * (bottom - top + 1))
    return best


def looks(random: np.random.Generator, count: int, strength: float) -> np.ndarray:
    out = np.tile(np.eye(3), (count, 1, 1))
    out[:, :2, :2] += random.uniform(-0.1, 0.1, (count, 2, 2)) * strength
    out[:, :2, 2] = random.uniform(-9, 9, (count, 2)) * strength
    return out


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("size", [(24, 31), (40, 18), (7, 5)])
def test_common_rectangle_is_the_largest(seed: int, size: tuple[int, int]) -> None:
    h, w = size
    views = looks(np.random.default_rng(seed), 4, 0.2 if min(size) < 10 else 0.7)
    xs, ys = np.meshgrid(np.arange(w), np.arange(h))
    seen = affine.sees(views, np.stack([xs, ys], axis=-1), size)
    top, left, bottom, right = affine.common_valid_rect(views, size)
    assert seen[top:bottom, left:right].all()
    assert (bottom - top) * (right - left) == largest(seen)


def test_common_rectangle_of_large_pictures_is_exact_for_shifts() -> None:
    views = np.stack([np.eye(3)] * 3)
    views[1, :2, 2], views[2, :2, 2] = (17.5, -33), (-120.25, 8)
    assert affine.common_valid_rect(views, (3000, 4000)) == (33, 121, 3000 - 8, 4000 - 18)


def test_common_rectangle_is_near_the_largest_for_rotation() -> None:
    c, s = np.cos(np.radians(1.2)), np.sin(np.radians(1.2))
    turned = affine.at_pitch(np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]]), 1.0)
    whole = affine.common_valid_rect(turned[None], (1000, 1500))
    area = (whole[2] - whole[0]) * (whole[3] - whole[1])
    xs, ys = np.meshgrid(np.arange(0, 1500, 12), np.arange(0, 1000, 12))
    grid = affine.sees(turned[None], np.stack([xs, ys], axis=-1), (1000, 1500))
    assert area > 0.98 * largest(grid) * 144


def test_nothing_shared_is_empty() -> None:
    views = np.stack([np.eye(3)] * 2)
    views[1, 0, 2] = 1000
    assert affine.common_valid_rect(views, (50, 60)) == (0, 0, 0, 0)
    assert affine.common_valid_rect(np.eye(3)[None], (50, 60)) == (0, 0, 50, 60)


def zoom(scale: float, size: tuple[int, int] = (60, 80)) -> np.ndarray:
    cx, cy = (size[1] - 1) / 2, (size[0] - 1) / 2
    return np.array([[scale, 0, cx - scale * cx], [0, scale, cy - scale * cy], [0, 0, 1.0]])


@pytest.mark.parametrize(("scales", "central"), [((1, 1.05, 1.1), 1), ((1.1, 1, 0.9), 1), ((1, 0.9, 1.1), 0)])
def test_central_view_is_the_one_in_between(scales: tuple[float, ...], central: int) -> None:
    assert affine.central_view(np.stack([zoom(s) for s in scales]), (60, 80)) == central


def test_central_view_is_where_the_farthest_frame_is_nearest() -> None:
    """Frames at x = 0, 1, 2, 3, 20: half of 20 is nearest to 3, wherever most of them are."""
    views = np.stack([np.eye(3)] * 5)
    views[:, 0, 2] = (0, 1, 2, 3, 20)
    assert affine.central_view(views, (60, 80)) == 3
    assert affine.central_view(zoom(1.2) @ views, (60, 80)) == 3  # whatever the common picture is


def test_central_view_of_equals_is_the_middle() -> None:
    assert affine.central_view(np.stack([np.eye(3)] * 7), (60, 80)) == 3
    assert affine.central_view(np.eye(3)[None], (60, 80)) == 0
