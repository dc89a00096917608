"""A folder of bursts to a data set: found, registered, warped, given a truth, split by scene; one after the other."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...errors import ArgumentError, BurstError, PyfocusError, ReadError, WriteError
from ...io import FrameSource, find_frames, read_burst
from ...io.order import IMAGE_SUFFIXES, RAW_SUFFIXES
from ...register import Motion, Progress, register
from ...stacker import Stacker
from .command import command_words
from .keep import Found, Recipe, keep
from .store import (
    FORMAT,
    SPLITS,
    STORED_KINDS,
    VERSION,
    BurstFacts,
    Split,
    folder_name,
    read_facts,
    read_json,
    write_json,
)

PathLike = str | os.PathLike[str]
Tell = Callable[[str, float, int], None]
_FRAMES_FOLDERS = ("frames", "raw", "raws")  # a folder with one of these is a burst; what lies beside is about it


@dataclass(frozen=True)
class Shares:
    """Parts of the scenes that go to "val" and "test"; the others are to learn from.

    A scene is a burst's name without the number at its end, so that key1 and key2 are never on both sides; without
    ``siblings`` each burst is a scene of its own, for names that are numbers and nothing more. Where a scene goes
    depends on its name and ``seed`` alone: more bursts move none of those before.
    """

    val: float = 0.1
    test: float = 0.1
    seed: int = 0
    siblings: bool = True

    def __post_init__(self) -> None:
        if self.val < 0 or self.test < 0 or self.val + self.test > 1 or self.seed < 0:
            raise ArgumentError(
                f"Shares: val and test must be 0 or more and at most 1 together, seed 0 or more, got {self.val}, "
                f"{self.test} and {self.seed}"
            )

    def scene(self, name: str) -> str:
        """The scene that a burst shows."""
        return (re.sub(r"[-_ ]*\d+$", "", name) or name) if self.siblings else name

    def of(self, scene: str) -> Split:
        """Where a scene goes."""
        digest = hashlib.sha256(f"{self.seed}/{scene}".encode()).digest()
        place = int.from_bytes(digest[:8], "big") / 2**64
        return "val" if place < self.val else "test" if place < self.val + self.test else "train"


@dataclass
class Built:
    """What a run did: names of bursts ``made`` now, ``kept`` from before, and ``left_out`` with the reason."""

    made: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """A burst to come: its name, where it goes, the files it is made of, and a function that reads what is needed."""

    name: str
    scene: str
    split: Split
    sources: list[tuple[str, int]]
    find: Callable[[Progress], Found]


def build_dataset(
    source: PathLike,
    target: PathLike,
    recipe: Recipe,
    *,
    motion: Motion = "similarity",
    reference: str = "auto",
    shares: Shares | None = None,
    overwrite: bool = False,
    tell: Tell | None = None,
) -> Built:
    """Make a data set in ``target`` of every burst below ``source``; see :func:`find_bursts` for what is one.

    A burst is written whole or not at all, and one that is there already is kept: run it again to go on after a stop.
    ``overwrite`` makes all of them anew. ``tell(stage, done, total)`` as for :func:`pyfocus.stack`. Raises BurstError,
    ReadError, RegistrationError with the burst's name; WriteError when ``target`` was made in another way.
    """
    shares = shares or Shares()
    found = find_bursts(source)
    settings = {**settings_of(recipe), "motion": motion, "reference": reference, "split": asdict(shares)}

    def job(name: str, folder: Path) -> Job:
        scene, frames = shares.scene(name), find_frames(folder)
        files = _sizes(frames)

        def find(progress: Progress) -> Found:
            domain = "raw" if recipe.kind == "rggb" else "auto"
            burst = read_burst([f.path for f in frames], order="as-given", domain=domain)  # type: ignore[arg-type]
            return Found(
                name, scene, burst, register(burst, motion=motion, reference=reference, progress=progress), files
            )

        return Job(name, scene, shares.of(scene), files, find)

    return run_jobs(target, [job(name, folder) for name, folder in found], recipe, settings, overwrite, tell)


def run_jobs(
    target: PathLike,
    jobs: Iterable[Job],
    recipe: Recipe,
    made_with: Mapping[str, Any],
    overwrite: bool,
    tell: Tell | None,
) -> Built:
    """Work through the jobs, each finished one entered in ``dataset.json`` before the next is begun."""
    if recipe.kind not in STORED_KINDS:
        raise ArgumentError(f"dataset: kind must be {' or '.join(STORED_KINDS)}, got {recipe.kind!r}")
    if recipe.truth_command is not None:
        command_words(recipe.truth_command)
    elif isinstance(recipe.truth, str):
        Stacker(recipe.truth)  # a name it does not know is said before the work
    root, say, built, queue = Path(target), tell or (lambda stage, done, total: None), Built(), list(jobs)
    settings: dict[str, Any] = json.loads(json.dumps(made_with))  # as a file gives them back
    entries = _begun(root, recipe, settings, overwrite)
    _check_places([*entries, *(job.name for job in queue if job.name not in entries)])
    for job in queue:
        facts = None if overwrite else _finished(root, job, settings)
        if facts is not None:
            built.kept.append(job.name)
            if job.name in entries:
                continue
        else:
            facts = _make(root, job, recipe, settings, _named(say, job.name))
            built.made.append(job.name)
        height, width = facts.size
        about = {"scene": job.scene, "split": job.split, "frames": len(facts.frames), "height": height, "width": width}
        entries[job.name] = {"name": job.name, **about}
        _write_index(root, recipe, settings, entries)
    return built


def _make(root: Path, job: Job, recipe: Recipe, settings: dict[str, Any], progress: Progress) -> BurstFacts:
    """Find and keep a burst; its name stands in whatever goes wrong."""
    try:
        return keep(root, job.find(progress), recipe, settings, progress)
    except PyfocusError as error:
        if str(error).startswith(f"{job.name}: "):
            raise
        raise type(error)(f"{job.name}: {error}") from error


def find_bursts(source: PathLike) -> list[tuple[str, Path]]:
    """(name, folder) of every burst at or below a folder, by name. Raises ReadError when there is none.

    A burst is a folder of two images or more, or of one TIFF. A folder that has ``frames/``, ``raw/`` or ``raws/`` with
    images is one burst by its own name, whatever else lies in it. Hidden folders are passed over.
    """
    root = Path(source)
    if not root.is_dir():
        raise ReadError(f"{root}: no such folder; name a folder of bursts")
    found: list[tuple[str, Path]] = []
    for here, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        place = Path(here)
        inner = next(
            (name for name in _FRAMES_FOLDERS if name in folders and _has_burst(os.listdir(place / name))), None
        )
        if inner or _has_burst(files):
            name = place.relative_to(root).as_posix() if place != root else place.resolve().name
            found.append((name, place / inner if inner else place))
        if inner:
            folders.clear()
    if not found:
        raise ReadError(f"{root}: no burst in this folder or below: a burst is a folder of two images or more")
    return sorted(found)


def settings_of(recipe: Recipe) -> dict[str, Any]:
    """What a data set must have been made with for a run to go on in it."""
    noise = None if recipe.noise is None else list(recipe.noise)
    return {**asdict(recipe), "truth": recipe.truth_name, "noise": noise}


def _has_burst(names: list[str]) -> bool:
    images = [n for n in names if Path(n).suffix.lower() in IMAGE_SUFFIXES | RAW_SUFFIXES and not n.startswith(".")]
    return len(images) > 1 or any(Path(n).suffix.lower() in (".tif", ".tiff") for n in images)


def _sizes(frames: list[FrameSource]) -> list[tuple[str, int]]:
    return [(frame.name, frame.path.stat().st_size) for frame in frames]


def _named(say: Tell, name: str) -> Progress:
    return lambda stage, done, total: say(f"{name}: {stage}", done, total)


def _begun(root: Path, recipe: Recipe, settings: Mapping[str, Any], overwrite: bool) -> dict[str, dict[str, Any]]:
    """The entries of a data set that was begun in the same way, or none. Raises WriteError."""
    path = root / "dataset.json"
    if not path.exists():
        if root.exists() and (not root.is_dir() or any(root.iterdir())):
            raise WriteError(f"{root}: exists already and is no data set; choose a new folder")
        try:
            (root / "bursts").mkdir(parents=True)
        except OSError as error:
            raise WriteError(f"{root}: cannot be made: {error.strerror}; choose another folder") from error
        _write_index(root, recipe, settings, {})
        return {}
    content = read_json(path, FORMAT)
    entries = content.get("bursts")
    if not isinstance(entries, list) or not all(isinstance(e, dict) and e.get("split") in SPLITS for e in entries):
        raise ReadError(f"{path}: is damaged; choose a new folder")
    before = content.get("settings")
    if before != settings:
        keys = [key for key in settings if not isinstance(before, dict) or before.get(key) != settings[key]]
        key = keys[0] if keys else "settings"
        was = before.get(key) if isinstance(before, dict) else None
        if not overwrite:
            raise WriteError(
                f"{root}: was made with {key} {was!r}, not {settings.get(key)!r}; choose a new folder, or make it anew "
                "(--overwrite)"
            )
        return {}
    return {str(entry["name"]): entry for entry in entries}


def _finished(root: Path, job: Job, settings: dict[str, Any]) -> BurstFacts | None:
    """The facts of a burst that is there already. Raises WriteError when it was made of other files, or otherwise."""
    folder = root / "bursts" / folder_name(job.name)
    if not folder.exists():
        return None
    facts = read_facts(folder)
    if facts.sources != job.sources or facts.made_with != settings:
        how = "of other files than the burst has now" if facts.sources != job.sources else "with other settings"
        raise WriteError(f"{folder}: was made {how}; remove it, or make all anew (--overwrite)")
    return facts


def _check_places(names: list[str]) -> None:
    places = [folder_name(name) for name in names]
    twice = next((place for i, place in enumerate(places) if place in places[:i]), None)
    if twice:
        raise BurstError(f"dataset: two bursts would be kept as {twice}; rename the folder of one of them")


def _write_index(root: Path, recipe: Recipe, settings: Mapping[str, Any], entries: dict[str, dict[str, Any]]) -> None:
    content = {"format": FORMAT, "version": VERSION, "kind": recipe.kind, "settings": dict(settings)}
    write_json(root / "dataset.json", {**content, "bursts": [entries[name] for name in sorted(entries)]})
