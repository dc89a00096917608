"""From linear light to the picture: the sRGB curve, the camera's colours, orientation, highlights, the mosaic."""

from __future__ import annotations

import numpy as np
import pytest

import reference
from pyfocus.burst import Meta
from pyfocus.develop import camera_to_srgb, develop, enlarge, mosaic_of
from pyfocus.errors import ArgumentError
from pyfocus.raw import CFA_ORDERS

# A made-up but ordinary camera: XYZ to camera, row-major.
XYZ_TO_CAMERA = (0.71, -0.21, -0.06, -0.44, 1.21, 0.26, -0.09, 0.21, 0.64)
CAMERA = Meta(cfa="RGGB", white_balance=(1.9, 1.0, 1.6), xyz_to_camera=XYZ_TO_CAMERA, make="Some", model="Camera")


def colours(shape=(3, 20, 30), seed=0):
    return np.random.default_rng(seed).random(shape, np.float32)


@pytest.mark.parametrize("bits,dtype", [(8, np.uint8), (16, np.uint16)])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_code_of_a_picture_comes_back(bits, dtype, channels):
    top = 2**bits - 1
    codes = np.linspace(0, top, 96 * 100).astype(dtype).reshape(1, 96, 100)
    linear = np.broadcast_to(reference.srgb_decode(codes / top), (channels, 96, 100)).astype(np.float32)
    picture = develop(linear, Meta(), bits=bits)
    assert picture.dtype == dtype and picture.shape == ((96, 100) if channels == 1 else (96, 100, 3))
    np.testing.assert_array_equal(picture.reshape(96, 100, -1)[..., 0], codes[0])


def test_values_are_the_formula_also_of_views():
    planes = colours((30, 40, 3)).transpose(2, 0, 1) * np.float32(1.4) - np.float32(0.2)
    want = reference.unpack(planes, [65535] * 3, [0] * 3, True, 65535).transpose(1, 2, 0)
    assert np.abs(develop(planes, Meta()) - want).max() <= 0.51


def test_orientation_of_pictures_was_applied_by_the_reader():
    planes = colours((3, 20, 30))
    assert develop(planes, Meta(orientation=6)).shape == (20, 30, 3)


UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_raws_are_turned_upright(orientation):
    planes = colours((3, 20, 30))
    lying = develop(planes, CAMERA)
    turned = develop(planes, Meta(**{**CAMERA.__dict__, "orientation": orientation}))
    np.testing.assert_array_equal(turned, UPRIGHT[orientation](lying))


# --- the camera's colours ----------------------------------------------


def test_white_stays_white():
    np.testing.assert_allclose(camera_to_srgb(CAMERA).sum(axis=1), 1, rtol=1e-12)
    grey = np.full((3, 8, 8), 0.4, np.float32)
    want = reference.unpack(grey, [65535] * 3, [0] * 3, True, 65535).transpose(1, 2, 0)
    assert np.abs(develop(grey, CAMERA) - want).max() <= 1


def test_what_the_camera_sees_of_a_colour_is_that_colour():
    """sRGB to XYZ to camera, white-balanced so that white is (1, 1, 1), and back through develop."""
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    )
    scene = colours((3, 16, 16)).astype(float) * 0.8
    camera = np.reshape(XYZ_TO_CAMERA, (3, 3)) @ to_xyz
    seen = np.tensordot(camera / camera.sum(axis=1, keepdims=True), scene, 1)
    assert seen.max() < 1
    want = reference.unpack(scene, [65535] * 3, [0] * 3, True, 65535).transpose(1, 2, 0)
    assert np.abs(develop(seen.astype(np.float32), CAMERA) - want).max() <= 1.0  # worst 0.6: float32 in the matrix


def test_without_a_matrix_colours_are_left_alone():
    meta = Meta(cfa="RGGB")
    np.testing.assert_array_equal(camera_to_srgb(meta), np.eye(3))
    planes = colours()
    np.testing.assert_array_equal(develop(planes, meta), develop(planes, Meta()))


def test_clipped_highlights_are_neutral():
    """The sensor clips all its channels at 1; white balance spreads them to 1.9, 1.0, 1.6; white must come out."""
    clipped = np.tile(np.array([1.9, 1.0, 1.6], np.float32)[:, None, None], (1, 6, 6))
    assert np.all(develop(clipped, CAMERA) == 65535)
    blue_first = Meta(**{**CAMERA.__dict__, "white_balance": (1.5, 1.0, 0.8)})
    assert np.all(
        develop(np.float32(1.0) * np.tile(np.array([1.5, 1.0, 0.8], np.float32)[:, None, None], (1, 6, 6)), blue_first)
        == 65535
    )


# --- the mosaic --------------------------------------------------------


@pytest.mark.parametrize("cfa", CFA_ORDERS)
def test_a_mosaic_holds_what_the_sensor_would_have_counted(cfa):
    meta = Meta(**{**CAMERA.__dict__, "cfa": cfa})
    planes = colours((4, 12, 18)) - np.float32(0.01)
    mosaic, levels = mosaic_of(planes, meta)
    assert mosaic.shape == (24, 36) and levels.white == 65535 and levels.black == (1024.0,) * 4
    at = {c: [i for i, v in enumerate(cfa) if v == c] for c in "RGB"}
    for plane, balance, colour, which in ((0, 1.9, "R", 0), (3, 1.6, "B", 0)):
        y, x = divmod(at[colour][which], 2)
        assert np.abs(mosaic[y::2, x::2] - (1024 + 64511 * planes[plane].astype(float) / balance)).max() <= 0.51
    red_row = at["R"][0] // 2
    for plane, row in ((1, red_row), (2, 1 - red_row)):
        x = next(i % 2 for i in at["G"] if i // 2 == row)
        assert np.abs(mosaic[row::2, x::2] - (1024 + 64511 * planes[plane].astype(float))).max() <= 0.51


def test_a_grey_mosaic_develops_to_grey():
    planes = np.full((4, 40, 60), 0.3, np.float32)
    picture = develop(planes, CAMERA)
    want = 65535 * reference.srgb_encode(0.3)
    assert picture.shape == (80, 120, 3) and np.abs(picture[8:-8, 8:-8] - want).max() / 65535 < 2e-3
    eight = develop(planes, CAMERA, bits=8)
    assert eight.dtype == np.uint8 and np.abs(eight.astype(float) * 257 - picture).max() <= 129


def test_a_map_at_half_size_is_brought_to_the_mosaic():
    y, x = np.mgrid[:20, :30].astype(np.float32)
    full = enlarge(0.1 * x - 0.2 * y)
    assert full.shape == (40, 60)
    fine_y, fine_x = np.mgrid[:40, :60]
    want = 0.1 * (fine_x - 0.5) / 2 - 0.2 * (fine_y - 0.5) / 2  # plane pixel X covers mosaic pixels 2X and 2X + 1
    np.testing.assert_allclose(full[1:-1, 1:-1], want[1:-1, 1:-1], rtol=0, atol=1e-6)


def test_wrong_arguments_are_named():
    with pytest.raises(ArgumentError, match="develop: bits must be 8 or 16, got 12"):
        develop(colours(), Meta(), bits=12)
    with pytest.raises(
        ArgumentError, match=r"mosaic_of: planes must be \(4, h, w\) of a Bayer burst, got \(3, 20, 30\)"
    ):
        mosaic_of(colours(), CAMERA)
    with pytest.raises(ArgumentError, match="cfa None"):
        mosaic_of(colours((4, 4, 4)), Meta())
