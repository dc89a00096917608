"""warp on the device beside the CPU's and the formula in float64.

The emulated device does the CPU's floats in the CPU's order: the same bits wherever places are doubles, that is for
maps with a projective part and in tiles at the picture's edge. Elsewhere places are 1e-9 pixels apart.
"""

from __future__ import annotations

import numpy as np
import pytest

import reference
from pyfocus import _C
from pyfocus.errors import ArgumentError
from test_device import on_device, on_host

pytestmark = pytest.mark.cuda
KERNELS = (0, 1, 2)
EMULATED = _C.device_archs() == "host"
# Worst |device - CPU| of values in [-0.1, 0.9], emulated: 1.8e-7. A real device contracts to fused multiply-adds.
NEAR = 1e-6
TOLERANCE = 4e-6  # from the oracle, as in test_warp.py
MAPS = {
    "identity": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "shift": [[1, 0, 3.3], [0, 1, -2.6], [0, 0, 1]],
    "similarity": [[1.02, -0.05, 4.1], [0.05, 1.02, 1.7], [0, 0, 1]],
    "shrunk a little": [[0.9, 0.04, 9.2], [-0.07, 0.87, 11.5], [0, 0, 1]],
    "turned by 45 degrees": [[0.7071, -0.7071, 30.2], [0.7071, 0.7071, -20.4], [0, 0, 1]],
    "mirrored": [[-1, 0, 90.2], [0, -1, 70.5], [0, 0, 1]],
    "zoom 0.3": [[0.3, 0.01, 20.3], [-0.01, 0.3, 22.2], [0, 0, 1]],
    "zoom 3": [[3.0, 0.1, -50.5], [-0.1, 3.1, -40.3], [0, 0, 1]],
    "homography": [[1.05, 0.03, 4], [-0.02, 0.97, 3], [3e-4, -2e-4, 1]],
    "outside": [[1, 0, -4000.3], [0, 1, 70.7], [0, 0, 1]],
    "far outside": [[1, 0, 1e18], [0, 1, -3e300], [0, 0, 1]],
}
PLACES_IN_DOUBLES = {"homography", "outside", "far outside"}
RANDOM = np.random.default_rng(3)


def picture(shape: tuple[int, ...], dtype: type = np.float32) -> np.ndarray:
    if dtype == np.float32:
        return RANDOM.random(shape, np.float32) - np.float32(0.1)
    return RANDOM.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def stacked(matrices, count: int) -> np.ndarray:
    return np.ascontiguousarray(np.broadcast_to(np.asarray(matrices, float), (count, 3, 3)))


def run(source, matrices, size, kernel, make, **how):
    """Planes and mask from one side: ``make`` gives its arrays."""
    out, valid = make((len(matrices), *size), "float32"), make(size, "uint8")
    _C.warp(source, matrices, out, valid, interpolation=kernel, **how)
    return out, valid


def on_both(here, there, matrices, size, kernel, how=None, there_how=None):
    """Planes and masks of the CPU's run and of the device's."""
    mine = run(here, matrices, size, kernel, np.empty, **(how or {}))
    theirs = run(there, matrices, size, kernel, _C.DeviceArray, **{**(how or {}), **(there_how or {})})
    return (*mine, *(on_host(a) for a in theirs))


def check(source, matrices, size, kernel, values=None, how=None, there=None, exact=False, there_how=None):
    values = reference.values_of(source) if values is None else values
    matrices = stacked(matrices, len(values))
    there = on_device(np.ascontiguousarray(source)) if there is None else there
    mine, seen, theirs, theirs_seen = on_both(source, there, matrices, size, kernel, how, there_how)
    np.testing.assert_array_equal(theirs_seen, seen)
    if exact and EMULATED:
        np.testing.assert_array_equal(theirs, mine)
    np.testing.assert_allclose(theirs, mine, rtol=0, atol=NEAR)
    flags = {name: (how or {}).get(name, False) for name in ("root", "square")}
    want, want_seen = reference.warp(values, matrices, size, kernel, **flags)
    np.testing.assert_array_equal(theirs_seen, want_seen)
    np.testing.assert_allclose(theirs, want, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", MAPS)
def test_every_kind_of_map(name, kernel):
    check(picture((2, 83, 101)), MAPS[name], (66, 99), kernel, exact=name in PLACES_IN_DOUBLES)


@pytest.mark.parametrize("kernel", KERNELS)
def test_identity_and_whole_shifts_are_exact(kernel):
    source = picture((1, 70, 99))
    for x, y in ((0, 0), (3, -2), (-40, 31)):
        matrices = stacked([[1, 0, x], [0, 1, y], [0, 0, 1]], 1)
        out, _ = run(on_device(source), matrices, (70, 99), kernel, _C.DeviceArray)
        rows, columns = np.clip(np.arange(70) + y, 0, 69), np.clip(np.arange(99) + x, 0, 98)
        np.testing.assert_array_equal(on_host(out)[0], source[0][np.ix_(rows, columns)])


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_every_dtype_and_number_of_planes(dtype, count):
    full = 1.0 if dtype == np.float32 else float(np.iinfo(dtype).max)
    scale, offset = [v / full for v in (1, 0.5, 0.8, 0.7)[:count]], [0.0, 0.1, -0.2, 0.05][:count]
    how = {"scale": scale, "offset": offset}
    planar, interleaved = picture((count, 61, 45), dtype), picture((61, 45, count), dtype)
    for source, there in (
        (planar, on_device(planar)),
        (interleaved.transpose(2, 0, 1), on_device(interleaved).transpose([2, 0, 1])),
        (planar.transpose(0, 2, 1), on_device(planar).transpose([0, 2, 1])),
    ):
        values = reference.values_of(source, scale=scale, offset=offset)
        check(source, MAPS["similarity"], (35, 60), 2, values, how, there)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("name", ["similarity", "zoom 3"])
def test_tables_and_signed_roots(name, dtype, kernel):
    # The root is steep at 0: values from 0.01 on, as in test_warp.py.
    table = np.linspace(0.02, 1, np.iinfo(dtype).max + 1, dtype=np.float32)
    interleaved = picture((73, 80, 3), dtype)
    source, there = interleaved.transpose(2, 0, 1), on_device(interleaved).transpose([2, 0, 1])
    scale = [1.0, -0.5, 0.7]
    values = reference.values_of(source, table, scale)
    how = {"table": table, "scale": scale, "root": True, "square": True}
    check(source, MAPS[name], (40, 37), kernel, values, how, there, there_how={"table": on_device(table)})


@pytest.mark.parametrize("name", ["shift", "similarity", "homography", "zoom 3"])
def test_the_planes_of_a_mosaic_each_by_its_map(name):
    mosaic, offsets = picture((104, 130), np.uint16), [(0, 0), (0, 1), (1, 0), (1, 1)]
    scale = [1 / 65535.0] * 4
    values = reference.values_of(reference.mosaic_planes(mosaic, offsets), None, scale)
    maps = []
    for dy, dx in offsets:
        grid = np.array([[2, 0, dx], [0, 2, dy], [0, 0, 1.0]])
        maps.append(np.linalg.inv(grid) @ np.asarray(MAPS[name], float) @ grid)
        maps[-1] /= maps[-1][2, 2]
    how = {"mosaic": offsets, "scale": scale}
    check(mosaic, np.stack(maps), (50, 65), 2, values, how, exact=name == "homography")


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_windows_that_do_not_fit_at_the_edge_of_the_picture(dtype, kernel):
    source = picture((2, 200, 220), dtype)
    scale = [1.0 if dtype == np.float32 else 1 / np.iinfo(dtype).max] * 2
    matrix = [[4.1, 0.2, -30.3], [-0.1, 4.2, -20.4], [0, 0, 1]]
    check(source, matrix, (57, 66), kernel, reference.values_of(source, scale=scale), {"scale": scale}, exact=True)


def test_planes_with_the_same_map_between_others():
    maps = np.stack([MAPS[name] for name in ("shift", "shift", "homography", "zoom 3")]).astype(float)
    check(picture((4, 90, 100)), maps, (70, 45), 1)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("size", [(1, 1), (1, 70), (70, 1), (34, 33), (3, 2)])
@pytest.mark.parametrize("source", [(1, 1), (1, 7), (7, 1), (5, 31)])
def test_odd_and_tiny_sizes(source, size, kernel):
    check(picture((1, *source)), [[0.9, 0.02, 0.4], [0.01, 0.7, 0.3], [0, 0, 1]], size, kernel, exact=True)


@pytest.mark.parametrize("seed", range(12))
def test_random_maps(seed):
    random = np.random.default_rng(seed)
    matrix = np.eye(3) + np.vstack([random.normal(0, 0.15, (2, 3)), np.zeros((1, 3))])
    matrix[:2, 2] = random.uniform(-15, 25, 2)
    if seed % 3 == 0:
        matrix[2, :2] = random.uniform(0, 1e-3, 2)
    check(picture((1, 93, 120)), matrix, (61, 67), seed % 3, exact=seed % 3 == 0)


@pytest.mark.parametrize("scale", [5.9, 6.05, 6.2, 6.35])
def test_windows_that_just_fit_and_just_do_not(scale):
    """The last row of threads has one pixel in the destination and reads three rows more."""
    check(picture((1, 45, 260)), [[scale, 0, 4.3], [0, 1, 5.2], [0, 0, 1]], (29, 40), 2)


@pytest.mark.parametrize("name", ["similarity", "zoom 3"])
def test_a_narrowed_mask_is_only_cleared(name):
    source, before = picture((2, 200, 220)), RANDOM.integers(0, 2, (66, 99), np.uint8)
    matrices, here = stacked(MAPS[name], 2), before.copy()
    there = on_device(before)
    _C.warp(source, matrices, np.empty((2, 66, 99), np.float32), here, narrow=True)
    _C.warp(on_device(source), matrices, _C.DeviceArray((2, 66, 99)), there, narrow=True)
    np.testing.assert_array_equal(on_host(there), here)
    np.testing.assert_array_equal(here, before & run(source, matrices, (66, 99), 1, np.empty)[1])


def test_without_a_mask_and_on_a_stream():
    source, stream = picture((1, 40, 50)), _C.Stream()
    matrices, there = stacked(MAPS["shift"], 1), _C.DeviceArray((1, 33, 35))
    here = np.empty(there.shape, np.float32)
    _C.warp(source, matrices, here, interpolation=1)
    _C.warp(on_device(source), matrices, there, interpolation=1, stream=stream.handle)
    stream.synchronize()
    np.testing.assert_allclose(on_host(there), here, rtol=0, atol=NEAR)


def test_an_empty_destination_is_nothing_to_do():
    _C.warp(on_device(picture((1, 4, 4))), stacked(np.eye(3), 1), _C.DeviceArray((1, 0, 5)))


def test_places_that_are_no_numbers_read_nothing_outside():
    matrices = stacked([[1e308, -1e308, 0], [1e308, 1e308, -1e308], [0, 0, 1]], 1)
    out, _ = run(on_device(picture((1, 9, 9))), matrices, (40, 40), 2, _C.DeviceArray)
    assert np.isfinite(on_host(out)).all()


def wrong_calls():
    planes, out = np.zeros((1, 4, 4), np.float32), np.zeros((1, 4, 4), np.float32)
    device = on_device(planes)
    one, eye = _C.DeviceArray((1, 4, 4)), np.eye(3)[np.newaxis]
    counts = on_device(np.zeros((1, 4, 4), np.uint8))
    return (
        ((device, eye, out), {}, "destination must be on the device of the first array, cuda:0, got cpu:0"),
        ((planes, eye, one), {}, "destination must be on the device of the first array, cpu:0, got cuda:0"),
        ((device, on_device(eye), one), {}, "matrices must be in CPU memory, got a CUDA array"),
        ((device, eye, one, np.zeros((4, 4), np.uint8)), {}, "valid must be on the device of the first array"),
        ((counts, eye, one), {"table": np.zeros(256, np.float32)}, "table must be on the device of the first array"),
        ((device, eye * np.nan, one), {}, "matrices must be finite, got nan"),
        ((device, eye * 0, one), {}, "positive over the destination, got 0"),
        ((device, eye, one.transpose([0, 2, 1])), {}, "destination must be contiguous"),
        ((device, eye, _C.DeviceArray((1, 4, 4), "float64")), {}, "destination must be float32, got float64"),
        ((device, eye, _C.DeviceArray((2, 4, 4))), {}, "destination must have size 1 on axis 0, got 2"),
        ((device, eye, one, _C.DeviceArray((4, 5), "uint8")), {}, "valid must have size 4 on axis 1, got 5"),
        ((device, eye, one), {"interpolation": 3}, "interpolation must be 0, 1 or 2, got 3"),
    )


def test_wrong_arguments_are_named():
    for arguments, how, text in wrong_calls():
        with pytest.raises(ArgumentError, match=f"^warp: .*{text}"):
            _C.warp(*arguments, **how)
