"""What the benchmarks share: measured processes, the facts of the machine, medians, tables, results as files."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
SHARED = ROOT.parent / "shared"  # test data that is not part of the repository
WORK = ROOT / "build" / "bench"  # the peers' environments and, while a benchmark runs, its frames; not in git
MEASURED_PACKAGES = ("numpy", "opencv-python-headless", "tifffile", "imagecodecs", "rawpy")


@dataclass(frozen=True)
class Cost:
    """What a command cost: seconds, and the largest resident set of any of its processes."""

    wall_s: float
    user_s: float
    system_s: float
    peak_bytes: int
    exit: int
    log: str


def run(command: Sequence[str | Path], folder: Path) -> Cost:
    """Run a command in ``folder`` and measure it. Earlier writes are flushed first, so that they cost it nothing."""
    os.sync()
    with tempfile.TemporaryDirectory() as temporary:
        report = Path(temporary, "cost.json")
        words = [sys.executable, "-I", "-S", str(ROOT / "benchmarks" / "measure.py"), str(report)]
        done = subprocess.run(
            [*words, *map(str, command)], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if not report.exists():
            return Cost(0.0, 0.0, 0.0, 0, 127, done.stdout)
        return Cost(**json.loads(report.read_text()), log=done.stdout[-2000:])


def run_all(commands: Sequence[Sequence[str | Path]], folder: Path) -> Cost:
    """Commands that make one result together: their seconds add up, their peak is the largest. Stops at a failure."""
    total = Cost(0.0, 0.0, 0.0, 0, 0, "")
    for command in commands:
        cost = run(command, folder)
        total = Cost(
            total.wall_s + cost.wall_s,
            total.user_s + cost.user_s,
            total.system_s + cost.system_s,
            max(total.peak_bytes, cost.peak_bytes),
            cost.exit,
            total.log + cost.log,
        )
        if cost.exit not in (0, 3):  # 3: pyfocus left out many frames, and says so in its log
            break
    return total


def middle(costs: Sequence[Cost]) -> dict[str, Any]:
    """Medians of several runs, the range of their wall time, and the runs themselves (without logs)."""
    walls = [c.wall_s for c in costs]
    facts = {key: statistics.median(getattr(c, key) for c in costs) for key in ("wall_s", "user_s", "system_s")}
    return {
        **facts,
        "wall_low_s": min(walls),
        "wall_high_s": max(walls),
        "peak_bytes": statistics.median(c.peak_bytes for c in costs),
        "exit": next((c.exit for c in costs if c.exit), 0),
        "runs": [{k: v for k, v in asdict(c).items() if k != "log"} for c in costs],
    }


def machine() -> dict[str, Any]:
    """Processor, cores this process may use, memory, system, and the load before the benchmark."""
    model = "unknown"
    for line in _lines("/proc/cpuinfo"):
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    pages, page = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": model,
        "cores": cores(),
        "memory_gb": round(pages * page / 1e9, 1),
        "system": platform.platform(),
        "load_before": [round(v, 2) for v in os.getloadavg()],
    }


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def versions() -> dict[str, str]:
    """pyfocus as the interpreter sees it, and the packages it computes with."""
    import pyfocus
    from pyfocus import _C

    found = {"python": platform.python_version(), "pyfocus": pyfocus.__version__, "pyfocus simd": str(_C.isa())}
    for name in MEASURED_PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "missing"
    return found


def commit() -> str:
    """The commit that is measured, with ``+`` when files differ from it; "unknown" outside git."""
    found = _said(["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"])
    changed = _said(["git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no", "--", ":!benchmarks"])
    return (found + "+" * bool(changed)) if found else "unknown"


def record(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The head of a results file: what was measured, where, and when. Taken before the measuring."""
    return {
        "benchmark": name,
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit(),
        "machine": machine(),
        "versions": versions(),
        "settings": settings,
    }


def save(name: str, results: dict[str, Any], text: str, folder: Path) -> None:
    """Write ``name``.json and ``name``.md and print the text."""
    folder.mkdir(parents=True, exist_ok=True)
    text = f"{text.rstrip()}\n\n{_signature(results)}\n"
    (folder / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n")
    (folder / f"{name}.md").write_text(text)
    print(text)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table: the first column to the left, the others to the right."""
    lines = [" | ".join(head), " | ".join(["---"] + ["--:"] * (len(head) - 1))]
    lines += [" | ".join("" if cell is None else str(cell) for cell in row) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


def verdict(met: bool) -> str:
    """How a bar came out, in a word."""
    return "met" if met else "missed"


def _signature(results: dict[str, Any]) -> str:
    facts, used = results["machine"], results["versions"]
    load = ", ".join(str(v) for v in facts["load_before"])
    return (
        f"{results['date']}, commit {results['commit']}. {facts['cpu']}, {facts['cores']} cores, "
        f"{facts['memory_gb']} GB, {facts['system']}; load before: {load}.\n"
        + ", ".join(f"{name} {version}" for name, version in used.items())
        + "."
    )


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _said(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
