"""Files of weights: a trained network in one file, read without running any code that the file might hold.

A model is ``torch.save`` of ``{"format": "pyfocus-model", "version": 1, "network": class, "config": {...}, "weights":
{...}, "facts": {...}}``. Every file here is written whole or not at all: beside the target, synchronised, renamed.
"""

from __future__ import annotations

import importlib
import io
import os
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ArgumentError, ReadError
from ..io.atomic import PathLike, atomic

MODEL_FORMAT, MODEL_VERSION = "pyfocus-model", 1
# By the names that files hold: the module here that has the class, loaded when it is asked for.
NETWORKS = {"FocusDeep": "focusdeep", "FocusDeepStream": "stream", "UNet": "unet"}


def build_network(name: str, config: Mapping[str, Any]) -> nn.Module:
    """A network of ours by its class name, of random weights. Raises ArgumentError for a name or a setting it lacks."""
    if name not in NETWORKS:
        raise ArgumentError(f"build_network: name must be one of {', '.join(NETWORKS)}, got {name!r}")
    made = getattr(importlib.import_module(f"..{NETWORKS[name]}", __name__), name)
    try:
        net: nn.Module = made(**config)
    except TypeError as error:
        raise ArgumentError(f"build_network: {name} does not take {dict(config)!r}: {error}") from error
    return net


def save_model(path: PathLike, net: nn.Module, facts: Mapping[str, Any], *, half: bool = False) -> int:
    """Write a network of ours so that :func:`load_model` makes it again; returns the file's bytes.

    ``facts`` are whatever should be known of it: strings, numbers, booleans, None, lists and dicts of them. ``half``
    keeps weights in half precision, at half the bytes; loaded, they are float32 again. An older file of that name is
    replaced, and survives if anything goes wrong. Raises ArgumentError for a network that is not of ours or facts of
    another type, WriteError for a disk that is full or a folder that is not there.
    """
    name = type(net).__name__
    config = getattr(net, "config", None)
    if name not in NETWORKS or not isinstance(config, Mapping):
        raise ArgumentError(f"save_model: net must be one of {', '.join(NETWORKS)}, with its .config, got {name}")
    check_plain("save_model: facts", facts)
    weights = {key: value.detach().cpu().contiguous() for key, value in net.state_dict().items()}
    if half:
        weights = {key: value.half() if value.dtype == torch.float32 else value for key, value in weights.items()}
    what = {"network": name, "config": dict(config), "weights": weights, "facts": dict(facts)}
    return write_pack(path, {"format": MODEL_FORMAT, "version": MODEL_VERSION, **what})


def load_model(path: PathLike) -> tuple[nn.Module, dict[str, Any]]:
    """The network in a file of :func:`save_model`, on the CPU and in evaluation mode, and its facts.

    Raises ReadError for a file that is missing, cut short, not ours, of another version, or whose weights do not fit
    the network it names.
    """
    pack = read_pack(path, MODEL_FORMAT, MODEL_VERSION)
    try:
        name, config, weights, facts = (pack[key] for key in ("network", "config", "weights", "facts"))
        with torch.device("meta"):  # shapes first: a damaged config must not ask for all memory
            shapes = build_network(name, config).state_dict()
        check_weights(path, name, shapes, weights)
        net = build_network(name, config)
        net.load_state_dict(weights)
        return net.eval(), dict(facts)
    except (ArgumentError, AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ReadError(f"{path}: holds no model that can be built: {_first_line(error)}") from error


def check_weights(path: PathLike, name: str, expected: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    """That ``weights`` has the names and shapes that a network expects. Raises ReadError."""
    if not isinstance(weights, Mapping):
        raise ReadError(f"{path}: holds no weights")
    for key in [*expected, *weights]:
        found = tuple(weights[key].shape) if key in weights else "nothing"
        wanted = tuple(expected[key].shape) if key in expected else "nothing"
        if found != wanted:
            raise ReadError(f"{path}: its weights do not fit {name}: {key} should be {wanted}, is {found}")


def write_pack(path: PathLike, pack: Mapping[str, Any]) -> int:
    """Write a dict of tensors and plain values, whole or not at all; returns its bytes. Raises WriteError."""
    buffer = io.BytesIO()  # torch's own writer hides the system's reasons; and so the size is known beforehand
    torch.save(dict(pack), buffer)
    data = buffer.getbuffer()
    with atomic(path, overwrite=True, size=len(data)) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return len(data)


def read_pack(path: PathLike, format: str, version: int) -> dict[str, Any]:
    """The dict in a file of :func:`write_pack`, on the CPU. Raises ReadError."""
    source = Path(path)
    try:
        data = source.read_bytes()
    except OSError as error:
        raise ReadError(f"{source}: cannot be read: {error.strerror or error}") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of formats that torch used to write, which are not ours
            pack = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        broken = zipfile.ZipFile(io.BytesIO(data)).testzip()  # torch checks no sums
        if broken is not None:
            raise zipfile.BadZipFile(broken)
    except Exception as error:  # zip, pickle, torch and Python each have their own for a damaged file
        raise ReadError(
            f"{source}: no file of {format} that can be read ({len(data)} bytes): it is cut short, damaged or "
            f"something else; take another copy"
        ) from error
    if not isinstance(pack, dict) or pack.get("format") != format:
        found = pack.get("format") if isinstance(pack, dict) else type(pack).__name__
        raise ReadError(f"{source}: is no {format} (it says {found!r}); name a file that pyfocus wrote")
    if pack.get("version") != version:
        raise ReadError(
            f"{source}: is of version {pack.get('version')!r} of {format}, and {version} is read here; "
            "use the pyfocus that wrote it"
        )
    return pack


def check_plain(what: str, value: Any) -> None:
    """That a value is one a file can give back without running code. Raises ArgumentError."""
    if isinstance(value, Mapping):
        for key, entry in value.items():
            if not isinstance(key, str):
                raise ArgumentError(f"{what}: keys must be strings, got {key!r}")
            check_plain(f"{what}[{key!r}]", entry)
    elif isinstance(value, list | tuple):
        for i, entry in enumerate(value):
            check_plain(f"{what}[{i}]", entry)
    elif value is not None and type(value) not in (str, int, float, bool):
        raise ArgumentError(f"{what}: must be a plain value (text, number, list, dict), got {type(value).__name__}")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
