"""Standard output for results, standard error for everything else: progress, notes, warnings, errors."""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

from ..register import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

_LINE_EVERY_S = 5.0


class Terminal:
    """Where the command line speaks. ``quiet`` and ``verbose`` say how much; ``json`` keeps standard output bare."""

    def __init__(self, *, quiet: bool = False, verbose: bool = False, json: bool = False) -> None:
        self.quiet, self.verbose, self.json = quiet, verbose, json
        self.warnings: list[str] = []

    def result(self, text: str) -> None:
        """What was asked for, on standard output."""
        _write(sys.stdout, text)

    def note(self, text: str) -> None:
        """How work goes, on standard error."""
        if not self.quiet:
            _write(sys.stderr, text)

    def detail(self, text: str) -> None:
        """A decision and its reason, with ``--verbose``."""
        if self.verbose:
            _write(sys.stderr, f"pyfocus: {text}")

    def warn(self, text: str) -> None:
        """Something the user should know; kept for the report."""
        self.warnings.append(text)
        _write(sys.stderr, f"pyfocus: warning: {text}")

    def error(self, text: str) -> None:
        """Why it failed, on one line."""
        _write(sys.stderr, f"pyfocus: error: {' '.join(text.split())}")

    @contextmanager
    def catch_warnings(self) -> Iterator[None]:
        """What the library warns of, as lines here."""
        with warnings.catch_warnings():
            warnings.simplefilter("always", RuntimeWarning)
            warnings.showwarning = lambda message, *more, **named: self.warn(str(message))
            yield

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """A function ``(stage, done, total)`` to call as work proceeds; bars on a terminal, else short lines."""
        if self.quiet:
            yield lambda stage, done, total: None
        elif sys.stderr.isatty():
            with _bars() as bars:
                yield _Bars(bars)
        else:
            lines = _Lines()
            yield lines
            lines.end()


class _Bars:
    """One bar per stage."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._stage = ""
        self._task: TaskID | None = None

    def __call__(self, stage: str, done: float, total: int) -> None:
        if stage != self._stage:
            self._stage, self._task = stage, self._bars.add_task(stage, total=total)
        assert self._task is not None
        self._bars.update(self._task, completed=done, total=total)


def _bars() -> Bars:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            counted = speed and (task.total or 0) > 1
            return Text(_rate(task.description, speed) if speed and counted else "", style="progress.data.speed")

    columns = (
        TextColumn("{task.description:<9}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    return Bars(*columns, console=Console(stderr=True))


class _Lines:
    """A line at the end of each stage, and one every few seconds of a long one."""

    def __init__(self) -> None:
        self._stage, self._total, self._done = "", 0, 0.0
        self._begun = self._told = time.monotonic()

    def __call__(self, stage: str, done: float, total: int) -> None:
        now = time.monotonic()
        if stage != self._stage:
            self.end()
            self._stage, self._begun, self._told = stage, now, now
        self._done, self._total = done, total
        if now - self._told >= _LINE_EVERY_S and 0 < done < total:
            self._told = now
            rate = done / (now - self._begun)
            left = (total - done) / rate
            said = f"{stage}: {done:.1f}".removesuffix(".0") + f" of {total}"
            _write(sys.stderr, ", ".join(filter(None, (said, _rate(stage, rate), _left(left)))))

    def end(self) -> None:
        """The closing line of the stage at hand, if there is one."""
        if self._stage:
            seconds = time.monotonic() - self._begun
            rate = _rate(self._stage, self._total / seconds) if self._total > 1 and seconds > 0.01 else ""
            done = f"{self._stage}: {self._done:.0f} of {self._total}, {seconds:.1f} s"
            _write(sys.stderr, f"{done}, {rate}" if rate else done)
        self._stage = ""


def _rate(stage: str, per_s: float) -> str:
    """How fast, in words; nothing of stages whose steps are not alike."""
    if stage == "write":
        return ""
    things = "tiles" if stage == "finish" else "frames"
    return f"{per_s:.1f} {things}/s" if per_s >= 0.5 else f"{1 / per_s:.1f} s per {things[:-1]}"


def _left(seconds: float) -> str:
    """Time left, in words."""
    if seconds < 600:
        return f"{seconds:.0f} s left"
    return f"{seconds / 60:.0f} min left" if seconds < 2 * 3600 else f"{seconds / 3600:.1f} h left"


def _write(stream: TextIO, text: str) -> None:
    """Print and flush; when nobody reads any more (``| head``), go on in silence: files are still to be written."""
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:
        _silence(stream)
    except OSError:
        _silence(stream)
        raise


def _silence(stream: TextIO) -> None:
    """Lead the stream nowhere, so that the interpreter's own flush at exit finds nothing to complain about."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
