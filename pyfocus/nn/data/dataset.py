"""A data set on disk as batches: any crop is read from where it lies; the same seed and step give the same batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ... import _C
from ...burst import Array
from ...errors import ArgumentError, BurstError, ReadError
from ...raw import UNPACK_BLACK_DN, UNPACK_WHITE_DN
from ..batch import Batch
from ..bursts import Kind
from .store import (
    FORMAT,
    SPLITS,
    STORED_KINDS,
    BurstFacts,
    Planes,
    Split,
    StoredKind,
    decode,
    folder_name,
    open_array,
    read_facts,
    read_json,
)

PathLike = str | Path
Crop = tuple[int, int, int]  # burst, y, x
_MARGIN_PX = 16  # what demosaicing looks at around a crop, and more

FED: dict[StoredKind, tuple[Kind, ...]] = {"rggb": ("rggb", "mosaic", "rgb"), "rgb": ("rgb",)}


@dataclass
class _Open:
    """A burst's arrays, mapped."""

    facts: BurstFacts
    frames: Array
    truth: Array
    depth: Array | None


class Dataset:
    """Bursts of a folder that ``pyfocus dataset`` wrote; see :func:`open_dataset`.

    ``kind``: how frames are stored, "rggb" or "rgb". ``names``, ``scenes`` and ``splits`` of every burst, ``settings``
    it was made with. Nothing but facts is kept in memory; may be used from several processes.
    """

    def __init__(self, folder: Path, content: dict[str, Any]) -> None:
        self.folder = folder
        try:
            self.kind: StoredKind = content["kind"]
            self.settings: dict[str, Any] = dict(content["settings"])
            bursts = list(content["bursts"])
            self.names = [str(entry["name"]) for entry in bursts]
            self.scenes = [str(entry["scene"]) for entry in bursts]
            self.splits: list[Split] = [entry["split"] for entry in bursts]
            self._folders = [folder / "bursts" / folder_name(name) for name in self.names]
            if self.kind not in STORED_KINDS or not set(self.splits) <= set(SPLITS):
                raise ValueError(f"its kind {self.kind!r} or a split is none")
        except (KeyError, TypeError, ValueError) as error:
            raise ReadError(f"{folder / 'dataset.json'}: is damaged: {error}; build the data set again") from error
        self._open: dict[int, _Open] = {}

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"Dataset({str(self.folder)!r}, {self.kind}, {len(self)} bursts)"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}  # a mapping would be copied into another process

    def split(self, name: Split) -> list[int]:
        """The bursts of "train", "val" or "test". Raises ArgumentError for another word."""
        if name not in SPLITS:
            raise ArgumentError(f"Dataset.split: name must be one of {', '.join(SPLITS)}, got {name!r}")
        return [i for i, found in enumerate(self.splits) if found == name]

    def facts(self, burst: int) -> BurstFacts:
        """What is known of a burst. Raises ReadError when it is damaged."""
        return self._burst(burst).facts

    def crop(
        self, burst: int, y: int, x: int, size: int | tuple[int, int], *, frames: int | None = None,
        kind: Kind | None = None,
    ) -> Batch:  # fmt: skip
        """A batch of one: ``size`` (h, w) px of the picture from (y, x); see :meth:`batch`. Raises ArgumentError."""
        return self.crops([(burst, y, x)], size, frames=frames, kind=kind)

    def batch(
        self,
        seed: int,
        step: int,
        *,
        size: int | tuple[int, int],
        count: int,
        split: Split = "train",
        frames: int | None = None,
        kind: Kind | None = None,
    ) -> Batch:
        """``count`` crops at random places of random bursts of a split; the same for the same seed and step.

        ``size`` (h, w), in px of the picture, even; crops begin at even px, so that a mosaic keeps its phase.
        ``frames``: how many of each burst, evenly over its focus, the reference among them; default all of the burst
        that has fewest. ``kind``: what a network is fed: "rggb" or "mosaic" of stored "rggb", "rgb" of either (of
        "rggb" demosaiced here). The first frame of each is its reference. Where the truth is another program's
        finished picture, it is decoded to linear light and divided by the white balance, so that balanced it is that
        picture. Without a depth map ``depth`` and ``sharp`` are 0 everywhere: nothing is claimed. Of a fuser's map,
        ``sharp`` is its confidence. Raises ArgumentError, BurstError, ReadError.
        """
        chosen = self.split(split)
        if not chosen or count < 1:
            raise ArgumentError(
                f"Dataset.batch: count must be 1 or more and the split not empty, got {count} and {len(chosen)} bursts "
                f"in {split!r} of {self.folder}"
            )
        height, width = _size("Dataset.batch", size)
        random = np.random.default_rng([seed, step])
        crops: list[Crop] = []
        for burst in random.choice(chosen, count):
            rows, columns = self.facts(int(burst)).size
            if rows < height or columns < width:
                raise ArgumentError(
                    f"Dataset.batch: size must fit every burst, got {height} x {width} px; {self.names[burst]} is "
                    f"{rows} x {columns} px"
                )
            y, x = (2 * int(random.integers(0, (n - m) // 2 + 1)) for n, m in ((rows, height), (columns, width)))
            crops.append((int(burst), y, x))
        return self.crops(crops, (height, width), frames=frames or self.fewest_frames(split), kind=kind)

    def crops(
        self,
        crops: Sequence[Crop],
        size: int | tuple[int, int],
        *,
        frames: int | None = None,
        kind: Kind | None = None,
    ) -> Batch:
        """The crops at (burst, y, x), as :meth:`batch` has them. Raises ArgumentError, BurstError, ReadError."""
        fed = kind or self.kind
        if fed not in FED[self.kind]:
            raise ArgumentError(
                f"Dataset.crops: kind must be {' or '.join(FED[self.kind])} for frames stored as {self.kind}, "
                f"got {kind!r}"
            )
        if not crops:
            raise ArgumentError("Dataset.crops: crops must be one (burst, y, x) or more, got none")
        size = _size("Dataset.crops", size)
        wanted = frames or min(len(self.facts(burst).frames) for burst, _, _ in crops)
        parts = [self._cut(crop, size, wanted, fed) for crop in crops]
        stacked = {name: torch.from_numpy(np.stack([part[name] for part in parts])) for name in parts[0]}
        return Batch(**stacked, kind=fed)

    def tiles(self, split: Split, size: int | tuple[int, int]) -> list[Crop]:
        """(burst, y, x) of every whole tile of a split, side by side from the top left, for :meth:`crops`."""
        height, width = _size("Dataset.tiles", size)
        found = []
        for burst in self.split(split):
            rows, columns = self.facts(burst).size
            tops, lefts = range(0, rows - height + 1, height), range(0, columns - width + 1, width)
            found += [(burst, y, x) for y in tops for x in lefts]
        return found

    def fewest_frames(self, split: Split) -> int:
        """Of the burst of a split that has fewest."""
        return min((len(self.facts(burst).frames) for burst in self.split(split)), default=0)

    def _burst(self, burst: int) -> _Open:
        if not 0 <= burst < len(self):
            raise ArgumentError(f"Dataset: burst must be 0 to {len(self) - 1}, got {burst}")
        if burst not in self._open:
            folder, pixels = self._folders[burst], (np.uint16, np.uint8)
            facts = read_facts(folder)
            if facts.kind != self.kind:
                raise ReadError(
                    f"{folder}: is of kind {facts.kind}, its data set of {self.kind}; build the burst again"
                )
            depth = folder / "depth.npy"
            self._open[burst] = _Open(
                facts,
                open_array(folder / "frames.npy", facts.shape(), pixels),
                open_array(folder / "truth.npy", (3, *facts.size), pixels),
                open_array(depth, (2, *facts.size), (np.float16,)) if depth.exists() else None,
            )
        return self._open[burst]

    def _cut(self, crop: Crop, size: tuple[int, int], count: int, kind: Kind) -> dict[str, Array]:
        """One element of a batch, by the names of its fields."""
        (burst, y, x), (height, width) = crop, size
        here = self._burst(burst)
        facts = here.facts
        rows, columns = facts.size
        if y % 2 or x % 2 or y < 0 or x < 0 or y + height > rows or x + width > columns:
            raise ArgumentError(
                f"Dataset.crops: a crop must begin at even px and lie inside {facts.name}, {rows} x {columns} px, "
                f"got {height} x {width} px at ({y}, {x})"
            )
        if not 1 <= count <= len(facts.frames):
            raise BurstError(f"Dataset.crops: {count} frames are asked for, {facts.name} has {len(facts.frames)}")
        places = choose_places(len(facts.frames), facts.reference, count)
        order = np.array([facts.reference, *(p for p in places if p != facts.reference)])
        picture = np.s_[..., y : y + height, x : x + width]
        truth, white = decode(here.truth[picture]), np.array(facts.white_balance, np.float32)
        if facts.truth_colours == "rendered":
            truth = truth / white[:, None, None]
        depth = np.zeros((2, height, width), np.float32)
        if here.depth is not None:
            depth = here.depth[picture].astype(np.float32)
            depth[0] = np.interp(depth[0], places, np.arange(count))
        return {
            "frames": _fed(here.frames, facts, order, (y, x, height, width), kind),
            "index": np.searchsorted(places, order).astype(np.float32),
            "truth": truth,
            "depth": depth[:1],
            "sharp": np.clip(depth[1:], 0, 1),
            "noise": np.array(facts.noise, np.float32),
            "white_balance": white,
        }


def open_dataset(folder: PathLike) -> Dataset:
    """The data set in a folder of ``pyfocus dataset build`` or ``lsfd``. Raises ReadError."""
    place = Path(folder)
    return Dataset(place, read_json(place / "dataset.json", FORMAT))


def choose_places(total: int, reference: int, count: int) -> Array:
    """``count`` of ``total`` places, evenly from first to last, the one nearest the reference moved onto it."""
    places = np.rint(np.linspace(0, total - 1, count)).astype(int)
    places[np.argmin(np.abs(places - reference))] = reference
    return places


def _size(function: str, size: int | tuple[int, int]) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    if height < 2 or width < 2 or height % 2 or width % 2:
        raise ArgumentError(f"{function}: size must be even and 2 px or more, got {height} x {width}")
    return height, width


def _fed(frames: Array, facts: BurstFacts, order: Array, crop: tuple[int, int, int, int], kind: Kind) -> Planes:
    """(N, C, h, w) float32 of a crop (y, x, h, w), as a network takes it."""
    y, x, height, width = crop
    if facts.kind == "rgb" or kind == "rggb":
        step = STORED_KINDS[facts.kind][1]
        rows, columns = np.s_[y // step : (y + height) // step], np.s_[x // step : (x + width) // step]
        return decode(np.stack([frames[i, :, rows, columns] for i in order]))
    margin = _MARGIN_PX if kind == "rgb" else 0
    top, left = max(0, y - margin), max(0, x - margin)
    bottom, right = min(facts.size[0], y + height + margin), min(facts.size[1], x + width + margin)
    mosaics = [as_mosaic(frames[i, :, top // 2 : bottom // 2, left // 2 : right // 2]) for i in order]
    if kind == "mosaic":
        return decode(np.stack(mosaics)[:, None])
    inside = np.s_[:, y - top : y - top + height, x - left : x - left + width]
    return np.stack([_demosaic(mosaic, facts.white_balance)[inside] for mosaic in mosaics])


def as_mosaic(planes: Array) -> Array:
    """(2h, 2w) of (4, h, w) R, G1, G2, B: an RGGB mosaic."""
    mosaic = np.empty((2 * planes.shape[1], 2 * planes.shape[2]), planes.dtype)
    for plane, (dy, dx) in zip(planes, ((0, 0), (0, 1), (1, 0), (1, 1)), strict=True):
        mosaic[dy::2, dx::2] = plane
    return mosaic


def _demosaic(mosaic: Array, white_balance: tuple[float, ...]) -> Planes:
    """(3, H, W) linear camera RGB of a stored mosaic: balanced while it is interpolated, as a stack's frames are."""
    black, white = (float(v) for v in (UNPACK_BLACK_DN, UNPACK_WHITE_DN))
    r, g, b = white_balance
    scale = [gain / (white - black) for gain in (r, g, g, b)]
    roots = np.empty((3, *mosaic.shape), np.float32)
    _C.demosaic(mosaic, [0, 0], scale, [-black * s for s in scale], roots)
    gains = np.array(white_balance, np.float32)[:, None, None]
    return np.asarray(roots * np.abs(roots) / gains, np.float32)
