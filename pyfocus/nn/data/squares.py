"""A data set as numbered draws, as training takes them: number n is the same batch whoever asks, and when."""

from __future__ import annotations

import numpy as np

from ...errors import ArgumentError
from ..batch import Batch
from ..bursts import Kind
from .dataset import Dataset
from .store import Split


class Squares:
    """Squares of ``size_px`` px of the picture from a split: at random places to learn from, as tiles to judge by.

    ``frames``: how many of each burst, or the least and most of them, drawn anew for each draw ("val" and "test": the
    most); no more than the burst with the fewest has. ``len`` is the number of whole tiles: what an epoch is.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: Split,
        size_px: int,
        *,
        kind: Kind | None = None,
        frames: int | tuple[int, int] | None = None,
        seed: int = 0,
    ) -> None:
        self._dataset, self._split, self._size, self._kind, self._seed = dataset, split, size_px, kind, seed
        self._tiles = dataset.tiles(split, size_px)
        if not self._tiles:
            raise ArgumentError(
                f"Squares: split must have bursts of {size_px} px or more, {split!r} of {dataset.folder} has none"
            )
        fewest = dataset.fewest_frames(split)
        low, high = (frames, frames) if isinstance(frames, int) else frames or (fewest, fewest)
        if not 1 <= low <= high or low > fewest:
            raise ArgumentError(f"Squares: frames must be 1 to {fewest}, the fewest of a burst, got {frames}")
        self._frames = low, min(high, fewest)

    def __len__(self) -> int:
        return len(self._tiles)

    def draw(self, index: int, count: int) -> Batch:
        """``count`` squares, the same for the same index."""
        low, high = self._frames
        if self._split == "train":
            wanted = int(np.random.default_rng([self._seed, index, 1]).integers(low, high + 1))
            return self._dataset.batch(
                self._seed, index, size=self._size, count=count, split="train", frames=wanted, kind=self._kind
            )
        places = range(index * count, (index + 1) * count)
        tiles = [self._tiles[place % len(self._tiles)] for place in places]
        return self._dataset.crops(tiles, self._size, frames=high, kind=self._kind)
