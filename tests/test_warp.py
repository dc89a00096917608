"""warp against its formula in float64 and against OpenCV; laws: identity, shifts, linearity, the phase of a plane."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reference
from pyfocus import _C
from pyfocus.burst import Frame, Meta
from pyfocus.errors import ArgumentError
from pyfocus.planes import planes_of
from pyfocus.raw import CFA_ORDERS, plane_offsets
from pyfocus.warp import INTERPOLATIONS, Warper, warp

KERNELS = (0, 1, 2)
# Worst |kernel - oracle| over this file: 1.6e-6 where values reach 2, 8.8e-7 in [-0.1, 0.9] (the weights of the sharp
# kernels come from a table with linear interpolation, 1.2e-6 from the formula at worst; the rest is float32 rounding).
TOLERANCE = 4e-6
MAPS = {
    "shift": [[1, 0, 3.3], [0, 1, -2.6], [0, 0, 1]],
    "similarity": [[1.02, -0.05, 4.1], [0.05, 1.02, -3.7], [0, 0, 1]],
    "turn45": [[0.7071, -0.7071, 60.2], [0.7071, 0.7071, -40.4], [0, 0, 1]],
    "shear": [[0.9, 0.21, -1.5], [-0.13, 1.11, 2.5], [0, 0, 1]],
    "homography": [[1.05, 0.03, -4], [-0.02, 0.97, 3], [3e-4, -2e-4, 1]],
    "scaled": [[2.1, 0.06, -8], [-0.04, 1.94, 6], [6e-4, -4e-4, 2]],
    "mirror": [[-1, 0, 120], [0, 1, 0.5], [0, 0, 1]],
}


def picture(shape: tuple[int, ...], dtype: type = np.float32, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    if dtype == np.float32:
        return random.random(shape, np.float32) - np.float32(0.1)
    return random.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def run(source, matrix, size, kernel, count=None, **how):
    count = count or source.shape[0]
    matrices = np.ascontiguousarray(np.broadcast_to(np.asarray(matrix, float), (count, 3, 3)))
    out, valid = np.empty((count, *size), np.float32), np.empty(size, np.uint8)
    _C.warp(source, matrices, out, valid, interpolation=kernel, **how)
    return out, valid


def check(source, matrix, size, kernel, values=None, how=None, root=False, square=False, tolerance=TOLERANCE):
    values = reference.values_of(source) if values is None else values
    out, valid = run(source, matrix, size, kernel, len(values), root=root, square=square, **(how or {}))
    matrices = np.broadcast_to(np.asarray(matrix, float), (len(values), 3, 3))
    want, seen = reference.warp(values, matrices, size, kernel, root, square)
    np.testing.assert_array_equal(valid, seen)
    np.testing.assert_allclose(out, want, rtol=0, atol=tolerance)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", MAPS)
def test_values_and_mask_are_the_formula(name, kernel):
    check(picture((2, 93, 131)), MAPS[name], (77, 211), kernel)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_every_dtype_interleaved_and_planar(dtype, kernel):
    full = 1.0 if dtype == np.float32 else float(np.iinfo(dtype).max)
    how = {"scale": [1 / full, 0.5 / full, 2 / full], "offset": [0.0, 0.1, -0.2]}
    for source in (picture((3, 61, 45), dtype), picture((61, 45, 3), dtype).transpose(2, 0, 1)):
        values = reference.values_of(source, scale=how["scale"], offset=how["offset"])
        check(source, MAPS["similarity"], (50, 60), kernel, values, how)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_table(dtype):
    table = np.sqrt(np.arange(np.iinfo(dtype).max + 1, dtype=np.float32) / np.iinfo(dtype).max)
    source = picture((33, 40, 3), dtype).transpose(2, 0, 1)
    values = reference.values_of(source, table, [1.0, 0.5, 1.5])
    check(source, MAPS["shear"], (30, 37), 2, values, {"table": table, "scale": [1.0, 0.5, 1.5]})


@pytest.mark.parametrize("cfa", CFA_ORDERS)
def test_mosaic_planes_are_read_in_place(cfa):
    mosaic, offsets = picture((52, 70), np.uint16), list(plane_offsets(cfa))
    values = reference.values_of(reference.mosaic_planes(mosaic, offsets), None, [1 / 65535.0] * 4)
    check(mosaic, MAPS["similarity"], (26, 35), 1, values, {"mosaic": offsets, "scale": [1 / 65535.0] * 4})


def test_views_with_any_strides():
    base = picture((4, 80, 90))
    for view in (base[::2, 3:70:3, 80:5:-2], base[:2].transpose(0, 2, 1), base[:, ::-1][1:3]):
        check(view, MAPS["shift"], (31, 33), 1)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("root,square", [(True, False), (False, True), (True, True)])
def test_root_and_square(root, square, kernel):
    # The root is steep at 0, so an error of 1e-7 in a value near 0 is one of 3e-4 in its root: |v| >= 0.01 here.
    source = picture((1, 50, 60))
    source = np.where(np.abs(source) < 0.01, np.float32(0.01), source).astype(np.float32)
    check(source, MAPS["similarity"], (50, 60), kernel, root=root, square=square)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (33, 193), (3, 2)])
@pytest.mark.parametrize("source", [(1, 1), (1, 7), (7, 1), (2, 2), (5, 31)])
def test_odd_and_tiny_sizes(source, size, kernel):
    check(picture((1, *source)), [[0.9, 0.02, 0.4], [0.01, 0.7, 0.3], [0, 0, 1]], size, kernel)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    "matrix",
    [
        [[9.7, 0, 1], [0, 11.3, 2], [0, 0, 1]],
        [[0, 8.0, 0.5], [8.0, 0, 0.5], [0, 0, 1]],
        [[5.1, -5.2, 400], [5.2, 5.1, -200], [0, 0, 1]],
        [[120.0, 0, 0], [0, 120.0, 0], [0, 0, 1]],
        [[1, 0, 0], [0, 1, 0], [0.05, 0.03, 1]],
    ],
)
def test_tiles_that_see_much_of_the_source_are_cut(matrix, kernel):
    check(picture((2, 420, 610)), matrix, (40, 200), kernel)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("shift", [(-40.3, 0), (0, 70.7), (1e5, -1e5), (1e18, 1e18), (-3e300, 1e300), (-1.5, 59.5)])
def test_far_outside_the_edge_repeats(shift, kernel):
    check(picture((1, 60, 50)), [[1, 0, shift[0]], [0, 1, shift[1]], [0, 0, 1]], (60, 50), kernel)


def test_planes_with_different_maps_share_one_mask():
    source = picture((3, 40, 50))
    matrices = np.stack([MAPS["shift"], MAPS["shift"], MAPS["similarity"]]).astype(float)
    out, valid = np.empty((3, 40, 50), np.float32), np.empty((40, 50), np.uint8)
    _C.warp(source, matrices, out, valid, interpolation=1)
    want, seen = reference.warp(reference.values_of(source), matrices, (40, 50), 1)
    np.testing.assert_array_equal(valid, seen)
    np.testing.assert_allclose(out, want, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("kernel,flag", [(0, cv2.INTER_LINEAR), (1, cv2.INTER_CUBIC)])
def test_opencv_agrees(kernel, flag):
    # OpenCV interpolates at 1/32 px positions and its cubic has a = -3/4: on a smooth picture and at positions that
    # are multiples of 1/32 the linear one is the same (worst 1.2e-7); the cubics differ by their a (worst 2.2e-3).
    y, x = np.mgrid[:90, :110]
    source = (0.5 + 0.4 * np.sin(x / 9) * np.cos(y / 7)).astype(np.float32)
    matrix = np.array([[1.0, 0, 5.25], [0, 1.0, -3.40625]])
    theirs = cv2.warpAffine(source, matrix, (110, 90), flags=flag | cv2.WARP_INVERSE_MAP)
    ours, valid = run(source[None], np.vstack([matrix, [0, 0, 1]]), (90, 110), kernel)
    inner = cv2.erode(valid, np.ones((7, 7), np.uint8), borderValue=0) > 0
    np.testing.assert_allclose(ours[0][inner], theirs[inner], rtol=0, atol=1e-6 if kernel == 0 else 4e-3)


# --- laws --------------------------------------------------------------


@pytest.mark.parametrize("kernel", KERNELS)
def test_identity_is_exact(kernel):
    source = picture((3, 70, 201))
    out, valid = run(source, np.eye(3), (70, 201), kernel)
    np.testing.assert_array_equal(out, source)
    assert valid.all()
    np.testing.assert_array_max_ulp(run(source, np.eye(3), (70, 201), kernel, root=True, square=True)[0], source, 2)


@settings(max_examples=25, deadline=None)
@given(st.integers(-45, 45), st.integers(-35, 35), st.sampled_from(KERNELS))
def test_integer_shift_is_a_slice(dx, dy, kernel):
    source = picture((1, 35, 45))
    out, valid = run(source, [[1, 0, dx], [0, 1, dy], [0, 0, 1]], (35, 45), kernel)
    y, x = np.arange(35) + dy, np.arange(45) + dx
    inside = ((y >= 0) & (y < 35))[:, None] & ((x >= 0) & (x < 45))
    np.testing.assert_array_equal(valid, inside)
    np.testing.assert_array_equal(out[0], source[0][np.ix_(np.clip(y, 0, 34), np.clip(x, 0, 44))])


matrices = st.tuples(
    st.floats(0.8, 1.2), st.floats(-0.3, 0.3), st.floats(-20, 20),
    st.floats(-0.3, 0.3), st.floats(0.8, 1.2), st.floats(-20, 20),
    st.floats(-1e-3, 1e-3), st.floats(-1e-3, 1e-3),
).map(lambda v: np.reshape([*v, 1.0], (3, 3)))  # fmt: skip


@settings(max_examples=15, deadline=None)
@given(matrices, st.sampled_from(KERNELS))
def test_any_homography_is_the_formula(matrix, kernel):
    source = picture((1, 40, 50))
    values = reference.values_of(source)
    out, valid = run(source, matrix, (44, 52), kernel)
    x, y = reference.positions(matrix, (44, 52))
    want = reference.sample(values[0], x, y, kernel)
    np.testing.assert_allclose(out[0], want, rtol=0, atol=TOLERANCE)
    near = np.min([np.abs(x), np.abs(x - 49), np.abs(y), np.abs(y - 39)], axis=0) < 2e-6  # the mask may go either way
    inside = (x >= 0) & (x <= 49) & (y >= 0) & (y <= 39)
    np.testing.assert_array_equal(valid[~near] > 0, inside[~near])


@settings(max_examples=15, deadline=None)
@given(matrices, st.sampled_from(KERNELS), st.floats(-3, 3), st.floats(-3, 3))
def test_linear_in_its_input(matrix, kernel, a, b):
    p, q = picture((1, 30, 40), seed=1), picture((1, 30, 40), seed=2)
    mixed = (np.float32(a) * p + np.float32(b) * q).astype(np.float32)
    one, two, both = (run(v, matrix, (30, 40), kernel)[0].astype(float) for v in (p, q, mixed))
    np.testing.assert_allclose(both, np.float32(a) * one + np.float32(b) * two, rtol=0, atol=5e-6)  # worst 7.2e-7


@settings(max_examples=15, deadline=None)
@given(matrices, st.sampled_from(KERNELS), st.floats(0, 1, width=32))
def test_constant_stays_constant(matrix, kernel, value):
    source = np.full((1, 30, 40), value, np.float32)
    np.testing.assert_allclose(run(source, matrix, (30, 40), kernel)[0], value, rtol=2e-6, atol=1e-30)  # worst 3.6e-7


@settings(max_examples=15, deadline=None)
@given(matrices, st.sampled_from(KERNELS), st.integers(0, 30), st.integers(0, 40))
def test_a_part_is_the_part_of_the_whole(matrix, kernel, top, left):
    """Where tiles begin does not show: a cut of the destination, with its map moved along, is a slice."""
    source, shift = picture((1, 120, 260)), np.array([[1, 0, left], [0, 1, top], [0, 0, 1.0]])
    whole = run(source, matrix, (80, 250), kernel)[0][:, top : top + 45, left : left + 200]
    part = run(source, matrix @ shift, (45, 200), kernel)[0]
    # no difference seen: the positions differ in the last bit of a double
    np.testing.assert_allclose(part, whole, rtol=0, atol=2e-6)


# --- Bayer phase -------------------------------------------------------

TURN = np.array([[1.01, -0.03, 2.4], [0.03, 1.01, -1.7], [0, 0, 1]])


def smooth_scene(x, y):
    """A band-limited picture that is known everywhere."""
    return 0.5 + 0.2 * np.sin(x / 31 + 0.3) + 0.2 * np.cos(y / 37 - x / 53)


@pytest.mark.parametrize("cfa", CFA_ORDERS)
def test_each_bayer_plane_by_its_own_phase(cfa):
    """Plane pixel X of offset o: x' = A x + (t + (A - I) o) / 2, and its value is the scene at the frame's place."""
    y, x = np.mgrid[:120, :160]
    mosaic = np.rint(60000 * smooth_scene(x, y)).astype(np.uint16)
    planes = planes_of(Frame(mosaic, Meta(cfa=cfa, white=60000.0)))
    matrices = planes.matrices(TURN)
    linear, shift = TURN[:2, :2], TURN[:2, 2]
    for matrix, (dy, dx) in zip(matrices, plane_offsets(cfa), strict=True):
        offset = np.array([dx, dy])
        np.testing.assert_allclose(matrix[:2, :2], linear, atol=1e-12)
        np.testing.assert_allclose(matrix[:2, 2], (shift + (linear - np.eye(2)) @ offset) / 2, atol=1e-12)
    out, valid = np.empty((4, 60, 80), np.float32), np.empty((60, 80), np.uint8)
    _C.warp(mosaic, matrices, out, valid, interpolation=1, **planes.arguments)
    inner = cv2.erode(valid, np.ones((9, 9), np.uint8), borderValue=0) > 0
    for plane, (dy, dx) in zip(out, plane_offsets(cfa), strict=True):
        at = TURN @ np.stack([2 * x[:60, :80] + dx, 2 * y[:60, :80] + dy, np.ones((60, 80))]).reshape(3, -1)
        want = smooth_scene(at[0], at[1]).reshape(60, 80)
        # worst 1.0e-5 (16-bit rounding); a phase half a pixel wrong would be 5e-3
        np.testing.assert_allclose(plane[inner], want[inner], rtol=0, atol=3e-5)


@pytest.mark.parametrize("domain", ["raw", "rgb"])
@pytest.mark.parametrize("cfa", ["RGGB", "GBRG"])
def test_warper_lands_where_the_transform_says(cfa, domain):
    y, x = np.mgrid[:120, :160]
    mosaic = np.rint(60000 * smooth_scene(x, y)).astype(np.uint16)
    planes, valid = warp(Frame(mosaic, Meta(cfa=cfa, encoding="linear", white=60000.0)), TURN, domain=domain)
    step = 2 if domain == "raw" else 1
    offsets = plane_offsets(cfa) if domain == "raw" else [(0, 0)] * 3
    inner = cv2.erode(valid, np.ones((13, 13), np.uint8), borderValue=0) > 0
    h, w = valid.shape
    for plane, (dy, dx) in zip(planes, offsets, strict=True):
        at = TURN @ np.stack([step * x[:h, :w] + dx, step * y[:h, :w] + dy, np.ones((h, w))]).reshape(3, -1)
        want = smooth_scene(at[0], at[1]).reshape(h, w)
        # worst 3.3e-4: the demosaic's guesses and Lanczos-3 on a slope; a phase half a pixel wrong would be 3e-3
        np.testing.assert_allclose(plane[inner], want[inner], rtol=0, atol=6e-4)


# --- the Python door ---------------------------------------------------


def test_images_come_back_in_linear_light():
    image = picture((20, 30, 3), np.uint8)
    planes, valid = warp(image)
    want = reference.srgb_decode(image / 255).transpose(2, 0, 1)
    np.testing.assert_allclose(planes, want, rtol=2e-6, atol=1e-7)
    assert valid.all() and planes.dtype == np.float32
    grey, _ = warp(image[:, :, 0].astype(np.float32) / 255)
    np.testing.assert_allclose(grey[0], want[0], rtol=2e-6, atol=1e-7)
    linear, _ = warp(Frame(image, Meta(encoding="linear")), gain=[1, 2, 0.5])
    np.testing.assert_allclose(linear, np.reshape([1, 2, 0.5], (3, 1, 1)) * image.transpose(2, 0, 1) / 255, rtol=2e-6)


def test_size_and_a_two_by_three_transform():
    image = picture((40, 50), np.float32).clip(0, 1)
    frame = Frame(image, Meta(encoding="linear"))
    planes, valid = warp(frame, [[1, 0, 5], [0, 1, 7]], size=(20, 30), interpolation="bilinear")
    # signed roots are squared again: 2 ulp
    np.testing.assert_array_max_ulp(planes[0], image[7:27, 5:35], 2)
    assert valid.shape == (20, 30) and valid.all()


@pytest.mark.parametrize(
    "call,text",
    [
        (lambda f: warp(f, np.eye(4)), "transform must be"),
        (lambda f: warp(f, np.full((2, 3), np.nan)), "transform must be"),
        (lambda f: warp(f, interpolation="nearest"), f"interpolation must be one of {', '.join(INTERPOLATIONS)}"),
        (lambda f: warp(f, domain="xyz"), "domain must be 'raw' or 'rgb', got 'xyz'"),
        (lambda f: Warper(interpolation="cubic"), "interpolation must be one of"),
    ],
)
def test_wrong_arguments_are_named(call, text):
    with pytest.raises(ArgumentError, match=text):
        call(picture((20, 20), np.uint8))
