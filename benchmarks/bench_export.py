"""The shipped network as exported, in ONNX Runtime on the processor, beside the same weights in torch: time and values.

Everything is measured in one process, in turns, with as many threads; memory in a process for each runtime.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from machine import RESULTS, ROOT, WORK, cores, record, run, save, table, verdict

_NAMES = ("standard", "gridsample", "mixed")
_NEEDED = ("torch", "onnx", "onnxscript", "onnxruntime")
_TORCH = "torch eager"
_TIME_BAR = 1.0  # of torch's time
_VALUE_BAR, _PSNR_BAR_DB = 1e-4, 60.0  # in single precision; mixed
_ANSWER = "answer.json"


def main(arguments: list[str] | None = None) -> int:
    """Export, measure, print the tables, write results/export.json and .md. Exit code 1 when something did not run."""
    options = _options(arguments)
    if options.case:
        (options.folder / _ANSWER).write_text(json.dumps(_child(options)))
        return 0
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(f"{', '.join(missing)}: not installed; there is nothing to export or to run it")
        return 0
    settings = {key: getattr(options, key) for key in ("side", "tiles_side", "runs", "threads")}
    results = record("export", {**settings, "weights": options.weights.name})
    results["versions"] |= {name: metadata.version(name) for name in _NEEDED}
    results["failed"] = []
    WORK.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=WORK) as folder:

        def child(case: str, *names: str) -> Any:
            print(f"{case} {' '.join(names)}".rstrip(), flush=True)
            words = [word for key, value in settings.items() for word in (f"--{key.replace('_', '-')}", str(value))]
            script = [sys.executable, ROOT / "benchmarks" / "bench_export.py", *names, "--case", case]
            (Path(folder) / _ANSWER).unlink(missing_ok=True)
            cost = run([*script, "--folder", folder, "--weights", options.weights, *words], ROOT)
            said = cost.log.strip().splitlines()
            answer = Path(folder) / _ANSWER  # a file: runtimes write lines of their own, and only the last are kept
            if cost.exit == 0 and answer.exists():
                return json.loads(answer.read_text())
            results["failed"].append({"what": " ".join((case, *names)), "why": said[-1] if said else str(cost.exit)})
            return None

        there = [name for name in options.variants or _NAMES if child("export", name)]
        measured = child("time", *there) or {"rows": [], "differences": []}
        results |= measured
        results["memory"] = {name: child("memory", name) for name in (_TORCH, *there)}
    results["bars"] = bars(results)
    save("export", results, text(results), options.results)
    return 1 if results["failed"] else 0


def bars(results: dict[str, Any]) -> list[dict[str, Any]]:
    """What had to be reached, what was, and whether that is enough."""
    found = [
        {"what": f"ONNX Runtime / torch, {row['part']}", "value": row["of_torch"], "bar": f"at most {_TIME_BAR:g}",
         "met": row["of_torch"] <= _TIME_BAR}
        for row in results["rows"] if row["runtime"] == "standard"
    ]  # fmt: skip
    for row in results["differences"]:
        if row["runtime"] == "mixed":
            what, value, bar, met = (
                "PSNR, dB",
                row["psnr_db"],
                f"at least {_PSNR_BAR_DB:g}",
                row["psnr_db"] >= _PSNR_BAR_DB,
            )
        else:
            value = max(row[f"{what}_largest"] for what in ("image", "depth", "confidence"))
            what, bar, met = "largest difference", f"at most {_VALUE_BAR:g}", value <= _VALUE_BAR
        found.append({"what": f"{row['runtime']}: {what}", "value": float(f"{value:.3g}"), "bar": bar, "met": met})
    return found


def text(results: dict[str, Any]) -> str:
    """The tables."""

    def number(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    rows = [
        (
            row["part"], row["runtime"], number(row["gflop_per_megapixel"], ".0f"), f"{row['ms_per_megapixel']:.0f}",
            f"{row['low_ms']:.0f} to {row['high_ms']:.0f}", f"{row['of_torch']:.2f}", number(row["gflop_s"], ".1f"),
            number((results["memory"].get(row["runtime"]) or {}).get(row["part"]), ".0f"),
        )
        for row in results["rows"]
    ]  # fmt: skip
    head = ("what", "runtime", "GFLOP", "ms", "ms of a run", "of torch's", "GFLOP/s", "peak MB")
    apart = [
        (
            row["runtime"], f"{row['image_largest']:.1e}", f"{row['image_mean']:.1e}", f"{row['psnr_db']:.0f}",
            f"{row['depth_largest']:.1e}", f"{row['confidence_largest']:.1e}",
        )
        for row in results["differences"]
    ]  # fmt: skip
    reached = [(bar["what"], bar["value"], bar["bar"], verdict(bar["met"])) for bar in results["bars"]]
    settings = results["settings"]
    lines = [
        f"# Exported: {settings['weights']} in ONNX Runtime and in torch",
        f"GFLOP, ms and peak MB per megapixel of the frame; medians of {settings['runs']} runs after one that did not "
        f"count, runtimes taking turns, {settings['threads']} threads. A frame of {settings['side']} x "
        f"{settings['side']} at once; in tiles, by the fuser, one of {settings['tiles_side']} x "
        f"{settings['tiles_side']}. Peak: beyond weights and frames, during the first call.",
        table(head, rows),
        "Differences from torch after three frames: of the picture the largest, the mean and the PSNR in dB; of depth "
        "(in frames) and confidence the largest.",
        table(("runtime", "picture", "mean", "dB", "depth", "confidence"), apart),
        table(("bar", "reached", "needed", ""), reached),
        *(f"failed: {failed['what']}: {failed['why']}" for failed in results["failed"]),
    ]  # fmt: skip
    return "\n\n".join(lines)


def _child(options: argparse.Namespace) -> Any:
    """One piece of the work in this process."""
    import export_runs as cases
    import torch

    from pyfocus import _C

    torch.set_num_threads(options.threads)
    _C.set_threads(options.threads)
    settings = cases.Settings(options.side, options.tiles_side, options.runs, options.threads)
    if options.case == "export":
        (name,) = options.variants
        cases.export(options.weights, options.folder / name, name)
        return True
    networks: dict[str, cases.Network] = {}
    for name in options.variants if options.case == "memory" else (_TORCH, *options.variants):
        if name == _TORCH:
            networks[name] = cases.InTorch(options.weights, options.threads)
        else:
            networks[name] = cases.InOnnxRuntime(options.folder / name, options.threads)
    if options.case == "memory":
        return cases.memory(networks[options.variants[0]], settings)
    return {"rows": cases.measure(networks, settings), "differences": cases.differences(networks, settings.side)}


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("variants", nargs="*", metavar="VARIANT", help=f"{', '.join(_NAMES)}: all by default")
    add("--weights", type=Path, default=ROOT / "pyfocus" / "nn" / "weights" / "focusdeep-lite.pt", metavar="FILE")
    add("--side", type=int, default=512, help="of a frame worked on at once")
    add("--tiles-side", type=int, default=1024, help="of a frame worked on in tiles")
    add("--runs", type=int, default=5, help="runs that count, after one that does not")
    add("--threads", type=int, default=cores())
    add("--results", type=Path, default=RESULTS, help="folder for export.json and export.md")
    add("--case", choices=("export", "time", "memory"), help=argparse.SUPPRESS)
    add("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    unknown = set(options.variants) - {*_NAMES, *((_TORCH,) if options.case else ())}
    if unknown:
        parser.error(f"no variant {', '.join(sorted(unknown))}; there are {', '.join(_NAMES)}")
    if min(options.side, options.tiles_side) < 64 or options.side % 8 or options.tiles_side % 8:
        parser.error(f"sides must be multiples of 8 from 64, got {options.side} and {options.tiles_side}")
    return options


if __name__ == "__main__":
    sys.exit(main())
