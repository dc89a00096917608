"""Sharp pictures to cut surfaces from: photos and painted ones, each kept at several sizes.

A picture straight from a camera is soft at 1:1, so it is only shown made smaller, by area in linear light. Sizes are
kept as 8-bit sRGB: the rounding is far below any noise that is simulated, and a hundred photos fit into memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from ...colour import decode_lut
from ...errors import ArgumentError
from ...io import read_image
from ..srgb import encode_srgb
from .paint import paint

PHOTO_SCALES = (1.5, 2, 3, 4, 5)
PAINTED_SCALES = (2, 3, 4)
CELL_PX = 16
ENOUGH = 9.0  # detail, in codes per pixel, with which a piece is taken at once
ENDINGS = {".jpg", ".jpeg", ".png", ".tif", ".tiff"}

Source = str | PathLike[str]


def find_photos(photos: Source | Sequence[Source] | None) -> list[Path]:
    """The file or files named, or those of a folder in the order of their names. Raises ArgumentError."""
    if photos is None:
        return []
    if isinstance(photos, str | PathLike):
        folder = Path(photos)
        if folder.is_file():
            return [folder]
        if not folder.is_dir():
            raise ArgumentError(f"Simulation: photos must be a folder, a file or a list of files, got {folder}")
        found = sorted(p for p in folder.iterdir() if p.suffix.lower() in ENDINGS)
        if not found:
            raise ArgumentError(f"Simulation: photos has no JPEG, PNG or TIFF in {folder}; None does without photos")
        return found
    return [Path(photo) for photo in photos]


@dataclass(frozen=True)
class Size:
    """A picture at one size: ``codes`` (3, h, w) uint8 sRGB, and running sums of its detail over cells."""

    codes: Tensor
    sums: npt.NDArray[np.float64]

    def detail_in(self, top: int, left: int, side: int) -> float:
        """Mean change from pixel to pixel, in codes, of the cells under a square."""
        y0, x0 = top // CELL_PX, left // CELL_PX
        y1 = max(min((top + side) // CELL_PX, len(self.sums) - 1), y0 + 1)
        x1 = max(min((left + side) // CELL_PX, self.sums.shape[1] - 1), x0 + 1)
        total = self.sums[y1, x1] - self.sums[y0, x1] - self.sums[y1, x0] + self.sums[y0, x0]
        return float(total / ((y1 - y0) * (x1 - x0)))


class Pictures:
    """The photos, read once, and ``pool`` painted pictures, painted when first asked for.

    ``smallest`` px is the side that every size of a picture must have; those that would be smaller are left out.
    """

    def __init__(self, photos: Sequence[Path], pool: int, smallest: int, seed: int, place: torch.device) -> None:
        self._pool, self._smallest, self._seed, self.place = pool, smallest, seed, place
        self._table = torch.from_numpy(np.array(decode_lut(np.uint8))).to(place)
        self._photos = [self._sizes(_read_linear(path), PHOTO_SCALES) for path in photos]
        extent = np.sqrt([float(sizes[0].codes[0].numel()) for sizes in self._photos])
        self._weights = extent / max(extent.sum(), 1.0)  # a larger photo has more to show
        self._painted: dict[int, list[Size]] = {}

    @property
    def photos(self) -> int:
        """How many photos there are."""
        return len(self._photos)

    def cut(self, random: np.random.Generator, side: int, photo: bool) -> Tensor:
        """A piece (3, side, side) float32, linear, from any place of a picture, turned and mirrored at random.

        Nine times of ten flat places are passed over while a few tries find better ones.
        """
        if photo and self._photos:
            sizes = self._photos[random.choice(len(self._photos), p=self._weights)]
        else:
            sizes = self._paint(int(random.integers(self._pool)))
        patience = 1 if random.uniform() < 0.1 else 6
        best, y, x, size = -1.0, 0, 0, sizes[0]
        for _ in range(patience):
            tried = sizes[random.integers(len(sizes))]
            top, left = (int(random.integers(n - side + 1)) for n in tried.codes.shape[1:])
            detail = tried.detail_in(top, left, side)
            if detail > best:
                best, y, x, size = detail, top, left, tried
            if detail > ENOUGH:
                break
        piece = size.codes[:, y : y + side, x : x + side]
        turn, mirror = int(random.integers(4)), bool(random.integers(2))
        piece = torch.rot90(piece, turn, (1, 2))
        if mirror:
            piece = piece.flip(2)
        return self._table[piece.to(torch.int64)]

    def _paint(self, number: int) -> list[Size]:
        if number not in self._painted:
            picture = paint(number, self._seed, max(1024, 2 * self._smallest))
            self._painted[number] = self._sizes(torch.from_numpy(picture).permute(2, 0, 1), PAINTED_SCALES)
        return self._painted[number]

    def _sizes(self, linear: Tensor, scales: Sequence[float]) -> list[Size]:
        """The picture (3, H, W) at each scale that is large enough, or at least once: made larger if it must be."""
        kept: list[Size] = []
        for scale in scales:
            h, w = (int(n / scale) for n in linear.shape[1:])
            if kept and min(h, w) < self._smallest:
                break
            if min(h, w) < self._smallest:
                grow = self._smallest / min(h, w)
                h, w = max(round(h * grow), self._smallest), max(round(w * grow), self._smallest)
            small = _shrink(linear, scale, (h, w))
            kept.append(_measure(_encode(small), self.place))
        return kept


def _shrink(linear: Tensor, scale: float, size: tuple[int, int]) -> Tensor:
    """The picture (3, H, W) made as small as ``size``: means of whole pixels where ``scale`` allows, they are fast."""
    if scale == int(scale) and all(n // int(scale) == m for n, m in zip(linear.shape[1:], size, strict=True)):
        return F.avg_pool2d(linear, int(scale))
    return F.interpolate(linear[None], size, mode="bilinear", antialias=True, align_corners=False)[0]


def _measure(codes: Tensor, place: torch.device) -> Size:
    """The size with its sums of detail: differences of green codes to the left and above, over cells."""
    green = codes[1].to(torch.float32)
    change = torch.zeros_like(green)
    change[:, 1:] += (green[:, 1:] - green[:, :-1]).abs()
    change[1:] += (green[1:] - green[:-1]).abs()
    cells = F.avg_pool2d(change[None], CELL_PX)[0].to(torch.float64).cumsum(0).cumsum(1)
    return Size(codes.to(place), F.pad(cells, (1, 0, 1, 0)).numpy())


def _encode(linear: Tensor) -> Tensor:
    """8-bit sRGB of linear light."""
    return (encode_srgb(linear.clamp(0, 1)) * 255 + 0.5).to(torch.uint8)


def _read_linear(path: Path) -> Tensor:
    """A file as (3, H, W) float32 of linear light. Raises ArgumentError for grey pictures, ReadError for bad files."""
    frame = read_image(path)
    data = np.asarray(frame.data)
    if data.ndim != 3 or data.shape[2] != 3:
        raise ArgumentError(f"Simulation: photos must be in colour, got {data.shape} in {path}")
    if frame.meta.encoding == "srgb" and data.dtype in (np.uint8, np.uint16):
        data = decode_lut(data.dtype)[data]
    elif data.dtype != np.float32:
        data = data.astype(np.float32) / np.iinfo(data.dtype).max
    return torch.from_numpy(np.ascontiguousarray(data)).permute(2, 0, 1)
