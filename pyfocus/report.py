"""What a run did, as data for machines and as lines for people."""

from __future__ import annotations

import math
import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .networks import Runtime
from .stacker import Stacked

Report = dict[str, Any]


def stack_report(
    stacked: Stacked,
    *,
    version: str,
    inputs: Sequence[Path],
    outputs: Sequence[Path],
    seconds: Mapping[str, float],
    threads: int,
    warnings: Sequence[str] = (),
    runtime: Runtime | None = None,
) -> Report:
    """The JSON object of ``pyfocus stack --json``: plain numbers, strings, lists and None only.

    ``frames`` in focus order; ``crop`` is (y0, x0, y1, x1) in pixels of the reference frame as its file has them,
    ``width`` and ``height`` are the upright picture's; ``seconds`` per stage; output sizes in bytes;
    ``peak_memory_mb`` of this process so far, in 10^6 bytes; ``runtime``: what ran the network, None without one.
    """
    registration = stacked.registration
    y0, x0, y1, x1 = stacked.crop
    height, width = (x1 - x0, y1 - y0) if stacked.meta.orientation >= 5 else (y1 - y0, x1 - x0)
    return {
        "version": version,
        "inputs": [str(path) for path in inputs],
        "frames": frame_reports(stacked),
        "frames_used": len(stacked.names) - len(stacked.left_out),
        "left_out": list(stacked.left_out),
        "ghosts": {name: round(share, 6) for name, share in stacked.ghosts.items()},
        "reference": None if registration is None else stacked.names[registration.reference],
        "domain": "raw" if stacked.is_mosaic else "rgb",
        "crop": [y0, x0, y1, x1],
        "width": width,
        "height": height,
        "outputs": [{"path": str(path), "bytes": path.stat().st_size} for path in outputs],
        "seconds": {stage: round(value, 3) for stage, value in seconds.items()},
        "threads": threads,
        "runtime": asdict(runtime) if runtime else None,
        "peak_memory_mb": round(peak_memory_mb(), 1),
        "warnings": list(warnings),
    }


def frame_reports(stacked: Stacked) -> list[Report]:
    """How each frame fared, in focus order; registration figures are None when nothing was registered."""
    registration = stacked.registration
    if registration is None:
        blank = dict.fromkeys(("correlation", "iterations", "converged", "corner_displacement_px"))
        return [{"name": name, "registered": name not in stacked.left_out, **blank} for name in stacked.names]
    shifts = registration.shift_px
    return [
        {
            "name": name,
            "registered": bool(registration.registered[i]),
            "correlation": finite(registration.correlation[i]),
            "iterations": int(registration.iterations[i]),
            "converged": bool(registration.converged[i]),
            "corner_displacement_px": finite(shifts[i]),
        }
        for i, name in enumerate(stacked.names)
    ]


def summary(report: Report) -> list[str]:
    """The report as the lines that ``pyfocus stack`` prints."""
    lines = [f"{output['path']}  ({_size(output['bytes'])})" for output in report["outputs"]]
    total, used = len(report["frames"]), report["frames_used"]
    reference = f", reference {report['reference']}" if report["reference"] else ""
    lines.append(
        f"{report['width']} x {report['height']} px from {used} of {total} frames, {report['domain']} domain{reference}"
    )
    stages = [f"{stage} {value:.1f} s" for stage, value in report["seconds"].items() if stage != "total"]
    memory = f"{report['peak_memory_mb'] / 1000:.2f} GB"
    lines.append(f"{', '.join(stages)}; {report['seconds']['total']:.1f} s in all, peak memory {memory}")
    return lines


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count / 1e3:.1f} kB"


def left_out_warnings(stacked: Stacked) -> list[str]:
    """A line per frame left out: its name, its correlation, and what to try."""
    lines = []
    for frame in frame_reports(stacked):
        if frame["registered"]:
            continue
        correlation = frame["correlation"]
        found = "no correlation could be measured" if correlation is None else f"correlation {correlation:.2f}"
        lines.append(
            f"{frame['name']} was left out: it could not be registered ({found}); is it of this burst and not blank? "
            "Try --motion affine, another --reference, or --no-align"
        )
    return lines


def too_many_left_out(stacked: Stacked) -> bool:
    """True when more than a quarter of the frames were not used."""
    return 4 * len(stacked.left_out) > len(stacked.names)


def peak_memory_mb() -> float:
    """Largest resident size of this process so far, in 10^6 bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def finite(value: float) -> float | None:
    """The number, or None where JSON has no word for it."""
    number = float(value)
    return number if math.isfinite(number) else None
