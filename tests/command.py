"""The command line as its users have it: a process of its own, its exit code, and what it says and leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from pyfocus.simulate import simulate, synthetic_depth, write_bracket

COMMAND = (sys.executable, "-m", "pyfocus")
STRICT = {"PYTHONWARNINGS": "error", "PYFOCUS_THREADS": "2", "COLUMNS": "100"}


def run(*words: object, cwd: Path, env: dict[str, str] | None = None, **more: Any) -> subprocess.CompletedProcess[str]:
    """``pyfocus words...`` in a folder, to its end; warnings of Python are errors there."""
    return subprocess.run(
        [*COMMAND, *map(str, words)], cwd=cwd, env={**os.environ, **STRICT, **(env or {})},
        capture_output=True, text=True, timeout=60, **more,
    )  # fmt: skip


def refuse(*words: object, cwd: Path, code: int, says: str, **more: Any) -> None:
    """The run must end with the code and one line on standard error that contains ``says``, and leave no file."""
    before = files(cwd)
    done = run(*words, cwd=cwd, **more)
    lines = done.stderr.splitlines()
    errors = [line for line in lines if line.startswith("pyfocus: error: ")]
    progress = ("register: ", "fuse: ", "finish: ", "write: ", "simulate ", "pyfocus: warning: ")
    others = [line for line in lines if line not in errors and not line.startswith(progress)]
    assert (done.returncode, len(errors), others, done.stdout) == (code, 1, [], ""), done.stderr + done.stdout
    assert says in errors[0], errors[0]
    assert files(cwd) == before


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too, with its bytes."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def interrupt(*words: object, cwd: Path, number: signal.Signals, after: str, wait: float) -> tuple[int, str]:
    """Send a signal ``wait`` seconds after a line with ``after`` came on standard error; exit code and the rest."""
    process = subprocess.Popen(
        [*COMMAND, *map(str, words)], cwd=cwd, env={**os.environ, **STRICT},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # a shell's background job ignores SIGINT, and would hand that down
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    with process:
        assert process.stderr is not None
        while after not in (line := process.stderr.readline()):
            assert line, "the process ended before it could be interrupted"
        time.sleep(wait)
        process.send_signal(number)
        rest = process.stderr.read()
        process.wait(60)
    return process.returncode, rest


def make_burst(folder: Path, frames: int = 5, raw: bool = False, height: int = 96, width: int = 128) -> Path:
    """Folder of frames of a small textured scene, slightly moved between them."""
    random = np.random.default_rng(8)
    coarse = np.kron(random.random((height // 8, width // 8, 3)), np.ones((8, 8, 1)))
    scene = (0.1 + 0.4 * random.random((height, width, 3)) + 0.4 * coarse).astype(np.float32)
    settings: dict[str, Any] = {"blur_px": 3, "jitter_px": 0.7, "breathing": 0.01, "raw": raw, "iso": 0.0}
    bracket = simulate(scene, synthetic_depth((height, width), 2), frames=frames, **settings)
    write_bracket(bracket, folder)
    return folder / "frames"
