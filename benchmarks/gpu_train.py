"""Training on a card that is only borrowed: ``make gpu-train``. Pieces under nine minutes, no network.

A folder, out/gpu-train by default, is the parcel that travels: photos/ (40 MB at most), last.pt (16 MB at most, which
the next piece goes on from), best.pt, log.jsonl, recipe.json. Each piece builds the package for the card at hand,
trains until its time is over, and leaves the folder ready for the next. Step by step:

    python benchmarks/gpu_train.py --prepare --photos PHOTOS     # at home, once: photos into the folder
    make gpu-train                                               # on the card, with the folder carried there
    make gpu-train PIECE="--minutes 5 --keep DIR"                # results also to a folder that is sent back

``--installed`` trains with the package of this Python and builds nothing.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from gpu_check import Check, Stop, build
from machine import ROOT

RUN = ROOT / "out" / "gpu-train"
MOST_PHOTOS, MOST_CHECKPOINT = 40_000_000, 16_000_000
DEADLINE_S = 530
SPARE_S = 25  # for a last step, its validation, the checkpoint and the copies
# What last.pt keeps where the recipe's own would not fit: 10 bytes a weight, or 2.
CHECKPOINTS = {"stream_lite": "compact", "rgb": "weights", "raw": "weights", "raw_noise": "weights"}
KEPT = ("last.pt", "best.pt", "log.jsonl", "recipe.json")


def main() -> int:
    """One piece, or the folder made ready for the first."""
    started = time.monotonic()
    options = _options()
    run: Path = options.run.absolute()
    try:
        photos = prepare(run, options.photos)
        if options.prepare:
            print(f"{run}: {photos / 1e6:.1f} MB of photos; carry it to the card and run make gpu-train there")
            return 0
        command, environment, folder = _package(options.installed)
        code = train(command, environment, folder, run, options, started)
        return code or keep(run, options.keep, options.recipe)
    except Stop as error:
        print(f"gpu-train: {error}", file=sys.stderr)
        return 1


def prepare(run: Path, photos: Path | None) -> int:
    """Copy photos into the folder, unless it has some; returns their bytes. Raises Stop past the limit."""
    there = run / "photos"
    if photos is not None and not there.is_dir():
        found = [p for p in sorted(photos.iterdir()) if p.suffix.lower() in (".jpg", ".jpeg", ".png", ".tif", ".tiff")]
        _check_photos(found)
        there.mkdir(parents=True)
        for path in found:
            shutil.copyfile(path, there / path.name)
    return _check_photos(sorted(there.iterdir()) if there.is_dir() else [])


def _check_photos(paths: list[Path]) -> int:
    size = sum(path.stat().st_size for path in paths)
    if size > MOST_PHOTOS:
        raise Stop(f"photos are {size / 1e6:.1f} MB, {MOST_PHOTOS / 1e6:.0f} MB travel; take fewer or smaller ones")
    return size


def _package(installed: bool) -> tuple[list[str], dict[str, str], Path]:
    """How ``pyfocus`` is started, with what environment and where: as installed, or built for this card."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    if installed:
        return [sys.executable, "-m", "pyfocus"], environment, Path.cwd()
    check = Check(argparse.Namespace(quick=False, emulated=""))
    try:
        build(check)
    except Stop as error:
        raise Stop(f"{error}\n{check.log}") from error
    paths = [str(check.site), *(p for p in sys.path[1:] if p)]
    return [*check.python(), "-m", "pyfocus"], {**environment, "PYTHONPATH": os.pathsep.join(paths)}, check.run_folder


def train(
    command: list[str], environment: dict[str, str], folder: Path, run: Path, options: argparse.Namespace,
    started: float,
) -> int:  # fmt: skip
    """``pyfocus train --resume`` for what is left of the time; returns its exit code. Raises Stop without time."""
    left = (DEADLINE_S - SPARE_S - (time.monotonic() - started)) / 60
    minutes = min(options.minutes, left)
    if minutes <= 0:
        raise Stop(f"the build left no time to train in ({DEADLINE_S} s in all); call again: it is quicker then")
    words = ["train", options.recipe, "-o", str(run), "--resume", "--set", f"minutes={minutes:.6g}"]
    if (run / "photos").is_dir():
        words += ["--set", f"photos={run / 'photos'}"]
    small = [f"checkpoint={CHECKPOINTS[options.recipe]}"] if options.recipe in CHECKPOINTS else []
    for setting in (f"device={options.device}", *small, *options.set):
        words += ["--set", setting]
    return subprocess.run([*command, *words], env=environment, cwd=folder).returncode


def keep(run: Path, copies: Path | None, recipe: str) -> int:
    """Check what must travel, copy it and the last samples; returns the exit code."""
    if not (run / "last.pt").exists():
        raise Stop(f"{run / 'last.pt'}: was not written, for the last steps were of no use; see log.jsonl beside it")
    size = (run / "last.pt").stat().st_size
    print(f"{run / 'last.pt'}: {size / 1e6:.1f} MB")
    if copies is not None:
        copies.mkdir(parents=True, exist_ok=True)
        samples = sorted((run / "samples").glob("*.png"))[-1:]
        for path in [*(run / name for name in KEPT), *samples]:
            if path.exists():
                shutil.copyfile(path, copies / path.name)
    if size > MOST_CHECKPOINT:
        print(
            f"gpu-train: a checkpoint of {recipe} is larger than the {MOST_CHECKPOINT / 1e6:.0f} MB that travel; "
            "take --set checkpoint=compact or weights, or a smaller network",
            file=sys.stderr,
        )
        return 1
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--minutes", type=float, default=8.0, help="to train, building not counted (default: %(default)s)")
    add("--recipe", default="stream_base", help="default: %(default)s")
    add("--run", type=Path, default=RUN, metavar="FOLDER", help="the folder that travels (default: out/gpu-train)")
    add("--photos", type=Path, metavar="FOLDER", help="photos to copy into it where it has none")
    add("--prepare", action="store_true", help="copy the photos and stop")
    add("--keep", type=Path, metavar="FOLDER", help="copy checkpoint, model, log and the last samples there as well")
    add("--installed", action="store_true", help="use the package of this Python")
    add("--device", default="cuda", help="default: %(default)s")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="change the recipe; may be repeated")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
