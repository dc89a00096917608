"""The command ``pyfocus-export``: models for other people's software. Exit codes as those of ``pyfocus``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..errors import ResourceError
from . import FAILED, engines, run_line
from .arguments import Parser, parse_count
from .terminal import Terminal

if TYPE_CHECKING:
    from ..export.verify import Difference

# What the modules of pyfocus.export need, and the extra that installs it.
EXTRAS = {"torch": "export", "onnx": "export", "onnxscript": "export", "onnxruntime": "onnx"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (default: the process's) and return its exit code."""
    return run_line(export_parser(), COMMANDS, arguments)


def run_onnx(options: argparse.Namespace, terminal: Terminal) -> int:
    """Export a checkpoint."""
    to_onnx = _needed("to_onnx")
    files, found = to_onnx.export_onnx(
        options.checkpoint, options.output, variant=options.variant, precision=options.precision,
        frames=options.frames, tile=tuple(options.tile) if options.tile else None, verify=options.verify,
        overwrite=options.overwrite, tell=terminal.note,
    )  # fmt: skip
    if terminal.json:
        terminal.result(
            json.dumps({"files": [str(file) for file in files], "differences": [asdict(d) for d in found]}, indent=1)
        )
    elif not terminal.quiet:
        _tell(found, terminal)
        for file in files:
            terminal.result(f"{file}: {file.stat().st_size / 1e6:.2f} MB")
    return 0


def run_info(options: argparse.Namespace, terminal: Terminal) -> int:
    """Print what files say of themselves."""
    all_facts = {str(file): engines.texts_of(file) for file in options.files}
    if terminal.json:
        terminal.result(json.dumps(all_facts, indent=1))
        return 0
    for file, texts in all_facts.items():
        terminal.result(file)
        for key, text in texts.items():
            terminal.result(f"  {key:<22}  {text}")
    return 0


def run_verify(options: argparse.Namespace, terminal: Terminal) -> int:
    """Compare two models; exit code 1 when they differ by more than the limit."""
    verify = _needed("verify")
    _needed("evaluator")
    if ".pt" in (options.base.suffix, options.other.suffix):
        _needed("graphs")
    found = verify.compare(options.base, options.other)
    wrong = [one.wrong for one in found if one.wrong]
    if terminal.json:
        limits = {precision: asdict(limit) for precision, limit in verify.LIMITS.items()}
        terminal.result(json.dumps({"limits": limits, "differences": [asdict(d) for d in found]}, indent=1))
    elif not terminal.quiet:
        _tell(found, terminal)
    if wrong:
        terminal.error(f"{options.other}: {wrong[0]}")
    return FAILED if wrong else 0


COMMANDS: dict[str, Callable[[argparse.Namespace, Terminal], int]] = {
    "info": run_info,
    "onnx": run_onnx,
    **engines.COMMANDS,
    "verify": run_verify,
}


def export_parser() -> Parser:
    """The whole command line."""
    top = Parser(
        prog="pyfocus-export",
        description="Models for other people's software.",
        epilog="exit codes: 0 done, 1 failed or not alike, 2 wrong usage, 130 stopped",
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"pyfocus {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    _onnx(commands)
    engines.add_commands(commands)
    info = commands.add_parser("info", help="what exported files say of themselves", allow_abbrev=False)
    info.add_argument("files", nargs="+", type=Path, metavar="FILE", help=".onnx or .engine")
    verify = commands.add_parser(
        "verify",
        help="whether two models give the same",
        description="Run a small seeded burst through two models, in every runtime that can run them, and compare.",
        allow_abbrev=False,
    )
    verify.add_argument("base", type=Path, metavar="A", help="a checkpoint (.pt), a folder, .onnx or .engine")
    verify.add_argument("other", type=Path, metavar="B", help="the same of another")
    verify.add_argument("-q", "--quiet", action="store_true", help="only warnings and errors")
    for command in (info, verify):
        command.add_argument("--json", action="store_true", help="the result as one JSON object on standard output")
    return top


def _onnx(commands: Any) -> None:
    command: Parser = commands.add_parser(
        "onnx",
        help="a checkpoint to ONNX files",
        description="Write step.onnx and finish.onnx of a network that folds, burst.onnx of another.",
        epilog="example: pyfocus-export onnx run/best.pt -o exported --verify",
        allow_abbrev=False,
    )
    add = command.add_argument
    add("checkpoint", type=Path, metavar="CKPT", help="a model's file (.pt)")
    add("-o", "--output", type=Path, required=True, metavar="DIR", help="folder for the files")
    add(
        "--variant",
        choices=("standard", "gridsample", "plugin"),
        default="standard",
        help="standard has DeformConv nodes (ONNX Runtime from 1.25), gridsample none (other runtimes), plugin nodes "
        "of our own (TensorRT with our plugin)",
    )
    add("--precision", choices=("fp32", "mixed"), default="fp32", help="mixed: convolutions and their weights in half")
    add("--frames", type=parse_count, metavar="N", help="that the model must take")
    add("--tile", type=parse_count, nargs=2, metavar=("H", "W"), help="one size of inputs (default: any)")
    add("--verify", action="store_true", help="run the files, and write none when they do not give what torch gives")
    add("--overwrite", action="store_true", help="replace files that exist already")
    add("--json", action="store_true", help="the result as one JSON object on standard output")
    add("-q", "--quiet", action="store_true", help="only warnings and errors")


def _needed(module: str) -> Any:
    """A module of pyfocus.export. Raises ResourceError when what it needs is not installed."""
    import importlib

    try:
        return importlib.import_module(f"...export.{module}", __name__)
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        raise ResourceError(
            f"pyfocus-export: needs {error.name}, which is not installed: pip install "
            f"'pyfocus-stack[{EXTRAS[error.name]}]'"
        ) from error


def _tell(found: Sequence[Difference], terminal: Terminal) -> None:
    for one in found:
        terminal.result(
            f"{one.what:<10}  {one.other} against {one.base}: {one.largest:.1e} at most, {one.mean:.1e} on average, "
            f"{one.psnr_db:.0f} dB"
        )
