"""The process that builds an engine: started, listened to, and its end made into one line, however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import ExportError, ResourceError

Tell = Callable[[str], None]
LINE_EVERY_S = 5.0
_START = "import sys; from pyfocus.export.engine_build import main; main()"
_NOISE = ("Current thread", "Thread 0x", "  File ", "Extension modules", "Fatal Python error")  # faulthandler's


def build_apart(job: dict[str, Any], folder: Path, who: str, tell: Tell) -> dict[str, Any]:
    """Do a job of :mod:`pyfocus.export.engine_build` in a process of its own, in ``folder``; what it answers.

    ``who``: the file and the library, for texts. Raises ExportError for what the library refuses, ResourceError when it
    fails or its process ends. Whatever interrupts this ends the process, too.
    """
    told = _Told(Path(job["engine"]).name, tell)
    answer: dict[str, Any] = {}
    log = folder / "said.txt"
    with _started(job, folder, log) as (process, lines):
        for line in lines:
            if "phase" in line:
                told(line)
            else:
                answer = line
        code = process.wait()
    said = _last_line(log)
    log.unlink()
    if "refused" in answer:
        raise ExportError(f"{who} does not take it: {answer['refused']}")
    if "failed" in answer:
        raise ResourceError(f"{who} failed: {answer['failed']}")
    if "done" not in answer:  # how the process ends after that is of no importance
        how = f"was ended by {_signal(-code)}" if code < 0 else f"ended with exit code {code}"
        reason = f": {said}" if said else ""
        raise ResourceError(f"{who} {how} in the middle of its work{reason}; where memory ended, try smaller shapes")
    done: dict[str, Any] = answer["done"]
    return done


@contextmanager
def _started(
    job: dict[str, Any], folder: Path, log: Path
) -> Iterator[tuple[subprocess.Popen[str], Iterator[dict[str, Any]]]]:
    """The process, and the lines that come through its pipe until that is closed."""
    ours, theirs = os.pipe()
    # The package that runs here, wherever it was found; -S keeps another from winning where it does so here.
    words = [sys.executable, *(["-S"] if sys.flags.no_site else []), "-c", _START, str(theirs)]
    paths = os.pathsep.join(str(Path(p).absolute()) for p in sys.path if p)
    env = {**os.environ, "PYTHONPATH": paths, "TMPDIR": str(folder)}  # what it leaves behind goes with the folder
    with os.fdopen(ours, encoding="utf-8") as pipe, open(log, "wb") as said:
        try:
            process = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=said, stderr=said, pass_fds=(theirs,), cwd=folder, env=env,
                text=True, start_new_session=True,  # Ctrl-C is for this process, which ends that one
            )  # fmt: skip
        finally:
            os.close(theirs)
        try:
            assert process.stdin is not None
            with suppress(BrokenPipeError), process.stdin:
                json.dump(job, process.stdin)
            yield process, (json.loads(line) for line in pipe if line.endswith("\n"))
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


class _Told:
    """What the builder says of its steps, as lines: one every few seconds."""

    def __init__(self, name: str, tell: Tell) -> None:
        self._name, self._tell = name, tell
        self._last = time.monotonic()

    def __call__(self, line: dict[str, Any]) -> None:
        now = time.monotonic()
        if now - self._last >= LINE_EVERY_S:
            self._last = now
            self._tell(f"{self._name}: {line['phase']}: {line['done']} of {line['total']}")


def _last_line(log: Path) -> str:
    """The last that the process said of itself, which is what libraries leave behind when they end it."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    said = [line for line in lines if line and not line.startswith(tuple(text.strip() for text in _NOISE))]
    return said[-1][:300] if said else ""


def _signal(number: int) -> str:
    with suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"
