"""Files that are not what they seem: one clear line each, naming the file, never half a picture."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from pyfocus.burst import Meta
from pyfocus.errors import ReadError
from pyfocus.io import dng_bytes, read_burst, read_image

SHARED = Path(os.environ.get("PYFOCUS_SHARED", Path(__file__).parents[2] / "shared")) / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared test pictures are not here")

RGB = np.random.default_rng(1).integers(0, 256, (64, 80, 3), np.uint8)
META = Meta(cfa="RGGB", black=(64.0,) * 4, white=4095.0)


def save(path: Path) -> None:
    if path.suffix == ".dng":
        path.write_bytes(dng_bytes(np.full((64, 80), 900, np.uint16), META))
    elif path.suffix == ".tif":
        tifffile.imwrite(path, RGB, compression="adobe_deflate" if "packed" in path.name else None)
    else:
        Image.fromarray(RGB).save(path, **({"progressive": True} if "progressive" in path.name else {}))


def refuse(path: Path, text: str, **options: object) -> None:
    """Reading the path must raise one line that names the file."""
    with pytest.raises(ReadError, match=text) as caught:
        read_burst(path, **options)[0]  # type: ignore[arg-type]
    assert path.name in str(caught.value) and "\n" not in str(caught.value)


NAMES = ["a.tif", "packed.tif", "a.png", "a.jpg", "progressive.jpg", "a.webp", "a.dng"]


@pytest.mark.parametrize("name", NAMES)
def test_empty_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    refuse(tmp_path / name, "empty")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("keep", [0.05, 0.5, 0.9, 0.99, 1])
@pytest.mark.parametrize("domain", ["raw", "rgb"])
def test_truncated_file(tmp_path: Path, name: str, keep: float, domain: str, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / name
    save(path)
    read_image(path)
    data = path.read_bytes()
    path.write_bytes(data[: min(int(len(data) * keep), len(data) - 2)])
    refuse(path, "trunc|decoded|no picture|cannot be read", domain=domain)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", [*NAMES, "a.nef", "a.cr3"])
def test_text_with_an_images_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"#!/bin/sh\necho this is no picture\n" * 9)
    refuse(tmp_path / name, "not an image|not a raw|truncated or broken")


def test_text_with_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    refuse(tmp_path / "notes.txt", "not an image")


def test_suffix_does_not_matter_where_the_content_is_an_image(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").rename(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").size == (64, 80)


@pytest.mark.parametrize("name", ["a.jpg", "progressive.jpg", "a.png", "packed.tif"])
def test_right_length_but_zeros_at_the_end(tmp_path: Path, name: str) -> None:
    """What an interrupted copy leaves behind."""
    save(tmp_path / name)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    refuse(tmp_path / name, "truncated|cannot be decoded|no picture")


def test_broken_png_middle(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[len(data) // 2 : len(data) // 2 + 50] = bytes(50)
    (tmp_path / "a.png").write_bytes(data)
    refuse(tmp_path / "a.png", "cannot be decoded")


def png_of(width: int, height: int) -> bytes:
    from zlib import compress, crc32

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc32(kind + body))

    rows = compress(b"\0" * (height * (width + 1)))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(0, 0), (1, 40), (40, 1), (15, 40), (0, 40)])
def test_pictures_without_area(tmp_path: Path, size: tuple[int, int]) -> None:
    (tmp_path / "a.png").write_bytes(png_of(*size))
    refuse(tmp_path / "a.png", "at least 16 px|cannot be decoded")
    if min(size) > 0:
        tifffile.imwrite(tmp_path / "a.tif", np.zeros(size[::-1], np.uint8))
        refuse(tmp_path / "a.tif", f"{size[0]} x {size[1]} px; each side must be at least 16")


def test_smallest_picture_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png_of(16, 16))
    assert read_image(tmp_path / "a.png").size == (16, 16)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_float_tiff_with_values_that_are_none(tmp_path: Path, value: float) -> None:
    image = np.full((20, 20, 3), 0.5, np.float32)
    image[3, 4] = value
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb")
    refuse(tmp_path / "a.tif", "3 of 1200 values are NaN or infinite")


def cmyk(path: Path) -> None:
    Image.new("CMYK", (32, 32)).save(path, "jpeg" if path.suffix == ".jpg" else "tiff")


def palette(path: Path) -> None:
    Image.fromarray(RGB).convert("P").save(path)


def integers(path: Path) -> None:
    tifffile.imwrite(path, np.zeros((20, 20), np.int32))


def volume(path: Path) -> None:
    tifffile.imwrite(path, np.zeros((4, 32, 32), np.uint8), volumetric=True, tile=(4, 32, 32), photometric="minisblack")


@pytest.mark.parametrize(
    ("name", "make", "text"),
    [
        ("a.jpg", cmyk, "CMYK"),
        ("a.tif", cmyk, "separated pixels are not read"),
        ("a.tif", palette, "palette pixels are not read"),
        ("a.tif", integers, "int32 pixels are not read"),
        ("a.tif", volume, "axes .* are not read"),
    ],
)
def test_kinds_that_are_not_read(tmp_path: Path, name: str, make: Callable[[Path], None], text: str) -> None:
    make(tmp_path / name)
    refuse(tmp_path / name, text)


def test_a_tiff_that_points_beyond_its_end(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"II*\0" + struct.pack("<I", 1 << 30))
    refuse(tmp_path / "a.tif", "truncated or broken")
    (tmp_path / "b.tif").write_bytes(b"II*\0" + struct.pack("<IHI", 8, 0, 8))  # an IFD that follows itself
    refuse(tmp_path / "b.tif", "no picture")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_unreadable_file(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    (tmp_path / "a.png").chmod(0)
    refuse(tmp_path / "a.png", "cannot be read: Permission denied")


def test_a_file_that_vanishes_between_finding_and_reading(tmp_path: Path) -> None:
    for name in ("a.png", "a.tif", "a.dng"):
        save(tmp_path / name)
        burst = read_burst(tmp_path / name)
        (tmp_path / name).unlink()
        with pytest.raises(ReadError, match=f"{name}: .*[Nn]o such file"):
            burst[0]


def test_damaged_exif_does_not_cost_the_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[271] = "Maker"
    Image.fromarray(RGB).save(tmp_path / "a.jpg", exif=exif)
    data = (tmp_path / "a.jpg").read_bytes()
    start = data.index(b"Exif\0\0") + 6
    for junk in (b"\xff" * 20, b"MM\0*\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff\xff"):
        (tmp_path / "a.jpg").write_bytes(data[:start] + junk + data[start + len(junk) :])
        assert read_image(tmp_path / "a.jpg").size == (64, 80)


@needs_shared
@pytest.mark.parametrize("keep", [0.3, 0.95])
def test_truncated_crw(tmp_path: Path, keep: float) -> None:
    data = (SHARED / "raw/canon-s40/CRW_0101.CRW").read_bytes()
    (tmp_path / "a.crw").write_bytes(data[: int(len(data) * keep)])
    refuse(tmp_path / "a.crw", "or truncated")


@pytest.mark.parametrize(
    ("pattern", "colours", "said"),
    [(np.zeros((6, 6)), 3, "X-Trans"), (None, 3, "no Bayer mosaic"), (np.zeros((2, 2)), 4, "no Bayer mosaic")],
    ids=["X-Trans", "Foveon", "four colours"],
)
def test_sensors_without_a_bayer_mosaic_are_named_with_the_way_out(pattern, colours, said):
    from types import SimpleNamespace

    from pyfocus.io.raw_files import NoMosaicError, _cfa

    raw = SimpleNamespace(raw_pattern=pattern, color_desc=b"RGBG", num_colors=colours)
    with pytest.raises(NoMosaicError, match=f"one.raf: the sensor data is {said}, .*use --domain rgb"):
        _cfa(Path("one.raf"), raw)
