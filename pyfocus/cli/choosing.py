"""Which frames of a burst ``pyfocus stack`` takes: ``--from``, ``--to``, ``--every``."""

from __future__ import annotations

import argparse

from ..burst import Burst
from .arguments import UsageError


def add_choosing(command: argparse.ArgumentParser) -> None:
    """The options of ``pyfocus stack`` for that."""
    add = command.add_argument_group(
        "which frames are taken, by number from 0 in focus order; depth then counts those that are"
    ).add_argument
    add("--from", dest="first", type=_number, metavar="N", help="the first one (default: 0)")
    add("--to", dest="last", type=_number, metavar="N", help="the last one, itself too (default: the burst's last)")
    add("--every", type=_step, metavar="N", help="from there every Nth (default: 1)")


def choose_frames(burst: Burst, options: argparse.Namespace) -> Burst:
    """The frames that were asked for. Raises UsageError when there are none."""
    asked = {"--from": options.first, "--to": options.last}
    for name, number in asked.items():
        if number is not None and number >= len(burst):
            raise UsageError(f"{name} {number}: there are {len(burst)} frames, numbered 0 to {len(burst) - 1}")
    first = options.first or 0
    last = len(burst) - 1 if options.last is None else options.last
    if first > last:
        raise UsageError(f"--from {first} comes after --to {last}: no frame is left; exchange them")
    if all(value is None for value in (options.first, options.last, options.every)):
        return burst
    return burst.chosen(range(first, last + 1, options.every or 1))


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"must be a frame's number, 0 or more, got {text!r}")
    return int(text)


def _step(text: str) -> int:
    if _number(text) < 1:
        raise argparse.ArgumentTypeError("must be 1 or more, got '0'")
    return int(text)
