"""Which files make a burst, and what is read from them: against Pillow, tifffile and hand-made files."""

from __future__ import annotations

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pyfocus.burst import Frame, Meta
from pyfocus.errors import ArgumentError, BurstError, ReadError
from pyfocus.io import check_same, find_frames, natural_key, read_burst, read_image

SHARED = Path(os.environ.get("PYFOCUS_SHARED", Path(__file__).parents[2] / "shared")) / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared test pictures are not here")

RNG = np.random.default_rng(7)
RGB8 = RNG.integers(0, 256, (20, 31, 3), np.uint8)
RGB16 = RNG.integers(0, 65536, (20, 31, 3), np.uint16)


def jpeg(path: Path, when: str = "", subsec: str = "", size: tuple[int, int] = (32, 24), model: str = "") -> Path:
    exif = Image.Exif()
    if model:
        exif[271], exif[272] = "Maker", model
    if when:
        exif.get_ifd(34665).update({36867: when, 37521: subsec, 33434: (1, 60), 34855: 200})
    Image.new("RGB", size).save(path, "jpeg", exif=exif)
    return path


# ---- order ----


@given(st.lists(st.integers(0, 10**12), unique=True, min_size=1), st.sampled_from(["IMG_", "b", "", "x 1 "]))
def test_natural_sort_orders_by_number(numbers: list[int], stem: str) -> None:
    names = [f"{stem}{n}.tif" for n in numbers]
    assert sorted(names, key=natural_key) == [f"{stem}{n}.tif" for n in sorted(numbers)]


@given(st.lists(st.text(max_size=12)))
def test_natural_sort_takes_any_text_and_is_a_permutation(names: list[str]) -> None:
    assert sorted(sorted(names, key=natural_key)) == sorted(names)


def test_folders_globs_and_files(tmp_path: Path) -> None:
    for name in ("IMG_10.jpg", "IMG_2.jpg", "img_1.JPG", ".IMG_0.jpg", "._IMG_2.jpg"):
        jpeg(tmp_path / name)
    for name in ("IMG_2.xmp", "notes.txt", "scene.json"):
        (tmp_path / name).write_text("x")
    (tmp_path / "below").mkdir()
    jpeg(tmp_path / "below" / "IMG_3.jpg")
    want = ["img_1.JPG", "IMG_2.jpg", "IMG_10.jpg"]
    assert [f.name for f in find_frames(tmp_path)] == want
    assert [f.name for f in find_frames([str(tmp_path / "*")])] == want
    given_order = [tmp_path / "IMG_10.jpg", tmp_path / "IMG_2.jpg"]
    assert [f.path for f in find_frames(given_order, "as-given")] == given_order
    assert [f.path for f in find_frames(given_order)] == given_order[::-1]


def test_a_file_name_with_brackets_is_no_pattern(tmp_path: Path) -> None:
    assert find_frames(jpeg(tmp_path / "a[1].jpg"))[0].name == "a[1].jpg"


def test_of_a_raw_and_its_jpeg_twin_the_raw_is_taken(tmp_path: Path) -> None:
    (tmp_path / "P1.RW2").write_bytes(b"x")
    jpeg(tmp_path / "P1.JPG")
    jpeg(tmp_path / "P2.JPG")
    assert [f.name for f in find_frames(tmp_path)] == ["P1.RW2", "P2.JPG"]


def test_exif_order_uses_fractions_of_a_second_then_names(tmp_path: Path) -> None:
    jpeg(tmp_path / "a.jpg", "2024:05:01 10:00:00", "9")
    jpeg(tmp_path / "b.jpg", "2024:05:01 10:00:00", "25")
    jpeg(tmp_path / "c.jpg", "2024:05:01 09:59:59", "99")
    jpeg(tmp_path / "d10.jpg", "2024:05:01 10:00:00", "25")
    jpeg(tmp_path / "d9.jpg", "2024:05:01 10:00:00", "25")
    assert [f.name for f in find_frames(tmp_path, "exif")] == ["c.jpg", "b.jpg", "d9.jpg", "d10.jpg", "a.jpg"]
    jpeg(tmp_path / "e.jpg")
    with pytest.raises(BurstError, match=r"e.jpg: no capture time"):
        find_frames(tmp_path, "exif")


def test_nothing_to_find_is_an_error(tmp_path: Path) -> None:
    for paths, text in (
        ([], "no files given"),
        (tmp_path, "no images"),
        (tmp_path / "*.tif", "no image file matches"),
    ):
        with pytest.raises(ReadError, match=text):
            find_frames(paths)
    with pytest.raises(ReadError, match="no such file"):
        find_frames(tmp_path / "gone.tif")
    with pytest.raises(ArgumentError, match="order must be one of"):
        find_frames(tmp_path, "random")  # type: ignore[arg-type]


# ---- image files ----


@pytest.mark.parametrize("array", [RGB8, RGB16, RGB8[..., 0], RGB16[..., 1]], ids=["rgb8", "rgb16", "g8", "g16"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "lzw", "adobe_deflate", "zstd"])
def test_tiff_values(tmp_path: Path, array: np.ndarray, order: str, compression: str | None) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, array, byteorder=order, compression=compression, rowsperstrip=7)
    frame = read_image(path)
    assert frame.data.dtype == array.dtype and frame.data.dtype.isnative
    np.testing.assert_array_equal(frame.data, array)
    assert frame.meta.encoding == "srgb"


def test_tiff_planar_alpha_float_and_inverted_grey(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.moveaxis(RGB16, -1, 0), photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(read_image(path).data, RGB16)
    tifffile.imwrite(path, np.dstack([RGB16, RGB16[..., 0]]), photometric="rgb", extrasamples=["unassalpha"])
    np.testing.assert_array_equal(read_image(path).data, RGB16)
    values = RNG.random((20, 31, 3)).astype(np.float32)
    tifffile.imwrite(path, values.astype(">f4"), photometric="rgb", byteorder=">")
    frame = read_image(path)
    np.testing.assert_array_equal(frame.data, values)
    assert frame.meta.encoding == "linear" and frame.data.dtype == np.float32
    tifffile.imwrite(path, RGB8[..., 0], photometric="miniswhite")
    np.testing.assert_array_equal(read_image(path).data, 255 - RGB8[..., 0])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P"])
def test_png_and_webp_values(tmp_path: Path, mode: str) -> None:
    picture = Image.fromarray(RGB8).convert(mode)
    want = np.asarray(picture.convert("L" if mode in ("L", "LA") else "RGB"))
    picture.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").data, want)
    if mode in ("RGB", "RGBA"):
        Image.fromarray(np.dstack([RGB8, RGB8[..., 0] | 1])).convert(mode).save(tmp_path / "a.webp", lossless=True)
        np.testing.assert_array_equal(read_image(tmp_path / "a.webp").data, RGB8)


def test_png_16_and_jpeg_values(tmp_path: Path) -> None:
    import cv2

    cv2.imwrite(str(tmp_path / "a.png"), RGB16[..., ::-1])
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").data, RGB16)
    smooth = np.add.outer(np.arange(48), 2 * np.arange(64))[..., None] + np.array([0, 30, 60])
    Image.fromarray(smooth.astype(np.uint8)).save(tmp_path / "a.jpg", quality=97)
    want = np.asarray(Image.open(tmp_path / "a.jpg")).astype(int)
    got = read_image(tmp_path / "a.jpg").data
    assert np.abs(got - want).max() <= 1  # two builds of libjpeg may round the colour conversion differently
    Image.fromarray(smooth.astype(np.uint8)).convert("L").save(tmp_path / "g.jpg")
    assert read_image(tmp_path / "g.jpg").data.shape == (48, 64)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "jpg"])
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, suffix: str) -> None:
    from PIL import ImageOps

    path = tmp_path / f"a.{suffix}"
    exif = Image.Exif()
    exif[274] = orientation
    blocks = np.kron(RNG.integers(0, 256, (2, 3, 3), np.uint8), np.ones((16, 16, 1), np.uint8))
    Image.fromarray(blocks).save(path, exif=exif, **({"lossless": True} if suffix == "webp" else {"quality": 98}))
    want = np.asarray(ImageOps.exif_transpose(Image.open(path))).astype(int)
    frame = read_image(path)
    assert frame.data.shape == want.shape and frame.meta.orientation == 1
    assert np.abs(frame.data - want).max() <= (2 if suffix == "jpg" else 0)


def test_exif_and_icc_are_kept_from_every_container(tmp_path: Path) -> None:
    from PIL import ImageCms

    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif.update({271: "Maker", 272: "Model X", 306: "2024:05:01 10:00:00"})
    exif.get_ifd(34665).update({33434: 0.004, 33437: 5.6, 34855: 400, 37386: 90, 42036: "Macro 90", 37521: "42"})
    for suffix in ("jpg", "png", "webp", "tif"):
        path = tmp_path / f"a.{suffix}"
        Image.fromarray(RGB8).save(path, exif=exif, icc_profile=icc)
        meta = read_image(path).meta
        assert meta.camera == "Maker Model X" and meta.icc == icc, suffix
        if suffix == "tif":  # Pillow leaves the EXIF directory out of the TIFFs it writes
            continue
        assert meta.exif["ExposureTime"] == Fraction(1, 250) and meta.exif["ISOSpeedRatings"] == 400
        assert float(meta.exif["FNumber"]) == pytest.approx(5.6) and meta.exif["LensModel"] == "Macro 90"
        assert meta.exif["SubsecTimeOriginal"] == "42"


# ---- stacks and bursts ----


def test_pages_of_a_tiff_are_frames(tmp_path: Path) -> None:
    path = tmp_path / "z.tif"
    with tifffile.TiffWriter(path) as tif:
        for value in range(3):
            tif.write(np.full((20, 30), value, np.uint16), photometric="minisblack")
            tif.write(np.zeros((16, 16), np.uint16), subfiletype=1)
    burst = read_burst(path)
    assert burst.names == ["z.tif[0]", "z.tif[2]", "z.tif[4]"]
    assert [int(f.data[0, 0]) for f in burst] == [0, 1, 2]


@pytest.mark.parametrize("kind", ["ome", "imagej"])
def test_microscope_stacks_tell_their_scale(tmp_path: Path, kind: str) -> None:
    stack = RNG.integers(0, 65536, (4, 20, 30), np.uint16)
    path = tmp_path / ("z.ome.tif" if kind == "ome" else "z.tif")
    if kind == "ome":
        said = {"axes": "ZYX", "PhysicalSizeX": 0.25, "PhysicalSizeZ": 1500, "PhysicalSizeZUnit": "nm"}
        tifffile.imwrite(path, stack, ome=True, metadata=said)
    else:
        tifffile.imwrite(
            path,
            stack,
            imagej=True,
            resolution=(4, 4),
            metadata={"axes": "ZYX", "spacing": 1.5, "unit": "um"},
        )
    burst = read_burst(path)
    np.testing.assert_array_equal(np.stack([f.data for f in burst]), stack)
    assert burst[2].meta.pixel_um == pytest.approx(0.25) and burst[2].meta.step_um == pytest.approx(1.5)


def test_a_stack_over_channels_is_refused(tmp_path: Path) -> None:
    stack = np.zeros((3, 2, 20, 30), np.uint16)
    tifffile.imwrite(tmp_path / "z.ome.tif", stack, ome=True, metadata={"axes": "ZCYX"})
    with pytest.raises(ReadError, match="3 slices, 2 channels"):
        read_burst(tmp_path / "z.ome.tif")


def test_frames_of_two_sizes_or_cameras_are_named(tmp_path: Path) -> None:
    jpeg(tmp_path / "a.jpg", model="One")
    jpeg(tmp_path / "b.jpg", model="One", size=(40, 24))
    jpeg(tmp_path / "c.jpg", model="Two")
    burst = read_burst(tmp_path)
    with pytest.raises(BurstError, match=r"b.jpg is 40 x 24 px, a.jpg is 32 x 24 px"):
        burst[1]
    with pytest.raises(BurstError, match=r"c.jpg is from Maker Two, a.jpg from Maker One"):
        burst[2]


def test_check_same_tells_kinds_apart() -> None:
    grey, mosaic = np.zeros((20, 20), np.uint8), np.zeros((20, 20), np.uint16)
    first = Frame(mosaic, Meta(name="a", cfa="RGGB"))
    check_same(first, first)
    with pytest.raises(BurstError, match="b is an image, a is a RGGB mosaic"):
        check_same(first, Frame(mosaic, Meta(name="b")))
    with pytest.raises(BurstError, match="b is uint8 grey, a is uint16 grey"):
        check_same(Frame(mosaic, Meta(name="a")), Frame(grey, Meta(name="b")))


def test_frames_can_be_read_from_threads_in_any_order(tmp_path: Path) -> None:
    for i in range(8):
        Image.fromarray(np.full((16, 16, 3), i, np.uint8)).save(tmp_path / f"{i}.png")
    burst = read_burst(tmp_path)
    got: dict[int, int] = {}
    threads = [
        Thread(target=lambda i=i: got.update({i: int(burst[i].data[0, 0, 0])})) for i in (5, 3, 7, 0, 1, 2, 4, 6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == {i: i for i in range(8)}


@needs_shared
@pytest.mark.parametrize("name", ["pcb", "mineral", "dslr", "algae", "scorpion"])
def test_real_stacks_read_as_pillow_reads_them(name: str) -> None:
    burst = read_burst(SHARED / "stacks" / name)
    assert len(burst) == {"pcb": 7, "mineral": 14, "dslr": 7, "algae": 5, "scorpion": 4}[name]
    frame = burst[0]
    want = np.asarray(Image.open(SHARED / "stacks" / name / burst.names[0]).convert("RGB")).astype(int)
    assert np.abs(frame.data - want).max() <= 3  # chroma upsampling differs between libjpeg builds
    assert bool(frame.meta.camera) == (name in ("pcb", "dslr", "scorpion"))


def test_import_is_light() -> None:
    heavy = "{'cv2', 'rawpy', 'tifffile', 'imagecodecs', 'torch'}"
    code = f"import sys, pyfocus.io; print(sorted({heavy} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
