"""``pyfocus simulate``: brackets with known truth, from pictures or from the scene that is built in."""

from __future__ import annotations

import argparse
import json
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..burst import Array, Frame
from ..colour import srgb_to_linear
from ..errors import ArgumentError, BurstError, WriteError
from ..io import read_image
from ..register import Progress
from ..simulate import Bracket, Settings, procedural_scene, simulate, synthetic_depth, write_bracket
from .arguments import UsageError
from .terminal import Terminal

Float = npt.NDArray[np.float32]
BUILT_IN = "procedural"
_BUILT_IN_PX = 1200
_PARTS = ("frames", "truth.tif", "depth.png", "scene.json")


def run(options: argparse.Namespace, terminal: Terminal) -> int:
    """Make and write a bracket per picture."""
    started = time.perf_counter()
    settings = _settings(options)
    folders = _folders(options)
    for folder in folders:
        _check_folder(folder, options.overwrite)
    made = []
    with terminal.progress() as tell:
        for photo, folder in zip(options.photos, folders, strict=True):
            picture, depth = _scene(photo, options)
            bracket = _telling(simulate(picture, depth, settings), f"simulate {photo}", tell)
            _write_whole(bracket, folder)
            height, width = bracket.truth.shape[:2]
            made.append({"folder": str(folder), "frames": len(bracket), "width": width, "height": height})
    seconds = time.perf_counter() - started
    if terminal.json:
        terminal.result(json.dumps({"brackets": made, "seconds": {"total": round(seconds, 3)}}, indent=1))
    elif not terminal.quiet:
        for entry in made:
            size = f"{entry['width']} x {entry['height']} px"
            terminal.result(f"{entry['folder']}: {entry['frames']} frames of {size} in frames/, with their truth")
        terminal.result(f"{seconds:.1f} s")
    return 0


def _settings(options: argparse.Namespace) -> Settings:
    try:
        return Settings(
            frames=options.frames, blur_px=options.blur, breathing=options.breathing, jitter_px=options.jitter,
            rotation_deg=options.rotation, flicker=options.flicker, ghost=options.ghost, iso=options.iso,
            raw=options.raw, seed=options.seed,
        )  # fmt: skip
    except ArgumentError as error:
        raise UsageError(str(error)) from error


def _folders(options: argparse.Namespace) -> list[Path]:
    if options.seed < 0 or (options.size is not None and options.size < 16):
        raise UsageError(f"--seed must be 0 or more and --size 16 or more, got {options.seed} and {options.size}")
    if len(options.photos) == 1:
        return [options.output]
    folders = [options.output / Path(photo).stem for photo in options.photos]
    twice = [folder for i, folder in enumerate(folders) if folder in folders[:i]]
    if twice:
        raise UsageError(f"two pictures would go to {twice[0]}; rename one of them, or simulate them one at a time")
    return folders


def _check_folder(folder: Path, overwrite: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise WriteError(f"{folder}: is a file; name a folder")
    taken = next((folder / part for part in _PARTS if (folder / part).exists()), None)
    if taken is None:
        return
    if not overwrite:
        raise WriteError(f"{taken}: exists already; choose another folder or allow overwriting (--overwrite)")
    if not (folder / "scene.json").is_file():
        raise WriteError(f"{taken}: exists already and is no bracket of ours (no scene.json); choose another folder")


def _scene(photo: str, options: argparse.Namespace) -> tuple[Float, Float]:
    """The picture, linear (H, W, 3), and its depth (H, W), at the size asked for."""
    if photo == BUILT_IN:
        width = options.size or _BUILT_IN_PX
        picture, depth = procedural_scene(max(16, width * 2 // 3), width)
    else:
        picture = _shrunk(_linear(read_image(photo)), options.size)
        if min(picture.shape[:2]) < 16:
            raise BurstError(
                f"{photo}: too narrow to simulate: {picture.shape[1]} x {picture.shape[0]} px; at least 16"
            )
        depth = synthetic_depth((picture.shape[0], picture.shape[1]), options.seed)
    if options.depth != "synthetic":
        given = read_image(options.depth).data
        grey = given.mean(axis=2) if given.ndim == 3 else given
        depth = resize(grey.astype(np.float32), (picture.shape[0], picture.shape[1]))
        depth = depth / max(float(depth.max()), 1e-9)
    return picture, np.asarray(depth, np.float32)


def _linear(frame: Frame) -> Float:
    data: Array = frame.data if frame.data.ndim == 3 else np.stack([frame.data] * 3, axis=-1)
    values = data if data.dtype == np.float32 else data.astype(np.float32) / np.float32(np.iinfo(data.dtype).max)
    light = srgb_to_linear(values) if frame.meta.encoding == "srgb" else values
    return np.asarray(np.clip(light, 0, 1), np.float32)


def _shrunk(picture: Float, longest: int | None) -> Float:
    height, width = picture.shape[:2]
    if longest is None or max(height, width) <= longest:
        return picture
    scale = longest / max(height, width)
    return resize(picture, (max(1, round(height * scale)), max(1, round(width * scale))))


def resize(image: Float, size: tuple[int, int]) -> Float:
    """(h, w[, C]) by area: each new pixel is the mean of the old ones it covers, in part or whole."""
    for axis, length in enumerate(size):
        old = image.shape[axis]
        if old == length:
            continue
        sums = np.insert(np.cumsum(image, axis=axis, dtype=np.float64), 0, 0, axis=axis)
        edges = np.arange(length + 1) * (old / length)
        low = np.minimum(edges.astype(int), old - 1)
        part = (edges - low).reshape([-1 if a == axis else 1 for a in range(image.ndim)])
        at = np.take(sums, low, axis=axis) * (1 - part) + np.take(sums, low + 1, axis=axis) * part
        image = np.asarray(np.diff(at, axis=axis) * (length / old), np.float32)
    return image


def _telling(bracket: Bracket, stage: str, tell: Progress) -> Bracket:
    """The same bracket, saying how far it is as its frames are taken."""

    class Telling(Bracket):
        def __iter__(self) -> Iterator[Array]:
            for k in range(len(self)):
                tell(stage, k, len(self))
                yield self[k]
            tell(stage, len(self), len(self))

    facts: dict[str, Any] = {field.name: getattr(bracket, field.name) for field in fields(bracket)}
    return Telling(**facts)


def _write_whole(bracket: Bracket, folder: Path) -> None:
    """Write the bracket beside its folder and move it in when it is complete, so that none is ever half there."""
    missing = next((p for p in (folder, *folder.parents) if p.is_dir()), Path())
    beside = missing / f".{folder.name}.{secrets.token_hex(4)}.part"
    replaced = beside / "replaced"
    try:
        write_bracket(bracket, beside)
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / "frames").is_dir():
            (folder / "frames").rename(replaced)
        for part in _PARTS:
            (beside / part).replace(folder / part)
    except OSError as error:
        raise WriteError(f"{folder}: cannot be written: {error.strerror or error}") from error
    finally:
        if replaced.is_dir() and not (folder / "frames").exists():  # stopped between the two
            replaced.rename(folder / "frames")
        shutil.rmtree(beside, ignore_errors=True)
