"""``pyfocus info``: what is installed, and what the native code runs on."""

from __future__ import annotations

import argparse
import json
import platform
from typing import Any

from .. import _C, __version__
from ..io import libraw_version
from .terminal import Terminal

_LIBRARIES = {
    "numpy": "numpy",
    "rawpy": "rawpy",
    "opencv": "opencv-python-headless",
    "tifffile": "tifffile",
    "imagecodecs": "imagecodecs",
    "rich": "rich",
}


def run(options: argparse.Namespace, terminal: Terminal) -> int:
    """Print it."""
    found = facts()
    if terminal.json:
        terminal.result(json.dumps(found, indent=1))
        return 0
    native, versions = found["native"], found["libraries"]
    terminal.result(f"pyfocus {found['version']}, Python {found['python']}, {found['platform']}")
    terminal.result(
        f"native: {native['instruction_set']} in use (built for {', '.join(native['compiled'])}), "
        f"{native['threads']} threads"
    )
    terminal.result("CUDA: not built; everything runs on the processor")
    terminal.result(", ".join(f"{name} {number or 'not installed'}" for name, number in versions.items()))
    return 0


def facts() -> dict[str, Any]:
    """Versions and the native module's state, as the JSON object has them."""
    libraries = {name: _version(package) for name, package in _LIBRARIES.items()}
    return {
        "version": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "native": {
            "instruction_set": _C.isa(),
            "compiled": _compiled(),
            "threads": _C.threads(),
            "cuda": False,
        },
        "libraries": {**libraries, "LibRaw": libraw_version()},
    }


def _compiled() -> list[str]:
    """x86-64 levels in the binary: all of them, one build for every machine; elsewhere the compiler's own."""
    if platform.machine().lower() in ("x86_64", "amd64"):
        return ["x86-64-v2", "x86-64-v3", "x86-64-v4"]
    return [platform.machine()]


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version  # slow to import, and only needed here

    try:
        return version(package)
    except PackageNotFoundError:
        return None
