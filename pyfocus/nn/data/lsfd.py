"""The published data set (Araujo et al. 2023, LSFD) as it lies on disk: what is there, and what is not.

    ROOT/focus_stack_dataset/dataset/dataset.csv                set;lens;photo
    ROOT/focus_stack_dataset/dataset/SET/LENS/PHOTO/raw/*.rw2   in natural order, which is focus order
                                                    jpg/*.jpg   rendered by another program
                                                    aligned/burst_I.jpg   the same in the geometry of frame 0
                                                    transforms.pth        of frames 1 and after: see read_transforms
                                                    helicon_focus.jpg, helicon_focus_aligned_tiff.jpg
                                                    crops3/cropI.pkl, crops_raw/cropI.pkl

Anything may be absent. A photo's name is not unique: (set, lens, photo) is.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...affine import Matrix
from ...burst import Array
from ...colour import decode_lut
from ...errors import ReadError
from ...io import natural_key
from ...io.order import RAW_SUFFIXES
from ..batch import Batch
from .safe import as_array, load_plain

PathLike = str | os.PathLike[str]
SETS = ("train", "test")
TRUTHS = ("helicon_focus.jpg", "helicon_focus_aligned_tiff.jpg")
CROPS = ("crops3", "crops_raw")


@dataclass(frozen=True)
class Photo:
    """One burst of the archive: its files by kind, in focus order. ``crops``: how many there are, by folder."""

    set: str
    lens: str
    name: str
    folder: Path
    raws: list[Path] = field(default_factory=list)
    jpgs: list[Path] = field(default_factory=list)
    aligned: list[Path] = field(default_factory=list)
    transforms: Path | None = None
    truths: list[Path] = field(default_factory=list)
    crops: dict[str, int] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """``set/lens/photo``."""
        return f"{self.set}/{self.lens}/{self.name}"

    @property
    def missing(self) -> list[str]:
        """What is not there, by its name in the archive. Crops were never part of the download."""
        there = {"raw/": self.raws, "jpg/": self.jpgs, "aligned/": self.aligned, "transforms.pth": self.transforms}
        names = [path.name for path in self.truths]
        return [name for name, found in there.items() if not found] + [name for name in TRUTHS if name not in names]


@dataclass(frozen=True)
class Archive:
    """The archive at ``folder``: its photos, keys ``listed`` in dataset.csv, and files ``missing`` from the whole."""

    folder: Path
    photos: list[Photo]
    listed: list[str]
    missing: list[str]

    @property
    def absent(self) -> list[str]:
        """Photos that the list names and the disk does not have."""
        return [key for key in self.listed if key not in {photo.key for photo in self.photos}]


def read_lsfd(root: PathLike) -> Archive:
    """What there is of the archive at ``root``, the folder it was unpacked in or one of the two below it.

    Only names are looked at. Raises ReadError when it is not there at all, or its list is damaged.
    """
    given = Path(root)
    places = (given / "focus_stack_dataset" / "dataset", given / "dataset", given)
    folder = next((p for p in places if (p / "dataset.csv").is_file() or any((p / s).is_dir() for s in SETS)), None)
    if folder is None:
        raise ReadError(f"{given}: no LSFD archive here: expected focus_stack_dataset/dataset/ with train/, test/")
    listed = _read_list(folder / "dataset.csv")
    missing = [] if (folder / "dataset.csv").is_file() else ["dataset.csv"]
    missing += [f"{name}/" for name in SETS if not (folder / name).is_dir()]
    photos = [
        _look(photo, name, lens.name)
        for name in SETS
        for lens in _folders(folder / name)
        for photo in _folders(lens)
    ]  # fmt: skip
    return Archive(folder, photos, listed, missing)


def read_transforms(path: PathLike, frames: int) -> Matrix:
    """(N, 3, 3) of ``transforms.pth`` for ``frames`` = N frames, from pixels of frame 0 to each frame's, as ours are.

    Convention: the file has one affine (2, 3) for each frame from 1 on, in pixels of the full-size picture. It maps
    frame i's coordinates to frame 0's (its programs warp with it without WARP_INVERSE_MAP, which inverts it), so ours
    is its inverse. Raises ReadError for a file that is damaged, holds something else, or is of another number of
    frames.
    """
    path = Path(path)
    value = load_plain(path)
    try:
        entries = [as_array(entry) for entry in (value if isinstance(value, list | tuple) else as_array(value))]
        if any(entry.shape not in ((2, 3), (3, 3)) for entry in entries):
            raise ValueError(f"it holds {[entry.shape for entry in entries][:3]} where (2, 3) belongs")
        maps = np.stack([np.eye(3)] * (len(entries) + 1))
        maps[1:, :2] = [entry[:2] for entry in entries]
        if len(maps) == frames + 1 and np.allclose(maps[1], np.eye(3)):
            maps = maps[1:]  # frame 0's own is there as well
        if len(maps) != frames:
            raise ValueError(f"it has {len(entries)} transforms, {frames} frames need {frames - 1}")
        inverse: Matrix = np.asarray(np.linalg.inv(maps), np.float64)
    except (TypeError, ValueError, np.linalg.LinAlgError) as error:
        raise ReadError(f"{path}: holds no transforms of this burst: {error}") from error
    return inverse


def read_crop(path: PathLike) -> Batch:
    """A ``crop*.pkl`` as a batch of one: kind "rgb" or "rggb". Depth, sharp and noise are 0: nothing is known.

    The truth is the published picture as in :meth:`Dataset.batch`. Raises ReadError.
    """
    path = Path(path)
    value = load_plain(path)
    try:
        burst, target = as_array(value["burst"]), as_array(value["target"])
        size = target.shape[2:]
        raw = burst.dtype.kind == "f"
        shape = (4, size[0] // 2, size[1] // 2) if raw else (3, *size)
        if target.dtype != np.uint8 or target.shape != (1, 3, *size) or burst.shape != (len(burst), *shape):
            raise ValueError(f"its burst is {burst.shape} {burst.dtype}, its target {target.shape} {target.dtype}")
        white = np.array(_balance(value["meta_info"]["cam_wb"]) if raw else (1, 1, 1), np.float32)
        frames = burst.astype(np.float32) if raw else decode_lut(np.uint8)[burst]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ReadError(f"{path}: holds no crop: {error}") from error
    zeros = torch.zeros((1, 1, *size))
    return Batch(
        _tensor(frames[None]), torch.arange(len(burst), dtype=torch.float32)[None],
        _tensor(decode_lut(np.uint8)[target] / white[None, :, None, None]), zeros, zeros.clone(), torch.zeros(1, 2),
        _tensor(white[None]), "rggb" if raw else "rgb",
    )  # fmt: skip


def _balance(gains: Any) -> tuple[float, float, float]:
    """R, G, B with G = 1 of multipliers R, G1, G2, B."""
    r, g, b = (float(gains[i]) for i in (0, 1, 3))
    if min(r, g, b) <= 0:
        raise ValueError(f"its white balance is {gains}")
    return r / g, 1.0, b / g


def _tensor(array: Array) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))


def _read_list(path: Path) -> list[str]:
    """Keys of the rows of dataset.csv. Raises ReadError."""
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, delimiter=";")
            return ["/".join(row[name].strip() for name in ("set", "lens", "photo")) for row in rows]
    except (OSError, UnicodeError, KeyError, AttributeError, csv.Error) as error:
        raise ReadError(f"{path}: is damaged: expected lines of set;lens;photo ({error})") from error


def _look(folder: Path, name: str, lens: str) -> Photo:
    transforms = folder / "transforms.pth"
    return Photo(
        name, lens, folder.name, folder,
        raws=_files(folder / "raw", sorted(RAW_SUFFIXES)), jpgs=_files(folder / "jpg", (".jpg", ".jpeg")),
        aligned=_files(folder / "aligned", (".jpg", ".jpeg")),
        transforms=transforms if transforms.is_file() else None,
        truths=[folder / truth for truth in TRUTHS if (folder / truth).is_file()],
        crops={crops: found for crops in CROPS if (found := len(_files(folder / crops, (".pkl",))))},
    )  # fmt: skip


def _files(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """Files of these kinds, in natural order, hidden ones left out; none when the folder is not there."""
    if not folder.is_dir():
        return []
    found = [p for p in folder.iterdir() if p.suffix.lower() in suffixes and not p.name.startswith(".") and p.is_file()]
    return sorted(found, key=lambda p: natural_key(p.name))


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    found = [p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")]
    return sorted(found, key=lambda p: natural_key(p.name))
