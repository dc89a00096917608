"""``pyfocus dataset build|lsfd``: bursts to learn from, and what there is of the published archive."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ArgumentError, ResourceError
from .arguments import UsageError
from .terminal import Terminal

if TYPE_CHECKING:
    from ..nn.data import Archive, Built, Recipe


def run(options: argparse.Namespace, terminal: Terminal) -> int:
    """Build or read a data set."""
    try:
        from ..nn import data  # noqa: F401
    except ModuleNotFoundError as error:
        raise ResourceError(f"dataset: {error}") from error
    return _build(options, terminal) if options.action == "build" else _lsfd(options, terminal)


def _build(options: argparse.Namespace, terminal: Terminal) -> int:
    from ..nn.data import Shares, build_dataset, find_bursts

    started = time.perf_counter()
    try:
        shares = Shares(options.val, options.test, options.seed, options.siblings)
    except ArgumentError as error:
        raise UsageError(str(error)) from error
    found = find_bursts(options.root)
    terminal.detail(f"{len(found)} bursts: {', '.join(name for name, _ in found)}")
    kind = options.kind or _kind_of(found[0][1])
    recipe = _recipe(options, kind, options.equalise)
    _warn_of_leftovers(options.output, terminal)
    with terminal.progress() as tell, terminal.catch_warnings():
        built = build_dataset(
            options.root, options.output, recipe, motion=options.motion, reference=options.reference, shares=shares,
            overwrite=options.overwrite, tell=tell,
        )  # fmt: skip
    _warn_of_splits(options, terminal)
    _report(options.output, built, time.perf_counter() - started, terminal)
    return 0


def _lsfd(options: argparse.Namespace, terminal: Terminal) -> int:
    from ..nn.data import Shares, convert_lsfd, read_lsfd

    started = time.perf_counter()
    archive = read_lsfd(options.root)
    if options.output is None:
        terminal.result(json.dumps(_listing(archive), indent=1) if terminal.json else "\n".join(_lines(archive)))
        return 0
    try:
        Shares(options.val, 0, options.seed)
    except ArgumentError as error:
        raise UsageError(str(error)) from error
    ours = options.truth is not None or options.truth_command is not None
    recipe = _recipe(options, options.kind or "rggb", equalise=False)
    _warn_of_leftovers(options.output, terminal)
    with terminal.progress() as tell, terminal.catch_warnings():
        built = convert_lsfd(
            archive, options.output, recipe, truth="ours" if ours else "published", val=options.val, seed=options.seed,
            overwrite=options.overwrite, tell=tell,
        )  # fmt: skip
    for key, why in built.left_out.items():
        terminal.warn(f"{key} was left out: it {why}")
    _report(options.output, built, time.perf_counter() - started, terminal)
    return 0


def _recipe(options: argparse.Namespace, kind: str, equalise: bool) -> Recipe:
    from ..nn.data import Recipe
    from ..nn.data.command import command_words

    if options.truth is not None and options.truth_command is not None:
        raise UsageError("--truth and --truth-command contradict each other; leave one of them out")
    noise = None if options.noise is None else (options.noise[0], options.noise[1])
    if noise is not None and min(noise) < 0:
        raise UsageError(f"--noise must be two numbers of 0 or more, shot and read, got {noise[0]} and {noise[1]}")
    if options.truth_command is not None:
        try:
            command_words(options.truth_command)
        except ArgumentError as error:
            raise UsageError(str(error).replace("truth command", "--truth-command", 1)) from error
    words: Any = {"kind": kind, "truth": options.truth or "laplacian"}
    return Recipe(**words, truth_command=options.truth_command, equalise=equalise, noise=noise)


def _kind_of(folder: Path) -> str:
    """rggb when a burst's first file is a camera raw, else rgb."""
    from ..io import find_frames

    return "rggb" if find_frames(folder)[0].is_raw else "rgb"


def _warn_of_leftovers(target: Path, terminal: Terminal) -> None:
    from ..nn.data.store import leftovers

    for path in leftovers(target):
        terminal.warn(f"{path}: was left behind by a run that was killed; remove it, unless another one is at work")


def _warn_of_splits(options: argparse.Namespace, terminal: Terminal) -> None:
    from ..nn.data import open_dataset

    made = open_dataset(options.output)
    wanted = {"train": 1 - options.val - options.test, "val": options.val, "test": options.test}
    empty = [name for name, share in wanted.items() if share > 0 and name not in made.splits]
    if empty:
        terminal.warn(
            f"no burst of {len(set(made.scenes))} scenes went to {' and '.join(empty)}: name1 and name2 count as one "
            "scene; more bursts, another --seed, or --no-siblings change that"
        )


def _report(target: Path, built: Built, seconds: float, terminal: Terminal) -> None:
    from ..nn.data import open_dataset
    from ..nn.data.store import SPLITS

    made = open_dataset(target)
    splits = {name: len(made.split(name)) for name in SPLITS}
    if terminal.json:
        facts = {
            "dataset": str(target), "kind": made.kind, "bursts": len(made), "splits": splits, "made": built.made,
            "kept": built.kept, "left_out": built.left_out, "warnings": terminal.warnings,
            "seconds": {"total": round(seconds, 3)},
        }  # fmt: skip
        terminal.result(json.dumps(facts, indent=1))
    elif not terminal.quiet:
        parts = ", ".join(f"{count} {name}" for name, count in splits.items())
        terminal.result(f"{target}: {len(made)} bursts of {made.kind} ({parts})")
        terminal.result(f"{len(built.made)} made, {len(built.kept)} kept from before; {seconds:.1f} s")


def _listing(archive: Archive) -> dict[str, Any]:
    photos = [
        {
            "set": photo.set, "lens": photo.lens, "photo": photo.name, "raws": len(photo.raws), "jpgs": len(photo.jpgs),
            "aligned": len(photo.aligned), "transforms": photo.transforms is not None,
            "truths": [path.name for path in photo.truths], "crops": photo.crops, "missing": photo.missing,
        }
        for photo in archive.photos
    ]  # fmt: skip
    return {
        "folder": str(archive.folder), "photos": photos, "listed": len(archive.listed), "absent": archive.absent,
        "missing": archive.missing,
    }  # fmt: skip


def _lines(archive: Archive) -> list[str]:
    """The listing for people: a line per photo, then what is missing, then sums per set and lens."""
    lines: list[str] = []
    sums: dict[str, int] = {}
    for photo in archive.photos:
        parts = [
            f"{len(photo.raws)} raws", f"{len(photo.jpgs)} jpgs", f"{len(photo.aligned)} aligned",
            "transforms" if photo.transforms else "no transforms", f"{len(photo.truths)} truths",
            *(f"{count} in {name}/" for name, count in photo.crops.items()),
        ]  # fmt: skip
        missing = f"; missing: {', '.join(photo.missing)}" if photo.missing else ""
        lines.append(f"{photo.key}: {', '.join(parts)}{missing}")
        place = f"{photo.set}/{photo.lens}"
        sums[place] = sums.get(place, 0) + 1
    lines += [f"{key}: in dataset.csv, not on disk" for key in archive.absent]
    lines += [f"{archive.folder / name}: missing" for name in archive.missing]
    counts = ", ".join(f"{place} {count}" for place, count in sums.items())
    return [*lines, f"{archive.folder}: {len(archive.photos)} photos ({counts})"]


def add_dataset(commands: Any, motions: tuple[str, ...], references: tuple[str, ...], talk: Any) -> None:
    """The words of the command; ``talk`` adds those that all commands share."""
    top = commands.add_parser("dataset", help="data sets to train on, of real bursts", allow_abbrev=False)
    actions = top.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=type(top))
    build = actions.add_parser(
        "build",
        help="a data set of a folder of bursts",
        description="Register, warp and fuse every burst below a folder into a data set. Run it again to go on.",
        epilog="example: pyfocus dataset build bursts -o set --truth-command 'enfuse --hard-mask {inputs} -o {output}'",
        allow_abbrev=False,
    )
    build.add_argument("root", type=Path, metavar="ROOT", help="a folder with a folder of frames per burst")
    build.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="the data set")
    build.add_argument("--motion", choices=motions, default="similarity", help="default: %(default)s")
    build.add_argument(
        "--reference", choices=references, default="auto", help="whose geometry (default: the frame nearest to all)"
    )
    build.add_argument("--no-equalise", dest="equalise", action="store_false", help="keep differences in brightness")
    build.add_argument("--no-siblings", dest="siblings", action="store_false", help="name1 and name2 are two scenes")
    build.add_argument("--test", type=float, default=0.1, metavar="F", help="part of the scenes (default: %(default)s)")
    lsfd = actions.add_parser(
        "lsfd",
        help="the published data set LSFD: what is there, and with -o a data set of it",
        description="Say what there is of the published archive at ROOT, or make a data set of it.",
        allow_abbrev=False,
    )
    lsfd.add_argument("root", type=Path, metavar="ROOT", help="the folder it was unpacked in")
    lsfd.add_argument("-o", "--output", type=Path, metavar="DIR", help="the data set to make")
    for command, val, truth in ((build, 0.1, "laplacian"), (lsfd, 0.0, "the published picture")):
        add = command.add_argument
        add("--kind", choices=("rggb", "rgb"), help="mosaics' planes, or pictures (default: rggb where there are raws)")
        add("--truth", metavar="FUSER", help=f"who makes the truth, as stack --fuser (default: {truth})")
        add("--truth-command", metavar="CMD", help="a program that does, such as 'prog {inputs} -o {output}'")
        add("--noise", type=float, nargs=2, metavar=("SHOT", "READ"), help="of one raw sample (default: measured)")
        add("--val", type=float, default=val, metavar="F", help="part of the scenes (default: %(default)s)")
        add("--seed", type=int, default=0, metavar="N", help="of the split (default: %(default)s)")
        talk(command)
