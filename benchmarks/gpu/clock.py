"""How the GPU benchmarks measure: a stream, events around each call, medians, and the copy that all is held against."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pyfocus import _C

Call = Callable[[int], object]  # takes the stream
Row = dict[str, Any]
COPY_BYTES = 1_000_000_000


class Case(NamedTuple):
    """One call of a kernel, the bytes that it must read and write, and the share of the copy's speed aimed at."""

    name: str
    call: Call
    bytes: int
    goal: float | None = None


class Clock:
    """A stream and the number of runs that count; the first of all is left out."""

    def __init__(self, runs: int) -> None:
        self.stream, self.runs = _C.Stream(), runs

    def milliseconds(self, call: Call) -> list[float]:
        """Device time of each run, on the stream."""
        times = []
        for _ in range(self.runs + 1):
            start, end = _C.Event(), _C.Event()
            self.stream.record(start)
            call(self.stream.handle)
            self.stream.record(end)
            end.synchronize()
            times.append(end.milliseconds_since(start))
        return times[1:]

    def wall_milliseconds(self, call: Call) -> list[float]:
        """Time of each run as a program sees it, the host's part too."""
        times = []
        for _ in range(self.runs + 1):
            started = time.perf_counter()
            call(self.stream.handle)
            self.stream.synchronize()
            times.append((time.perf_counter() - started) * 1e3)
        return times[1:]

    def copy_gb_s(self, size: int = COPY_BYTES) -> float:
        """GB read and written per second by a copy within the device's memory."""
        source, target = (filled(_C.DeviceArray((size,), "uint8"), 1 + i) for i in range(2))
        times = self.milliseconds(lambda stream: _C.device_copy(target, source, stream=stream))
        return 2 * size / statistics.median(times) / 1e6

    def upload_gb_s(self, size: int = COPY_BYTES // 4) -> float:
        """GB per second from page-locked host memory to the device."""
        here, there = _C.PinnedArray((size,), "uint8"), _C.DeviceArray((size,), "uint8")
        source = np.asarray(here)
        source[:] = 1
        return size / statistics.median(self.milliseconds(lambda s: _C.device_copy(there, source, stream=s))) / 1e6


def there(array: npt.NDArray[Any]) -> _C.DeviceArray:
    """The array on the device."""
    made, bringing = _C.DeviceArray(array.shape, str(array.dtype)), _C.Stream()
    _C.device_copy(made, np.ascontiguousarray(array), stream=bringing.handle)
    bringing.synchronize()  # it will be read on other streams
    return made


def filled(array: _C.DeviceArray, byte: int = 0) -> _C.DeviceArray:
    """The same array, every byte of it set, whatever stream reads it."""
    filling = _C.Stream()
    _C.device_fill(array, byte, stream=filling.handle)
    filling.synchronize()
    return array


def row(name: str, times: list[float], size: int, copy: float, goal: float | None = None) -> Row:
    """A line of the table: median, range, bytes, and their rate as a share of the copy's."""
    median = max(statistics.median(times), 1e-6)
    rate = size / median / 1e6
    found: Row = {
        "name": name, "ms": round(median, 4), "low_ms": round(min(times), 4), "high_ms": round(max(times), 4),
        "bytes": size, "gb_s": round(rate, 1), "of_copy": round(rate / copy, 3),
    }  # fmt: skip
    if goal is not None:
        found |= {"goal": f"{100 * goal:.0f} % of copy", "met": rate / copy >= goal}
    return found


def missing(*names: str) -> str | None:
    """Which of the native functions this build lacks, in words; None when it has all."""
    lacking = [name for name in names if not hasattr(_C, name)]
    return f"this build has no {', '.join(lacking)}" if lacking else None


def main(work: Callable[[argparse.Namespace, Row], None], document: str | None) -> None:
    """A part's main: options, its work, and what it found as JSON, also when it broke off half-way."""
    parser = argparse.ArgumentParser(description=document)
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    options = parser.parse_args()
    found: Row = {"skipped": [], "operations": [], "errors": []}
    try:
        work(options, found)
    except Exception:
        found["errors"].append(traceback.format_exc())
    options.out.write_text(json.dumps(found, indent=1) + "\n")
    for error in found["errors"]:
        print(error, file=sys.stderr)
    sys.exit(1 if found["errors"] else 0)
