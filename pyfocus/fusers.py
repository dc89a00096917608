"""Fusers by name: the classical ones, the network that the package ships, and models' files.

Networks stand on everything here, and nothing here may stand on them or load what runs them: their modules are
imported by name, when a network is asked for.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Literal

from .combine import CombinedFuser
from .depthmap import DepthMapFuser
from .errors import ArgumentError, ResourceError
from .fuse import Fuser
from .warp import Domain

FuserName = Literal["auto", "average", "depthmap", "laplacian", "wavelet"]
FUSERS: tuple[FuserName, ...] = ("auto", "average", "depthmap", "laplacian", "wavelet")
NETWORKS = ("focusdeep",)  # whose weights the package ships
# Of models' files, and of folders: the module that loads them, the package it needs, and the extra that installs that.
_TORCH = ("nn.fusers", "torch", "torch")
_EXPORTED = ("export.session", "onnxruntime", "onnx")
_ENGINES = ("export.engines", "tensorrt", "tensorrt")
_EXPORTED_SUFFIXES = (".onnx", ".engine")


def names_fuser(name: str) -> bool:
    """True for a fuser's name, a model's file (.pt, .onnx, .engine) or a folder of an exported model."""
    return name in (*FUSERS, *NETWORKS) or name.endswith(".pt") or is_exported(name)


def is_exported(name: str) -> bool:
    """True for what ``pyfocus-export`` wrote: a file, or its folder."""
    return name.endswith(_EXPORTED_SUFFIXES) or (Path(name).is_dir() and bool(exported_files(name)))


def exported_files(name: str) -> list[Path]:
    """The files of a model by its name: all of an exported one, which may be two, or its one .pt; none of a fuser's
    name. Of a folder with both, ONNX files are taken, and no engines."""
    path = Path(name)
    if path.is_dir():
        return next((found for s in _EXPORTED_SUFFIXES if (found := sorted(path.glob(f"*{s}")))), [])
    if name.endswith(_EXPORTED_SUFFIXES):
        beside = [path.with_name(f"{part}{path.suffix}") for part in ("finish", "step")]
        return sorted({path, *beside} if path in beside else {path})
    return [path] if name.endswith(".pt") else []


def resolve_fuser(
    fuser: FuserName | str | Fuser,
    *,
    domain: Domain | None = None,
    threads: int = 0,
    device: str = "cpu",
    noise: tuple[float, float] | None = None,
    depth: bool = True,
) -> FuserName | Fuser:
    """A network's fuser for its name, "focusdeep", a model's file (.pt, .onnx, .engine) or folder; for "auto" and
    "depthmap", which keep frames, their fusers; all else as it is.

    ``domain``: that it has to work in, if that is known; ``depth``: whether maps are wanted. The others as for
    :func:`pyfocus.nn.fusers.load_fuser`. Raises ArgumentError for another name or domain, ReadError for a file that is
    no model, ResourceError without torch, ONNX Runtime, TensorRT or the weights.
    """
    if isinstance(fuser, str) and fuser not in FUSERS:
        if not names_fuser(fuser):
            raise ArgumentError(
                f"stack: fuser must be one of {', '.join((*FUSERS, *NETWORKS))}, a model's file (.pt, .onnx, "
                f".engine) or the folder of an exported one, got {fuser!r}"
            )
        if is_exported(fuser):
            kind = _ENGINES if exported_files(fuser)[0].suffix == ".engine" else _EXPORTED
            made: Fuser = _loader(fuser, *kind).load(fuser, threads=threads, device=device, noise=noise)
        else:
            made = _loader(fuser, *_TORCH).load_fuser(fuser, threads=threads, device=device, noise=noise)
        fuser = made
    elif noise is not None:
        raise ArgumentError("stack: noise is for networks by name or file; leave it out")
    if fuser in ("auto", "depthmap"):
        fuser = (CombinedFuser if fuser == "auto" else DepthMapFuser)(threads, depth=depth)
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
