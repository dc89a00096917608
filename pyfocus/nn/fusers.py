"""Networks as fusers, by name: the weights that the package ships, or a model's file.

stack(frames, fuser="focusdeep")        what the package ships, through load_fuser
stack(frames, fuser="run/best.pt")      a model that was trained here
stack(frames, fuser=StreamFuser(net))   any network with init_state, step and finish
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ArgumentError, ResourceError
from ..fuse import Fuser
from .burst_fuser import BurstFuser
from .checkpoint import load_model
from .stream_fuser import Noise, StreamFuser

__all__ = ["SHIPPED", "WEIGHTS", "BurstFuser", "StreamFuser", "fuser_of", "load_fuser"]

WEIGHTS = Path(__file__).parent / "weights"
SHIPPED = {"focusdeep": "focusdeep-lite.pt"}


def load_fuser(
    name: str | os.PathLike[str],
    *,
    threads: int = 0,
    device: str = "cpu",
    memory: int | None = None,
    noise: Noise | None = None,
) -> Fuser:
    """The fuser of a model: "focusdeep", which the package ships, or a file of :func:`pyfocus.nn.save_model`.

    ``memory``: bytes of this machine's that frames or state may take before they go to a temporary file. ``noise``:
    shot and read, of networks that fold. Raises ReadError for a file that is none, ResourceError when the weights are
    not there, ArgumentError for a network that is no fuser.
    """
    path = WEIGHTS / SHIPPED[str(name)] if str(name) in SHIPPED else Path(name)
    if str(name) in SHIPPED and not path.is_file():
        raise ResourceError(
            f"load_fuser: the weights of {str(name)!r} are not in this installation ({path}); install pyfocus-stack "
            "again, or name a file of your own (.pt)"
        )
    net, facts = load_model(path)
    return fuser_of(net, facts, threads=threads, device=device, memory=memory, noise=noise)


def fuser_of(net: Any, facts: Mapping[str, Any] | None = None, *, noise: Noise | None = None, **how: Any) -> Fuser:
    """StreamFuser for a network with ``step``, BurstFuser for one of a ``kind``; ``how``: their other arguments.

    ``facts``: of the model's file; "encoding" is what a BurstFuser's network was trained on. Raises ArgumentError.
    """
    if hasattr(net, "step") and hasattr(net, "init_state"):
        return StreamFuser(net, noise=noise, **how)
    if not hasattr(net, "kind") or not hasattr(net, "frames"):
        raise ArgumentError(f"fuser_of: net must fold frames or take a fixed number, {type(net).__name__} does neither")
    if noise is not None:
        raise ArgumentError(f"fuser_of: noise is for networks that are told of it, {type(net).__name__} is not")
    return BurstFuser(net, encoding=(facts or {}).get("encoding"), **how)
