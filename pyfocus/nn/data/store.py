"""How bursts lie on disk: arrays that are mapped into memory, and facts in JSON. Nothing here is ever executed.

    DIR/dataset.json            format, version, kind, settings, and every burst with its scene and its split
    DIR/bursts/NAME/burst.json  what the pixels do not say: white balance, levels, transforms, sources, versions
                    frames.npy  (N, C, h, w), in focus order, in the geometry of the reference frame
                    truth.npy   (3, H, W)
                    depth.npy   (2, H, W) float16: place of the sharpest frame, and confidence; only where one was made

uint16 arrays are linear camera RGB, not white-balanced: 1024 is black and 65535 is white, so that noise below black
survives. uint8 arrays are sRGB. A burst is written beside its place and moved there when it is complete.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ... import _C
from ...burst import Array
from ...colour import decode_lut
from ...errors import ArgumentError, ReadError, WriteError
from ...io import atomic, load_json, map_array
from ...raw import UNPACK_BLACK_DN, UNPACK_WHITE_DN

StoredKind = Literal["rggb", "rgb"]
Split = Literal["train", "val", "test"]
Planes = npt.NDArray[np.float32]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
STORED_KINDS: dict[StoredKind, tuple[int, int]] = {"rggb": (4, 2), "rgb": (3, 1)}  # planes, px of the picture per px
FORMAT, BURST_FORMAT, VERSION = "pyfocus dataset", "pyfocus burst", 1
_SPAN = float(UNPACK_WHITE_DN - UNPACK_BLACK_DN)


@dataclass(frozen=True)
class BurstFacts:
    """What is known of a stored burst.

    ``frames`` names in focus order, ``reference`` the one whose geometry all share; ``size`` (h, w) of the picture,
    cut out of the reference frame at ``crop`` (y0, x0, y1, x1). ``white_balance`` R, G, B with G = 1; ``noise`` shot
    and read of one raw sample, zeros where not known. ``truth`` says who made it; ``truth_colours`` "camera" for linear
    camera RGB, "rendered" for a finished picture with another program's colours. ``registration`` as
    :meth:`pyfocus.Registration.to_json` gives it, of all frames; ``sources`` (name, bytes) of every file read,
    ``made_with`` the data set's settings then.
    """

    name: str
    scene: str
    kind: StoredKind
    frames: list[str]
    reference: int
    size: tuple[int, int]
    crop: tuple[int, int, int, int]
    white_balance: tuple[float, float, float] = (1.0, 1.0, 1.0)
    noise: tuple[float, float] = (0.0, 0.0)
    camera: str = ""
    xyz_to_camera: tuple[float, ...] | None = None
    truth: str = ""
    truth_colours: Literal["camera", "rendered"] = "camera"
    left_out: list[str] = field(default_factory=list)
    registration: dict[str, Any] | None = None
    sources: list[tuple[str, int]] = field(default_factory=list)
    made_with: dict[str, Any] = field(default_factory=dict)
    pyfocus: str = ""

    def shape(self) -> tuple[int, int, int, int]:
        """Of the array of frames: (N, C, h, w)."""
        planes, step = STORED_KINDS[self.kind]
        return len(self.frames), planes, self.size[0] // step, self.size[1] // step


def encode(planes: Planes, out: Array, white_balance: tuple[float, ...] = (1.0, 1.0, 1.0)) -> None:
    """Planes (C, h, w) of white-balanced linear light into ``out`` (C, h, w) uint16 or uint8, as the module says.

    The balance is taken out again for uint16; for uint8 there must be none.
    """
    count = len(planes)
    if out.dtype == np.uint8:
        _C.unpack(planes, out, [255.0] * count, [0.0] * count, srgb=True)
        return
    r, g, b = white_balance
    gains = (r, g, g, b) if count == 4 else (r, g, b)
    _C.unpack(planes, out, [_SPAN / gain for gain in gains], [float(UNPACK_BLACK_DN)] * count)


def decode(stored: Array) -> Planes:
    """Linear light, float32, of a stored array or a part of one."""
    if stored.dtype == np.uint8:
        return np.asarray(decode_lut(np.uint8)[stored], np.float32)
    return (stored.astype(np.float32) - np.float32(UNPACK_BLACK_DN)) / np.float32(_SPAN)


def folder_name(name: str) -> str:
    """A burst's folder below ``bursts/``: its name, of one part. Raises ArgumentError for a name that is no place."""
    parts = name.split("/")
    if not name or any(not part or part.startswith(".") or "\\" in part or "\0" in part for part in parts):
        raise ArgumentError(f"dataset: a burst's name must be of visible folders, got {name!r}")
    return "~".join(parts)


@contextmanager
def new_burst(root: Path, name: str) -> Iterator[Path]:
    """A folder to fill that becomes the burst when the block ends well, and vanishes otherwise. Raises WriteError."""
    target = root / "bursts" / folder_name(name)
    mark = secrets.token_hex(4)
    part, old = target.with_name(f".{target.name}.{mark}.part"), target.with_name(f".{target.name}.{mark}.old")
    try:
        part.mkdir(parents=True)
        yield part
        for file in part.iterdir():
            _synchronise(file)
        if target.exists():
            target.rename(old)
        part.rename(target)
        _synchronise(target.parent)
    except OSError as error:
        raise WriteError(
            f"{target}: cannot be written: {error.strerror or error}; what was begun is removed"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
        if old.exists() and not target.exists():  # stopped between the two
            old.rename(target)
        shutil.rmtree(old, ignore_errors=True)


def leftovers(root: Path) -> list[Path]:
    """What a run that was killed left behind."""
    return sorted([*(root / "bursts").glob(".*.part"), *(root / "bursts").glob(".*.old")])


def new_array(path: Path, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    """A file of an array to fill, as large as it will be from the start, so that a full disk shows before the work."""
    out = np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)
    with suppress(AttributeError), path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)  # a mapped page that finds no room ends the process
    return out


def open_array(path: Path, shape: tuple[int, ...], dtypes: tuple[npt.DTypeLike, ...]) -> Array:
    """A stored array, mapped, not read. Raises ReadError unless it is whole and as it should be."""
    found = map_array(path, "build the burst again")
    if found.shape != shape or found.dtype not in [np.dtype(kind) for kind in dtypes]:
        names = " or ".join(np.dtype(kind).name for kind in dtypes)
        raise ReadError(f"{path}: should be {shape} {names}, is {found.shape} {found.dtype}; build the burst again")
    return found


def write_json(path: Path, content: Any) -> None:
    """Write JSON, whole or not at all."""
    with atomic(path, overwrite=True) as file:
        file.write(json.dumps(content, indent=1, allow_nan=False).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read_json(path: Path, wanted: str) -> dict[str, Any]:
    """The object in a file of ours. Raises ReadError for another format or version."""
    content = load_json(path)
    if not isinstance(content, dict) or content.get("format") != wanted:
        raise ReadError(f"{path}: is no {wanted}; name a folder that pyfocus dataset wrote")
    if content.get("version") != VERSION:
        raise ReadError(f"{path}: is of version {content.get('version')!r}, and {VERSION} is read here; build it again")
    return content


def write_facts(folder: Path, facts: BurstFacts) -> None:
    """Write ``burst.json``."""
    write_json(folder / "burst.json", {"format": BURST_FORMAT, "version": VERSION, **asdict(facts)})


def read_facts(folder: Path) -> BurstFacts:
    """The facts of a stored burst. Raises ReadError."""
    path = folder / "burst.json"
    content = read_json(path, BURST_FORMAT)
    try:
        values = {f.name: content[f.name] for f in fields(BurstFacts)}
        values["sources"] = [(str(name), int(size)) for name, size in values["sources"]]
        for name, count in (("size", 2), ("crop", 4), ("white_balance", 3), ("noise", 2)):
            values[name] = tuple(values[name])
            if len(values[name]) != count or not all(isinstance(v, int | float) for v in values[name]):
                raise ValueError(f"{name} is not {count} numbers")
        facts = BurstFacts(**values)
        if facts.kind not in STORED_KINDS or not 0 <= facts.reference < len(facts.frames):
            raise ValueError("its kind or its reference is none")
    except (KeyError, TypeError, ValueError) as error:
        raise ReadError(f"{path}: is damaged: {error}; build the burst again") from error
    return facts


def _synchronise(path: Path) -> None:
    """Have the system write a file or a folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
