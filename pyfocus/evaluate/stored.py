"""Bursts with truth out of a data set that ``pyfocus dataset`` wrote: arrays in NumPy files, read without torch.

    DIR/dataset.json            format, version, kind, and every burst with its split
    DIR/bursts/NAME/burst.json  reference, white balance, the camera's matrix
                    frames.npy  (N, 4, H/2, W/2) "rggb" or (N, 3, H, W) "rgb", in the reference frame's geometry
                    truth.npy   (3, H, W)

uint16 is linear camera RGB without white balance, 1024 black and 65535 white; uint8 is sRGB.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..burst import Array, Burst, Frame, Meta
from ..colour import decode_lut
from ..develop import develop
from ..errors import ReadError
from ..io import load_json, map_array
from ..raw import UNPACK_BLACK_DN, UNPACK_WHITE_DN
from ..register import Registration

CONTENT = "dataset.json"
SPLITS = ("train", "val", "test", "all")
_FORMATS = {CONTENT: "pyfocus dataset", "burst.json": "pyfocus burst"}
_VERSION = 1
_PLANES = {"rggb": 4, "rgb": 3}
_SITES = ((0, 0), (0, 1), (1, 0), (1, 1))  # of R, G1, G2, B in a mosaic's block


@dataclass(frozen=True)
class StoredScene:
    """A burst of a data set; its frames are in place already. See :class:`pyfocus.evaluate.Scene`."""

    name: str
    folder: Path
    reference: int
    kind: str
    frames: tuple[str, ...]
    white_balance: tuple[float, float, float]
    xyz_to_camera: tuple[float, ...] | None

    @property
    def meta(self) -> Meta:
        """The frames' facts: those of a mosaic on the data set's own scale, or of pictures."""
        if self.kind == "rgb":
            return Meta(encoding="linear")
        black = float(UNPACK_BLACK_DN)
        return Meta(
            cfa="RGGB",
            black=(black, black, black, black),
            white=float(UNPACK_WHITE_DN),
            white_balance=self.white_balance,
            xyz_to_camera=self.xyz_to_camera,
        )

    def burst(self) -> Burst:
        """The frames, each read when it is asked for. Raises ReadError."""
        stored = self._array("frames.npy")
        if stored.ndim != 4 or stored.shape[:2] != (len(self.frames), _PLANES[self.kind]):
            raise ReadError(f"{self.folder / 'frames.npy'}: does not fit burst.json, is {stored.shape}; build it again")
        return Burst(list(self.frames), lambda i: self._frame(stored[i], self.frames[i]))

    def registration(self) -> Registration:
        """The identity for all: the frames were warped to the reference when they were stored."""
        height, width = self._array("truth.npy").shape[1:]
        count = len(self.frames)
        blank, zeros, ones = np.full(count, np.nan), np.zeros(count, int), np.ones(count, bool)
        maps = np.stack([np.eye(3)] * count)
        return Registration(maps, self.reference, (height, width), "similarity", ones, blank, zeros, ones, self.frames)

    def truth_picture(self) -> Array:
        """The truth in the colours that a picture stacked of these frames has. Raises ReadError."""
        stored = self._array("truth.npy")
        if stored.ndim != 3 or stored.shape[0] != 3:
            raise ReadError(f"{self.folder / 'truth.npy'}: should be (3, H, W), is {stored.shape}; build it again")
        if stored.dtype == np.uint8:  # a finished picture
            return np.ascontiguousarray(stored.transpose(1, 2, 0))
        return develop(self._balanced(stored), self.meta, bits=16)

    def _frame(self, stored: Array, name: str) -> Frame:
        facts = {**self.meta.__dict__, "name": name}
        if self.kind == "rggb":
            mosaic = np.empty((2 * stored.shape[1], 2 * stored.shape[2]), stored.dtype)
            for plane, (dy, dx) in zip(stored, _SITES, strict=True):
                mosaic[dy::2, dx::2] = plane
            return Frame(mosaic, Meta(**facts))
        if stored.dtype == np.uint8:
            return Frame(np.ascontiguousarray(stored.transpose(1, 2, 0)), Meta(**{**facts, "encoding": "srgb"}))
        return Frame(np.ascontiguousarray(self._balanced(stored).transpose(1, 2, 0)), Meta(**facts))

    def _balanced(self, stored: Array) -> npt.NDArray[np.float32]:
        """(3, H, W) linear light with the white balance."""
        if stored.dtype == np.uint8:
            return np.asarray(decode_lut(np.uint8)[stored], np.float32)
        light = (stored.astype(np.float32) - UNPACK_BLACK_DN) / np.float32(UNPACK_WHITE_DN - UNPACK_BLACK_DN)
        return np.asarray(light * np.array(self.white_balance, np.float32)[:, None, None], np.float32)

    def _array(self, name: str) -> Array:
        """A stored array, mapped into memory."""
        path = self.folder / name
        found = map_array(path, "build the burst again")
        if found.dtype not in (np.uint8, np.uint16):
            raise ReadError(f"{path}: should be uint8 or uint16, is {found.dtype}; build the burst again")
        return found


def find_stored(top: Path, split: str) -> list[StoredScene]:
    """The bursts of a split of a data set, or of all. Raises ReadError for a damaged one, and for a split of none."""
    path = top / CONTENT
    content = _read(path)
    try:
        entries = [(str(entry["name"]), str(entry["split"])) for entry in content["bursts"]]
    except (KeyError, TypeError) as error:
        raise ReadError(f"{path}: is damaged: {error!r}; build the data set again") from error
    chosen = [name for name, part in entries if split in ("all", part)]
    if not chosen:
        held = ", ".join(sorted({part for _, part in entries})) or "none"
        raise ReadError(f"{path}: no bursts in the split {split!r}, its splits are {held}; choose one with --split")
    return [_scene(top / "bursts" / name.replace("/", "~"), name) for name in chosen]


def _scene(folder: Path, name: str) -> StoredScene:
    path = folder / "burst.json"
    facts = _read(path)
    try:
        frames, balance = tuple(str(frame) for frame in facts["frames"]), tuple(map(float, facts["white_balance"]))
        matrix = None if facts["xyz_to_camera"] is None else tuple(map(float, facts["xyz_to_camera"]))
        reference, kind = int(facts["reference"]), str(facts["kind"])
        if kind not in _PLANES or not 0 <= reference < len(frames) or len(balance) != 3:
            raise ValueError("its kind, reference or white balance is none")
    except (KeyError, TypeError, ValueError) as error:
        raise ReadError(f"{path}: is damaged: {error}; build the burst again") from error
    return StoredScene(name, folder, reference, kind, frames, (balance[0], balance[1], balance[2]), matrix)


def _read(path: Path) -> dict[str, Any]:
    """The object in a file of a data set. Raises ReadError for another format or version."""
    content = load_json(path)
    wanted = _FORMATS[path.name]
    if not isinstance(content, dict) or content.get("format") != wanted or content.get("version") != _VERSION:
        raise ReadError(f"{path}: is no {wanted} of version {_VERSION}; name a folder that pyfocus dataset wrote")
    return content
