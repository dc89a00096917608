"""``pyfocus noise``: how noisy a camera's samples are, told from the flat places of its raws."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from math import sqrt
from typing import Any

from ..burst import Meta
from ..errors import NoiseError
from ..io import read_burst
from ..noise import NoiseLevel, NoiseMeter
from ..simulate import iso_noise
from .terminal import Terminal

DOMAINS = ("raw", "rgb")
_DOUBTFUL = 0.15  # misfit of the line that deserves a word


def run(options: argparse.Namespace, terminal: Terminal) -> int:
    """Measure every file, and all of them together."""
    burst = read_burst(options.files, domain=options.domain)
    every, each, meta = NoiseMeter(), [], Meta()
    with terminal.progress() as tell:
        for k, frame in enumerate(burst):
            tell("measure", k, len(burst))
            one, meta = NoiseMeter(), frame.meta
            one.push(frame)
            every.join(one)
            each.append(_row(burst.names[k], one))
        tell("measure", len(burst), len(burst))
    level = every.level()
    if level.misfit > _DOUBTFUL:
        terminal.warn(
            f"the noise lies {level.misfit:.0%} off a straight line over brightness: fine texture, frames of several "
            "ISO, or pictures that were denoised"
        )
    if terminal.json:
        terminal.result(json.dumps(_report(level, each, terminal.warnings), indent=1, allow_nan=False))
    else:
        for line in _lines(level, each, meta):
            terminal.result(line)
    return 0


def _row(name: str, meter: NoiseMeter) -> dict[str, Any]:
    """What one file alone says; a reason when that is nothing."""
    try:
        level = meter.level()
    except NoiseError as error:
        return {"name": name, "shot": None, "read": None, "blocks": 0, "reason": str(error)}
    return {"name": name, "shot": level.shot, "read": level.read, "blocks": level.blocks, "reason": None}


def _report(level: NoiseLevel, each: list[dict[str, Any]], warnings: list[str]) -> dict[str, Any]:
    """All of it, as the JSON object has it."""
    facts = asdict(level)
    return {
        **facts,
        "read_deviation": sqrt(level.read),
        "iso_scale": level.iso,
        "read_ratio": level.read_ratio,
        "frames": each,
        "warnings": warnings,
    }


def _lines(level: NoiseLevel, each: list[dict[str, Any]], meta: Meta) -> list[str]:
    """The same for people."""
    lines = [
        "a sample x from 0 (black) to 1 (white) has the variance shot x + read:",
        f"shot {level.shot:.3g} (standard error {level.shot_error:.1g}), read {level.read:.3g} (standard error "
        f"{level.read_error:.1g}), a standard deviation of {sqrt(level.read):.2g}",
    ]
    if meta.cfa is not None:
        counts = meta.white - sum(meta.black) / 4
        electrons = f"{1 / (level.shot * counts):.3g} electrons per count, " if level.shot else ""
        lines.append(f"in counts: {electrons}read noise of {sqrt(level.read) * counts:.2g} counts")
    lines.append(_place(level))
    for plane in level.planes:
        lines.append(
            f"{plane.name:<4} shot {plane.shot:.3g}, read {plane.read:.3g}, {plane.blocks} flat blocks, "
            f"{plane.misfit:.1%} off the line"
        )
    lines.append(
        f"{level.blocks} of {level.looked_at} blocks are flat, brightness {level.darkest:.3f} to "
        f"{level.brightest:.3f}, {level.misfit:.1%} off the line"
        + (f"; grain {level.grain:.2g}" if level.grain != 1 else "")
    )
    if len(each) > 1:
        for row in each:
            said = row["reason"] or f"shot {row['shot']:.3g}, read {row['read']:.3g}, {row['blocks']} flat blocks"
            lines.append(f"{row['name']}: {said}")
    return lines


def _place(level: NoiseLevel) -> str:
    """Where that lies in the range that networks are trained with (Brooks et al. 2019)."""
    if level.iso is None or level.read_ratio is None:
        return "no shot noise, so no place on the ISO scale of pyfocus simulate"
    place = "inside" if 0 <= level.iso <= 1 else "outside"
    usual = sqrt(iso_noise(level.iso)[1])
    return (
        f"on the ISO scale of pyfocus simulate: {level.iso:.2f}, {place} its 0 to 1; read noise {level.read_ratio:.2g} "
        f"times what belongs to it ({usual:.2g})"
    )
