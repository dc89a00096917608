"""An exported model, ready to run: its files by part and what runs each, whichever runtime that is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..arrays import AnyArray, Arrays
from ..errors import ArgumentError, ReadError
from ..networks import AT_ONCE, Runtime
from .facts import NEW, OLD, Facts

Array = npt.NDArray[Any]
Run = Callable[[dict[str, Any]], list[Any]]
PARTS = ("step", "finish", "burst")


class Runner(Protocol):
    """One file in a runtime. ``arrays``: where those of ``run_bound`` lie. ``most_at_once``: of a batch."""

    path: Path
    facts: Facts
    runtime: Runtime
    arrays: Arrays
    most_at_once: int

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        """All outputs. Raises ResourceError when the runtime fails, MemoryError when memory ends."""

    def run_bound(self, inputs: Mapping[str, AnyArray], outputs: Mapping[str, AnyArray]) -> None:
        """The same over arrays of ``arrays``, into others."""


@dataclass(frozen=True)
class Exported:
    """The graphs of a model, ready to run: ``files`` by part, and what runs each."""

    facts: Facts
    halos: dict[str, int]
    files: dict[str, Path]
    runs: dict[str, Run]
    runners: dict[str, Runner] = field(default_factory=dict)

    def zeros(self, height: int, width: int) -> dict[str, Array]:
        """A state of nothing folded yet."""
        return {
            name: np.zeros((1, channels, height // s, width // s) if s else (1, channels, 1, 1), np.float32)
            for name, channels, s in self.facts.state
        }

    def step(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """The state with one frame more."""
        return dict(zip((name for name, *_ in self.facts.state), self.runs["step"](inputs), strict=True))

    def finish(self, inputs: dict[str, Array]) -> list[Array]:
        """Picture, depth and confidence of a state; what else is in ``inputs`` is left out."""
        return self.runs["finish"]({key: inputs[key] for key in self.finish_inputs})

    def burst(self, inputs: dict[str, Array]) -> list[Array]:
        """The picture of a whole burst."""
        return self.runs["burst"](inputs)

    @property
    def finish_inputs(self) -> tuple[str, ...]:
        """What the finish takes: the state but for what steps alone look at, noise and white balance."""
        return (*(name for name, *_ in self.facts.state[2:]), "noise", "white_balance")

    @property
    def runtime(self) -> Runtime | None:
        """What runs it."""
        return next((runner.runtime for runner in self.runners.values()), None)

    def tiles_at_once(self, wanted: int | None) -> int:
        """How many tiles go through together: as wanted, or what suits; no more than every file takes.

        Raises ArgumentError for fewer than one.
        """
        if wanted is not None and wanted < 1:
            raise ArgumentError(f"load: at_once must be 1 or more, got {wanted}")
        on_card = any(runner.arrays.is_device for runner in self.runners.values())
        usual = AT_ONCE if on_card else 1
        return min([usual if wanted is None else wanted, *(runner.most_at_once for runner in self.runners.values())])

    def run_by(self, run_with: Callable[[Path], Run]) -> Exported:
        """The same files in another runtime."""
        runs = {part: run_with(file) for part, file in self.files.items()}
        return Exported(self.facts, self.halos, self.files, runs)


def assemble(named: Path, runners: Sequence[Runner]) -> Exported:
    """A model of its files, of which ``named`` was named. Raises ReadError for those that do not belong together."""
    parts: dict[str, Runner] = {runner.facts.part: runner for runner in runners}
    facts = [runner.facts for runner in runners]
    if any((f.weights, f.tile, f.state) != (facts[0].weights, facts[0].tile, facts[0].state) for f in facts):
        raise ReadError(f"{named}: does not belong to the file beside it: they were exported of different weights")
    for runner in runners:
        _check_facts(runner)
    return Exported(
        parts.get("step", runners[0]).facts,
        {part: runner.facts.halo_px for part, runner in parts.items()},
        {part: runner.path for part, runner in parts.items()},
        {part: runner.run for part, runner in parts.items()},
        parts,
    )


def next_name(name: str) -> str:
    """The step's output that is a state's input the next time."""
    return NEW + name.removeprefix(OLD)


def _check_facts(runner: Runner) -> None:
    """That what a file says of itself can be worked with. Raises ReadError."""
    facts, path = runner.facts, runner.path
    wrong = ""
    if facts.part not in PARTS:
        wrong = f"part is {facts.part!r}"
    elif not (_whole(facts.step_px, 1) and _whole(facts.halo_px, 0) and facts.halo_px % facts.step_px == 0):
        wrong = f"step_px is {facts.step_px!r} and halo_px {facts.halo_px!r}"
    elif facts.tile and not (len(facts.tile) == 2 and all(_whole(n, 1) and n % facts.step_px == 0 for n in facts.tile)):
        wrong = f"tile is {facts.tile!r}"
    elif facts.part == "burst" and not (_whole(facts.frames, 1) and facts.kind in ("rgb", "rggb", "mosaic")):
        wrong = f"frames is {facts.frames!r} and kind {facts.kind!r}"
    elif facts.part != "burst" and not _is_state(facts):
        wrong = f"state is {facts.state!r}"[:120]
    if wrong:
        raise ReadError(f"{path}: its metadata cannot be worked with: {wrong}; export the checkpoint again")


def _is_state(facts: Facts) -> bool:
    try:
        fits = all(_whole(c, 1) and _whole(s, 0) and (s == 0 or facts.step_px % s == 0) for _, c, s in facts.state)
        names = {name for name, *_ in facts.state}
    except (TypeError, ValueError):
        return False
    return fits and len(facts.state) > 2 and (facts.part != "step" or names <= set(facts.inputs))


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and value >= least
