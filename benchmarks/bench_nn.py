"""Every network on the processor: time and memory per megapixel and frame, beside the arithmetic that it must do.

Each network runs in a process of its own. A plain convolution of the same size takes turns with it, in the same
process: its rate is what this machine can do. ``gpu/networks.py`` measures the same on a card.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from machine import RESULTS, ROOT, cores, record, run, save, table

_NAMES = (
    *(f"FocusDeep {kind}" for kind in ("rgb", "rggb", "mosaic")),
    "UNet rgb",
    *(f"FocusDeepStream {size}, {part}" for part in ("a frame", "the end") for size in ("lite", "base")),
)


def main(arguments: list[str] | None = None) -> int:
    """Measure every network, print the table, write results/nn.json and .md. Exit code 1 when one could not run."""
    options = _options(arguments)
    if options.case:
        print(json.dumps(_child(options)))
        return 0
    if importlib.util.find_spec("torch") is None:
        print("torch is not installed; there are no networks to measure")
        return 0
    settings = {"side": options.side, "stream_side": options.stream_side, "frames": options.frames}
    results = record("nn", {**settings, "runs": options.runs, "threads": options.threads})
    results["versions"]["torch"] = metadata.version("torch")
    results["networks"], results["failed"] = [], []
    for name in options.networks or _NAMES:
        print(name, flush=True)
        given = vars(options)
        words = [word for key in (*settings, "runs", "threads") for word in (f"--{key.replace('_', '-')}", given[key])]
        cost = run([sys.executable, ROOT / "benchmarks" / "bench_nn.py", "--case", name, *map(str, words)], ROOT)
        said = cost.log.strip().splitlines()
        if cost.exit or not said:
            results["failed"].append({"name": name, "why": said[-1] if said else f"ended with {cost.exit}"})
            continue
        results["networks"].append({**json.loads(said[-1]), "process_peak_bytes": cost.peak_bytes})
    save("nn", results, text(results), options.results)
    return 1 if results["failed"] else 0


def text(results: dict[str, Any]) -> str:
    """The table."""
    rows = [
        (
            row["name"], f"{row['parameters'] / 1e6:.2f} M", f"{row['gflop_per_megapixel_frame']:.0f}",
            f"{row['ms_per_megapixel_frame']:.0f}", f"{row['gflop_s']:.1f}", f"{row['plain_gflop_s']:.1f}",
            f"{100 * row['of_plain']:.0f} %", f"{row['peak_mb_per_megapixel']:.0f}",
            f"{row['peak_mb_per_megapixel_frame']:.0f}",
        )
        for row in results["networks"]
    ]  # fmt: skip
    head = (
        "network", "parameters", "GFLOP", "ms", "GFLOP/s", "a convolution's", "of it", "peak MB per MP",
        "per MP and frame",
    )  # fmt: skip
    settings = results["settings"]
    lines = [
        "# Networks on the processor",
        f"GFLOP and ms per megapixel of the picture and frame; medians of {settings['runs']} runs, float32, "
        f"{settings['threads']} threads. FocusDeep and UNet: {settings['frames']} frames, a picture of "
        f"{settings['side']} x {settings['side']}. FocusDeepStream folds: a frame of "
        f"{settings['stream_side']} x {settings['stream_side']} at a time, and its end once per picture. MB (10⁶ "
        "bytes) beyond weights and frames.",
        table(head, rows),
        *(f"failed: {failed['name']}: {failed['why']}" for failed in results["failed"]),
    ]
    return "\n\n".join(lines)


def _child(options: argparse.Namespace) -> dict[str, Any]:
    """One network in this process."""
    import torch
    from network_cases import CASES, measure

    from pyfocus import _C

    torch.set_num_threads(options.threads)
    _C.set_threads(options.threads)
    case = next(case for case in CASES if case.name == options.case)
    return measure(case, options.side if case.fixed else options.stream_side, options.frames, options.runs)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("networks", nargs="*", metavar="NAME", help=f"{'; '.join(_NAMES)}: all by default")
    add("--side", type=int, default=64, help="of the picture, for networks that take all frames at once")
    add("--stream-side", type=int, default=512, help="of a frame, for the one that folds")
    add("--frames", type=int, default=30)
    add("--runs", type=int, default=5, help="runs that count, after one that does not")
    add("--threads", type=int, default=cores())
    add("--results", type=Path, default=RESULTS, help="folder for nn.json and nn.md")
    add("--case", choices=_NAMES, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    unknown = set(options.networks) - set(_NAMES)
    if unknown:
        parser.error(f"no network {', '.join(sorted(unknown))}; there are {'; '.join(_NAMES)}")
    if min(options.side, options.stream_side) < 32 or options.side % 16 or options.stream_side % 16:
        parser.error(f"sides must be multiples of 16 from 32, got {options.side} and {options.stream_side}")
    return options


if __name__ == "__main__":
    sys.exit(main())
