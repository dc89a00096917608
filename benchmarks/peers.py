"""The tools that are measured: how each is found or installed, which version it is, and which commands it needs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Commands = Callable[[list[Path], Path], list[list[str | Path]]]
FOCUSWEAVE = "2.0.0"
BEST_FOCUSWEAVE = ("--min-shift", "0", "--full-res", "--keep-size")  # better and slower than its defaults
OPENFOCUS = "1.72.0"
OPENFOCUS_METHODS = ("openfocus_c", "dtcwt")  # its pyramid and its wavelets
ENFUSE = ("--exposure-weight=0", "--saturation-weight=0", "--contrast-weight=1", "--hard-mask")


@dataclass(frozen=True)
class Tool:
    """A tool with the commands that turn (frames, output) into one picture; without them when it is ``missing``."""

    name: str
    version: str = ""
    commands: Commands | None = None
    missing: str = ""


def pyfocus(*options: str) -> Tool:
    """pyfocus through its command line, by the interpreter that runs the benchmark."""

    def commands(frames: list[Path], output: Path) -> list[list[str | Path]]:
        return [[sys.executable, "-m", "pyfocus", "stack", *frames, "-o", output, *options]]

    from pyfocus import __version__

    return Tool("pyfocus", __version__, commands)


def focusweave(folder: Path, program: Path | None = None, options: tuple[str, ...] = ()) -> Tool:
    """focusweave: the ``program`` given, else one in a virtual environment that is made in ``folder`` once."""
    name = "focusweave"
    if program is None:
        program = folder / "focusweave" / "bin" / "focusweave"
        problem = "" if program.exists() else _install(folder / "focusweave", f"focusweave=={FOCUSWEAVE}")
        if problem:
            return Tool(name, missing=problem)
    if not program.exists():
        return Tool(name, missing=f"{program} does not exist")

    def commands(frames: list[Path], output: Path) -> list[list[str | Path]]:
        return [[program, frames[0].parent, "--output", output, *options]]

    return Tool(name, _version([str(program), "--version"]), commands)


def openfocus(folder: Path, method: str) -> Tool:
    """One method of openfocus, on frames aligned by ECC, in a virtual environment that is made in ``folder`` once."""
    name = f"openfocus {method}"
    program = folder / "openfocus" / "bin" / "openfocus"
    problem = "" if program.exists() else _install(folder / "openfocus", f"openfocus=={OPENFOCUS}")
    if problem:
        return Tool(name, missing=problem)

    def commands(frames: list[Path], output: Path) -> list[list[str | Path]]:
        return [[program, "-i", frames[0].parent, "-m", method, "-a", "ecc", "--cpu", "-o", output]]

    return Tool(name, OPENFOCUS, commands)


def enfuse() -> Tool:
    """align_image_stack and enfuse, as Debian has them."""
    name = "align_image_stack + enfuse"
    absent = [p for p in ("align_image_stack", "enfuse") if shutil.which(p) is None]
    if absent:
        return Tool(name, missing=f"{' and '.join(absent)} not found; Debian: apt install hugin-tools enfuse")

    def commands(frames: list[Path], output: Path) -> list[list[str | Path]]:
        prefix = output.parent / "aligned_"
        aligned: list[str | Path] = [f"{prefix}{i:04d}.tif" for i in range(len(frames))]
        return [
            ["align_image_stack", "-m", "-a", prefix, *frames],
            ["enfuse", *ENFUSE, "-o", output, *aligned],
        ]

    version = f"{_hugin()} + {_version(['enfuse', '--version'])}"
    return Tool(name, version, commands)


def _install(environment: Path, package: str) -> str:
    """Make a virtual environment with one package; what went wrong, or nothing."""
    steps = (
        [sys.executable, "-m", "venv", "--clear", str(environment)],
        [str(environment / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check", package],
    )
    for step in steps:
        done = subprocess.run(step, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            shutil.rmtree(environment, ignore_errors=True)
            said = done.stdout.strip().splitlines()
            return f"{package} could not be installed: {said[-1] if said else 'no reason given'}"
    return ""


def _version(command: list[str]) -> str:
    said = subprocess.run(command, capture_output=True, text=True)
    found = re.search(r"\d+\.\d+[\w.+-]*", said.stdout + said.stderr)
    return found[0] if found else "unknown"


def _hugin() -> str:
    if shutil.which("dpkg-query") is None:
        return "unknown"
    return _version(["dpkg-query", "-W", "-f", "${Version}", "hugin-tools"])
