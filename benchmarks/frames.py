"""A focus bracket of any size in seconds: dead leaves on a tilted ground, seen sharp at one depth per frame.

A cheap stand-in for ``pyfocus simulate``, which is exact about occlusion and takes minutes at this size: Gaussian blur
by depth, mixed from a few blurred copies of one picture, on encoded values. Good enough to give every tool the work of
a real bracket; not a measure of quality. Dead leaves (Lee, Mumford, Huang 2001) have the statistics of photographs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import tifffile

Picture = npt.NDArray[Any]
_SIGMAS = (0.0, 1.0, 2.0, 4.0, 8.0)  # of the blurred copies, px
_BREATHING = 0.005  # growth of the picture from the first frame to the last
_JITTER_PX = 1.5
_NOISE = 120.0  # standard deviation, of 65535
_ROWS = 256  # mixed at a time


def write_frames(folder: Path, count: int, size: tuple[int, int], seed: int = 1) -> tuple[list[Path], float]:
    """Write ``count`` 16-bit TIFFs, uncompressed, of ``size`` (h, w). Gives their paths and the scene's ``detail``."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    sharp = _leaves(random, size)
    copies = [sharp] + [cv2.GaussianBlur(sharp, (0, 0), s) for s in _SIGMAS[1:]]
    depth = _depth(size)
    noise = random.normal(0, _NOISE, (*size, 3)).astype(np.int16)
    paths = []
    for i in range(count):
        place = i / max(1, count - 1)
        frame = _mix(copies, np.abs(depth - place) * _SIGMAS[-1])
        frame = _move(frame, 1 + _BREATHING * (place - 0.5), random.normal(0, _JITTER_PX, 2))
        grain = np.roll(noise, tuple(int(v) for v in random.integers(0, size)), (0, 1))
        path = folder / f"frame_{i:03d}.tif"
        tifffile.imwrite(path, cv2.add(frame, grain, dtype=cv2.CV_16U), photometric="rgb")
        paths.append(path)
    return paths, detail(sharp)


def repeat_frames(paths: list[Path], folder: Path, times: int) -> list[Path]:
    """Each frame ``times`` times in a row, as links: a longer burst of the same size and order."""
    folder.mkdir(parents=True, exist_ok=True)
    repeated = [folder / f"frame_{i:03d}.tif" for i in range(times * len(paths))]
    for i, link in enumerate(repeated):
        link.hardlink_to(paths[i // times])
    return repeated


def detail(picture: Picture) -> float:
    """Mean absolute Laplacian of the inner part of a picture at half size (where noise counts less): its sharpness."""
    height, width = picture.shape[:2]
    inner = picture[height // 10 : -height // 10, width // 10 : -width // 10]
    top = np.iinfo(picture.dtype).max
    grey = cv2.cvtColor(inner[..., :3].astype(np.float32) / top, cv2.COLOR_RGB2GRAY)
    return float(np.abs(cv2.Laplacian(cv2.pyrDown(grey), cv2.CV_32F)).mean())


def _leaves(random: np.random.Generator, size: tuple[int, int]) -> Picture:
    """Overlapping discs with radii r distributed as r^-3, and a fine texture over all; (h, w, 3) uint16."""
    height, width = size
    least, most = 3.0, min(size) / 8
    canvas = np.full((*size, 3), 90, np.uint8)
    count = max(200, height * width // 500)
    radii = least / np.sqrt(1 - random.random(count) * (1 - (least / most) ** 2))
    places = random.random((count, 2)) * (width, height)
    colours = random.integers(25, 225, (count, 3))
    for radius, (x, y), colour in zip(radii, places, colours, strict=True):
        cv2.circle(canvas, (int(x), int(y)), round(radius), colour.tolist(), -1, cv2.LINE_AA)
    texture = np.zeros(size, np.float32)
    for octave in (1, 2, 4, 8, 32):
        field = random.standard_normal((height // octave + 1, width // octave + 1), np.float32)
        texture += cv2.resize(field, (width, height), interpolation=cv2.INTER_CUBIC)
    texture = 1 + 0.04 * texture
    picture = np.empty((*size, 3), np.uint16)
    for channel in range(3):
        picture[..., channel] = np.clip(canvas[..., channel] * texture * 257, 0, 65535)
    return picture


def _depth(size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """A tilted ground with two hills, in [0, 1]; 0 is sharp in the first frame."""
    y, x = np.meshgrid(*(np.linspace(0, 1, n, dtype=np.float32) for n in size), indexing="ij")
    depth = 0.9 * y + 0.1 * x
    for at_y, at_x, height in ((0.3, 0.3, 0.35), (0.65, 0.7, -0.4)):
        depth += height * np.exp(-((y - at_y) ** 2 + (x - at_x) ** 2) / 0.01)
    return np.clip(depth, 0, 1)


def _mix(copies: list[Picture], sigma: npt.NDArray[np.float32]) -> Picture:
    """Each pixel between the two copies whose blur is next to its own."""
    out = np.empty_like(copies[0])
    for top in range(0, out.shape[0], _ROWS):
        rows = np.s_[top : top + _ROWS]
        place = np.interp(sigma[rows], _SIGMAS, np.arange(len(_SIGMAS))).astype(np.float32)
        mixed = np.zeros(out[rows].shape, np.float32)
        for k, copy in enumerate(copies):
            weight = np.maximum(0, 1 - np.abs(place - k))
            if weight.any():
                mixed += copy[rows] * weight[..., None]
        out[rows] = mixed + 0.5
    return out


def _move(frame: Picture, scale: float, shift: npt.NDArray[np.float64]) -> Picture:
    """Scaled about the middle, then shifted (x, y) px."""
    height, width = frame.shape[:2]
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    affine = np.column_stack([np.eye(2) * scale, centre * (1 - scale) + shift])
    moved: Picture = cv2.warpAffine(
        frame, affine, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
    )
    return moved
