"""Finished work of a long run, kept in a folder, so that a run that was broken off goes on from it.

    run.json    what the run is of: a later one must be of the same
    state       what a folding network remembers after some frames: a line of JSON, then every array's bytes
    picture     (C, H, W) float32, filled tile by tile by a network that takes all frames at once
    tiles       a line for each tile that is in it: y0 y1 x0 x1

Whatever ends the process, the folder holds what was finished: the state is put in place whole, and a tile is named
after its pixels were written.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import ReadError, WriteError
from .tiles import Box

FORMAT, VERSION = "pyfocus-resume", 1
SHARE = 10  # a state is kept again after so many times what keeping it took
_RUN, _STATE, _PICTURE, _TILES = "run.json", "state", "picture", "tiles"
Array = npt.NDArray[Any]


class Kept:
    """The folder of one run's finished work; made when it is not there. ``facts``: what the run is of, as JSON has it.

    Raises ReadError for a folder of another run or one that is no such folder, WriteError when it cannot be made or
    another process is at work in it.
    """

    def __init__(self, folder: str | os.PathLike[str], facts: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        self._kept_at, self._cost_s = -np.inf, 0.0
        self._picture: np.memmap[Any, np.dtype[np.float32]] | None = None
        self._full = False
        new = not self.folder.exists()
        try:
            self.folder.mkdir(exist_ok=True)
            self._run = os.open(self.folder / _RUN, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise WriteError(f"{self.folder}: finished work cannot be kept there: {error.strerror}") from error
        self._closing = weakref.finalize(self, os.close, self._run)
        try:
            fcntl.flock(self._run, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.close()
            raise WriteError(f"{self.folder}: another run is at work there; wait for it") from error
        self._agree({"format": FORMAT, "version": VERSION, **facts}, new)

    @property
    def is_begun(self) -> bool:
        """True when there is finished work of an earlier run."""
        return (self.folder / _STATE).exists() or (self.folder / _TILES).exists()

    def read_state(self, facts: Mapping[str, Any], restore: Callable[[Iterator[Array]], None]) -> int:
        """How many frames the kept state holds, after ``restore`` took it; 0 when there is none. Raises ReadError."""
        path = self.folder / _STATE
        if not path.exists():
            return 0
        with open(path, "rb") as file:
            try:
                head = json.loads(file.readline(1 << 20))
                frames, shapes = int(head["frames"]), [(a["shape"], np.dtype(a["dtype"])) for a in head["arrays"]]
            except (ValueError, KeyError, TypeError) as error:
                raise ReadError(f"{path}: is damaged; remove {self.folder} and begin anew") from error
            self._compare(facts, head["facts"])
            left = path.stat().st_size - file.tell()
            if left != sum(dtype.itemsize * int(np.prod(shape)) for shape, dtype in shapes):
                raise ReadError(f"{path}: is cut short; remove {self.folder} and begin anew")
            restore(np.fromfile(file, dtype, int(np.prod(shape))).reshape(shape) for shape, dtype in shapes)
        return frames

    def write_state(self, facts: Mapping[str, Any], frames: int, arrays: Iterator[Array]) -> None:
        """Keep a state, unless that took long and was done a short while ago. A full disk ends it, with a warning."""
        started = time.monotonic()
        if self._full or started - self._kept_at < SHARE * self._cost_s:
            return
        part = self.folder / f"{_STATE}.part"
        values = list(arrays)
        about = [{"shape": list(a.shape), "dtype": a.dtype.str} for a in values]
        head = json.dumps({"frames": frames, "facts": dict(facts), "arrays": about})
        try:
            with open(part, "wb") as file:
                file.write(head.encode() + b"\n")
                for array in values:
                    file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, self.folder / _STATE)
        except OSError as error:
            self._give_up(part, error)
        self._kept_at = time.monotonic()
        self._cost_s = self._kept_at - started

    def open_picture(self, facts: Mapping[str, Any], shape: Sequence[int]) -> tuple[Array, set[Box]]:
        """The picture (C, H, W) float32 to fill, and the tiles that are in it already. Raises ReadError, WriteError."""
        tiles, place = self.folder / _TILES, self.folder / _PICTURE
        head = {**facts, "shape": list(shape)}
        done: set[Box] = set()
        size = 4 * int(np.prod(shape))
        try:
            if tiles.exists():
                first, *lines = tiles.read_text().split("\n")
                self._compare(head, json.loads(first))
                done = {Box(*map(int, line.split())) for line in lines[:-1]}  # the last is empty, or not whole
            if not done or place.stat().st_size != size:
                done = set()
                with open(place, "wb") as file:
                    os.posix_fallocate(file.fileno(), 0, size)
            tiles.write_text("\n".join([json.dumps(head), *map(_line, done), ""]))
        except (ValueError, TypeError) as error:
            raise ReadError(f"{tiles}: is damaged; remove {self.folder} and begin anew") from error
        except OSError as error:
            raise WriteError(
                f"{self.folder}: {size / 1e6:.0f} MB of finished work cannot be kept there: {error.strerror}"
            ) from error
        self._picture = np.memmap(place, np.float32, "r+", shape=tuple(shape))
        return np.asarray(self._picture), done

    def finish_tile(self, box: Box) -> None:
        """A tile's pixels are in the picture."""
        assert self._picture is not None
        if self._full:
            return
        try:
            self._picture.flush()
            with open(self.folder / _TILES, "a") as file:
                file.write(_line(box) + "\n")
        except OSError as error:
            self._give_up(None, error)

    def close(self) -> None:
        """Let go of the folder, which stays."""
        self._closing()

    def remove(self) -> None:
        """The run is over: the folder goes away."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _agree(self, facts: dict[str, Any], new: bool) -> None:
        """Write what the run is of, or see that it is the same as before."""
        text = os.pread(self._run, 1 << 26, 0)
        if not text and (new or os.listdir(self.folder) == [_RUN]):
            os.write(self._run, json.dumps(facts, indent=1).encode() + b"\n")
            return
        try:
            before = json.loads(text)
            if not isinstance(before, dict) or before.get("format") != FORMAT:
                raise ValueError
        except ValueError:
            self.close()
            if not text:
                (self.folder / _RUN).unlink()  # which was made here
            raise ReadError(f"{self.folder}: is no folder of finished work; move it away") from None
        try:
            self._compare(facts, before)
        except ReadError:
            self.close()
            raise

    def _compare(self, now: Mapping[str, Any], before: Any) -> None:
        now = json.loads(json.dumps(dict(now)))
        if not isinstance(before, dict):
            raise ReadError(f"{self.folder}: is damaged; remove it and begin anew")
        for key in (*now, *before):
            if now.get(key) != before.get(key):
                raise ReadError(
                    f"{self.folder}: holds finished work of another run: {key} was {_short(before.get(key))}, is "
                    f"{_short(now.get(key))}; remove the folder, or leave --resume out"
                )

    def _give_up(self, part: Path | None, error: OSError) -> None:
        self._full = True
        if part:
            with suppress(OSError):
                part.unlink()
        warnings.warn(
            f"{self.folder}: no more finished work can be kept there: {error.strerror}; the run goes on",
            RuntimeWarning,
            stacklevel=2,
        )


def _line(box: Box) -> str:
    return f"{box.y0} {box.y1} {box.x0} {box.x1}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
