"""The kernels' calls on device arrays: tiny ones for compute-sanitizer (small_cases.py), large ones for ops.py.

Bytes are what a call must read and write at least, each array once. Goals are shares of the speed of a copy within the
device's memory, measured in the same run: what moves bytes and computes little should come near it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from clock import Case, filled, there

from pyfocus import _C
from pyfocus.arrays import DeviceArrays
from pyfocus.colour import decode_lut, root_lut
from pyfocus.laplacian import Laplacian

Size = tuple[int, int]
Group = Callable[[Size], Iterator[Case]]
RGGB = [[0, 0], [0, 1], [1, 0], [1, 1]]
GOALS = {
    "warp": 0.6, "luminance": 0.6, "demosaic": 0.5, "unpack": 0.5, "measure": 0.6, "rate": 0.6, "fold": 0.6,
    "push": 0.6, "collapse": 0.6, "ecc": 0.4, "tile": 0.5,
}  # fmt: skip
_KERNELS = ("bilinear", "bicubic", "lanczos3")
_RANDOM = np.random.default_rng(1)


def empty(*shape: int, dtype: str = "float32") -> _C.DeviceArray:
    """A device array of zero bytes, so that no kernel reads what nobody wrote."""
    return filled(_C.DeviceArray(shape, dtype))


def values(*shape: int) -> _C.DeviceArray:
    """Random values in [0, 1) on the device."""
    return there(_RANDOM.random(shape, np.float32))


def counts(*shape: int) -> _C.DeviceArray:
    """Random uint16 on the device."""
    return there(_RANDOM.integers(512, 16384, shape, np.uint16))


def warps(size: Size) -> Iterator[Case]:
    """A mosaic plane by plane with every kernel, rooted and squared as a stack does; a 16-bit picture by a table."""
    low = (size[0] // 2, size[1] // 2)
    mosaic, out, valid = counts(*size), empty(4, *low), empty(*low, dtype="uint8")
    how: dict[str, Any] = {"mosaic": RGGB, "scale": [1 / 15872] * 4, "offset": [-512 / 15872] * 4}
    maps, moved = _maps(low, 4), mosaic.nbytes + out.nbytes + valid.nbytes

    def planes(kernel: int) -> Callable[[int], object]:
        return lambda s: _C.warp(
            mosaic, maps, out, valid, interpolation=kernel, root=True, square=True, stream=s, **how
        )

    for kernel, name in enumerate(_KERNELS):
        yield Case(f"warp {name}, RGGB mosaic", planes(kernel), moved, GOALS["warp"])
    picture, table = counts(*size, 3).transpose([2, 0, 1]), there(root_lut(np.dtype(np.uint16)))
    full, seen = empty(3, *size), empty(*size, dtype="uint8")
    maps_3 = _maps(size, 3)
    moved = 2 * full.size + full.nbytes + seen.nbytes

    def coded(s: int) -> object:
        return _C.warp(
            picture, maps_3, full, seen, interpolation=2, square=True, table=table, scale=[1.0] * 3, stream=s
        )

    yield Case("warp lanczos3, 16-bit sRGB picture", coded, moved, GOALS["warp"])


def readings(size: Size) -> Iterator[Case]:
    """What turns counts into light and back: luminance, demosaic, unpack; and thin, which reads a few of many."""
    height, width = size
    picture, table = counts(*size, 3), there(decode_lut(np.dtype(np.uint16)))
    channels = picture.transpose([2, 0, 1])
    for factor in (1, 4):
        small = empty(height // factor, width // factor)

        def bright(s: int, factor: int = factor, small: Any = small) -> object:
            return _C.luminance(
                channels, [0.25, 0.65, 0.1], small, factor=factor, square_root=True, table=table,
                scale=[1.0] * 3, stream=s,
            )  # fmt: skip

        yield Case(f"luminance / {factor}, 16-bit sRGB", bright, picture.nbytes + small.nbytes, GOALS["luminance"])
    mosaic, planes = counts(*size), empty(3, *size)
    scale, offset = [1 / 15872] * 4, [-512 / 15872] * 4
    moved = mosaic.nbytes + planes.nbytes
    yield Case(
        "demosaic, 16-bit Bayer", lambda s: _C.demosaic(mosaic, [0, 0], scale, offset, planes, stream=s), moved,
        GOALS["demosaic"],
    )  # fmt: skip
    light = values(3, *size)
    yield Case(
        "unpack to 16-bit sRGB",
        lambda s: _C.unpack(light, channels, [65535.0] * 3, [0.0] * 3, srgb=True, stream=s),
        light.nbytes + picture.nbytes, GOALS["unpack"],
    )  # fmt: skip
    few = empty(3, -(-height // 8), -(-width // 8))
    yield Case("thin by 8 x 8", lambda s: _C.thin(light, 8, 8, few, stream=s), 2 * few.nbytes)


def pyramids(size: Size) -> Iterator[Case]:
    """The Laplacian fuser's steps at its finest level, three planes; and all levels as ``push`` runs them."""
    low = ((size[0] + 1) // 2, (size[1] + 1) // 2)
    fine, coarse, energy = values(3, *size), values(3, *low), values(*low)
    rating, before, peak = values(*low), values(*low), values(*low)
    numerator, denominator, out = values(3, *size), values(*size), empty(3, *size)
    valid, seen = there(np.ones(size, np.uint8)), there(np.ones(low, np.uint8))
    both, one, sums = fine.nbytes + coarse.nbytes, energy.nbytes, numerator.nbytes + denominator.nbytes
    after = empty(*low)
    small = _C.DeviceArray(coarse.shape)
    yield Case("pyramid down", lambda s: _C.pyramid_down(fine, small, stream=s), both, GOALS["measure"])
    yield Case("pyramid up", lambda s: _C.pyramid_up(coarse, out, stream=s), both, GOALS["measure"])
    yield Case(
        "pyramid measure", lambda s: _C.pyramid_measure(fine, small, energy, stream=s), both + one, GOALS["measure"]
    )
    yield Case(
        "pyramid energy", lambda s: _C.pyramid_energy(fine, coarse, energy, stream=s), both + one, GOALS["measure"]
    )
    yield Case("pyramid smooth, 1 plane at half size", lambda s: _C.pyramid_smooth(energy, after, stream=s), 2 * one)
    yield Case("pyramid valid", lambda s: _C.pyramid_valid(valid, seen, stream=s), valid.nbytes + seen.nbytes)
    yield Case(
        "pyramid rate",
        lambda s: _C.pyramid_rate(energy, coarse, seen, 1e-4, 1e-6, before, rating, peak, stream=s),
        coarse.nbytes + seen.nbytes + 4 * one, GOALS["rate"],
    )  # fmt: skip
    yield Case(
        "pyramid fold",
        lambda s: _C.pyramid_fold(fine, coarse, rating, before, peak, 4, numerator, denominator, stream=s),
        both + 3 * one + 2 * sums, GOALS["fold"],
    )  # fmt: skip
    far = [filled(_C.DeviceArray(sums_of.shape, mapped=True)) for sums_of in (numerator, denominator)]
    yield Case(
        "pyramid fold, accumulators in host",
        lambda s: _C.pyramid_fold(fine, coarse, rating, before, peak, 4, *far, stream=s), both + 3 * one + 2 * sums,
    )  # fmt: skip
    yield Case(
        "pyramid collapse", lambda s: _C.pyramid_collapse(numerator, denominator, coarse, out, stream=s),
        sums + both, GOALS["collapse"],
    )  # fmt: skip
    yield from _pyramid_ends(low)


def _pyramid_ends(size: Size) -> Iterator[Case]:
    """Base, depth and mean: once per frame on small grids."""
    coarse, rating, before, peak = values(3, *size), values(*size), values(*size), values(*size)
    base, weight, one = empty(3, *size), empty(*size), rating.nbytes
    yield Case(
        "pyramid base", lambda s: _C.pyramid_base(coarse, rating, base, weight, stream=s), 3 * coarse.nbytes + 3 * one
    )
    index, total, seen = (empty(*size) for _ in range(3))
    frames = empty(*size, dtype="int32")
    yield Case(
        "pyramid depth",
        lambda s: _C.pyramid_depth(rating, peak, before, 1.0, index, total, seen, frames, stream=s), 11 * one,
    )  # fmt: skip
    mean, sure = empty(3, *size), values(*size)
    yield Case("pyramid mean", lambda s: _C.pyramid_mean(base, sure, mean, stream=s), 2 * base.nbytes + one)


def pushes(size: Size) -> Iterator[Case]:
    """A frame of three planes folded at all levels: on the host's clock, which waits for the noise's samples."""
    arrays = DeviceArrays(0)
    fuser, planes = Laplacian(arrays=arrays, depth=True), values(3, *size)

    def push(_: int) -> None:
        fuser.push(planes)
        arrays.wait()

    # per pixel of level 0: measure 12 + 3 + 1, smooth 2, rate 3 + 1 + 3, fold 15 + 3 + 32; 4/3 of it for all levels
    yield Case("fold of a frame, all levels, host's part too", push, size[0] * size[1] * 75 * 4 // 3, GOALS["push"])


def eccs(size: Size) -> Iterator[Case]:
    """One registration step of both kinds, and eight of the loop."""
    fixed, moving = _smooth(size), _smooth(size)
    matrix = there(_maps(size, 1)[0])
    chunks = _C.ecc_chunk_count(*size, 1, True)
    for parameters, motion in ((6, "affine"), (8, "homography")):
        count = _C.ecc_sum_count(parameters)
        space, sums = empty(chunks, count, dtype="float64"), empty(count, dtype="float64")

        def step(s: int, parameters: int = parameters, space: Any = space, sums: Any = sums) -> object:
            return _C.ecc(fixed, moving, matrix, parameters, space, sums, stream=s)

        yield Case(f"ecc step, {motion}", step, fixed.nbytes + moving.nbytes, GOALS["ecc"])
    state = empty(_C.ECC_STATE_SIZE, dtype="float64")
    start = np.zeros(_C.ECC_STATE_SIZE)
    start[:9] = np.eye(3).ravel()
    space = empty(chunks, _C.ecc_sum_count(6), dtype="float64")

    def steps(s: int) -> None:
        _C.device_copy(state, start, stream=s)
        _C.ecc_maximise(fixed, moving, state, 2, 8, space, stream=s)

    yield Case("ecc loop, affine, at most 8 steps", steps, 8 * (fixed.nbytes + moving.nbytes))


def agreements(size: Size) -> Iterator[Case]:
    """Residual and mask of a fit."""
    warped, fixed, out = values(*size), values(*size), empty(*size)
    mask = empty(*size, dtype="uint8")
    yield Case("agree residual", lambda s: _C.agree_residual(warped, fixed, 1.1, 0.1, out, stream=s), 3 * out.nbytes)
    yield Case("agree mask", lambda s: _C.agree_mask(fixed, 0.5, mask, stream=s), fixed.nbytes + mask.nbytes)


def tiles(size: Size) -> Iterator[Case]:
    """Overlapping tiles out of four planes and back."""
    side = max(4, min(256, size[0] // 3))
    starts = [(y, x) for y in range(-8, size[0], side // 2 + 1) for x in range(-8, size[1], side // 2 + 1)][:64]
    origins = there(np.array(starts, np.int32))
    planes, cut = values(4, *size), empty(len(starts), 4, side, side)
    window, weight = values(side, side), empty(*size)
    back, sums = empty(4, *size), planes.nbytes + weight.nbytes
    yield Case("tile gather", lambda s: _C.tile_gather(planes, origins, cut, stream=s), 2 * cut.nbytes, GOALS["tile"])
    yield Case(
        "tile scatter", lambda s: _C.tile_scatter(cut, origins, window, back, weight, stream=s), cut.nbytes + 2 * sums
    )
    yield Case("tile divide", lambda s: _C.tile_divide(back, weight, stream=s), sums + planes.nbytes)


#: The group, the native functions that it needs, and its size in a benchmark: 24 MP, for ecc 6 MP.
GROUPS: tuple[tuple[Group, tuple[str, ...], Size], ...] = (
    (warps, ("warp",), (4000, 6000)),
    (readings, ("luminance", "demosaic", "unpack", "thin"), (4000, 6000)),
    (pyramids, ("pyramid_measure", "pyramid_fold", "pyramid_depth", "pyramid_base", "pyramid_mean"), (4000, 6000)),
    (pushes, ("pyramid_measure", "pyramid_fold", "thin"), (4000, 6000)),
    (eccs, ("ecc", "ecc_maximise", "ecc_chunk_count"), (2000, 3000)),
    (agreements, ("agree_residual", "agree_mask"), (2000, 3000)),
    (tiles, ("tile_gather", "tile_scatter", "tile_divide"), (2000, 3000)),
)


def _maps(size: Size, count: int) -> npt.NDArray[np.float64]:
    """A little breathing, rotation and shift, as between the frames of a bracket."""
    turn, grow = np.deg2rad(0.2), 1.004
    c, s = grow * np.cos(turn), grow * np.sin(turn)
    y, x = (size[0] - 1) / 2, (size[1] - 1) / 2
    matrix = [[c, -s, x - c * x + s * y + 2.3], [s, c, y - s * x - c * y - 1.7], [0, 0, 1]]
    return np.ascontiguousarray(np.broadcast_to(np.array(matrix), (count, 3, 3)))


def _smooth(size: Size) -> _C.DeviceArray:
    """Waves with a little noise: something to register."""
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    wave = 0.5 + 0.2 * np.sin(x / 7) * np.cos(y / 9) + 0.1 * np.sin((x + 2 * y) / 23)
    return there((wave + 0.01 * _RANDOM.random(size, np.float32)).astype(np.float32))
