"""What is written can be read again, here and by Pillow, and nothing is ever left half-written."""

from __future__ import annotations

import errno
import io
import json
import os
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageCms

from pyfocus.burst import Meta
from pyfocus.errors import ArgumentError, WriteError
from pyfocus.io import atomic, check_target, read_burst, read_image, srgb_profile, write_depth, write_image

RNG = np.random.default_rng(3)
FLOAT = RNG.random((20, 31, 3)).astype(np.float32)
SMOOTH = np.clip(np.add.outer(np.linspace(0, 0.6, 48), np.linspace(0, 0.4, 64))[..., None] + [0, 0.02, 0], 0, 1)
META = Meta(
    make="Maker",
    model="Maker X1",
    exif={
        "Make": "Maker",
        "Model": "Maker X1",
        "DateTime": "2024:05:01 10:00:01",
        "DateTimeOriginal": "2024:05:01 10:00:00",
        "SubsecTimeOriginal": "25",
        "ExposureTime": Fraction(1, 250),
        "FNumber": Fraction(28, 5),
        "ISOSpeedRatings": 400,
        "FocalLength": Fraction(90),
        "ExposureBiasValue": Fraction(-2, 3),
        "LensModel": "Macro 90 mm",
        "LensSpecification": (Fraction(90), Fraction(90), Fraction(14, 5), float("nan")),
        "Artist": "Zoë",
    },
)


def leftovers(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if p.name.endswith(".part")]


@pytest.mark.parametrize("suffix", [".tif", ".tiff", ".png"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("grey", [False, True])
def test_lossless_round_trip(tmp_path: Path, suffix: str, bits: int, grey: bool) -> None:
    image = FLOAT[..., 0] if grey else FLOAT
    path = write_image(tmp_path / f"a{suffix}", image, bits=bits)  # type: ignore[arg-type]
    top = 2**bits - 1
    want = np.rint(image.astype(np.float64) * top)
    got = read_image(path).data
    assert got.dtype == (np.uint8 if bits == 8 else np.uint16) and np.abs(got - want).max() <= 1
    if suffix != ".png":
        np.testing.assert_array_equal(tifffile.imread(path), got)
    if bits == 8 or grey:  # Pillow knows no 16-bit RGB
        with Image.open(path) as picture:
            np.testing.assert_array_equal(np.asarray(picture).astype(int), got)
    elif suffix == ".png":
        import cv2

        np.testing.assert_array_equal(cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[..., ::-1], got)


@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.uint16]),
        st.tuples(st.integers(16, 20), st.integers(16, 20), st.just(3)),
        elements=st.integers(0, 255),
    )
)
@settings(max_examples=15, deadline=None)
def test_integers_come_back_equal(tmp_path_factory: pytest.TempPathFactory, image: np.ndarray) -> None:
    folder = tmp_path_factory.mktemp("law")
    for suffix in (".tif", ".png"):
        back = read_image(write_image(folder / f"a{suffix}", image)).data
        assert back.dtype == image.dtype
        np.testing.assert_array_equal(back, image)


def test_jpeg_is_close(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.jpg", SMOOTH)
    got, want = read_image(path).data.astype(int), np.rint(SMOOTH * 255)
    assert np.abs(got - want).max() <= 5 and np.abs(got - want).mean() < 1  # measured 4 and 0.6
    with Image.open(path) as picture:
        assert np.abs(np.asarray(picture).astype(int) - got).max() <= 1


def test_depths_convert_by_rounding(tmp_path: Path) -> None:
    grey = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    got = read_image(write_image(tmp_path / "a.png", grey, bits=8)).data
    np.testing.assert_array_equal(got, np.rint(grey / 257))
    up = read_image(write_image(tmp_path / "b.tif", got, bits=16)).data
    np.testing.assert_array_equal(up, got.astype(int) * 257)


def test_out_of_range_clips(tmp_path: Path) -> None:
    image = np.full((16, 16), 2.0, np.float32)
    image[0, :3] = [-1, np.nan, np.inf]
    assert read_image(write_image(tmp_path / "a.tif", image)).data[0, :4].tolist() == [0, 0, 65535, 65535]


@pytest.mark.parametrize("suffix", ["tif", "png", "jpg"])
def test_exif_and_profile_are_kept_for_us_and_for_pillow(tmp_path: Path, suffix: str) -> None:
    path = write_image(tmp_path / f"a.{suffix}", SMOOTH, meta=META, bits=8, description="twelve frames")
    meta = read_image(path).meta
    for name, value in META.exif.items():
        if name != "LensSpecification":
            assert meta.exif[name] == value, name
    assert meta.exif["LensSpecification"][:3] == META.exif["LensSpecification"][:3]
    assert meta.exif["ImageDescription"] == "twelve frames" and meta.icc == srgb_profile()
    with Image.open(path) as picture:
        exif = picture.getexif()
        inner = exif.get_ifd(34665)
        assert picture.info["icc_profile"] == srgb_profile()
    assert (exif[271], exif[272], exif[306], exif[274]) == ("Maker", "Maker X1", "2024:05:01 10:00:01", 1)
    assert float(inner[33434]) == 0.004 and inner[34855] == 400 and inner[42036] == "Macro 90 mm"
    assert float(inner[33437]) == 5.6 and inner[36867] == "2024:05:01 10:00:00"
    assert float(inner[37380]) == pytest.approx(-2 / 3) and inner[36864] == b"0232"
    assert (inner[40962], inner[40963], inner[40961]) == (64, 48, 1)


@pytest.mark.parametrize("suffix", ["tif", "png", "jpg"])
def test_the_sources_profile_wins_where_it_fits(tmp_path: Path, suffix: str) -> None:
    other = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    wide = srgb_profile()[:-4] + bytes(4)  # another RGB profile
    for icc, want in ((wide, wide), (other, srgb_profile()), (b"junk", srgb_profile())):
        path = write_image(tmp_path / f"a.{suffix}", SMOOTH, meta=replace(META, icc=icc), overwrite=True)
        assert read_image(path).meta.icc == want
    linear = replace(META, icc=wide, encoding="linear")
    path = write_image(tmp_path / f"a.{suffix}", SMOOTH, meta=linear, overwrite=True)
    assert read_image(path).meta.icc == srgb_profile()
    path = write_image(tmp_path / f"a.{suffix}", SMOOTH[..., 0], meta=replace(META, icc=wide), overwrite=True)
    assert read_image(path).meta.icc == srgb_profile(1)


def test_a_profile_of_200_kb_is_split_over_jpeg_segments(tmp_path: Path) -> None:
    big = srgb_profile() + bytes(200_000)
    path = write_image(tmp_path / "a.jpg", SMOOTH, meta=replace(META, icc=big))
    assert read_image(path).meta.icc == big
    with Image.open(path) as picture:
        assert picture.info["icc_profile"] == big


def test_our_profile_is_srgb_to_littlecms() -> None:
    profile = ImageCms.ImageCmsProfile(io.BytesIO(srgb_profile()))
    assert ImageCms.getProfileDescription(profile).strip() == "pyfocus sRGB"
    picture = Image.fromarray(RNG.integers(0, 256, (64, 64, 3), np.uint8))
    turned = ImageCms.profileToProfile(picture, profile, ImageCms.createProfile("sRGB"))
    assert np.abs(np.asarray(turned).astype(int) - np.asarray(picture)).max() <= 1
    grey = ImageCms.ImageCmsProfile(io.BytesIO(srgb_profile(1)))
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    turned = ImageCms.profileToProfile(ramp, grey, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert np.abs(np.asarray(turned).astype(int) - np.asarray(ramp)[..., None]).max() <= 1


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_depth_map_scale(tmp_path: Path, suffix: str) -> None:
    depth = np.tile(np.array([0, 4.5, 9, np.nan], np.float32), (16, 5))
    path = write_depth(tmp_path / f"d{suffix}", depth, frames=10)
    assert read_image(path).data[3, :4].tolist() == [0, 32768, 65535, 0]
    write_depth(path, np.zeros((16, 16)), frames=1, overwrite=True)
    assert not read_image(path).data.any()
    with pytest.raises(ArgumentError, match="write_depth: depth must be"):
        write_depth(path, np.zeros((2, 2, 2)), frames=3, overwrite=True)


def test_a_fused_stack_does_not_claim_to_be_a_stack(tmp_path: Path) -> None:
    stack = np.zeros((4, 20, 30), np.uint16)
    for kind in ({"ome": True}, {"imagej": True}, {}):
        tifffile.imwrite(tmp_path / "z.tif", stack, photometric="minisblack", metadata={"axes": "ZYX"}, **kind)
        meta = read_burst(tmp_path / "z.tif")[0].meta
        path = write_image(tmp_path / "a.tif", stack[0], meta=meta, overwrite=True)
        with tifffile.TiffFile(path) as tif:
            assert tif.series[0].shape == (20, 30) and not tif.is_ome and not tif.is_imagej


# ---- targets ----


def test_targets_are_refused_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "there.tif").write_bytes(b"mine")
    (tmp_path / "dir.tif").mkdir()
    for name, text in (
        ("there.tif", "exists already"),
        ("dir.tif", "is a folder"),
        ("gone/a.tif", "does not exist"),
        ("a.bmp", "must end in .*got '.bmp'"),
        ("a", "got 'no suffix'"),
        ("there.tif/a.tif", "does not exist"),
    ):
        with pytest.raises(WriteError, match=text):
            check_target(tmp_path / name)
        with pytest.raises(WriteError, match=text):
            write_image(tmp_path / name, FLOAT)
    assert (tmp_path / "there.tif").read_bytes() == b"mine"
    assert check_target(tmp_path / "there.tif", True) == tmp_path / "there.tif"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(WriteError, match="no permission"):
        check_target(tmp_path / "a.tif")


def test_atomic_keeps_the_old_file_when_the_writer_fails(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text("old")
    with pytest.raises(KeyError), atomic(path, overwrite=True) as file:
        file.write(b"half")
        raise KeyError
    assert path.read_text() == "old" and not leftovers(tmp_path)
    with atomic(path, overwrite=True) as file:
        file.write(json.dumps([1]).encode())
    assert json.loads(path.read_text()) == [1] and not leftovers(tmp_path)
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_file_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    with pytest.raises(WriteError, match="appeared while"), atomic(path) as file:
        file.write(b"ours")
        path.write_text("theirs")
    assert path.read_text() == "theirs" and not leftovers(tmp_path)


def test_a_full_disk_names_the_bytes_needed(tmp_path: Path) -> None:
    with (
        pytest.raises(WriteError, match=r"disk is full \(123 bytes needed, \d+ free\)"),
        atomic(tmp_path / "a.tif", size=123),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(WriteError, match="cannot be written: Input/output error"), atomic(tmp_path / "a.tif"):
        raise OSError(errno.EIO, "Input/output error")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_really_full_device_is_an_enospc() -> None:
    # the same buffered write as in `atomic`: the error comes as OSError with the number that is looked for
    with pytest.raises(OSError) as caught, open("/dev/full", "wb") as file:
        file.write(bytes(1 << 16))
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize("name", ["a.tif", "a.png"])
def test_a_write_the_system_cuts_short_leaves_nothing(tmp_path: Path, name: str) -> None:
    resource = pytest.importorskip("resource")
    noise = RNG.random((100, 100, 3))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limits[1]))
    try:
        with pytest.raises(WriteError, match=rf"{name}: the disk is full \(\d+ bytes needed"):
            write_image(tmp_path / name, noise)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "image", "options", "text"),
    [
        ("a.tif", np.zeros((4, 4, 2)), {}, "image must be"),
        ("a.tif", np.zeros((4, 4), np.int32), {}, "float, uint8 or uint16"),
        ("a.tif", np.zeros((0, 4)), {}, "image must be"),
        ("a.tif", np.zeros((4, 4)), {"bits": 12}, "bits must be 8 or 16"),
        ("a.jpg", np.zeros((4, 4)), {"bits": 16}, "bits must be 8 for .jpg"),
        ("a.jpg", np.zeros((4, 4)), {"quality": 0}, "quality must be"),
        ("a.jpg", np.zeros((4, 4)), {"description": "x" * 70_000}, "shorten the description"),
    ],
)
def test_wrong_arguments(tmp_path: Path, name: str, image: np.ndarray, options: dict[str, object], text: str) -> None:
    with pytest.raises(ArgumentError, match=text):
        write_image(tmp_path / name, image, **options)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
