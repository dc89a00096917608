"""Whole runs, beside peers: 10 frames of 12 MP as 16-bit TIFF, and whether memory grows with their number."""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import peers
import tifffile
from frames import detail, repeat_frames, write_frames
from machine import RESULTS, WORK, Cost, middle, record, run_all, save, table, verdict

# Of the wall time: the default's of focusweave's and of enfuse's, and of focusweave's that of the fold.
TIME_BAR, ENFUSE_BAR, FOLD_BAR = 0.35, 0.15, 0.3
FOLD = "pyfocus --fuser laplacian"
MEMORY_BAR_GB = 1.2
GROWTH_BAR = 1.10  # peak memory of four times the frames over that of the frames


def main(arguments: list[str] | None = None) -> None:
    """Measure, print the table, write results/stack.json and .md."""
    options = _options(arguments)
    tools = [peers.pyfocus(), replace(peers.pyfocus("--fuser", "laplacian"), name=FOLD)]
    if not options.no_peers:
        tools += [peers.focusweave(WORK, options.focusweave), peers.enfuse()]
    size = (options.height, options.width)
    results = record("stack", {
        "frames": options.frames, "size": list(size), "format": "16-bit RGB TIFF, uncompressed",
        "warm_up": options.warm_up, "runs": options.runs,
    })  # fmt: skip
    results["versions"] |= {tool.name: tool.version for tool in tools if tool.commands}
    WORK.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.scratch or WORK) as scratch:
        started = time.perf_counter()
        paths, scene = write_frames(Path(scratch, "frames"), options.frames, size)
        results["settings"]["generation_s"] = round(time.perf_counter() - started, 1)
        results["tools"] = _compare(tools, paths, Path(scratch, "out"), scene, options)
        if options.times > 1:
            many = repeat_frames(paths, Path(scratch, "many"), options.times)
            costs = [_once(tools[0], many, Path(scratch, "out"))[0] for _ in range(options.runs)]
            results["long"] = {"frames": len(many), **middle(costs)}
    results["bars"] = _bars(results)
    save("stack", results, _text(results), options.results)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--frames", type=int, default=10)
    add("--width", type=int, default=4000)
    add("--height", type=int, default=3000)
    add("--warm-up", type=int, default=1, help="runs of each tool that do not count")
    add("--runs", type=int, default=3, help="runs of each tool that count; tools take turns")
    add("--times", type=int, default=4, help="pyfocus again with every frame this many times; 1 leaves it out")
    add("--no-peers", action="store_true", help="pyfocus alone")
    add("--focusweave", type=Path, metavar="PROGRAM", help="use this one instead of installing it")
    add("--scratch", type=Path, help="folder for frames and outputs, about 2 GB (default: build/bench)")
    add("--results", type=Path, default=RESULTS, help="folder for stack.json and stack.md")
    return parser.parse_args(arguments)


def _compare(
    tools: list[peers.Tool], frames: list[Path], folder: Path, scene: float, options: argparse.Namespace
) -> dict[str, Any]:
    """Every tool in turn, again and again: what slows the machine down for a while slows all of them."""
    costs: dict[str, list[Cost]] = {tool.name: [] for tool in tools}
    pictures: dict[str, dict[str, Any]] = {}
    for turn in range(options.warm_up + options.runs):
        for tool in tools:
            if tool.commands is None:
                continue
            cost, picture = _once(tool, frames, folder, scene)
            print(f"{tool.name}: {cost.wall_s:.2f} s, {cost.peak_bytes / 1e9:.2f} GB{_failed(cost)}", flush=True)
            pictures[tool.name] = picture
            if turn >= options.warm_up:
                costs[tool.name].append(cost)
    found: dict[str, Any] = {}
    for tool in tools:
        if tool.commands is None:
            found[tool.name] = {"missing": tool.missing}
        else:
            found[tool.name] = {**middle(costs[tool.name]), "output": pictures[tool.name]}
    return found


def _once(tool: peers.Tool, frames: list[Path], folder: Path, scene: float = 1.0) -> tuple[Cost, dict[str, Any]]:
    """One run into an empty folder: its cost, and facts of the picture it made."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    output = folder / "out.tif"
    assert tool.commands is not None
    cost = run_all(tool.commands(frames, output), folder)
    picture: dict[str, Any] = {}
    if output.exists():
        image = tifffile.imread(output)
        picture = {
            "shape": list(image.shape),
            "dtype": str(image.dtype),
            "bytes": output.stat().st_size,
            "detail": round(detail(image) / scene, 3),
        }
    shutil.rmtree(folder)
    return cost, picture


def _failed(cost: Cost) -> str:
    if cost.exit == 0:
        return ""
    said = cost.log.strip().splitlines()
    return f", exit {cost.exit}: {said[-1] if said else ''}"


def _bars(results: dict[str, Any]) -> list[dict[str, Any]]:
    """What had to be reached, what was (None: not measured, or a run failed), and whether that is enough."""
    tools, long = results["tools"], results.get("long")
    ours, peer, enfuse = tools["pyfocus"], tools.get("focusweave"), tools.get(peers.enfuse().name)
    bars = [
        _bar("wall time / focusweave's", "wall_s", ours, peer, TIME_BAR),
        _bar("wall time / enfuse's", "wall_s", ours, enfuse, ENFUSE_BAR),
        _bar("wall time of the fold / focusweave's", "wall_s", tools[FOLD], peer, FOLD_BAR),
        _bar("peak memory, GB", "peak_bytes", ours, {"peak_bytes": 1e9, "exit": 0}, MEMORY_BAR_GB),
    ]
    if long:
        name = f"peak memory, {long['frames']} frames / {results['settings']['frames']}"
        bars.append(_bar(name, "peak_bytes", long, ours, GROWTH_BAR))
    return bars


def _bar(name: str, key: str, over: dict[str, Any], under: dict[str, Any] | None, most: float) -> dict[str, Any]:
    sound = under is not None and over["exit"] == 0 and under.get("exit") == 0
    value = round(over[key] / under[key], 3) if sound and under else None
    return {"what": name, "value": value, "bar": most, "met": value is not None and value <= most}


def _text(results: dict[str, Any]) -> str:
    rows: list[list[object]] = []
    entries = dict(results["tools"])
    if "long" in results:
        entries[f"pyfocus, {results['long']['frames']} frames"] = results["long"]
    for name, facts in entries.items():
        if "missing" in facts:
            rows.append([name, "missing", *[None] * 6])
            continue
        picture = facts.get("output", {})
        spread = f"{facts['wall_low_s']:.1f} to {facts['wall_high_s']:.1f}" if len(facts["runs"]) > 1 else None
        shape = picture.get("shape", [])
        made = f"{shape[1]} x {shape[0]} {picture['dtype']}" if shape else None
        made = f"exit {facts['exit']}" if facts["exit"] else made
        rows.append([
            name, f"{facts['wall_s']:.1f}", spread, f"{facts['user_s']:.1f}", f"{facts['system_s']:.1f}",
            f"{facts['peak_bytes'] / 1e9:.2f}", made, picture.get("detail"),
        ])  # fmt: skip
    used = results["settings"]
    megapixels = used["size"][0] * used["size"][1] / 1e6
    lines = [
        f"# {used['frames']} frames of {megapixels:.1f} MP, {used['format']}",
        f"Medians of {used['runs']} runs after {used['warm_up']} that did not count, tools taking turns. "
        "Detail: sharpness of the result over the scene's own.",
        table(("tool", "wall s", "range", "user s", "system s", "peak GB", "output", "detail"), rows),
        table(
            ("bar", "reached", "at most", ""),
            [
                (b["what"], "not measured", b["bar"], None)
                if b["value"] is None
                else (b["what"], f"{b['value']:.2f}", b["bar"], verdict(b["met"]))
                for b in results["bars"]
            ],
        ),
    ]
    missing = [f"{name}: {facts['missing']}" for name, facts in results["tools"].items() if "missing" in facts]
    return "\n\n".join(lines + missing)


if __name__ == "__main__":
    main()
