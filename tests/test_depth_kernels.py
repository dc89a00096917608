"""The native loops of the depth map: formulas in float64, equal bits on every instruction set, what they refuse."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import reference
from pyfocus import _C
from pyfocus.errors import ArgumentError
from pyfocus.framestore import HIGHEST, LOWEST, STEP, light_of_codes

RULE = (3.0, 3.0, 6.0)
RANDOM = np.random.default_rng(12)
FRAMES, GRID = 7, (37, 141)  # more places than a block, and not a multiple of one
VOTES = np.maximum(np.cumsum(RANDOM.normal(0, 3, (FRAMES, *GRID)), axis=0) + 8, 0).astype(np.float32)
SEEN = (RANDOM.random((FRAMES, *GRID)) < 0.9).astype(np.float32)
SEEN[:, 3, 3:9] = 0
DEPTH, SPREAD = (RANDOM.random(GRID, np.float32) * scale for scale in (6, 2))
CODES = [RANDOM.integers(0, 65536, (3, 80, 300)).astype(np.uint16) for _ in range(FRAMES)]
TABLE = light_of_codes()


def peaks(near: str, frames: int = FRAMES) -> tuple[np.ndarray, ...]:
    vote = VOTES[:frames] * SEEN[:frames]
    maps = tuple(np.empty(GRID, np.float32) for _ in range(3))
    _C.depth_peaks(vote, SEEN[:frames].copy(), near, RULE, 0.2, *maps)
    return maps


def weights(near: str) -> np.ndarray:
    vote = VOTES * SEEN
    _C.depth_weights(vote, SEEN, near, RULE, DEPTH, SPREAD, 0.5, 1e-9)
    return vote


def blend(part: tuple[slice, slice], top: int, left: int, given: np.ndarray) -> np.ndarray:
    picture = np.full((3, 80, 300), np.nan, np.float32)
    _C.depth_blend([c[:, part[0], part[1]] for c in CODES], TABLE, given, top, left, 2e-9, picture[:, part[0], part[1]])
    return picture


# --- formulas ----------------------------------------------------------


def test_codes_are_rounded_roots():
    values = np.concatenate([RANDOM.normal(0.3, 0.5, 3 * 11 * 13 - 6), [0, -0.0625, -1, 4, 5, 1e-9]])
    values = values.astype(np.float32).reshape(3, 11, 13)
    codes = np.empty(values.shape, np.uint16)
    _C.roots_encode(values, codes, LOWEST, HIGHEST, 1 / STEP)
    want = (np.clip(np.sign(values) * np.sqrt(np.abs(values.astype(float))), LOWEST, HIGHEST) - LOWEST) / STEP
    assert np.abs(codes - want).max() <= 0.51  # the last hundredth is float32's


def test_lookup_is_indexing():
    views = [c[:, 5:61:1, 17:200] for c in CODES]
    found = np.empty((FRAMES, 3, 56, 183), np.float32)
    _C.roots_lookup(views, TABLE, found)
    np.testing.assert_array_equal(found, TABLE[np.stack(views)])


@pytest.mark.parametrize("frames", [1, 2, 3, FRAMES])
def test_peaks_are_the_formula(frames):
    vote, seen = (VOTES * SEEN)[:frames].astype(float), SEEN[:frames].astype(float)
    depth, spread, confidence = peaks("none", frames)
    number = np.arange(frames)[:, None, None]
    share = np.exp(vote - vote.max(0)) * seen
    views = seen.sum(0)
    alike = (np.maximum(share.sum(0), 1) - 1) / np.maximum(views - 1, 1)
    sure = np.where(views > 1, 1 - alike, 0)
    np.testing.assert_allclose(confidence, sure, rtol=0, atol=1e-6)
    share **= 4
    centroid = (share * number).sum(0) / np.maximum(share.sum(0), 1e-30)
    variance = (share * (number - centroid) ** 2).sum(0) / np.maximum(share.sum(0), 1e-30)
    np.testing.assert_allclose(spread, variance, rtol=1e-4, atol=1e-5)
    best = vote.argmax(0)
    vertex = np.zeros(GRID)
    for y, x in np.ndindex(GRID):
        k = best[y, x]
        if 0 < k < frames - 1:
            a, b, c = vote[k - 1 : k + 2, y, x]
            vertex[y, x] = np.clip(0.5 * (a - c) / min(a - 2 * b + c, -1e-6), -0.5, 0.5)
    want = centroid + np.clip(sure / 0.2, 0, 1) * (best + vertex - centroid)
    np.testing.assert_allclose(depth, want, rtol=0, atol=2e-4)


@pytest.mark.parametrize("near", ["first", "last"])
def test_peaks_and_weights_are_those_of_the_cut_votes(near):
    cut = VOTES * SEEN
    _C.depth_cut(cut, near, RULE)
    assert (cut != VOTES * SEEN).any(axis=0).mean() > 0.1
    maps = tuple(np.empty(GRID, np.float32) for _ in range(3))
    _C.depth_peaks(cut.copy(), SEEN, "none", RULE, 0.2, *maps)
    for found, want in zip(peaks(near), maps, strict=True):
        np.testing.assert_array_equal(found, want)
    _C.depth_weights(cut, SEEN, "none", RULE, DEPTH, SPREAD, 0.5, 1e-9)
    np.testing.assert_array_equal(weights(near), cut)


def test_weights_are_the_formula_and_nothing_where_nobody_saw():
    number = np.arange(FRAMES)[:, None, None]
    away = (number - DEPTH.astype(float)) ** 2
    score = np.where(SEEN > 0, 4.0 * VOTES * SEEN - 0.5 * away / (0.25 + 4.0 * SPREAD), -np.inf)
    top = score.max(0)
    want = np.exp(score - np.where(np.isfinite(top), top, 0))
    want[:, ~np.isfinite(top)] = 1e-9
    assert (want == 1e-9).sum() >= 6 * FRAMES
    np.testing.assert_allclose(weights("none"), want, rtol=3e-5, atol=1e-9)


@pytest.mark.parametrize(("rows", "columns"), [((0, 80), (0, 300)), ((20, 61), (34, 201)), ((21, 40), (35, 300))])
def test_a_blend_is_the_weighted_mean(rows, columns):
    given = RANDOM.random((FRAMES, 40, 150)).astype(np.float32)
    given[2] = 0
    part = (slice(*rows), slice(*columns))
    found = blend(part, rows[0], columns[0], given)
    full = np.stack([reference.up(w[None], (80, 300))[0] for w in given])[(slice(None), *part)]
    light = TABLE[np.stack(CODES)].astype(float)[(slice(None), slice(None), *part)]
    want = (full[:, None] * light).sum(0) / full.sum(0)
    np.testing.assert_allclose(found[(slice(None), *part)], want, rtol=1e-5, atol=1e-6)
    found[(slice(None), *part)] = np.nan
    assert np.isnan(found).all(), "pixels beside the tile were written"


def test_frames_without_a_weight_are_not_read():
    given = np.zeros((FRAMES, 40, 150), np.float32)
    given[3] = 1
    given[5] = 1e-9
    everything = (slice(0, 80), slice(0, 300))
    np.testing.assert_array_equal(blend(everything, 0, 0, given), TABLE[CODES[3]])


# --- equal bits --------------------------------------------------------


def guided(threads: int) -> list[np.ndarray]:
    maps, links = np.stack([DEPTH, SPREAD]), RANDOM_LINKS
    _C.guided_down(maps, links[:-1], 0.7, np.empty((GRID[0] - 1, GRID[1]), np.float32), threads=threads)
    across = np.ascontiguousarray(links[:, :-1])
    _C.guided_across(maps, across, 0.7, np.empty((GRID[0], GRID[1] - 1), np.float32), threads=threads)
    return [maps]


RANDOM_LINKS = RANDOM.random(GRID, np.float32)


def roots(threads: int) -> list[np.ndarray]:
    values, codes = TABLE[CODES[0]], np.empty((3, 80, 300), np.uint16)
    _C.roots_encode(values, codes, LOWEST, HIGHEST, 1 / STEP, threads=threads)
    found = np.empty((FRAMES, 3, 80, 300), np.float32)
    _C.roots_lookup(CODES, TABLE, found, threads=threads)
    return [codes, found]


OPS: dict[str, Callable[[int], list[np.ndarray]]] = {
    "peaks": lambda _: [*peaks("first"), *peaks("none")],
    "weights": lambda _: [weights("last")],
    "blend": lambda _: [blend((slice(20, 61), slice(34, 201)), 20, 34, RANDOM_WEIGHTS)],
    "guided": guided,
    "roots": roots,
}
RANDOM_WEIGHTS = RANDOM.random((FRAMES, 40, 150)).astype(np.float32)


@pytest.mark.parametrize("name", OPS)
def test_every_instruction_set_and_thread_count_gives_the_same_bits(name):
    try:
        _C.set_isa(2)
        want = [a.tobytes() for a in OPS[name](1)]
        for level in (3, 4):
            _C.set_isa(level)  # the best there is, where it is not
            for threads in (1, 2, 3):
                assert [a.tobytes() for a in OPS[name](threads)] == want, f"x86-64-v{level}, {threads} threads"
    finally:
        _C.set_isa(0)


# --- what does not fit -------------------------------------------------

MAP = np.zeros((4, 6), np.float32)
VOTE = np.zeros((2, 4, 6), np.float32)
LOOK = np.ones((2, 4, 6), np.float32)
CODE = np.zeros((3, 8, 12), np.uint16)
PICTURE = np.zeros((3, 8, 12), np.float32)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: _C.depth_cut(VOTE, "middle", RULE), "near must be first, last or none, got 'middle'"),
        (lambda: _C.depth_cut(VOTE[0], "first", RULE), "depth_cut: vote must have 3 dimensions, got 2"),
        (lambda: _C.depth_cut(VOTE[:0], "first", RULE), "vote must be of one frame or more"),
        (lambda: _C.depth_peaks(VOTE, LOOK[:1], "none", RULE, 0.2, MAP, MAP, MAP), "seen must have size 2 on axis 0"),
        (lambda: _C.depth_peaks(VOTE, LOOK, "none", RULE, 0.2, MAP, MAP[:2], MAP), "spread must have size 4 on axis 0"),
        (lambda: _C.depth_weights(VOTE, LOOK, "none", RULE, MAP.T, MAP, 1, 0), "depth must be contiguous"),
        (lambda: _C.depth_blend([], TABLE, VOTE, 0, 0, 0, PICTURE), "codes must be one array or more, got none"),
        (lambda: _C.depth_blend([CODE] * 2, TABLE[:9], VOTE, 0, 0, 0, PICTURE), "table must have size 65536"),
        (lambda: _C.depth_blend([CODE] * 2, TABLE, VOTE, 1, 0, 0, PICTURE), "weights must lie under the whole tile"),
        (lambda: _C.depth_blend([CODE] * 3, TABLE, VOTE, 0, 0, 0, PICTURE), "weights must have size 3 on axis 0"),
        (lambda: _C.roots_lookup([CODE, CODE[:2]], TABLE, PICTURE[None]), "codes must have size 3 on axis 0, got 2"),
        (lambda: _C.roots_lookup([CODE[..., ::2]], TABLE, PICTURE[None]), "codes must have contiguous rows"),
        (lambda: _C.roots_encode(PICTURE, CODE, 0, 2, 65535), r"\(highest - lowest\) scale must lie in 0 to 65535"),
        (lambda: _C.guided_down(VOTE, MAP, 1, MAP), "links must have size 3 on axis 0, got 4"),
        (lambda: _C.guided_across(VOTE, MAP[:, 1:].copy(), -1, MAP[:, 1:].copy()), "share must be 0 or more, got -1"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(call, text):
    with pytest.raises(ArgumentError, match=text):
        call()
