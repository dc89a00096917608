"""``pyfocus evaluate``: fusers and models judged by scenes with truth, told as a table and as pictures."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import ArgumentError, WriteError
from ..evaluate import (
    Format,
    Score,
    Worst,
    check_fusers,
    evaluate,
    evaluation_report,
    find_scenes,
    picture_names,
    report_text,
    write_worst,
)
from ..io import atomic, check_target
from .arguments import UsageError
from .terminal import Terminal

DONE, MANY_LEFT_OUT = 0, 3
_WORST = 8  # pictures per fuser, when they are asked for without a number
_FORMATS: dict[str, Format] = {".md": "markdown", ".json": "json"}


def run(options: argparse.Namespace, terminal: Terminal) -> int:
    """Evaluate; returns 0, or 3 when more than a quarter of some scene's frames was left out."""
    format = choose_format(options)
    check_options(options)
    fusers = list(dict.fromkeys(options.fusers))
    try:
        check_fusers(fusers, options.device)
    except ArgumentError as error:
        raise UsageError(str(error)) from error
    scenes = find_scenes(options.data, options.split)
    check_targets(options)
    worst = (options.worst or _WORST) if options.pictures else 0
    terminal.detail(f"judging {', '.join(fusers)} by {len(scenes)} scenes below {options.data}")
    with terminal.progress() as tell, terminal.catch_warnings():
        scores, tiles = evaluate(
            fusers, scenes, protocol=options.protocol, border=options.border, worst=worst, device=options.device,
            progress=tell,
        )  # fmt: skip
    report = evaluation_report(
        scores, version=__version__, data=str(options.data), protocol=options.protocol, border=options.border,
        published=options.paper,
    )  # fmt: skip
    for score in scores:
        if score.left_out:
            count = f"{len(score.left_out)} of {score.frames} frames"
            terminal.warn(f"{score.scene}, {score.fuser}: {count} could not be registered and were left out")
    write(options, terminal, report, format, tiles)
    return MANY_LEFT_OUT if any(map(_many_left_out, scores)) else DONE


def choose_format(options: argparse.Namespace) -> Format:
    """As asked, else by the output's name, else text. Raises UsageError for two that contradict each other."""
    wanted: Format | None = options.format
    if options.json and wanted not in (None, "json"):
        raise UsageError(f"--json and --format {wanted} contradict each other; leave one of them out")
    if options.json or wanted:
        return wanted or "json"
    return _FORMATS.get(options.output.suffix.lower(), "text") if options.output else "text"


def check_options(options: argparse.Namespace) -> None:
    """Raise UsageError for options that do not go together."""
    if options.border and options.protocol == "score":
        raise UsageError("--border is for the protocol paper; score has a border of its own: leave --border out")
    if options.worst is not None and options.pictures is None:
        raise UsageError("--worst needs a folder for its pictures; add --pictures DIR")


def check_targets(options: argparse.Namespace) -> None:
    """Raise WriteError unless everything can be written that was asked for."""
    if options.output:
        check_target(options.output, options.overwrite, suffixes=())
    folder: Path | None = options.pictures
    if folder is None:
        return
    if folder.exists() and not folder.is_dir():
        raise WriteError(f"{folder}: is a file; name a folder for the pictures")
    if folder.is_dir() and any(folder.iterdir()) and not options.overwrite:
        raise WriteError(f"{folder}: holds files already; choose another folder or allow overwriting (--overwrite)")
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise WriteError(f"{folder}: no permission to write into {nearest}")


def write(
    options: argparse.Namespace, terminal: Terminal, report: dict[str, Any], format: Format, tiles: list[Worst]
) -> None:
    """The table, to its file if there is one and to standard output unless that is to be quiet; then the pictures."""
    if options.pictures:
        report["pictures"] = [str(options.pictures / name) for name in picture_names(tiles)]
    text = report_text(report, format)
    if options.output:
        data = f"{text}\n".encode()
        with atomic(options.output, options.overwrite, size=len(data)) as file:
            file.write(data)
    if options.json or not options.output:
        terminal.result(text)
    elif not terminal.quiet:
        terminal.result(report_text(report, "text"))
        terminal.result(f"{options.output}: {len(report['rows'])} rows as {format}")
    if options.pictures:
        written = write_worst(options.pictures, tiles, overwrite=options.overwrite)
        if not (options.json or terminal.quiet or (format == "json" and not options.output)):
            terminal.result(f"{options.pictures}: the {len(written)} worst tiles (result, truth, difference x 8)")


def _many_left_out(score: Score) -> bool:
    return 4 * len(score.left_out) > score.frames
