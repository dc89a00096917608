"""ecc: the native sums against the oracle, the same bits everywhere, and the maximum against OpenCV."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
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
    ({"workspace": np.empty((3, 2, 45))}, "ecc: workspace must have 2 dimensions, got 3"),
    ({"fixed": np.ones((2, 20, 8), np.float32), "matrix": np.ones((3, 3, 3))}, "ecc: fixed must have size 3 on axis 0"),
    ({"matrix": np.stack([np.eye(3)] * 2)}, "ecc: workspace must have 3 dimensions, got 2"),
    ({"matrix": np.zeros((65536, 3, 3))}, "ecc: at most 65535 pairs, got 65536"),
    ({"mask": np.ones((20, 8))}, "ecc: mask must"),
    ({"mask": np.ones((20, 9), np.uint8)}, "ecc: mask must"),
    ({"mask": np.ones((19, 8), np.uint8)}, "ecc: mask must"),
]


@pytest.mark.parametrize(("change", "text"), BAD)
def test_bad_arguments_say_which(change: dict[str, Any], text: str) -> None:
    arguments = {**GOOD, **change}
    with pytest.raises((ValueError, TypeError), match=text):
        _C.ecc(*arguments.values())


@pytest.mark.parametrize("parameters", [6, 8])
def test_pairs_of_a_batch_are_summed_like_single_ones(parameters: int) -> None:
    fixed = np.stack([smooth((35, 70), k) for k in range(3)])
    moving = np.stack([smooth((40, 66), 5 + k) for k in range(3)])
    mask = (np.random.default_rng(4).random(fixed.shape) < 0.8).astype(np.uint8)
    matrices = np.stack([matrix_of(parameters, k) for k in range(3)])
    count, chunks = _C.ecc_sum_count(parameters), _C.ecc_chunk_count(35, 70)
    assert chunks == 3
    got, workspace = np.empty((3, count)), np.empty((3, chunks, count))
    _C.ecc(fixed, moving, matrices, parameters, workspace, got, mask)
    for k in range(3):
        np.testing.assert_array_equal(got[k], sums(fixed[k], moving[k], matrices[k], parameters, mask[k]))
    _C.ecc(fixed[1], moving, matrices, parameters, workspace, got, mask[2])  # one picture for all pairs
    for k in range(3):
        np.testing.assert_array_equal(got[k], sums(fixed[1], moving[k], matrices[k], parameters, mask[2]))


def test_what_the_moving_picture_holds_where_nobody_looks_does_not_matter() -> None:
    fixed, moving, matrix = smooth((40, 50), 3), smooth((40, 50), 4), np.eye(3)
    matrix[0, 2] = 10.25
    clean = sums(fixed, moving, matrix, 6)
    moving[:, :10] = np.nan
    np.testing.assert_array_equal(sums(fixed, moving, matrix, 6), clean)


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


def look_alike(shape: tuple[int, int], motion: str, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(fixed, moving, true map): another gain, another blur, noise, and a map of the kind."""
    large = smooth((shape[0] + 40, shape[1] + 40), seed, 2.0)
    random = np.random.default_rng(seed)
    true = np.eye(3)
    true[:2, 2] = random.uniform(-2, 2, 2)
    angle, scale = random.uniform(-0.01, 0.01), 1 + random.uniform(-0.01, 0.01)
    if motion != "translation":
        cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
        true[:2, :2] = [[cosine, -sine], [sine, cosine]]
    if motion in ("affine", "homography"):
        true[:2, :2] += random.uniform(-0.005, 0.005, (2, 2))
    if motion == "homography":
        true[2, :2] = random.uniform(-3e-5, 3e-5, 2)
    frame = np.array([[1, 0, 20], [0, 1, 20], [0, 0, 1.0]])
    moved = warped(large, frame @ true @ np.linalg.inv(frame))
    moved = 0.7 * cv2.GaussianBlur(moved, (0, 0), 0.8) + 0.1
    noise = random.normal(size=(2, *large.shape)) * 0.004
    pair = [
        np.ascontiguousarray((p + n)[20:-20, 20:-20], np.float32) for p, n in zip((large, moved), noise, strict=True)
    ]
    return pair[0], pair[1], true


def corners_apart(a: np.ndarray, b: np.ndarray, shape: tuple[int, int]) -> float:
    """How far two maps send a corner apart, px."""
    return oracle.largest_shift(np.linalg.inv(b) @ a, shape)


MOTIONS = ("translation", "similarity", "affine", "homography")


@pytest.mark.parametrize("motion", MOTIONS)
@pytest.mark.parametrize("masked", [False, True])
def test_the_loop_is_the_oracles(motion: Any, masked: bool) -> None:
    parameters = 8 if motion == "homography" else 6
    for seed in (1, 2, 3):
        fixed, moving, true = look_alike((110, 150), motion, seed)
        mask = (cv2.GaussianBlur(np.random.default_rng(seed).random(fixed.shape), (0, 0), 4) < 0.51).astype(np.uint8)
        mask = mask if masked else None
        at, shapes = partial(sums, fixed, moving, parameters=parameters, mask=mask), (fixed.shape, moving.shape)
        exactly = partial(oracle.sums, fixed, moving, parameters=parameters, mask=mask)
        fit = maximise(fixed, moving, np.eye(3), motion, 1, mask=mask)
        want = oracle.maximise(at, shapes, np.eye(3), motion)
        assert fit is not None and want is not None
        assert (fit.iterations, fit.converged) == want[2:] and fit.converged
        assert fit.correlation == pytest.approx(want[1], abs=1e-12)
        np.testing.assert_allclose(fit.matrix, want[0], rtol=0, atol=1e-9)
        assert corners_apart(fit.matrix, true, fixed.shape) < 0.15  # it is found, under blur and noise
        exact = oracle.maximise(exactly, shapes, np.eye(3), motion)
        assert exact is not None and corners_apart(fit.matrix, exact[0], fixed.shape) < 1e-3


@pytest.mark.parametrize("motion", MOTIONS)
def test_the_loop_stops_like_the_oracles(motion: Any) -> None:
    """Pairs that fit badly, starts far off, few steps: falls of the correlation, eq. 17, pictures left behind."""
    stopped, parameters = 0, 8 if motion == "homography" else 6
    for seed in range(12):
        fixed, moving = smooth((60, 80), seed, 4.0), smooth((64, 76), seed // 2 + 50, 4.0)
        start = matrix_of(6, seed)
        start[0, 2] = 8 * (seed % 3)
        most, at = 1 + 2 * seed, partial(sums, fixed, moving, parameters=parameters)
        fit = maximise(fixed, moving, start, motion, 1, most=most)
        shapes = (fixed.shape, moving.shape)
        want = oracle.maximise(at, shapes, start, motion, most)
        assert (fit is None) == (want is None)
        if fit is None or want is None:
            continue
        stopped += not fit.converged
        assert (fit.iterations, fit.converged) == want[2:]
        np.testing.assert_allclose(fit.matrix, want[0], rtol=1e-6, atol=1e-6)  # chaotic far from a maximum
    assert stopped >= 3


def run(fixed: np.ndarray, moving: np.ndarray, state: np.ndarray, motion: int, *steps: int) -> np.ndarray:
    """``ecc_maximise`` on a copy of ``state``, going on from call to call."""
    batch, begin, state = state.shape[:-1], 0, state.copy()
    chunks = _C.ecc_chunk_count(*fixed.shape[-2:])
    workspace = np.empty((*batch, chunks, _C.ecc_sum_count(8 if motion == 3 else 6)))
    for most in steps:
        _C.ecc_maximise(fixed, moving, state, motion, most, workspace, begin=begin)
        begin += most
    return state


def test_a_batch_is_its_pairs_and_steps_go_on() -> None:
    for motion, name in enumerate(MOTIONS):
        pairs = [look_alike((60, 80), name, seed) for seed in (1, 2, 3)]
        fixed, moving = (np.stack([pair[k] for pair in pairs]) for k in (0, 1))
        state = np.full((3, _C.ECC_STATE_SIZE), np.nan)
        state[:, :9] = np.eye(3).ravel()
        together = run(fixed, moving, state, motion, 40)
        assert (together[:, 11] == together[:, 13]).all() and (together[:, 12] == 0).all()
        for k in range(3):
            np.testing.assert_array_equal(run(fixed[k], moving[k], state[k], motion, 40), together[k])
            np.testing.assert_array_equal(run(fixed[k], moving[k], state[k], motion, 1, 2, 0, 37), together[k])


WHOLE: dict[str, Any] = {
    "fixed": np.ones((20, 8), np.float32), "moving": np.ones((20, 8), np.float32),
    "state": np.append(np.eye(3).ravel(), np.zeros(23)), "motion": 1, "most": 3, "workspace": np.empty((2, 45)),
    "mask": None, "begin": 0, "row_step": 1,
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"motion": 4}, "motion must be 0 .translation., 1 .similarity., 2 .affine. or 3 .homography., got 4"),
        ({"motion": 3}, "workspace must have size 66 on axis 1, got 45"),
        ({"most": -1}, "most must be 0 to 10000 and begin 0 or more, got -1 and 0"),
        ({"most": 10001}, "most must be 0 to 10000 and begin 0 or more, got 10001 and 0"),
        ({"begin": -2}, "most must be 0 to 10000 and begin 0 or more, got 3 and -2"),
        ({"row_step": 0}, "row_step must be 1 to 16, got 0"),
        ({"state": np.zeros(31)}, "state must have size 32 on axis 0, got 31"),
        ({"state": np.zeros(32, np.float32)}, "state must be float64, got float32"),
        ({"state": np.zeros((1, 1, 32))}, "state must have 1 dimensions, got 3"),
        ({"state": np.full(32, np.nan)}, "the start of state must be finite, got nan"),
        ({"state": np.ones(32)}, "an affine matrix must end with the row 0 0 1, got 1 1 1"),
        ({"state": np.zeros((2, 32))}, "workspace must have 3 dimensions, got 2"),
        ({"fixed": np.ones((2, 20, 8), np.float32)}, "fixed must have 2 dimensions, got 3"),
        ({"mask": np.ones((20, 9), np.uint8)}, "mask must have size 8 on axis 1, got 9"),
    ],
)
def test_bad_arguments_of_the_loop_say_which(change: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=f"ecc_maximise: {text}"):
        _C.ecc_maximise(*{**WHOLE, **change}.values())


def test_the_workspace_has_a_row_per_chunk() -> None:
    assert [_C.ecc_chunk_count(h, 100) for h in (2, 16, 17)] == [1, 1, 2]
    assert _C.ecc_chunk_count(33, 65, 1, True) == 6  # blocks of 64 columns and 16 rows
    assert _C.ecc_chunk_count(33, 64, 2, True) == 2  # of which every second counts
    assert _C.ecc_chunk_count(2000, 3000, 2, True) == 47 * 11  # and of more rows where there are many
    with pytest.raises(ValueError, match="ecc_chunk_count: height and width must be 2 or more, row_step 1 or more"):
        _C.ecc_chunk_count(1, 5)


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
