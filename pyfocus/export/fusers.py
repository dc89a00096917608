"""Exported models as fusers, whichever runtime runs them."""

from __future__ import annotations

import os
from typing import Any

from ..errors import ArgumentError
from ..fuse import Fuser
from ..networks import Noise
from .burst_fuser import ExportedBurstFuser
from .exported import Exported
from .stream_fuser import TILE_PX, ExportedStreamFuser

__all__ = ["TILE_PX", "ExportedBurstFuser", "ExportedStreamFuser", "fuser_of"]


def fuser_of(
    exported: Exported,
    *,
    noise: Noise | None = None,
    threads: int = 0,
    memory: int | None = None,
    tile_px: int | None = None,
    folder: str | os.PathLike[str] | None = None,
    at_once: int | None = None,
) -> Fuser:
    """The fuser of an opened model, the arguments as for :func:`pyfocus.export.session.load`. Raises ArgumentError."""
    how: dict[str, Any] = {"threads": threads, "memory": memory, "folder": folder}
    how |= {key: value for key, value in (("tile_px", tile_px), ("at_once", at_once)) if value is not None}
    if exported.facts.part != "burst":
        return ExportedStreamFuser(exported, noise=noise, **how)
    if noise is not None:
        raise ArgumentError(f"load: noise is for networks that are told of it, {exported.facts.network} is not")
    return ExportedBurstFuser(exported, **how)
