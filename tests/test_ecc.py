"""ecc: the native sums against the oracle, the same bits everywhere, and the maximum against OpenCV."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import pytest
import reference_ecc as oracle

from pyfocus import _C
from pyfocus.ecc import at_level, maximise, trimmed

SIZES = [((2, 2), (2, 2)), ((5, 3), (7, 9)), ((16, 256), (16, 256)), ((33, 257), (40, 300)), ((70, 515), (61, 530))]
LEVELS = {"x86-64-v2": 2, "x86-64-v3": 3, "x86-64-v4": 4}


def smooth(shape: tuple[int, int], seed: int, sigma: float = 2.0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=shape)
    return np.ascontiguousarray(0.5 + 0.4 * cv2.GaussianBlur(noise, (0, 0), sigma) * sigma, np.float32)


def matrix_of(parameters: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    matrix = np.eye(3)
    matrix[:2, :2] += random.uniform(-0.02, 0.02, (2, 2))
    matrix[:2, 2] = random.uniform(-2.5, 2.5, 2)
    if parameters == 8:
        matrix[2, :2] = random.uniform(-1e-4, 1e-4, 2)
    return matrix


def sums(
    fixed: np.ndarray, moving: np.ndarray, matrix: np.ndarray, parameters: int, mask: Any = None, threads: int = 1
) -> np.ndarray:
    count = _C.ecc_sum_count(parameters)
    out = np.full(count, np.nan)
    workspace = np.full((-(-fixed.shape[0] // _C.ECC_CHUNK_ROWS), count), np.nan)
    _C.ecc(fixed, moving, matrix, parameters, workspace, out, mask, threads=threads)
    return out


@pytest.fixture
def levels() -> Iterator[list[int]]:
    """Instruction sets this processor has; the best one is set again afterwards."""
    best = LEVELS.get(_C.isa(), 2)
    yield list(range(2, best + 1))
    _C.set_isa(best)


@pytest.mark.parametrize("parameters", [6, 8])
@pytest.mark.parametrize(("size", "other"), SIZES)
@pytest.mark.parametrize("masked", [False, True])
def test_sums_are_the_oracles(parameters: int, size: tuple[int, int], other: tuple[int, int], masked: bool) -> None:
    fixed, moving, matrix = smooth(size, 1), smooth(other, 2), matrix_of(parameters, 3)
    mask = (np.random.default_rng(4).random(size) < 0.7).astype(np.uint8) if masked else None
    got = sums(fixed, moving, matrix, parameters, mask)
    want = oracle.sums(fixed, moving, matrix, parameters, mask)
    assert got[-1] == want[-1]  # the very same pixels
    magnitude = np.abs(oracle.sums(np.abs(fixed), np.abs(moving), matrix, parameters, mask)).max()
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-6 * magnitude + 1e-9)


@pytest.mark.parametrize("parameters", [6, 8])
@pytest.mark.parametrize("shift", [(40.25, 0), (-40.5, 3), (0, 19.75), (200, 0), (0, -500)])
def test_pixels_that_fall_outside_do_not_count(parameters: int, shift: tuple[float, float]) -> None:
    fixed, moving, matrix = smooth((37, 90), 5), smooth((37, 90), 6), np.eye(3)
    matrix[:2, 2] = shift
    got, want = sums(fixed, moving, matrix, parameters), oracle.sums(fixed, moving, matrix, parameters, None)
    assert got[-1] == want[-1]
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-6 * max(1, np.abs(want).max()))


@pytest.mark.parametrize("parameters", [6, 8])
@pytest.mark.parametrize("step", [2, 3, 16])
def test_a_row_step_is_a_mask_of_rows(parameters: int, step: int) -> None:
    fixed, moving, matrix = smooth((53, 70), 1), smooth((53, 70), 2), matrix_of(parameters, 3)
    count = _C.ecc_sum_count(parameters)
    got, workspace = np.empty(count), np.empty((-(-53 // _C.ECC_CHUNK_ROWS), count))
    _C.ecc(fixed, moving, matrix, parameters, workspace, got, row_step=step, threads=1)
    rows = np.zeros((53, 70), np.uint8)
    rows[::step] = 1
    want = oracle.sums(fixed, moving, matrix, parameters, rows)
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-6 * np.abs(want).max())
    for wrong in (0, -1, 17):
        with pytest.raises(ValueError, match=f"ecc: row_step must be 1 to 16, got {wrong}"):
            _C.ecc(fixed, moving, matrix, parameters, workspace, got, row_step=wrong)


def test_what_a_masked_pixel_holds_does_not_matter() -> None:
    fixed, moving = smooth((20, 31), 3), smooth((20, 31), 4)
    mask = np.ones((20, 31), np.uint8)
    mask[4:7, 5:9] = 0
    clean = sums(fixed, moving, np.eye(3), 6, mask)
    fixed[5, 6] = np.nan
    np.testing.assert_array_equal(sums(fixed, moving, np.eye(3), 6, mask), clean)


def test_an_empty_mask_gives_zeros_and_identity_counts_every_pixel() -> None:
    image = smooth((20, 31), 7)
    assert not sums(image, image, np.eye(3), 6, np.zeros((20, 31), np.uint8)).any()
    whole = sums(image, image, np.eye(3), 6)
    assert whole[-1] == image.size
    assert whole[-2] == whole[-3] == whole[-4]  # i't, t't, i'i


@pytest.mark.parametrize("parameters", [6, 8])
def test_same_bits_for_threads_and_instruction_sets(parameters: int, levels: list[int]) -> None:
    fixed, moving, matrix = smooth((131, 333), 8), smooth((140, 320), 9), matrix_of(parameters, 10)
    mask = (np.random.default_rng(11).random(fixed.shape) < 0.9).astype(np.uint8)
    found = set()
    for level in levels:
        _C.set_isa(level)
        found |= {sums(fixed, moving, matrix, parameters, mask, threads).tobytes() for threads in (1, 2, 3)}
    assert len(found) == 1


GOOD: dict[str, Any] = {
    "fixed": np.ones((20, 8), np.float32), "moving": np.ones((20, 8), np.float32), "matrix": np.eye(3),
    "parameters": 6, "workspace": np.empty((2, 45)), "sums": np.empty(45), "mask": None,
}  # fmt: skip
BAD: list[tuple[dict[str, Any], str]] = [
    ({"fixed": np.ones((20, 8))}, "ecc: fixed must be"),
    ({"fixed": np.ones((1, 20, 8), np.float32)}, "ecc: fixed must have 2 dimensions, got 3"),
    ({"fixed": np.ones((20, 16), np.float32)[:, ::2]}, "ecc: fixed must be"),
    ({"moving": np.ones((20, 8), np.uint8)}, "ecc: moving must be"),
    ({"moving": np.ones((20, 16), np.float32)[:, ::2]}, "ecc: moving must be"),
    ({"moving": np.ones((1, 8), np.float32)}, "ecc: images must be 2 x 2"),
    ({"fixed": np.ones((20, 1), np.float32)}, "ecc: images must be 2 x 2"),
    ({"matrix": np.eye(3, dtype=np.float32)}, "ecc: matrix must be"),
    ({"matrix": np.eye(2)}, "ecc: matrix must"),
    ({"matrix": np.eye(4)[:3]}, "ecc: matrix must"),
    ({"matrix": np.diag([1, np.nan, 1])}, "ecc: matrix must be finite, got nan"),
    ({"matrix": np.diag([1.0, 1.0, 2.0])}, "ecc: an affine matrix must end with the row 0 0 1, got 0 0 2"),
    ({"parameters": 4}, "ecc: parameters must be 6 .affine. or 8 .homography., got 4"),
    ({"workspace": np.empty((1, 45))}, "ecc: workspace must"),
    ({"workspace": np.empty((2, 44))}, "ecc: workspace must"),
    ({"workspace": np.empty((2, 45), np.float32)}, "ecc: workspace must"),
    ({"sums": np.empty(44)}, "ecc: sums must"),
    ({"sums": np.empty((45, 1))}, "ecc: sums must"),
    ({"mask": np.ones((20, 8))}, "ecc: mask must"),
    ({"mask": np.ones((20, 9), np.uint8)}, "ecc: mask must"),
    ({"mask": np.ones((19, 8), np.uint8)}, "ecc: mask must"),
]


@pytest.mark.parametrize(("change", "text"), BAD)
def test_bad_arguments_say_which(change: dict[str, Any], text: str) -> None:
    arguments = {**GOOD, **change}
    with pytest.raises((ValueError, TypeError), match=text):
        _C.ecc(*arguments.values())


def test_count_of_sums() -> None:
    assert _C.ecc_sum_count(6) == 45 == oracle.sums(GOOD["fixed"], GOOD["moving"], np.eye(3), 6, None).size
    assert _C.ecc_sum_count(8) == 66 == oracle.sums(GOOD["fixed"], GOOD["moving"], np.eye(3), 8, None).size


def warped(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """The picture that ``matrix`` maps ``image`` to: warped(M p) = image(p)."""
    flags = cv2.INTER_CUBIC
    size = (image.shape[1], image.shape[0])
    return np.asarray(cv2.warpPerspective(image, matrix, size, flags=flags, borderMode=cv2.BORDER_REFLECT_101))


@pytest.mark.parametrize(
    ("motion", "mode"),
    [("translation", cv2.MOTION_TRANSLATION), ("affine", cv2.MOTION_AFFINE), ("homography", cv2.MOTION_HOMOGRAPHY)],
)
def test_the_maximum_is_opencvs(motion: Any, mode: int) -> None:
    fixed = smooth((150, 190), 12, 3.0)
    true = np.array([[1, 0, 1.6], [0, 1, -0.9], [0, 0, 1.0]])
    if motion != "translation":
        true = np.array([[1.01, 0.006, 0.7], [-0.008, 0.99, 1.1], [0, 0, 1.0]])
    moving = np.ascontiguousarray(0.8 * warped(fixed, true) + 0.1, np.float32)
    start = np.eye(3, dtype=np.float32)[: 3 if motion == "homography" else 2]
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 100, 1e-8)
    rho, theirs = cv2.findTransformECC(fixed, moving, start, mode, criteria, None, 1)
    fit = maximise(fixed, moving, np.eye(3), motion, 1)
    assert fit is not None and fit.converged
    square = theirs if motion == "homography" else np.vstack([theirs, [0, 0, 1]])
    points = np.array([[5, 5, 1], [180, 5, 1], [5, 140, 1], [180, 140, 1]], float).T
    ours, other = (m @ points for m in (fit.matrix, square))
    assert np.abs(ours[:2] / ours[2] - other[:2] / other[2]).max() < 0.06  # their gradients are smoothed differently
    assert abs(fit.correlation - rho) < 1e-2  # theirs comes out a little lower; the oracle sides with ours
    assert fit.correlation == pytest.approx(oracle.correlation(fixed, moving, fit.matrix), abs=2e-3)


@pytest.mark.parametrize("kind", ["flat", "flat moving", "nan", "inf", "nothing shared", "empty mask"])
def test_no_answer_where_there_is_none(kind: str) -> None:
    a, b, matrix, mask = smooth((64, 64), 1), smooth((64, 64), 1), np.eye(3), None
    if kind == "flat":
        a[:] = 0.3
    elif kind == "flat moving":
        b[:] = 0.3
    elif kind in ("nan", "inf"):
        b[10, 10] = float(kind)
    elif kind == "nothing shared":
        matrix[0, 2] = 500
    else:
        mask = np.zeros((64, 64), np.uint8)
    assert maximise(a, b, matrix, "similarity", 1, mask=mask) is None


def test_trimming_ignores_what_moves_on_its_own() -> None:
    """A quarter of the picture is shifted by 1.5 px: all pixels are pulled by it, the trimmed fit is not."""
    fixed = smooth((160, 200), 20)
    moving = fixed.copy()
    shifted = warped(fixed, np.array([[1, 0, 1.5], [0, 1, 0], [0, 0, 1.0]]))
    moving[60:140, 20:100] = shifted[60:140, 20:100]
    whole = maximise(fixed, moving, np.eye(3), "similarity", 1)
    assert whole is not None
    after = trimmed(([fixed], [moving]), 0, whole, "similarity", 1)
    middle = np.array([100, 80, 1.0])
    assert np.abs((whole.matrix @ middle - middle)[:2]).max() > 0.15
    assert np.abs((after.matrix @ middle - middle)[:2]).max() < 0.02
    assert after.correlation == whole.correlation and after.iterations > whole.iterations


def test_levels_of_a_map() -> None:
    matrix = np.array([[1.02, 0.1, 8], [-0.1, 0.97, -4], [0, 0, 1.0]])
    down = at_level(matrix, 1)
    np.testing.assert_allclose(down[:2, 2], [4, -2])
    np.testing.assert_allclose(at_level(down, -1), matrix)
