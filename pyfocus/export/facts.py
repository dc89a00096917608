"""What an exported file says of itself, so that no program has to guess: metadata of the ONNX model, text by text.

Keys begin with ``pyfocus.``; numbers and lists are JSON. Written by to_onnx, read by session, printed by
``pyfocus-export info``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from ..errors import ReadError

Part = Literal["step", "finish", "burst"]
Variant = Literal["standard", "gridsample", "plugin"]
VARIANTS: tuple[Variant, ...] = ("standard", "gridsample", "plugin")
Precision = Literal["fp32", "mixed"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "mixed")
FORMAT, VERSION = "pyfocus-onnx", 1
PREFIX = "pyfocus."
OLD, NEW = "state_", "next_"  # before the names of a state that goes in, and of the one that comes out


@dataclass(frozen=True)
class Facts:
    """Everything that a program needs to know to run the file.

    ``part``: "step" folds a frame into the state, "finish" makes the picture of it, "burst" does all at once.
    ``weights``: SHA-256 of names and values. ``inputs`` in their order. ``layout`` and ``channels`` of frames and
    picture; ``normalisation``: what their values mean. ``step_px`` divides a tile's height and width; ``halo_px``: how
    far from a pixel lies what this part reads for it; ``tile``: the one size (H, W) that the file takes, empty for any.
    ``frames`` of a burst, 0 for any number. ``state``: name, channels and pixels of the frame per pixel of each map of
    the state, 0 for a number of one pixel; it begins as zeros. ``noise``: what the input of that name holds, empty
    without one. ``kind``: of a burst's frames, as in pyfocus.nn; ``encoding``: "linear" or "srgb"; ``scale``: how much
    larger than a frame's plane the picture is.
    """

    network: str
    part: Part
    variant: str
    precision: str
    weights: str
    layout: str
    channels: str
    normalisation: str
    colour_space: str
    encoding: str
    kind: str
    inputs: tuple[str, ...]
    step_px: int
    halo_px: int
    tile: tuple[int, ...]
    frames: int
    scale: int
    state: tuple[tuple[str, int, int], ...]
    noise: str
    opset: int
    exporter: str

    def texts(self) -> dict[str, str]:
        """The metadata."""
        values = {"format": FORMAT, "version": VERSION, **asdict(self)}
        return {PREFIX + key: v if isinstance(v, str) else json.dumps(v) for key, v in values.items()}


def read_facts(path: str | Path, texts: Mapping[str, str]) -> Facts:
    """The facts in a file's metadata. Raises ReadError for a file of another tool or version, or without some of it."""
    if texts.get(PREFIX + "format") != FORMAT:
        raise ReadError(f"{path}: is an ONNX model, but pyfocus-export did not write it: its metadata is missing")
    if texts.get(PREFIX + "version") != str(VERSION):
        raise ReadError(
            f"{path}: is of version {texts.get(PREFIX + 'version')} of {FORMAT}, and {VERSION} is read here; export "
            "the checkpoint again"
        )
    values: dict[str, Any] = {}
    for field in fields(Facts):
        text = texts.get(PREFIX + field.name)
        if text is None:
            raise ReadError(f"{path}: its metadata lacks {PREFIX}{field.name}; export the checkpoint again")
        try:
            values[field.name] = text if field.type == "str" or field.name == "part" else _frozen(json.loads(text))
        except ValueError:
            raise ReadError(f"{path}: its metadata {PREFIX}{field.name} is damaged: {text[:60]!r}") from None
    return Facts(**values)


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
