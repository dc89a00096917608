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
    for line in _cuda_lines(native["cuda"]):
        terminal.result(line)
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
            "cuda": _cuda(),
        },
        "libraries": {**libraries, "LibRaw": libraw_version()},
    }


def _cuda() -> dict[str, Any]:
    """What the kernels were compiled for, CUDA versions, every device, and why none is used when there is none."""
    runtime, driver = _C.device_versions()
    return {
        "built": bool(_C.device_archs()),
        "archs": _C.device_archs().split(),
        "runtime": _cuda_version(runtime),
        "driver": _cuda_version(driver),
        "devices": [_C.device_facts(device) for device in range(_C.device_count())],
        "reason": _C.device_reason() or None,
    }


def _cuda_lines(cuda: dict[str, Any]) -> list[str]:
    """The same for people: a line for the build, then one per device or one that says why there is none."""
    if not cuda["built"]:
        return ["CUDA: not built; everything runs on the processor"]
    versions = f"runtime {cuda['runtime'] or 'none'}, driver's CUDA {cuda['driver'] or 'none'}"
    lines = [f"CUDA: built for {' '.join(cuda['archs'])}; {versions}"]
    for number, device in enumerate(cuda["devices"]):
        lines.append(
            f"cuda:{number}: {device['name']}, compute capability {device['compute_capability']}, "
            f"{device['memory'] / 1e9:.1f} GB, {device['memory_free'] / 1e9:.1f} GB free"
        )
    if not cuda["devices"]:
        lines.append(f"CUDA is not used, everything runs on the processor: {cuda['reason']}")
    return lines


def _cuda_version(number: int) -> str | None:
    """13000 as "13.0"; None for 0."""
    return f"{number // 1000}.{number % 1000 // 10}" if number else None


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
