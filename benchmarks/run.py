"""What ``make bench`` runs: every benchmark in a process of its own; tables here, results in benchmarks/results."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from machine import RESULTS, ROOT, WORK

BENCHMARKS = ("stack", "kernels", "quality", "nn", "export")
QUICK = {
    "stack": ("--width", "1200", "--height", "900", "--runs", "1", "--times", "2"),
    "kernels": ("--width", "1200", "--height", "900", "--runs", "3"),
    "quality": ("--scenes", "easy", "raw"),
    "nn": ("--side", "32", "--stream-side", "128", "--frames", "3", "--runs", "1"),
    "export": ("standard", "--side", "128", "--tiles-side", "256", "--runs", "1"),
}


def main() -> int:
    """Run the benchmarks named, all by default. Exit code 1 when one of them could not run."""
    options = _options()
    folder = options.results or (WORK / "quick" if options.quick else RESULTS)
    failed = []
    for name in options.benchmarks or BENCHMARKS:
        words = [*(QUICK[name] if options.quick else ()), "--results", str(folder)]
        if name == "quality" and options.peers:
            words.append("--peers")
        if options.focusweave and name in ("stack", "quality"):
            words += ["--focusweave", str(options.focusweave)]
        print(f"== {name}", flush=True)
        if subprocess.run([sys.executable, ROOT / "benchmarks" / f"bench_{name}.py", *words]).returncode:
            failed.append(name)
    print(f"Results: {folder}")
    if failed:
        print(f"Failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("benchmarks", nargs="*", metavar="NAME", help=f"{', '.join(BENCHMARKS)}; all by default")
    add("--quick", action="store_true", help="small sizes, to see that it runs; results go to build/bench/quick")
    add("--peers", action="store_true", help="on the brackets too, run the peers and do not only quote the best")
    add("--focusweave", type=Path, metavar="PROGRAM", help="use this one instead of installing it")
    add("--results", type=Path, metavar="FOLDER", help="where the .json and .md files go")
    options = parser.parse_args()
    unknown = set(options.benchmarks) - set(BENCHMARKS)
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
