"""Where a run's bursts come from: simulated or from a data set, each draw known by its number alone.

Nothing has to be remembered to go on after a stop: draw number n is the same draw whoever asks, and when.
"""

from __future__ import annotations

import itertools
import signal
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, cast

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from ...errors import ArgumentError, PyfocusError, ReadError
from ..batch import Batch
from ..bursts import Kind
from ..data import Squares, open_dataset
from ..noise import add_noise, sample_noise
from ..simulate import Simulation, SimulationSettings
from .recipes import Recipe

EPOCH_TILE_PX = 128  # the published tiles, of each of which an epoch takes one square
VALIDATION_SEED = 1_000_003  # added to a run's seed: brackets that it never learns from


class Source(Protocol):
    """Bursts by number. A simulation is one."""

    def draw(self, index: int, count: int) -> Batch:
        """``count`` bursts, the same for the same index."""


def training_source(recipe: Recipe, device: str) -> Source:
    """What the recipe learns from. Raises ArgumentError or ReadError."""
    if recipe.data:
        return FolderSource(recipe, "train")
    return _simulation(recipe, device, recipe.seed)


def validation_source(recipe: Recipe, device: str) -> Source:
    """What the recipe is judged by while it learns: other brackets, or other scenes of the data set."""
    if recipe.data:
        return FolderSource(recipe, "val")
    return _simulation(recipe, device, recipe.seed + VALIDATION_SEED)


def _simulation(recipe: Recipe, device: str, seed: int) -> Source:
    try:
        settings = SimulationSettings(**_tuples(recipe.simulation))
    except TypeError as error:
        raise ArgumentError(f"train: simulation has a setting it does not take: {error}") from error
    source: Source = Simulation(
        recipe.photos or None, size=recipe.size_px, frames=recipe.frames, kind=cast(Kind, recipe.kind), device=device,
        noise=recipe.noise, seed=seed, settings=settings,
    )  # fmt: skip
    return source


def _tuples(values: Any) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


class FolderSource:
    """A data set's squares; raw ones with noise on top where the recipe says that it is drawn. ``len``: an epoch.

    Raises ReadError for a split without squares.
    """

    def __init__(self, recipe: Recipe, split: Literal["train", "val"]) -> None:
        kind = cast(Kind, recipe.kind)
        found = open_dataset(recipe.data)
        if not found.tiles(split, recipe.size_px):
            what = "learn from" if split == "train" else "be judged by"
            raise ReadError(
                f"{recipe.data}: has no burst of {recipe.size_px} px or more in its split {split!r} for a run to "
                f"{what}; make it anew with another --val (dataset ... --val 0.1) or --seed"
            )
        self._squares = Squares(found, split, recipe.size_px, kind=kind, frames=recipe.frames, seed=recipe.seed)
        self._epoch = max(1, len(found.tiles(split, EPOCH_TILE_PX)))
        self._seed = recipe.seed + (VALIDATION_SEED if split == "val" else 0)
        self._noisy = recipe.noise == "drawn" and kind != "rgb"  # rgb has been demosaiced: too late for noise

    def __len__(self) -> int:
        return self._epoch

    def draw(self, index: int, count: int) -> Batch:
        """``count`` squares, the same for the same index."""
        batch = self._squares.draw(index, count)
        if not self._noisy:
            return batch
        random = torch.Generator().manual_seed(self._seed * 1_000_003 + index)
        noise = sample_noise(count, random)
        return replace(batch, frames=add_noise(batch.frames, noise, random), noise=batch.noise + noise)


@dataclass(frozen=True)
class Share:
    """Which of a step's draws are this process's: ``rank`` of ``world`` takes every ``world``-th one."""

    rank: int = 0
    world: int = 1

    def draws(self, recipe: Recipe, step: int) -> list[int]:
        """Numbers of this process's draws at a step."""
        return [step * recipe.draws + d for d in range(self.rank, recipe.draws, self.world)]


class Draws(IterableDataset[Batch | PyfocusError]):
    """The draws of a process from a step on, in order; in a worker, that worker's.

    An error of ours ends them and is handed on as it is: torch would wrap it into a traceback.
    """

    def __init__(self, recipe: Recipe, share: Share, first_step: int, source: Source | None = None) -> None:
        self.recipe, self.share, self.first_step, self.source = recipe, share, first_step, source

    def __iter__(self) -> Iterator[Batch | PyfocusError]:
        each, worker = self.recipe.batch // self.recipe.draws, get_worker_info()
        steps = range(self.first_step, self.recipe.steps)
        numbers: Iterable[int] = (n for step in steps for n in self.share.draws(self.recipe, step))
        if worker is not None:
            numbers = itertools.islice(numbers, worker.id, None, worker.num_workers)
        try:
            source = self.source or training_source(self.recipe, "cpu")
            for number in numbers:
                yield source.draw(number, each)
        except PyfocusError as error:
            yield error


def drawing_place(recipe: Recipe, device: str) -> str:
    """The device that bursts are made on."""
    on_device = recipe.drawn_on == "device" or (recipe.drawn_on == "auto" and device != "cpu")
    return device if on_device and not recipe.data else "cpu"


def inline_source(recipe: Recipe, device: str) -> Source | None:
    """What is drawn from between the steps, None where worker processes draw."""
    place = drawing_place(recipe, device)
    return training_source(recipe, place) if place != "cpu" or recipe.workers == 0 else None


def draws(recipe: Recipe, share: Share, first_step: int, source: Source | None) -> Generator[Batch, None, None]:
    """Batches of a process from a step on: of a source, or made in worker processes; in any case the same."""
    made: Iterable[Batch | PyfocusError] = Draws(recipe, share, first_step, source)
    if source is None:
        made = DataLoader(
            made, batch_size=None, collate_fn=_as_it_is, num_workers=recipe.workers, prefetch_factor=recipe.prefetch,
            multiprocessing_context="spawn", worker_init_fn=_begin_worker,
        )  # fmt: skip
    for batch in made:
        if isinstance(batch, PyfocusError):
            raise batch
        yield batch


def _as_it_is(batch: Batch | PyfocusError) -> Batch | PyfocusError:
    return batch


def _begin_worker(number: int) -> None:
    """A worker outlives signals sent to the whole group until the run has finished its step and lets it go."""
    for signalled in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signalled, signal.SIG_IGN)
    torch.set_num_threads(1)
