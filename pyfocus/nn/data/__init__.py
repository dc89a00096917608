"""Data sets of real bursts: made of raws, read from the published archive, streamed as batches.

    from pyfocus.nn import data

    data.build_dataset("bursts/", "set/", data.Recipe("rggb"))
    batch = data.open_dataset("set/").batch(seed=0, step=0, size=128, count=8)

Loading a data set executes nothing: arrays are mapped, facts are JSON, and torch's files are read as data only.
"""

from __future__ import annotations

from .build import Built, Shares, build_dataset, find_bursts
from .dataset import Dataset, open_dataset
from .keep import Recipe
from .lsfd import Archive, Photo, read_crop, read_lsfd, read_transforms
from .lsfd_convert import convert_lsfd
from .squares import Squares
from .store import BurstFacts

__all__ = [
    "Archive",
    "Built",
    "BurstFacts",
    "Dataset",
    "Photo",
    "Recipe",
    "Shares",
    "Squares",
    "build_dataset",
    "convert_lsfd",
    "find_bursts",
    "open_dataset",
    "read_crop",
    "read_lsfd",
    "read_transforms",
]
