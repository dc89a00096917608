"""``pyfocus train``: a network from a recipe, into a folder, from the beginning or from where it was stopped."""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from types import FrameType
from typing import TYPE_CHECKING

from ..errors import ArgumentError, ResourceError
from .arguments import UsageError
from .terminal import Terminal

if TYPE_CHECKING:
    from ..nn.train import Moment, Outcome, Recipe

STOPPED = 130


def run(options: argparse.Namespace, terminal: Terminal) -> int:
    """Train, and say how it went."""
    try:
        from ..nn import train
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ResourceError(str(error)) from error
    train.use_threads(options.threads or 0)
    recipe = _recipe(options)
    first = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun started, one speaks
    say = terminal if first else Terminal(quiet=True)
    say.detail(f"recipe: {json.dumps(asdict(recipe))}")
    if first and not say.quiet and not train.has_tensorboard():
        say.detail("tensorboard is not installed: no scalars for it (pip install 'pyfocus-stack[train]')")
    with _asked_to_stop() as stop:
        outcome = train.train(
            recipe, options.output, resume=options.resume, overwrite=options.overwrite, tell=_speaker(say), stop=stop
        )
    if first:
        _report(outcome, options, say)
    return STOPPED if outcome.reason == "stopped" else 0


def _recipe(options: argparse.Namespace) -> Recipe:
    """The recipe by its name, or the one of the run that goes on, with the changes asked for."""
    from ..nn import train

    try:
        recipe = train.named_recipe(options.recipe)
        saved = train.saved_recipe(options.output) if options.resume else None
        if saved is not None and saved.name != recipe.name:
            raise UsageError(f"{options.output} is a run of {saved.name}, not {recipe.name}; name that recipe to go on")
        return train.changed(saved or recipe, options.set)
    except ArgumentError as error:
        raise UsageError(str(error)) from error


@contextmanager
def _asked_to_stop() -> Iterator[Callable[[], bool]]:
    """Whether a signal has asked for an end. A second Ctrl-C does not wait for the step to be finished."""
    asked: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _speaker(terminal: Terminal) -> Callable[[Moment], None]:
    """A line for each moment."""

    def tell(moment: Moment) -> None:
        if terminal.quiet:
            return
        line = f"step {moment.step} of {moment.steps}, loss {moment.loss:.5f}"
        if moment.psnr is not None:
            line += f", validation {moment.psnr:.2f} dB (mean of frames {moment.mean_psnr:.2f} dB)"
        else:
            line += f", lr {moment.lr:.2e}, {moment.rate:.2f} steps/s, {_span(moment.left_s)} left"
        if moment.skipped:
            line += f", {moment.skipped} skipped"
        terminal.note(line)

    return tell


def _span(seconds: float) -> str:
    """Seconds as people read them: 42 s, 5:07, 3:05:07."""
    if not math.isfinite(seconds):
        return "?"
    whole = round(seconds)
    minutes, hours = whole // 60, whole // 3600
    if hours:
        return f"{hours}:{minutes % 60:02d}:{whole % 60:02d}"
    return f"{minutes}:{whole % 60:02d}" if minutes else f"{whole} s"


def _report(outcome: Outcome, options: argparse.Namespace, terminal: Terminal) -> None:
    if terminal.json:
        values = {k: v if not isinstance(v, float) or math.isfinite(v) else None for k, v in asdict(outcome).items()}
        terminal.result(json.dumps({"folder": str(options.output), **values}, indent=1))
        return
    if terminal.quiet:
        return
    how = {"done": "done", "minutes": "out of time", "stopped": "stopped"}[outcome.reason]
    more = "" if outcome.reason == "done" else "; go on with --resume"
    terminal.result(f"{how} at step {outcome.step} of {outcome.steps} after {_span(outcome.seconds)}{more}")
    if math.isfinite(outcome.psnr):
        terminal.result(
            f"{options.output / 'best.pt'}: validation {outcome.psnr:.2f} dB at the end, "
            f"mean of frames {outcome.mean_psnr:.2f} dB"
        )
