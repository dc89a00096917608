"""The plugin library for TensorRT and TensorRT-RTX: where it lies, and how it gets into one of them.

    ready_for_plugins()          before tensorrt_rtx is imported
    import tensorrt_rtx as trt
    load_plugin(trt)             before a file with DeformConv2d is parsed, or an engine with it opened

The library (csrc/tensorrt) belongs to a pyfocus built with CUDA. It takes nothing but a C++ runtime to load, so that
engines are built on machines without a card.
"""

from __future__ import annotations

import atexit
import ctypes
import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from .. import _C
from ..errors import ResourceError

PLUGIN = "PYFOCUS_TENSORRT_PLUGIN"
LIBRARY = "libpyfocus_tensorrt.so"
NAME, VERSION, NAMESPACE = "DeformConv2d", "1", "pyfocus"

_RUNTIME = "libtensorrt_rtx.so"  # what TensorRT-RTX's parser opens
_links: list[str] = []  # the folder of links, once it is there


def plugin_library() -> Path:
    """The library: the file that the environment variable PYFOCUS_TENSORRT_PLUGIN names, or the installed one.

    Raises ResourceError when it is not there.
    """
    named = os.environ.get(PLUGIN, "")
    if named:
        if not Path(named).is_file():
            raise ResourceError(
                f"{PLUGIN} must name the file {LIBRARY}, got {named!r}, which is none; change or unset it"
            )
        return Path(named).absolute()
    for folder in (Path(__file__).parent, Path(_C.__file__).parent / "export"):  # the latter in an editable install
        if (folder / LIBRARY).is_file():
            return (folder / LIBRARY).absolute()
    raise ResourceError(
        f"the TensorRT plugin is not there: this pyfocus was built without CUDA; install a wheel with CUDA, build "
        f"{LIBRARY} with nvcc and name it in {PLUGIN}, or export --variant gridsample, which needs none"
    )


def load_plugin(trt: Any) -> Path:
    """Register the plugin with ``trt``, the imported module ``tensorrt`` or ``tensorrt_rtx``; the library.

    Once per process and TensorRT; more often does no harm. For TensorRT-RTX's parser :func:`ready_for_plugins` must
    have come before the import; to run engines it need not. Raises ResourceError when the library is not there, or is
    not taken.
    """
    library = plugin_library()
    registry = trt.get_plugin_registry()
    if not _registered(registry):
        try:
            registry.load_library(str(library))
        except Exception as error:  # of the kinds that bindings have
            raise ResourceError(f"{library}: TensorRT {trt.__version__} cannot load it: {_line(error)}") from error
    if not _registered(registry):
        raise ResourceError(
            f"{library}: TensorRT {trt.__version__} does not take it; TensorRT 10 and newer and TensorRT-RTX do, when "
            "the library is whole"
        )
    return library


def ready_for_plugins() -> None:
    """Let TensorRT-RTX's ONNX parser add plugins: call this before ``tensorrt_rtx`` is imported.

    For every plugin, the parser opens ``libtensorrt_rtx.so``; the wheels have that file as ``libtensorrt_rtx.so.1``
    alone, and the parser ends the process when it finds none. It looks in the folder that it was itself loaded from, so
    it is loaded here from a temporary folder of links to the wheel's files, one of them of that name. They lead to the
    same files, so nothing is loaded twice, and nothing is written where the wheel is installed. The folder is removed
    when the process ends, unless it is killed.

    Limits: Linux with glibc; it comes too late once the wheel's libraries are loaded, and raises ResourceError then;
    every new process needs it again. Where TensorRT-RTX is not a wheel, or its wheel has that name, it does nothing.
    More than one call does no harm.
    """
    if _links or not sys.platform.startswith("linux"):
        return
    folder = _wheel()
    if folder is None or (folder / _RUNTIME).exists():
        return
    if "tensorrt_rtx_libs" in sys.modules or "tensorrt_rtx_bindings" in sys.modules:
        raise ResourceError(
            "ready_for_plugins must come before tensorrt_rtx is imported; it was imported already: start again in a "
            "new process"
        )
    try:
        links = tempfile.mkdtemp(prefix="pyfocus-")
        atexit.register(_remove, links, os.getpid())
        for file in folder.glob("*.so.*"):
            Path(links, file.name).symlink_to(file)
        Path(links, _RUNTIME).symlink_to(next(folder.glob(_RUNTIME + ".*")))
        ctypes.CDLL(str(next(Path(links).glob("libtensorrt_onnxparser_rtx.so.*"))))
    except (OSError, StopIteration) as error:
        raise ResourceError(
            f"{folder}: TensorRT-RTX's parser cannot be prepared for plugins ({_line(error)}); see that its wheel is "
            "whole and that temporary files can be written (TMPDIR), or export --variant gridsample"
        ) from error
    _links.append(links)


def _remove(folder: str, owner: int) -> None:
    """At the end of the process that made it, not of one forked from that."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


def _wheel() -> Path | None:
    """The folder of TensorRT-RTX's libraries, where it is installed as a wheel."""
    try:
        found = importlib.util.find_spec("tensorrt_rtx_libs")
    except (ImportError, ValueError):
        return None
    return Path(found.origin).parent if found is not None and found.origin else None


def _registered(registry: Any) -> bool:
    wanted = (NAME, VERSION, NAMESPACE)
    return any((c.name, c.plugin_version, c.plugin_namespace) == wanted for c in registry.all_creators)


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
