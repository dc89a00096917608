"""Files that are there whole or not at all: written beside the target, then renamed onto it."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from ..errors import WriteError

PathLike = str | os.PathLike[str]

OUTPUT_SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".dng")
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def check_target(path: PathLike, overwrite: bool = False, *, suffixes: Sequence[str] = OUTPUT_SUFFIXES) -> Path:
    """The path, if a file could be written there now; raises WriteError saying why not.

    Meant to be asked before the work begins: suffix, folder, permission, and whether the file exists already.
    An empty ``suffixes`` takes any.
    """
    target = Path(path)
    if suffixes and target.suffix.lower() not in suffixes:
        raise WriteError(f"{target}: the name must end in {', '.join(suffixes)}, got {target.suffix or 'no suffix'!r}")
    if target.is_dir():
        raise WriteError(f"{target}: is a folder; name a file in it")
    folder = target.parent
    if not folder.is_dir():
        raise WriteError(f"{target}: the folder {folder} does not exist; create it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise WriteError(f"{target}: no permission to write into {folder}")
    if os.path.lexists(target) and not overwrite:
        raise WriteError(f"{target}: exists already; choose another name or allow overwriting (--overwrite)")
    return target


@contextmanager
def atomic(path: PathLike, overwrite: bool = False, *, size: int | None = None) -> Iterator[IO[bytes]]:
    """A binary file to write to that becomes ``path`` when the block ends well, and vanishes otherwise.

    The temporary file lies in the target's folder, so the rename is one step. ``size`` (bytes to come, when
    known) is named if the disk is full. Raises WriteError.
    """
    target = check_target(path, overwrite, suffixes=())
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with open(temporary, "xb") as file:
            yield file
        if not overwrite and os.path.lexists(target):
            raise WriteError(f"{target}: appeared while it was being written; it was left as it is")
        os.replace(temporary, target)
    except OSError as error:
        raise _write_error(target, error, size) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def _write_error(target: Path, error: OSError, size: int | None) -> WriteError:
    if error.errno in _FULL:
        with suppress(OSError):
            free = f", {shutil.disk_usage(target.parent).free} free"
            needed = f"{size} bytes needed{free}" if size is not None else f"more than the bytes left{free}"
            return WriteError(f"{target}: the disk is full ({needed}); free some space or write elsewhere")
        return WriteError(f"{target}: the disk is full; free some space or write elsewhere")
    return WriteError(f"{target}: cannot be written: {error.strerror or error}")
