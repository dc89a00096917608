"""tile: gather, scatter and divide against NumPy's padding in float64, on the CPU and on the device; laws; errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyfocus import _C
from pyfocus.errors import ArgumentError
from test_device import on_device, on_host

Move = Callable[[np.ndarray], Any]
PLACES = [
    pytest.param((np.array, np.asarray), id="cpu"),
    pytest.param((on_device, on_host), id="device", marks=pytest.mark.cuda),
]
# Planes, tile, origins: tiles inside, over every border, far outside, larger than the picture, of one pixel.
CASES = {
    "inside": ((2, 9, 11), (4, 3), [(0, 0), (5, 8), (2, 4), (2, 4)]),
    "borders": ((3, 20, 37), (8, 16), [(-3, -5), (15, 30), (-7, 36), (19, -15), (4, 9)]),
    "burst": ((2, 5, 13, 17), (6, 6), [(-1, -1), (3, 7), (10, 14)]),
    "larger than the picture": ((1, 5, 7), (21, 33), [(-8, -13)]),
    "far outside": ((9, 6, 5), (3, 4), [(-100, 3), (2, 1000), (2147483647, -2147483648), (-2147483648, 2147483647)]),
    "one pixel": ((1, 1, 1), (3, 3), [(0, 0), (-1, -2)]),
    "one row": ((2, 1, 70), (2, 40), [(0, -9), (-1, 33)]),
    "no tiles": ((2, 8, 9), (3, 3), []),
}


def case(name: str) -> tuple[np.ndarray, tuple[int, int], np.ndarray]:
    shape, tile, origins = CASES[name]
    source = np.random.default_rng(1).standard_normal(shape, np.float32)
    return source, tile, np.array(origins, np.int32).reshape(-1, 2)


def mirrored(origin: int, count: int, size: int) -> np.ndarray:
    """Which pixels stand in a row of `count` from `origin` on: a triangle wave."""
    where = (int(origin) + np.arange(count, dtype=np.int64)) % max(2 * size - 2, 1)
    return np.minimum(where, 2 * size - 2 - where)


def gather(source: np.ndarray, tile: tuple[int, int], origins: np.ndarray) -> np.ndarray:
    """Oracle."""
    planes = source.reshape(-1, *source.shape[-2:])
    out = np.empty((len(origins), len(planes), *tile))
    for t, (y, x) in enumerate(origins):
        rows, columns = mirrored(y, tile[0], planes.shape[1]), mirrored(x, tile[1], planes.shape[2])
        out[t] = planes[:, rows[:, None], columns]
    return out


def scatter(tiles: np.ndarray, window: np.ndarray, origins: np.ndarray, size: tuple[int, int]) -> tuple[Any, Any]:
    """Oracle: destination and weight, from zeros, in float64."""
    total, weight = np.zeros((tiles.shape[1], *size)), np.zeros(size)
    for tile, (oy, ox) in zip(tiles, origins.tolist(), strict=True):
        y, x = oy + np.arange(tile.shape[1]), ox + np.arange(tile.shape[2])
        inside = np.ix_((y >= 0) & (y < size[0]), (x >= 0) & (x < size[1]))
        to = np.ix_(y[(y >= 0) & (y < size[0])], x[(x >= 0) & (x < size[1])])
        weight[to] += window[inside]
        total[(slice(None), *to)] += (window * tile.astype(float))[(slice(None), *inside)]
    return total, weight


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", CASES)
def test_tiles_are_the_mirrored_picture(name, place):
    there, here = place
    source, tile, origins = case(name)
    want = gather(source, tile, origins)
    out = there(np.full(want.shape, np.nan, np.float32))
    _C.tile_gather(there(source), there(origins), out)
    np.testing.assert_array_equal(here(out), want)


def test_the_oracle_mirrors_as_numpy_pads():
    for size, before, after in ((5, 3, 3), (5, 13, 21), (2, 4, 7), (1, 2, 2)):
        want = np.pad(np.arange(size), (before, after), mode="reflect" if size > 1 else "edge")
        np.testing.assert_array_equal(mirrored(-before, size + before + after, size), want)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", CASES)
def test_what_is_scattered_is_the_weighted_sum(name, place):
    there, here = place
    source, tile, origins = case(name)
    random, shape = np.random.default_rng(2), source.shape
    window = random.random(tile, np.float32)
    tiles = random.standard_normal((len(origins), source[..., 0, 0].size, *tile), np.float32)
    before, weight = random.standard_normal(shape, np.float32), random.random(shape[-2:], np.float32)
    to, sums = there(before), there(weight)
    _C.tile_scatter(there(tiles), there(origins), there(window), to, sums)
    total, added = scatter(tiles, window, origins, shape[-2:])
    np.testing.assert_allclose(here(to), before + total.reshape(shape), rtol=0, atol=5e-7)
    np.testing.assert_allclose(here(sums), weight + added, rtol=0, atol=5e-7)
    weight[::2, 1::2] = 0
    weight[0, 0] = -1
    sums = there(weight)
    _C.tile_divide(to := there(before), sums)
    want = np.where(weight > 0, before / np.where(weight > 0, weight, 1), 0)
    np.testing.assert_allclose(here(to), want, rtol=3e-7)


def grid(size: tuple[int, int], tile: tuple[int, int], step: tuple[int, int], first: tuple[int, int]) -> np.ndarray:
    """Origins of tiles that cover every pixel."""
    axes = [np.arange(-first[i], size[i], step[i]) for i in (0, 1)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2).astype(np.int32)


@pytest.mark.parametrize("place", PLACES)
def test_many_tiles_come_back_as_the_picture(place):
    """More than the 256 tiles of one turn, several blocks of pixels and of planes."""
    there, here = place
    source = np.random.default_rng(3).standard_normal((5, 41, 70), np.float32)
    origins = grid((41, 70), (7, 9), (3, 3), (3, 5))
    window = np.outer(np.hanning(9)[1:-1], np.hanning(11)[1:-1]).astype(np.float32)
    assert len(origins) > 300
    results = []
    for _ in range(2):
        tiles = there(np.empty((len(origins), 5, 7, 9), np.float32))
        to, weight = there(np.zeros(source.shape, np.float32)), there(np.zeros((41, 70), np.float32))
        _C.tile_gather(there(source), there(origins), tiles)
        _C.tile_scatter(tiles, there(origins), there(window), to, weight)
        _C.tile_divide(to, weight)
        results.append(here(to))
    np.testing.assert_allclose(results[0], source, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(*results)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_gather_scatter_divide_is_nothing(data):
    pair = st.tuples(st.integers(1, 30), st.integers(1, 30))
    size, tile = data.draw(pair), data.draw(pair)
    step, first = ([data.draw(st.integers(0 if i else 1, tile[k] - i)) for k in (0, 1)] for i in (0, 1))
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    source, window = random.standard_normal((2, *size), np.float32), random.uniform(0.01, 1, tile).astype(np.float32)
    origins = random.permutation(grid(size, tile, step, first))
    bits = set()
    for threads in (1, 3):
        tiles = np.empty((len(origins), 2, *tile), np.float32)
        to, weight = np.zeros_like(source), np.zeros(size, np.float32)
        _C.tile_gather(source, origins, tiles, threads=threads)
        _C.tile_scatter(tiles, origins, window, to, weight, threads=threads)
        _C.tile_divide(to, weight, threads=threads)
        bits.add(to.tobytes())
    assert len(bits) == 1
    np.testing.assert_allclose(to, source, rtol=2e-6, atol=2e-6)


@pytest.fixture
def best_isa():
    yield
    _C.set_isa(0)


def test_every_instruction_set_gives_the_same_bits(best_isa):
    source, tile, origins = case("borders")
    window, bits = np.random.default_rng(4).random(tile, np.float32), set()
    for level in (2, 3, 4):
        _C.set_isa(level)
        tiles, to = np.empty((len(origins), 3, *tile), np.float32), np.zeros_like(source)
        weight = np.zeros(source.shape[1:], np.float32)
        _C.tile_gather(source, origins, tiles)
        _C.tile_scatter(tiles, origins, window, to, weight)
        _C.tile_divide(to, weight)
        bits.add(to.tobytes())
    assert len(bits) == 1


# --- errors ------------------------------------------------------------

Z = np.zeros
ARGUMENTS = {
    "tile_gather": ("source", "origins", "destination"),
    "tile_scatter": ("tiles", "origins", "window", "destination", "weight"),
    "tile_divide": ("destination", "weight"),
}
GOOD = {
    "source": Z((2, 8, 9), "f4"),
    "origins": Z((3, 2), "i4"),
    "tiles": Z((3, 2, 4, 5), "f4"),
    "window": Z((4, 5), "f4"),
    "destination": Z((2, 8, 9), "f4"),
    "weight": Z((8, 9), "f4"),
}
FROZEN = Z((8, 9), "f4")
FROZEN.setflags(write=False)
WRONG: list[tuple[str, str, np.ndarray, str]] = [
    ("tile_gather", "source", Z((8, 9), "f4"), "source must have 3 or 4 dimensions, got 2"),
    ("tile_gather", "source", Z((2, 8, 9)), "source must be float32, got float64"),
    ("tile_gather", "source", Z((2, 8, 18), "f4")[..., ::2], "source must be contiguous"),
    ("tile_gather", "source", Z((2, 0, 9), "f4"), "source must have a row and a column, got 0 x 9"),
    ("tile_gather", "origins", Z((3, 2), "f4"), "origins must be int32, got float32"),
    ("tile_gather", "origins", Z((6,), "i4"), "origins must have 2 dimensions, got 1"),
    ("tile_gather", "origins", Z((3, 4), "i4")[:, ::2], "origins must be contiguous"),
    ("tile_gather", "origins", Z((3, 3), "i4"), "origins must have size 2 on axis 1, got 3"),
    ("tile_gather", "destination", Z((2, 2, 4, 5), "f4"), "destination must have size 3 on axis 0, got 2"),
    ("tile_gather", "destination", Z((3, 3, 4, 5), "f4"), "destination must have size 2 on axis 1, got 3"),
    ("tile_gather", "destination", Z((3, 4, 5), "f4"), "destination must have 4 dimensions, got 3"),
    ("tile_gather", "destination", FROZEN[None, None], "destination is written to, got a read-only array"),
    ("tile_scatter", "tiles", Z((3, 2, 4, 5)), "tiles must be float32, got float64"),
    ("tile_scatter", "tiles", Z((3, 2, 4, 10), "f4")[..., ::2], "tiles must be contiguous"),
    ("tile_scatter", "tiles", Z((4, 2, 4, 5), "f4"), "tiles must have size 3 on axis 0, got 4"),
    ("tile_scatter", "tiles", Z((3, 1, 4, 5), "f4"), "tiles must have size 2 on axis 1, got 1"),
    ("tile_scatter", "origins", Z((3, 1), "i4"), "origins must have size 2 on axis 1, got 1"),
    ("tile_scatter", "window", Z((4, 5)), "window must be float32, got float64"),
    ("tile_scatter", "window", Z((5, 5), "f4"), "window must have size 4 on axis 0, got 5"),
    ("tile_scatter", "window", Z((4, 4), "f4"), "window must have size 5 on axis 1, got 4"),
    ("tile_scatter", "window", Z((4, 10), "f4")[:, ::2], "window must be contiguous"),
    ("tile_scatter", "destination", Z((8, 9), "f4"), "destination must have 3 or 4 dimensions, got 2"),
    ("tile_scatter", "destination", FROZEN[None], "destination is written to, got a read-only array"),
    ("tile_scatter", "weight", Z((8, 8), "f4"), "weight must have size 9 on axis 1, got 8"),
    ("tile_scatter", "weight", Z((7, 9), "f4"), "weight must have size 8 on axis 0, got 7"),
    ("tile_scatter", "weight", FROZEN, "weight is written to, got a read-only array"),
    ("tile_divide", "destination", Z((2, 8, 9)), "destination must be float32, got float64"),
    ("tile_divide", "destination", FROZEN[None], "destination is written to, got a read-only array"),
    ("tile_divide", "weight", Z((8, 8), "f4"), "weight must have size 9 on axis 1, got 8"),
    ("tile_divide", "weight", Z((8, 9)), "weight must be float32, got float64"),
]


def call(function: str, changed: dict[str, Any]) -> None:
    given = {**GOOD, **({"destination": GOOD["tiles"]} if function == "tile_gather" else {}), **changed}
    getattr(_C, function)(*(given[name] for name in ARGUMENTS[function]))


@pytest.mark.parametrize("function,name,wrong,text", WRONG)
def test_wrong_arguments_are_named(function, name, wrong, text):
    call(function, {})
    with pytest.raises(ArgumentError, match=f"^{function}: {text}"):
        call(function, {name: wrong})


@pytest.mark.cuda
@pytest.mark.parametrize("function", ARGUMENTS)
def test_arrays_must_lie_on_one_device(function):
    for name in ARGUMENTS[function][1:]:
        shape = GOOD["tiles" if (function, name) == ("tile_gather", "destination") else name]
        with pytest.raises(ArgumentError, match=f"^{function}: {name} must be on the device .* cpu:0, got cuda:0"):
            call(function, {name: on_device(shape)})
