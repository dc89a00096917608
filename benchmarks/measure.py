"""Run one command and write down what it cost: ``python measure.py REPORT.json COMMAND...``

A process of its own, because Linux counts the memory of the process that starts a command into the command's peak: this
one is small and the benchmark, which may hold frames, is not.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path


def main(report: str, *command: str) -> int:
    """Wall and processor seconds, and the largest resident set of any process of the command's tree, in bytes."""
    started = time.perf_counter()
    child = os.posix_spawnp(command[0], command, os.environ)
    _, status, usage = os.wait4(child, 0)
    facts = {
        "wall_s": time.perf_counter() - started,
        "user_s": usage.ru_utime,
        "system_s": usage.ru_stime,
        "peak_bytes": usage.ru_maxrss * 1024,
        "exit": os.waitstatus_to_exitcode(status),
    }
    Path(report).write_text(json.dumps(facts))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
