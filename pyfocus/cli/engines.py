"""``pyfocus-export tensorrt`` and ``pyfocus-export rtx``: ONNX files to engines."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .arguments import Parser, parse_count, parse_memory
from .terminal import Terminal

_EXAMPLES = {
    "tensorrt": "pyfocus-export tensorrt exported -o engines --opt-shapes 576x576 --max-shapes 1024x1024",
    "rtx": "pyfocus-export rtx exported -o engines --compute-capability 8.9",
}


def run_tensorrt(options: argparse.Namespace, terminal: Terminal) -> int:
    """Build TensorRT engines for the card at hand."""
    return _run(options, terminal, flavour="tensorrt", timing_cache=options.timing_cache)


def run_rtx(options: argparse.Namespace, terminal: Terminal) -> int:
    """Build TensorRT-RTX engines, without a card."""
    return _run(options, terminal, flavour="tensorrt-rtx", capabilities=options.compute_capability)


COMMANDS: dict[str, Callable[[argparse.Namespace, Terminal], int]] = {"rtx": run_rtx, "tensorrt": run_tensorrt}


def add_commands(commands: Any) -> None:
    """Both commands, to a command line's."""
    tensorrt = _command(
        commands,
        "tensorrt",
        "ONNX files to TensorRT engines for this card",
        "Build engines with TensorRT 10 or 11, for the card at hand and the TensorRT installed.",
    )
    tensorrt.add_argument(
        "--timing-cache", type=Path, metavar="FILE", help="TensorRT's measurements, read if there, and written"
    )
    rtx = _command(
        commands,
        "rtx",
        "ONNX files to TensorRT-RTX engines; no card needed",
        "Build engines with TensorRT-RTX, on any x86-64 Linux machine, for GeForce RTX and RTX PRO cards.",
    )
    rtx.add_argument(
        "--compute-capability",
        type=_capability,
        action="append",
        default=[],
        metavar="X.Y",
        help="of the cards to build for, more than once for more (default: 8.0, 8.6, 8.9, 12.0 and later)",
    )


def texts_of(file: Path) -> dict[str, str]:
    """What an exported file or an engine says of itself; no runtime is needed. Raises ReadError."""
    from ..export.engine_file import SUFFIX, read_engine
    from ..export.onnx_metadata import read_file

    return read_engine(file)[0].texts() if file.suffix == SUFFIX else read_file(file)[0].texts()


def _command(commands: Any, name: str, short: str, description: str) -> Parser:
    command: Parser = commands.add_parser(
        name, help=short, description=description, epilog=f"example: {_EXAMPLES[name]}", allow_abbrev=False
    )
    add = command.add_argument
    add("model", type=Path, metavar="MODEL", help="an exported folder, or one .onnx")
    add("-o", "--output", type=Path, required=True, metavar="PATH", help="folder for the engines, or M.engine for one")
    sizes = (("min", "one step of the network"), ("opt", "tiles of 512 with their halos"), ("max", "1024x1024"))
    for kind, default in sizes:
        what = {"min": "smallest tiles", "opt": "tiles it is tuned for", "max": "largest tiles"}[kind]
        add(f"--{kind}-shapes", type=_size, metavar="HxW", help=f"{what}, with halos, in px (default: {default})")
    add("--batch", type=parse_count, default=1, metavar="N", help="tiles at once, at most (default: %(default)s)")
    add("--precision", choices=("fp32", "mixed"), help="that the files must have; they decide")
    add("--workspace", type=parse_memory, default=0, metavar="SIZE", help="memory that a layer may take, such as 2G")
    add("--no-cache", action="store_true", help="build even what was built of the same before, and keep nothing")
    add("--overwrite", action="store_true", help="replace files that exist already")
    add("--json", action="store_true", help="the result as one JSON object on standard output")
    add("-q", "--quiet", action="store_true", help="only warnings and errors")
    return command


def _run(options: argparse.Namespace, terminal: Terminal, **more: Any) -> int:
    from ..export.engine_file import sidecar_of
    from ..export.profiles import Sizes
    from ..export.to_tensorrt import build_engines

    files = build_engines(
        options.model, options.output, sizes=Sizes(options.min_shapes, options.opt_shapes, options.max_shapes,
        options.batch), precision=options.precision, workspace=options.workspace, cache=not options.no_cache,
        overwrite=options.overwrite, tell=terminal.note, **more,
    )  # fmt: skip
    if terminal.json:
        terminal.result(json.dumps({str(file): json.loads(sidecar_of(file).read_text()) for file in files}, indent=1))
    elif not terminal.quiet:
        for file in files:
            terminal.result(f"{file}: {file.stat().st_size / 1e6:.2f} MB")
    return 0


def _size(text: str) -> tuple[int, int]:
    """Height and width of a tile: 384x384."""
    found = re.fullmatch(r"(\d{1,6})[xX×](\d{1,6})", text)
    if found is None or min(map(int, found.groups())) < 1:
        raise argparse.ArgumentTypeError(f"must be height and width in pixels, such as 384x384, got {text!r}")
    return int(found[1]), int(found[2])


def _capability(text: str) -> str:
    if not re.fullmatch(r"\d{1,2}\.\d", text):
        raise argparse.ArgumentTypeError(f"must be a compute capability, such as 8.9, got {text!r}")
    return text
