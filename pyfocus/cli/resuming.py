"""``pyfocus stack --resume``: where a run's finished work is kept, and what it must be of to be gone on from."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .. import __version__
from ..fuse import Fuser
from ..fusers import FuserName, exported_files
from ..kept import Kept
from .arguments import UsageError
from .terminal import Terminal

# Options that change what is folded. Device and threads are not among them: another gives the same to rounding.
_OPTIONS = (
    "align",
    "dark",
    "equalise",
    "every",
    "first",
    "flat",
    "fuser",
    "ghosts",
    "interpolation",
    "last",
    "motion",
    "noise",
    "order",
    "reference",
    "repair",
)


def resume_folder(options: argparse.Namespace) -> Path:
    """Where finished work is kept: beside the first output."""
    first: Path = options.output[0]
    return first.with_name(f"{first.name}.pyfocus-resume")


@contextmanager
def keep_work(
    options: argparse.Namespace, fuser: FuserName | Fuser, domain: str, files: Sequence[Path], terminal: Terminal
) -> Iterator[None]:
    """With ``--resume``, the fuser keeps its finished work in a folder, which goes away when the block ends well.

    It stays when the run is stopped or fails after something was finished. Raises UsageError for a fuser that keeps
    nothing, ReadError for a folder of another run.
    """
    if not options.resume:
        yield
        return
    if not hasattr(fuser, "kept"):
        raise UsageError(f"--resume is for networks, whose runs are long; leave it out with --fuser {options.fuser}")
    kept = Kept(resume_folder(options), run_facts(options, domain, files))
    if kept.is_begun:
        terminal.note(f"going on from what is finished in {kept.folder}")
    fuser.kept = kept  # type: ignore[union-attr]
    try:
        yield
    except BaseException:
        if kept.is_begun:
            kept.close()
            terminal.note(f"what is finished is kept in {kept.folder}; the same command goes on from it")
        else:
            kept.remove()
        raise
    finally:
        fuser.kept = None  # type: ignore[union-attr]
    kept.remove()


def run_facts(options: argparse.Namespace, domain: str, files: Sequence[Path]) -> dict[str, Any]:
    """What a run is of: inputs and model by names, sizes and times of change, and what was asked for."""
    return {
        "pyfocus": __version__,
        "inputs": [_facts(path) for path in files],
        "model": [_facts(path) for path in exported_files(options.fuser)],
        "transforms": _facts(options.transforms) if options.transforms else None,
        "domain": domain,
        **{name: _plain(getattr(options, name)) for name in _OPTIONS},
    }


def _plain(value: Any) -> Any:
    return _facts(value) if isinstance(value, Path) else value


def _facts(path: Path) -> list[Any]:
    stat = path.stat()
    return [os.path.abspath(path), stat.st_size, stat.st_mtime_ns]
