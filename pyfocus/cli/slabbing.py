"""Slabs on the command line: ``--slab``, ``--slab-overlap``: pictures beside the output, which are then stacked."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..burst import Burst
from ..io import read_burst
from ..io.atomic import check_target
from ..io.write import write_image
from ..register import Registration
from ..slabs import register_once, slab_ranges, stack_slabs
from ..stack import stack
from ..stacker import Stacked
from .arguments import UsageError
from .surfaces import wants_depth


def add_slabbing(command: argparse.ArgumentParser) -> None:
    """The options of ``pyfocus stack`` for that."""
    add = command.add_argument_group("slabs: pictures of some neighbouring frames, and the stack of these").add_argument
    add("--slab", type=int, metavar="N", help="frames of each; written as 16-bit OUT_slab01.tif, OUT_slab02.tif, ...")
    add("--slab-overlap", type=int, metavar="N", help="frames that a slab shares with the next (default: 0)")


def slab_files(options: argparse.Namespace, count: int, taken: Sequence[Path]) -> list[Path]:
    """The slabs' files of a burst of ``count`` frames, none without ``--slab``, before any is written.

    ``taken``: inputs and other outputs. Raises UsageError for what does not go together, WriteError for files that are
    there already.
    """
    if options.slab is None:
        if options.slab_overlap is not None:
            raise UsageError("--slab-overlap is for --slab; give that too, or leave it out")
        return []
    size, overlap = options.slab, options.slab_overlap or 0
    if size < 2 or not 0 <= overlap < size:
        raise UsageError(f"--slab must be 2 or more and --slab-overlap from 0 to below it, got {size} and {overlap}")
    mosaic = next((path for path in options.output if path.suffix.lower() == ".dng"), None)
    if mosaic is not None or options.domain == "raw":
        raise UsageError("slabs are pictures, not mosaics; write .tif and leave --domain raw out, or leave --slab out")
    if options.resume or options.save_transforms or wants_depth(options):
        raise UsageError(
            "--resume, --save-transforms and what is written of the depth are for one stack, not for --slab"
        )
    first: Path = options.output[0]
    number = len(slab_ranges(count, size, overlap))
    files = [first.with_name(f"{first.stem}_slab{i + 1:02d}.tif") for i in range(number)]
    others = {os.path.realpath(path) for path in taken}
    for file in files:
        if os.path.realpath(file) in others:
            raise UsageError(f"{file}, a slab's file, is an input or another output; write to another name or folder")
        check_target(file, options.overwrite)
    return files


def write_slabs(
    burst: Burst, files: list[Path], options: argparse.Namespace, settings: dict[str, Any]
) -> tuple[list[Path], Registration | None]:
    """Make and write the slabs; gives the files that there are, and where the frames lie."""
    found = settings.pop("transforms")
    if found is None and settings["align"]:
        found = register_once(burst, settings["motion"], settings["reference"], progress=settings["progress"])
    written = []
    slabs = stack_slabs(burst, options.slab, options.slab_overlap or 0, transforms=found, **settings)
    for file, slab in zip(files, slabs, strict=False):
        text = f"{slab.names[0]} to {slab.names[-1]} stacked by pyfocus"
        write_image(file, slab.image(), meta=slab.meta, bits=16, overwrite=options.overwrite, description=text)
        written.append(file)
    return written, found


def stack_written(files: Sequence[Path], burst: Burst, found: Registration | None, how: dict[str, Any]) -> Stacked:
    """The stack of slabs' files, told as that of the burst's frames. What moved was left out of them already."""
    stacked = stack(read_burst(files, order="as-given", domain="auto"), **{**how, "ghosts": False}, align=False)
    lost = [] if found is None else [name for name, used in zip(burst.names, found.registered, strict=True) if not used]
    return replace(stacked, names=burst.names, registration=found, left_out=lost)
