"""The command ``pyfocus``: stack, simulate, train, info. The only part of the package that prints and ends a process.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done but more than a quarter of the frames was left out, 130 stopped.
"""

from __future__ import annotations

import argparse
import logging
import signal
from collections.abc import Callable, Mapping, Sequence
from types import FrameType

from .. import _C, environment
from ..errors import ArgumentError, PyfocusError
from . import calibrating, datasets, evaluating, info, simulating, stacking, training
from .arguments import Parser, UsageError, parser
from .terminal import Terminal

FAILED, USAGE, STOPPED = 1, 2, 130
COMMANDS: dict[str, Callable[[argparse.Namespace, Terminal], int]] = {
    "dataset": datasets.run,
    "evaluate": evaluating.run,
    "info": info.run,
    "noise": calibrating.run,
    "simulate": simulating.run,
    "stack": stacking.run,
    "train": training.run,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (default: the process's) and return its exit code."""
    return run_line(parser(), COMMANDS, arguments)


def run_line(
    words: Parser,
    commands: Mapping[str, Callable[[argparse.Namespace, Terminal], int]],
    arguments: Sequence[str] | None,
) -> int:
    """One command line in the words of a parser: what goes wrong becomes one line and an exit code."""
    logging.disable(logging.CRITICAL)  # libraries' chatter about files; what matters comes as an error
    signal.signal(signal.SIGTERM, _stop)
    terminal = Terminal()
    try:
        options = words.parse_args(arguments)
        terminal = Terminal(
            quiet=getattr(options, "quiet", False), verbose=getattr(options, "verbose", False), json=options.json
        )
        if not _set_threads(getattr(options, "threads", None)):
            return USAGE
        return commands[options.command](options, terminal)
    except UsageError as error:
        terminal.error(str(error))
        return USAGE
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        terminal.error("stopped; nothing was left half-written")
        return STOPPED
    except PyfocusError as error:
        terminal.error(str(error))
    except MemoryError as error:
        terminal.error(f"out of memory ({error or 'no more to be had'}); try smaller frames or fewer programs beside")
    except OSError as error:
        terminal.error(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    return FAILED


def _set_threads(wanted: int | None) -> bool:
    """Size the thread pool; False when the environment's number is none, which the import has said already."""
    if wanted is not None:
        _C.set_threads(wanted)
        return True
    try:
        environment.threads()
    except ArgumentError:
        return False
    return True


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
