"""Where a fuser does worst, as pictures: result, truth, and their difference eight times as strong, in a row."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..burst import Array
from ..errors import WriteError
from ..io import write_image
from .protocols import Compared, eight_bit, unit

TILE_PX = 128
_GAP_PX, _GAP = 4, 255
_TIMES = 8


@dataclass(frozen=True)
class Worst:
    """A tile that came out badly: of which fuser and scene, its top left corner in the compared part, its pixels."""

    fuser: str
    scene: str
    x: int
    y: int
    error: float
    result: Array
    truth: Array

    def picture(self) -> Array:
        """Result, truth and difference side by side, uint8 (h, 3 w + gaps[, 3])."""
        one, two = eight_bit(self.result), eight_bit(self.truth)
        apart = np.minimum(np.abs(one.astype(np.int32) - two) * _TIMES, 255).astype(np.uint8)
        gap = np.full((one.shape[0], _GAP_PX, *one.shape[2:]), _GAP, np.uint8)
        return np.concatenate([one, gap, two, gap, apart], axis=1)


def worst_tiles(compared: Compared, fuser: str, scene: str, count: int) -> list[Worst]:
    """The ``count`` tiles of about 128 px with the largest mean squared error, the worst first."""
    height, width = compared.truth.shape[:2]
    rows, columns = _edges(height), _edges(width)
    squares = np.square(unit(compared.result) - unit(compared.truth)).reshape(height, width, -1).mean(axis=2)
    if compared.where is not None:
        squares *= compared.where
    sums = np.add.reduceat(np.add.reduceat(squares, rows[:-1], axis=0, dtype=np.float64), columns[:-1], axis=1)
    means = sums / np.outer(np.diff(rows), np.diff(columns))
    found = []
    for place in np.argsort(-means, axis=None, kind="stable")[:count]:
        i, j = divmod(int(place), means.shape[1])
        part = np.s_[rows[i] : rows[i + 1], columns[j] : columns[j + 1]]
        pixels = (picture[part].copy() for picture in (compared.result, compared.truth))
        found.append(Worst(fuser, scene, int(columns[j]), int(rows[i]), float(means[i, j]), *pixels))
    return found


def picture_names(worst: Iterable[Worst]) -> list[str]:
    """A file name each: fuser, its rank among that fuser's, scene and place."""
    ranks: dict[str, int] = {}
    names = []
    for tile in worst:
        fuser = _plain(Path(tile.fuser).stem)
        ranks[fuser] = ranks.get(fuser, 0) + 1
        names.append(f"{fuser}-{ranks[fuser]:02d}-{_plain(tile.scene)}-x{tile.x}-y{tile.y}.png")
    return names


def write_worst(folder: Path, worst: Iterable[Worst], *, overwrite: bool = False) -> list[Path]:
    """Write the tiles' pictures as PNG into a folder, made if need be; their paths back. Raises WriteError."""
    tiles = list(worst)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"{folder}: cannot be created: {error.strerror}; name another folder") from error
    names = picture_names(tiles)
    return [
        write_image(folder / name, tile.picture(), overwrite=overwrite) for name, tile in zip(names, tiles, strict=True)
    ]


def _edges(length: int) -> list[int]:
    """Edges of equal tiles of about 128 px."""
    count = max(1, round(length / TILE_PX))
    return [round(k * length / count) for k in range(count + 1)]


def _plain(text: str) -> str:
    return re.sub(r"[^\w.-]+", "-", text).strip("-") or "scene"
