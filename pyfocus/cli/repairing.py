"""What ``pyfocus stack`` does about the sensor's defects: ``--repair``, ``--dark``, ``--flat``."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..burst import Burst, Frame
from ..defects import find_defects, repaired
from ..io import read_burst
from .terminal import Terminal


def add_repairing(command: argparse.ArgumentParser) -> None:
    """The options of ``pyfocus stack`` for that."""
    add = command.add_argument_group("what is repaired in the frames first").add_argument
    add(
        "--repair",
        choices=("auto", "on", "off"),
        default="auto",
        help="find hot and dead pixels in the burst and mend them (default: in mosaics and grey images)",
    )
    add("--dark", type=Path, metavar="FRAME", help="taken with the lens covered: is subtracted")
    add(
        "--flat",
        type=Path,
        metavar="FRAME",
        help="of an even bright field: what dust and shading take is given back",
    )


def repair(burst: Burst, options: argparse.Namespace, terminal: Terminal) -> Burst:
    """The burst with what was asked for. Raises ReadError and BurstError for frames that cannot be used."""
    dark, flat = (_read(path, burst) for path in (options.dark, options.flat))
    search = options.repair == "on" or (options.repair == "auto" and (burst[0].is_mosaic or burst[0].data.ndim == 2))
    found = find_defects(burst) if search else None
    if found is not None:
        hot, dead = (sum(places.shape[1] for places in kind) for kind in (found.hot, found.dead))
        terminal.detail(f"{hot} hot and {dead} dead pixels of the sensor are mended")
    if dark is None and flat is None and (found is None or not found.count):
        return burst
    return repaired(burst, dark=dark, flat=flat, find=found if found is not None else False)


def _read(path: Path | None, burst: Burst) -> Frame | None:
    if path is None:
        return None
    return read_burst([path], domain="raw" if burst[0].is_mosaic else "auto")[0]
