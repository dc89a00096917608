"""Slabs on the command line: ``--slab``, ``--slab-overlap``: pictures beside the output, which are then stacked."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..burst import Burst
from ..io import read_burst
from ..io.atomic import check_target
from ..io.write import write_image
from ..slabs import slab_ranges, stack_slabs
from .arguments import UsageError


def add_slabbing(command: argparse.ArgumentParser) -> None:
    """The options of ``pyfocus stack`` for that."""
    add = command.add_argument_group("slabs: pictures of some neighbouring frames, and the stack of these").add_argument
    add("--slab", type=int, metavar="N", help="frames of each; written as 16-bit OUT_slab01.tif, OUT_slab02.tif, ...")
    add("--slab-overlap", type=int, metavar="N", help="frames that a slab shares with the next (default: 0)")


def slab_files(options: argparse.Namespace, count: int) -> list[Path]:
    """The slabs' files of a burst of ``count`` frames, none without ``--slab``, before any is written.

    Raises UsageError for sizes and outputs that do not go together, WriteError for files that are there already.
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
    if options.resume or options.save_transforms:
        raise UsageError("--resume and --save-transforms are for one stack; leave them out with --slab")
    first: Path = options.output[0]
    number = len(slab_ranges(count, size, overlap))
    files = [first.with_name(f"{first.stem}_slab{i + 1:02d}.tif") for i in range(number)]
    for file in files:
        check_target(file, options.overwrite)
    return files


def write_slabs(burst: Burst, files: list[Path], options: argparse.Namespace, settings: dict[str, Any]) -> Burst:
    """Make and write the slabs; gives them as a burst, registered already."""
    written = []
    slabs = stack_slabs(burst, options.slab, options.slab_overlap or 0, **settings)
    for file, slab in zip(files, slabs, strict=False):
        text = f"{slab.names[0]} to {slab.names[-1]} stacked by pyfocus"
        write_image(file, slab.image(), meta=slab.meta, bits=16, overwrite=options.overwrite, description=text)
        written.append(file)
    return read_burst(written, order="as-given", domain="auto")
