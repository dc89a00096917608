"""Mosaic to planes and back, and the sRGB curve: against plain indexing and the formulas in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pyfocus.burst import Meta
from pyfocus.colour import decode_lut, encode_u16, linear_to_srgb, srgb_to_linear
from pyfocus.errors import ArgumentError
from pyfocus.raw import CFA_ORDERS, pack, plane_offsets, unpack

META = Meta(cfa="RGGB", black=(512.0, 510.0, 514.0, 512.0), white=16383.0)

sizes = st.tuples(st.integers(2, 9), st.integers(2, 9))
mosaics = sizes.flatmap(lambda s: hnp.arrays(np.uint16, s, elements=st.integers(0, 65535)))


@pytest.mark.parametrize("cfa", CFA_ORDERS)
def test_plane_offsets_name_the_colours_and_tell_the_greens_apart(cfa: str) -> None:
    offsets = plane_offsets(cfa)
    assert "".join(cfa[2 * y + x] for y, x in offsets) == "RGGB"
    red, green1, green2, blue = offsets
    assert green1[0] == red[0] and green2[0] == blue[0]


@given(mosaics, st.sampled_from(CFA_ORDERS))
def test_pack_is_the_formula_at_every_pixel(mosaic: np.ndarray, cfa: str) -> None:
    meta = Meta(cfa=cfa, black=(64.0, 65.0, 66.0, 67.0), white=4095.0)
    planes = pack(mosaic, meta)
    assert planes.dtype == np.float32 and planes.shape == (4, mosaic.shape[0] // 2, mosaic.shape[1] // 2)
    for plane, (y, x) in zip(planes, plane_offsets(cfa), strict=True):
        black = meta.black[2 * y + x]
        for j in range(plane.shape[0]):
            for i in range(plane.shape[1]):
                want = (float(mosaic[2 * j + y, 2 * i + x]) - black) / (4095.0 - black)
                assert plane[j, i] == pytest.approx(want, rel=1e-6, abs=1e-7)


@given(mosaics, st.sampled_from(CFA_ORDERS))
@settings(max_examples=60)
def test_unpack_undoes_pack(mosaic: np.ndarray, cfa: str) -> None:
    meta = Meta(cfa=cfa, black=(1024.0,) * 4, white=65535.0)
    back, new = unpack(pack(mosaic, meta), meta)
    h, w = mosaic.shape[0] // 2 * 2, mosaic.shape[1] // 2 * 2
    np.testing.assert_array_equal(back, mosaic[:h, :w])
    assert (new.cfa, new.black, new.white) == (cfa, meta.black, meta.white)


def test_unpack_keeps_noise_below_black_clips_highlights_and_blackens_nan() -> None:
    planes = np.array([-0.01, 1.5, np.nan, -1.0], np.float32).reshape(4, 1, 1)
    mosaic, meta = unpack(planes, META)
    assert mosaic.tolist() == [[round(1024 - 645.11), 65535], [1024, 0]]
    assert pack(mosaic, meta)[0, 0, 0] == pytest.approx(-0.01, abs=1e-5)


def test_planes_of_black_and_white_are_zero_and_one() -> None:
    mosaic = np.array([[512, 510, 16383, 16383], [514, 512, 16383, 16383]], np.uint16)
    np.testing.assert_array_equal(pack(mosaic, META), np.array([[[0, 1]]] * 4, np.float32))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: plane_offsets("RGB"), "plane_offsets: cfa must be one of"),
        (lambda: pack(np.zeros((4, 4), np.float32), META), "pack: mosaic must be"),
        (lambda: pack(np.zeros((1, 4), np.uint16), META), "pack: mosaic must be"),
        (lambda: pack(np.zeros((4, 4), np.uint16), Meta()), "must have a cfa"),
        (
            lambda: pack(np.zeros((4, 4), np.uint16), Meta(cfa="RGGB", black=(9.0,) * 4, white=9.0)),
            "above meta.black",
        ),
        (lambda: unpack(np.zeros((3, 2, 2), np.float32), META), "unpack: planes must be"),
        (lambda: unpack(np.zeros((4, 2, 2), np.float32), Meta()), "must have a cfa"),
        (lambda: decode_lut(np.float32), "decode_lut: dtype must be"),
        (lambda: encode_u16(np.zeros(3, np.uint8)), "encode_u16: linear must be"),
    ],
)
def test_wrong_arguments_are_named(call: object, text: str) -> None:
    with pytest.raises(ArgumentError, match=text):
        call()  # type: ignore[operator]


def test_srgb_known_values_and_round_trip() -> None:
    # 0.5 encoded is 0.21404 linear; the straight part ends at 0.04045
    assert srgb_to_linear(0.5) == pytest.approx(0.21404114, abs=1e-7)
    assert srgb_to_linear(0.04045) == pytest.approx(0.04045 / 12.92)
    x = np.linspace(0, 1, 5001)
    np.testing.assert_allclose(linear_to_srgb(srgb_to_linear(x)), x, atol=2e-7)
    assert linear_to_srgb(np.float32([0.2])).dtype == np.float32


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_decode_lut_is_the_curve(dtype: type) -> None:
    table = decode_lut(dtype)
    top = np.iinfo(dtype).max
    np.testing.assert_allclose(table, srgb_to_linear(np.arange(top + 1) / top), atol=6e-8)
    assert not table.flags.writeable


def test_encode_is_within_one_code_everywhere_and_clips() -> None:
    linear = np.concatenate([np.linspace(0, 1, 700_001), np.geomspace(1e-8, 1, 300_000)]).astype(np.float32)
    want = linear_to_srgb(linear.astype(np.float64)) * 65535
    assert np.abs(encode_u16(linear) - want).max() <= 1.0  # measured 0.90
    odd = np.array([[-1.0, 2.0], [np.nan, np.inf]], np.float32)
    assert encode_u16(odd).tolist() == [[0, 65535], [0, 65535]]


def test_every_16_bit_code_survives_decode_and_encode() -> None:
    codes = np.arange(65536, dtype=np.uint16)
    back = encode_u16(decode_lut(np.uint16)[codes]).astype(int)
    assert np.abs(back - codes).max() <= 1
