"""Fusers from exported files, without torch: ``load("exported")``, ``load("step.onnx")`` or ``load("step.engine")``.

ONNX files run in ONNX Runtime, engines in TensorRT. A frame is worked on in tiles, each with its halo, as in torch: see
:mod:`pyfocus.networks`.
"""

from __future__ import annotations

import importlib
import os
import warnings
from pathlib import Path
from typing import Any

from ..errors import ReadError
from ..fuse import Fuser
from ..fusers import exported_files
from ..networks import Noise
from .exported import Exported, Run, assemble
from .facts import Facts
from .fusers import TILE_PX, fuser_of
from .runtime import Session

__all__ = ["TILE_PX", "Exported", "Run", "fuser_of", "load", "open_exported", "read_exported"]


def load(
    path: str | os.PathLike[str],
    *,
    device: str = "cpu",
    threads: int = 0,
    noise: Noise | None = None,
    memory: int | None = None,
    tile_px: int | None = None,
    folder: str | os.PathLike[str] | None = None,
    at_once: int | None = None,
) -> Fuser:
    """The fuser of an exported model: its folder, or one of its files. torch is not needed.

    ``device``: "cpu", "cuda", "cuda:1" or "auto". ``noise``, ``memory`` and ``folder`` as for
    :class:`pyfocus.nn.fusers.StreamFuser`; ``tile_px``: None for 512, of a burst 256, and a file of one tile size takes
    that; ``at_once``: tiles of one shape that go through together, None for what suits: one on the CPU, four of a
    network that folds on a card. The fuser's ``runtime`` says what runs it. Raises ReadError for files that are no
    exported model or do not belong together, ResourceError for a device that is not there.
    """
    how: dict[str, Any] = {
        "noise": noise, "threads": threads, "memory": memory, "tile_px": tile_px, "folder": folder, "at_once": at_once,
    }  # fmt: skip
    if any(file.suffix == ".engine" for file in exported_files(str(path))):
        return importlib.import_module(".engines", __package__).load(path, device=device, **how)  # type: ignore[no-any-return]
    return fuser_of(open_exported(path, device, threads), **how)


def open_exported(path: str | os.PathLike[str], device: str = "cpu", threads: int = 0) -> Exported:
    """All files of an exported model, by its folder or any one of them. Raises ReadError, ResourceError.

    ``device="auto"`` on the CPU, where a card was to be expected, is told with one RuntimeWarning.
    """
    named = Path(path)
    if named.is_dir():
        named = next((named / f"{part}.onnx" for part in ("step", "burst") if (named / f"{part}.onnx").exists()), named)
        if named.is_dir():
            raise ReadError(f"{named}: holds no step.onnx or burst.onnx; name what pyfocus-export onnx wrote")
    sessions = [Session(named, device, threads)]
    if sessions[0].facts.part != "burst":
        other = "finish" if sessions[0].facts.part == "step" else "step"
        file = named.with_name(f"{other}.onnx")
        if not file.exists():
            raise ReadError(f"{named}: needs {other}.onnx beside it; export the checkpoint again, or copy both")
        sessions.append(Session(file, device, threads))
    if sessions[0].fell_back:
        warnings.warn(f"{named}: {sessions[0].fell_back}; the work is done on the CPU", RuntimeWarning, stacklevel=2)
    return assemble(named, sessions)


def read_exported(path: str | os.PathLike[str]) -> Facts:
    """What an exported file says of itself. Raises ReadError for a file that is no model of ours."""
    return Session(path).facts
