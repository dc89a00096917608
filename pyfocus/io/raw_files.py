"""Camera raws through LibRaw: as a mosaic, or developed with the burst's first white balance and levels."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from ..burst import Frame, Meta
from ..colour import linear_to_srgb
from ..errors import ArgumentError, ReadError
from ..raw import CFA_ORDERS
from .dng import SRGB_TO_XYZ, dng_bytes
from .ifd import BadBlock, TagBlock, data_end
from .image_files import check_size, one_line
from .metadata import Facts, capture_time, read_facts, tag_facts

if TYPE_CHECKING:
    import rawpy

Array = npt.NDArray[Any]
Demosaic = Literal["auto", "linear", "vng", "ppg", "ahd", "dcb", "dht", "aahd"]

# LibRaw's demosaicers on the mosaics of two simulated scenes' truth, PSNR in dB without and with strong
# noise: DHT 39.2, 46.3 and 30.3, 30.5; DCB 37.9, 41.3 and 29.9, 29.7; AHD 37.6, 40.0 and 29.6, 29.2; the
# others lower without noise. DHT takes 1.3 s for 12 MP on two cores, AHD 0.8 s. For sensors that are not
# Bayer, LibRaw uses algorithms of their own.
_BEST_DEMOSAIC = "DHT"

_ORIENTATION_OF_FLIP = {0: 1, 3: 3, 5: 8, 6: 6}


class NoMosaicError(ReadError):
    """The raw is fine, but its pixels are no Bayer mosaic."""


def read_mosaic(path: Path) -> Frame:
    """Mosaic (H, W) uint16 of the sensor's visible area, and its levels, white balance, colour and EXIF.

    Raises NoMosaicError for X-Trans, Foveon, monochrome and linear raws, ReadError for broken files.
    """
    with _opened(path) as raw:
        cfa = _cfa(path, raw)
        mosaic = np.array(raw.raw_image_visible, np.uint16)
        meta = replace(_meta(path, raw), cfa=cfa)
        index = raw.raw_pattern.astype(int)
        levels = [float(v) for v in raw.black_level_per_channel]
    check_size(path, mosaic.shape)
    top_left = _first_block(index, cfa)
    black = (levels[top_left[0]], levels[top_left[1]], levels[top_left[2]], levels[top_left[3]])
    return Frame(mosaic, replace(meta, black=black))


def read_developed(path: Path, first: Meta | None = None) -> Frame:
    """Image (H, W, 3) uint16, linear light with sRGB primaries, upright, of a raw of any sensor kind.

    ``first`` holds the burst's white balance and levels (``developing`` of its first frame): every frame is
    developed with them, without automatic brightness, so that equal light gives equal numbers. None takes the
    file's own.
    """
    with _opened(path) as raw:
        meta = replace(_meta(path, raw), black=_channel_blacks(raw))
        levels = first or meta
        base = int(min(levels.black))
        r, g, b = levels.white_balance
        import rawpy

        image = raw.postprocess(
            demosaic_algorithm=rawpy.DemosaicAlgorithm[_BEST_DEMOSAIC],
            user_wb=[r, g, b, g],
            user_black=base,
            user_cblack=[round(v) - base for v in levels.black],
            user_sat=int(levels.white) - base,  # LibRaw counts it from black
            **_plain(rawpy),
        )
    check_size(path, image.shape[:2])
    pixels = image[:, :, 0] if image.shape[2] == 1 else image
    return Frame(np.ascontiguousarray(pixels), replace(meta, orientation=1, encoding="linear"))


def develop_mosaic(
    mosaic: Array, meta: Meta, *, output: Literal["srgb", "linear"] = "srgb", demosaic: Demosaic = "auto"
) -> Array:
    """Image (H, W, 3) uint16 of a Bayer mosaic (H, W) uint16, developed by LibRaw in memory.

    White balance, levels, colour matrix and orientation come from ``meta``; no automatic brightness;
    highlights clip at white. ``output`` "srgb" is encoded, "linear" is linear light, both with sRGB
    primaries. ``demosaic`` "auto" is DHT, the others are LibRaw's names in lower case. Raises ArgumentError.
    """
    import rawpy

    if output not in ("srgb", "linear"):
        raise ArgumentError(f"develop_mosaic: output must be 'srgb' or 'linear', got {output!r}")
    name = _BEST_DEMOSAIC if demosaic == "auto" else demosaic.upper()
    algorithm = rawpy.DemosaicAlgorithm.__members__.get(name)
    if algorithm is None or not algorithm.isSupported:
        raise ArgumentError(f"develop_mosaic: demosaic must be one this LibRaw supports, got {demosaic!r}; try 'ahd'")
    with rawpy.imread(BytesIO(dng_bytes(mosaic, meta))) as raw:
        image = raw.postprocess(use_camera_wb=True, demosaic_algorithm=algorithm, **_plain(rawpy))
    if output == "srgb":
        # LibRaw's own curve is close to sRGB's but not equal; its 16-bit linear output is what it encodes
        curve = np.rint(linear_to_srgb(np.arange(65536) / 65535) * 65535).astype(np.uint16)
        image = curve[image]
    return np.asarray(image)


def _plain(rawpy: Any) -> dict[str, Any]:
    """Settings that make LibRaw's output a function of light alone: nothing adapts to the content."""
    return {
        "output_bps": 16,
        "gamma": (1, 1),
        "no_auto_bright": True,
        "adjust_maximum_thr": 0.0,
        "output_color": rawpy.ColorSpace.sRGB,
        "highlight_mode": rawpy.HighlightMode.Clip,
    }


def libraw_version() -> str | None:
    """The version of LibRaw that reads and develops raws, or None when rawpy is not installed."""
    try:
        import rawpy
    except ImportError:
        return None
    return ".".join(map(str, rawpy.libraw_version))


def raw_capture_time(path: Path) -> tuple[str, Fraction] | None:
    """Capture time of a raw whose container is not TIFF, as ``metadata.capture_time`` gives it."""
    with _opened(path) as raw:
        return capture_time(_exif(path, raw).exif)


@contextmanager
def _opened(path: Path) -> Iterator[rawpy.RawPy]:
    import rawpy

    _check_complete(path)
    try:
        with rawpy.imread(str(path)) as raw:
            yield raw
    except rawpy.LibRawFileUnsupportedError as error:
        raise ReadError(
            f"{path}: not a raw that LibRaw {'.'.join(map(str, rawpy.libraw_version))} reads, or truncated"
        ) from error
    except rawpy.LibRawIOError as error:
        raise ReadError(f"{path}: the raw data ends early (truncated file); copy it again from the card") from error
    except rawpy.LibRawError as error:
        text = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else one_line(error)
        raise ReadError(f"{path}: LibRaw cannot read this raw: {text}") from error


def _check_complete(path: Path) -> None:
    """Refuse a DNG that names bytes beyond its end before LibRaw, which writes to stderr, sees it."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as buffer:
            end = data_end(TagBlock(buffer)) if path.suffix.lower() == ".dng" else 0
            size = len(buffer)
    except OSError as error:
        raise ReadError(f"{path}: cannot be read: {error.strerror}") from error
    except BadBlock as error:
        raise ReadError(f"{path}: the DNG is truncated or broken ({error}); copy it again from the card") from error
    except ValueError as error:  # mmap's word for a file of 0 bytes
        raise ReadError(f"{path}: the file is empty (0 bytes); copy it again from the card") from error
    if end > size:
        raise ReadError(f"{path}: the file is truncated: {size} bytes, its pixels reach to {end}; copy it again")


def _cfa(path: Path, raw: rawpy.RawPy) -> str:
    pattern = raw.raw_pattern
    colours = raw.color_desc.decode()
    if pattern is not None and pattern.shape == (2, 2) and raw.num_colors == 3:
        sizes = raw.sizes
        positions = [(sizes.top_margin + y, sizes.left_margin + x) for y in (0, 1) for x in (0, 1)]
        cfa = "".join(colours[raw.raw_color(y, x)] for y, x in positions)
        if cfa in CFA_ORDERS:
            return cfa
    kind = "X-Trans" if pattern is not None and pattern.shape == (6, 6) else "no Bayer mosaic"
    raise NoMosaicError(
        f"{path}: the sensor data is {kind}, which cannot be stacked before development; use --domain rgb"
    )


def _first_block(index: Array, cfa: str) -> tuple[int, int, int, int]:
    """LibRaw's colour index (0 R, 1 G, 2 B, 3 second G) of the visible area's top-left 2x2 pixels."""
    for shift_y in (0, 1):
        for shift_x in (0, 1):
            block = np.roll(index, (-shift_y, -shift_x), (0, 1)).reshape(-1)
            if "".join("RGBG"[i] for i in block) == cfa:
                return int(block[0]), int(block[1]), int(block[2]), int(block[3])
    raise NoMosaicError(f"CFA order {cfa} does not fit LibRaw's pattern {index.tolist()}; use --domain rgb")


def _channel_blacks(raw: rawpy.RawPy) -> tuple[float, float, float, float]:
    r, g, b, g2 = (float(v) for v in raw.black_level_per_channel)
    return r, g, b, g2


def _meta(path: Path, raw: rawpy.RawPy) -> Meta:
    facts = _exif(path, raw)
    return Meta(
        name=path.name,
        make=str(facts.exif.get("Make", "")),
        model=str(facts.exif.get("Model", "")),
        white=float(raw.white_level),
        white_balance=_white_balance(raw),
        xyz_to_camera=_xyz_to_camera(raw),
        orientation=_ORIENTATION_OF_FLIP.get(raw.sizes.flip, 1),
        encoding="linear",
        exif=facts.exif,
    )


def _white_balance(raw: rawpy.RawPy) -> tuple[float, float, float]:
    """The camera's multipliers with G = 1; LibRaw's daylight ones when the file has none."""
    for r, g, b, _ in (raw.camera_whitebalance, raw.daylight_whitebalance):
        if min(r, g, b) > 0 and np.isfinite([r, g, b]).all():
            return r / g, 1.0, b / g
    return 1.0, 1.0, 1.0


def _xyz_to_camera(raw: rawpy.RawPy) -> tuple[float, ...] | None:
    """LibRaw's matrix; for DNGs, where it keeps only camera to sRGB scaled to white, the inverse."""
    matrix = np.asarray(raw.rgb_xyz_matrix, float)[:3]
    if not matrix.any():
        to_srgb = np.asarray(raw.color_matrix, float)[:, :3]
        scale = np.asarray(raw.daylight_whitebalance, float)[:3]
        if abs(np.linalg.det(to_srgb)) < 1e-6 or scale.min() <= 0:
            return None
        matrix = np.linalg.inv(to_srgb) / scale[:, None] @ np.linalg.inv(SRGB_TO_XYZ)
    return tuple(float(v) for v in matrix.reshape(-1))


def _exif(path: Path, raw: rawpy.RawPy) -> Facts:
    """EXIF of the file itself, else of its embedded preview, with LibRaw's findings for what is missing."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as buffer:
        facts = tag_facts(buffer)
    if "Make" not in facts.exif:
        facts = _preview_facts(raw) or facts
    other, lens = raw.other, raw.lens
    found: dict[str, Any] = {
        "ExposureTime": _positive(other.shutter_speed, 100_000),
        "FNumber": _positive(other.aperture, 10),
        "FocalLength": _positive(other.focal_length, 100),
        "ISOSpeedRatings": int(_positive(other.iso_speed, 1) or 0) or None,
        "DateTimeOriginal": f"{other.timestamp:%Y:%m:%d %H:%M:%S}" if other.timestamp.year > 1970 else None,
        "Artist": other.artist.strip() or None,
        "LensModel": lens.model.strip() or None,
        "LensMake": lens.make.strip() or None,
    }
    return Facts({**{k: v for k, v in found.items() if v is not None}, **facts.exif})


def _positive(value: float, denominator: int) -> Fraction | None:
    """The number as a fraction, or None for what LibRaw puts where it knows nothing."""
    return Fraction(value).limit_denominator(denominator) or None if np.isfinite(value) and value > 0 else None


def _preview_facts(raw: rawpy.RawPy) -> Facts | None:
    import rawpy

    try:
        preview = raw.extract_thumb()
    except rawpy.LibRawError:
        return None
    return read_facts(preview.data) if preview.format == rawpy.ThumbFormat.JPEG else None
