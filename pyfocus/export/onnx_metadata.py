"""The metadata of an ONNX file, read without onnx and without a runtime: the few bytes of its outermost message.

An ONNX file is one protobuf message (ModelProto of onnx.proto3). Its field 14, metadata_props, repeats pairs of texts:
key, field 1, and value, field 2. All else is stepped over.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..errors import ReadError
from ..io.atomic import PathLike
from .facts import Facts, read_facts

_GRAPH, _METADATA = 7, 14  # fields of ModelProto
_KEY, _VALUE = 1, 2  # fields of StringStringEntryProto
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5  # how a field is written


def read_file(path: PathLike) -> tuple[Facts, bytes]:
    """What an exported file says of itself, and all its bytes. Raises ReadError for what is no model of ours."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ReadError(f"{path}: cannot be read: {error.strerror or error}; name what pyfocus-export wrote") from error
    return facts_of(path, data), data


def facts_of(path: PathLike, data: bytes) -> Facts:
    """The same of bytes."""
    try:
        fields = list(_fields(data))
        pairs = [dict(_fields(value)) for number, value in fields if number == _METADATA]
        texts = {bytes(pair[_KEY]).decode(): bytes(pair.get(_VALUE, b"")).decode() for pair in pairs}
        if _GRAPH not in dict(fields):
            raise ValueError("no graph")
    except (ValueError, KeyError, IndexError):  # UnicodeDecodeError is a ValueError
        raise ReadError(
            f"{path}: is no ONNX model, or one that is cut short or damaged ({len(data)} bytes); name what "
            "pyfocus-export onnx wrote"
        ) from None
    return read_facts(Path(path), texts)


def _fields(data: bytes | memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and bytes of each field of a message that is written by its length. Raises ValueError past the end."""
    view, at = memoryview(data), 0
    while at < len(view):
        tag, at = _varint(view, at)
        number, kind = tag >> 3, tag & 7
        if kind == _BYTES:
            size, at = _varint(view, at)
            if at + size > len(view):
                raise ValueError("cut short")
            yield number, view[at : at + size]
            at += size
        elif kind == _VARINT:
            _, at = _varint(view, at)
        elif kind in (_EIGHT, _FOUR):
            at += 8 if kind == _EIGHT else 4
        else:
            raise ValueError("unknown kind")
    if at > len(view):
        raise ValueError("cut short")


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    """A number of seven bits per byte, the lowest first, and where it ends. Raises IndexError past the end."""
    value = 0
    for shift in range(0, 70, 7):
        byte = view[at]
        value, at = value | (byte & 127) << shift, at + 1
        if byte < 128:
            return value, at
    raise ValueError("a number without an end")
