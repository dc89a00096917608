"""DNG out, raw in: LibRaw reads back what was written, and develops it as it does the camera's own file."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import rawpy
import tifffile

from pyfocus.burst import Meta
from pyfocus.colour import linear_to_srgb
from pyfocus.errors import ArgumentError, BurstError, ReadError, WriteError
from pyfocus.io import develop_mosaic, dng_bytes, find_frames, read_burst, read_image, write_dng
from pyfocus.raw import CFA_ORDERS, pack, plane_offsets, unpack

SHARED = Path(os.environ.get("PYFOCUS_SHARED", Path(__file__).parents[2] / "shared")) / "data"
CRW = SHARED / "raw/canon-s40"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared test pictures are not here")

# Canon PowerShot S40, as LibRaw knows it
MATRIX = (0.8606, -0.2573, -0.0949, -0.8237, 1.5489, 0.2974, -0.2649, 0.3076, 0.91)
META = Meta(
    make="Maker",
    model="Model 7",
    cfa="RGGB",
    black=(500.0, 512.0, 512.0, 530.0),
    white=16383.0,
    white_balance=(2.1, 1.0, 1.55),
    xyz_to_camera=MATRIX,
    exif={
        "Make": "Maker",
        "Model": "Model 7",
        "DateTimeOriginal": "2024:05:01 10:00:00",
        "ExposureTime": Fraction(1, 60),
        "FNumber": Fraction(4),
        "ISOSpeedRatings": 200,
        "LensModel": "Macro 60",
    },
)
MOSAIC = np.random.default_rng(5).integers(0, 16384, (50, 70), np.uint16)


@pytest.mark.parametrize("cfa", CFA_ORDERS)
@pytest.mark.parametrize("shape", [(50, 70), (51, 33)])
def test_libraw_reads_back_what_was_written(tmp_path: Path, cfa: str, shape: tuple[int, int]) -> None:
    mosaic = np.random.default_rng(5).integers(0, 16384, shape, np.uint16)
    path = write_dng(tmp_path / "a.dng", mosaic, replace(META, cfa=cfa))
    with rawpy.imread(str(path)) as raw:
        np.testing.assert_array_equal(raw.raw_image_visible, mosaic)
        assert "".join("RGBG"[raw.raw_color(y, x)] for y in (0, 1) for x in (0, 1)) == cfa
        assert raw.white_level == 16383
        np.testing.assert_allclose(raw.camera_whitebalance[:3], META.white_balance, rtol=1e-5)
        assert (raw.sizes.height, raw.sizes.width) == shape == raw.raw_image_visible.shape
    frame = read_burst(path)[0]
    np.testing.assert_array_equal(frame.data, mosaic)
    assert frame.meta.cfa == cfa and frame.meta.black == META.black and frame.meta.camera == "Maker Model 7"
    np.testing.assert_allclose(frame.meta.white_balance, META.white_balance, rtol=1e-5)
    mine, theirs = np.reshape(frame.meta.xyz_to_camera, (3, 3)), np.reshape(MATRIX, (3, 3))
    np.testing.assert_allclose(mine, theirs, atol=2e-4)
    for name, value in META.exif.items():
        assert frame.meta.exif[name] == value, name


def test_tags_are_sorted_typed_and_complete(tmp_path: Path) -> None:
    path = write_dng(tmp_path / "a.dng", MOSAIC, replace(META, orientation=6), description="8 frames")
    with tifffile.TiffFile(path) as tif:
        tags = tif.pages[0].tags
        codes = [t.code for t in tags]
        assert codes == sorted(codes) and len(set(codes)) == len(codes)
        want = {
            254: ("LONG", 0), 256: ("LONG", 70), 257: ("LONG", 50), 258: ("SHORT", 16), 259: ("SHORT", 1),
            262: ("SHORT", 32803), 270: ("ASCII", "8 frames"), 274: ("SHORT", 6), 277: ("SHORT", 1),
            33421: ("SHORT", (2, 2)), 33422: ("BYTE", b"\0\1\1\2"), 50706: ("BYTE", b"\1\4\0\0"),
            50708: ("ASCII", "Maker Model 7"), 50713: ("SHORT", (2, 2)), 50717: ("LONG", 16383),
            50719: ("LONG", (0, 0)), 50720: ("LONG", (70, 50)), 50778: ("SHORT", 21),
            50829: ("LONG", (0, 0, 50, 70)),
        }  # fmt: skip
        for code, (kind, value) in want.items():
            assert (tags[code].dtype.name, tags[code].value) == (kind, value), code
        assert tags[50714].dtype.name == "RATIONAL" and tags[50714].value == (500, 1, 512, 1, 512, 1, 530, 1)
        assert tags[50721].dtype.name == "SRATIONAL" and tags[50728].dtype.name == "RATIONAL"
        neutral = np.divide(tags[50728].value[::2], tags[50728].value[1::2])
        np.testing.assert_allclose(1 / neutral, META.white_balance, rtol=1e-6)
        assert tags[34665].value["ISOSpeedRatings"] == 200
        assert tags[273].value[0] % 16 == 0 and tags[273].value[0] + tags[279].value[0] == path.stat().st_size


def test_bytes_are_the_file(tmp_path: Path) -> None:
    assert write_dng(tmp_path / "a.dng", MOSAIC, META).read_bytes() == dng_bytes(MOSAIC, META)
    with pytest.raises(WriteError, match="exists already"):
        write_dng(tmp_path / "a.dng", MOSAIC, META)
    with pytest.raises(WriteError, match=r"must end in .dng"):
        write_dng(tmp_path / "a.tif", MOSAIC, META)


@pytest.mark.parametrize(
    ("mosaic", "meta", "text"),
    [
        (MOSAIC.astype(np.float32), META, "mosaic must be"),
        (MOSAIC, replace(META, cfa=None), "meta.cfa must be one of"),
        (MOSAIC, replace(META, white=100.0), "above meta.black"),
        (MOSAIC, replace(META, white_balance=(0.0, 1.0, 1.0)), "must be positive"),
    ],
)
def test_wrong_mosaics(mosaic: np.ndarray, meta: Meta, text: str) -> None:
    with pytest.raises(ArgumentError, match=text):
        dng_bytes(mosaic, meta)


# ---- development ----


def test_grey_develops_to_grey_at_its_level() -> None:
    """A grey card under the white balance's light: counts in inverse proportion to the multipliers."""
    meta = replace(META, black=(512.0,) * 4, xyz_to_camera=None)
    mosaic = np.empty((64, 64), np.uint16)
    for (y, x), gain in zip(plane_offsets("RGGB"), (2.1, 1.0, 1.0, 1.55), strict=True):
        mosaic[y::2, x::2] = round(512 + 0.2 * (16383 - 512) / gain)
    linear = develop_mosaic(mosaic, meta, output="linear")
    assert linear.dtype == np.uint16 and linear.shape == (64, 64, 3)
    np.testing.assert_allclose(linear[8:-8, 8:-8] / 65535, 0.2, atol=2e-4)
    srgb = develop_mosaic(mosaic, meta)
    np.testing.assert_allclose(srgb[8:-8, 8:-8] / 65535, linear_to_srgb(0.2), atol=4e-4)


def test_orientation_is_applied() -> None:
    mosaic = np.full((40, 60), 600, np.uint16)
    mosaic[:10, :10] = 9000  # top left; turned clockwise by orientation 6 it comes to the top right
    for orientation, corner in ((1, (0, 0)), (3, (-1, -1)), (6, (0, -1)), (8, (-1, 0))):
        image = develop_mosaic(mosaic, replace(META, orientation=orientation))
        assert image.shape == ((60, 40, 3) if orientation in (6, 8) else (40, 60, 3))
        assert image[corner].max() == image.max(), orientation


def test_develop_refuses_unknown_settings() -> None:
    with pytest.raises(ArgumentError, match="output must be"):
        develop_mosaic(MOSAIC, META, output="log")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="demosaic must be"):
        develop_mosaic(MOSAIC, META, demosaic="amaze")  # type: ignore[arg-type]


@needs_shared
@pytest.mark.parametrize("name", ["CRW_0101.CRW", "CRW_0117.CRW"])
def test_a_camera_raw_and_our_dng_of_it_develop_alike(name: str) -> None:
    frame = read_burst(CRW / name)[0]
    assert frame.meta.camera == "Canon PowerShot S40" and frame.size == (1720, 2312)
    with rawpy.imread(str(CRW / name)) as raw:
        want = raw.postprocess(
            demosaic_algorithm=rawpy.DemosaicAlgorithm.DHT, use_camera_wb=True, no_auto_bright=True,
            output_bps=16, gamma=(1, 1), adjust_maximum_thr=0.0,
        )  # fmt: skip
    got = develop_mosaic(frame.data, frame.meta, output="linear")
    off = np.abs(got.astype(int) - want)
    assert off.mean() < 0.5 and np.quantile(off, 0.9999) <= 2  # the demosaicer's choices flip at a few ties


@needs_shared
def test_the_new_levels_of_unpack_change_nothing_visible() -> None:
    frame = read_burst(CRW / "CRW_0117.CRW")[0]
    again, meta = unpack(pack(frame.data, frame.meta), frame.meta)
    one = develop_mosaic(frame.data, frame.meta).astype(int)
    two = develop_mosaic(again, meta).astype(int)
    assert np.abs(one - two).mean() < 25  # of 65535


@needs_shared
def test_rgb_domain_uses_the_first_frames_balance_and_levels() -> None:
    burst = read_burst([CRW / "CRW_0101.CRW", CRW / "CRW_0117.CRW"], domain="rgb")
    first = read_burst(CRW / "CRW_0101.CRW")[0].meta
    second = read_burst(CRW / "CRW_0117.CRW")[0]
    image = burst[1]
    assert image.meta.encoding == "linear" and image.data.dtype == np.uint16 and image.data.shape[2] == 3
    want = develop_mosaic(second.data, replace(second.meta, white_balance=first.white_balance), output="linear")
    assert np.abs(image.data.astype(int) - want).mean() < 0.5
    own = read_image(CRW / "CRW_0117.CRW").data.astype(int)
    assert np.abs(own - image.data).mean() > 50


@needs_shared
def test_raw_domain_uses_the_first_frames_balance() -> None:
    burst = read_burst([CRW / "CRW_0101.CRW", CRW / "CRW_0117.CRW"])
    assert burst[1].meta.white_balance == burst[0].meta.white_balance
    assert burst[1].meta.exif["ExposureTime"] == Fraction(1, 4)
    assert [f.name for f in find_frames(CRW, "exif")] == ["CRW_0117.CRW", "CRW_0101.CRW"]


@needs_shared
def test_simulated_bracket_reads_as_the_readme_says() -> None:
    frame = read_burst(SHARED / "brackets/raw/frames")[0]
    assert frame.meta.cfa == "RGGB" and frame.meta.black == (512.0,) * 4 and frame.meta.white == 16383.0
    np.testing.assert_allclose(frame.meta.white_balance, (2, 1, 1.6), rtol=1e-6)
    with rawpy.imread(io.BytesIO(dng_bytes(frame.data, frame.meta))) as raw:
        ours = np.asarray(raw.color_matrix)
    with rawpy.imread(str(SHARED / "brackets/raw/frames/IMG_0000.dng")) as raw:
        np.testing.assert_allclose(ours, raw.color_matrix, atol=2e-5)


def test_dngs_of_two_sizes_are_refused(tmp_path: Path) -> None:
    write_dng(tmp_path / "a.dng", MOSAIC, META)
    write_dng(tmp_path / "b.dng", MOSAIC[:-2], META)
    write_dng(tmp_path / "c.dng", MOSAIC, replace(META, cfa="BGGR"))
    burst = read_burst(tmp_path)
    with pytest.raises(BurstError, match=r"b.dng is 70 x 48 px, a.dng is 70 x 50 px"):
        burst[1]
    with pytest.raises(BurstError, match=r"c.dng is a BGGR mosaic"):
        burst[2]


def linear_dng(path: Path) -> None:
    """A demosaiced DNG: three samples per pixel, as panorama and denoising programs write them."""
    image = np.full((48, 64, 3), 20000, np.uint16)
    matrix = [v for x in MATRIX for v in (round(x * 10000), 10000)]
    extra = [
        (50706, "B", 4, bytes((1, 4, 0, 0)), True),
        (50708, "s", 0, "Maker", True),
        (50721, "2i", 9, matrix, True),
        (50728, "2I", 3, (1, 2, 1, 1, 1, 2), True),
        (50778, "H", 1, 21, True),
    ]
    tifffile.imwrite(path, image, photometric=34892, extratags=extra, metadata=None)


def test_a_raw_without_a_mosaic_names_the_other_domain(tmp_path: Path) -> None:
    linear_dng(tmp_path / "a.dng")
    with pytest.raises(ReadError, match=r"a.dng: .*--domain rgb"):
        read_burst(tmp_path / "a.dng")[0]
    for domain in ("rgb", "auto"):
        frame = read_burst(tmp_path / "a.dng", domain=domain)[0]  # type: ignore[arg-type]
        assert frame.data.shape == (48, 64, 3) and not frame.is_mosaic
