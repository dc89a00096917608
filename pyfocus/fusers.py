"""Fusers by name: the classical ones, the network that the package ships, and models' files.

Networks stand on everything here, and nothing here may stand on them or load what runs them: their modules are
imported by name, when a network is asked for.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Literal

from .errors import ArgumentError, ResourceError
from .fuse import Fuser
from .warp import Domain

FuserName = Literal["average", "laplacian"]
FUSERS: tuple[FuserName, ...] = ("average", "laplacian")
NETWORKS = ("focusdeep",)  # whose weights the package ships
# Of models' files, and of folders: the module that loads them, the package it needs, and the extra that installs that.
_TORCH = ("nn.fusers", "torch", "torch")
_EXPORTED = ("export.session", "onnxruntime", "onnx")


def names_fuser(name: str) -> bool:
    """True for a fuser's name, a model's file (.pt, .onnx) or a folder of an exported model."""
    return name in (*FUSERS, *NETWORKS) or name.endswith((".pt", ".onnx")) or is_exported(name)


def is_exported(name: str) -> bool:
    """True for what ``pyfocus-export onnx`` wrote: a file, or its folder."""
    return name.endswith(".onnx") or (Path(name).is_dir() and any(Path(name).glob("*.onnx")))


def resolve_fuser(
    fuser: FuserName | str | Fuser,
    *,
    domain: Domain | None = None,
    threads: int = 0,
    device: str = "cpu",
    noise: tuple[float, float] | None = None,
) -> FuserName | Fuser:
    """A network's fuser for its name, "focusdeep", or for a model's file (.pt, .onnx) or folder; all else as it is.

    ``domain``: that it has to work in, if that is known. The others as for :func:`pyfocus.nn.fusers.load_fuser`. Raises
    ArgumentError for another name or domain, ReadError for a file that is no model, ResourceError without torch, ONNX
    Runtime or the weights.
    """
    if isinstance(fuser, str) and fuser not in FUSERS:
        if not names_fuser(fuser):
            raise ArgumentError(
                f"stack: fuser must be one of {', '.join((*FUSERS, *NETWORKS))}, a model's file (.pt, .onnx) or the "
                f"folder of an exported one, got {fuser!r}"
            )
        if is_exported(fuser):
            made: Fuser = _loader(fuser, *_EXPORTED).load(fuser, threads=threads, device=device, noise=noise)
        else:
            made = _loader(fuser, *_TORCH).load_fuser(fuser, threads=threads, device=device, noise=noise)
        fuser = made
    elif noise is not None:
        raise ArgumentError("stack: noise is for networks by name or file; leave it out")
    wanted = getattr(fuser, "domain", None)
    if domain is not None and wanted not in (None, domain):
        raise ArgumentError(
            f"stack: domain must be {wanted!r} for this network, got {domain!r}; leave --domain raw and .dng out"
            if wanted == "rgb"
            else f"stack: domain must be {wanted!r} for this network, which takes mosaics, got {domain!r}"
        )
    return fuser


def _loader(fuser: str, module: str, package: str, extra: str) -> ModuleType:
    """The module that makes the fuser. Raises ResourceError where the package that it needs is not installed."""
    try:
        return importlib.import_module(f"{__package__}.{module}")
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise ResourceError(
            f"stack: fuser={fuser!r} needs {package}, which is not installed: pip install 'pyfocus-stack[{extra}]', or "
            "take fuser='laplacian'"
        ) from None
