"""Engines that were built before, by what they were built of: the same question is answered by a copy.

They lie in ``~/.cache/pyfocus/engines``, or in ``engines`` under ``PYFOCUS_CACHE``. Whatever is wrong there, a folder
that cannot be written or a damaged file, only means that an engine is built.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import PyfocusError
from ..io.atomic import atomic
from .engine_file import SUFFIX, hash_bytes

LIMIT_BYTES = 4_000_000_000  # of all engines; those not used for longest go first


def cache_folder() -> Path:
    """Where engines are kept."""
    root = os.environ.get("PYFOCUS_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "pyfocus"
    return Path(root).expanduser() / "engines"


def key_of(question: Mapping[str, Any]) -> str:
    """The name of an engine's file: SHA-256 of everything that decides what is built."""
    return hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()


def cached(key: str) -> bytes | None:
    """The engine of that key, or None. One whose bytes are not those that were kept is taken away."""
    file = cache_folder() / f"{key}{SUFFIX}"
    with suppress(OSError):
        digest, data = file.with_suffix(".sha256").read_text(encoding="utf-8").strip(), file.read_bytes()
        if hash_bytes(data) == digest:
            os.utime(file)
            return data
        file.unlink()
    return None


def keep(key: str, data: bytes) -> bool:
    """Keep an engine; False where that is not possible."""
    file = cache_folder() / f"{key}{SUFFIX}"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic(file, overwrite=True) as target:
            target.write(data)
        with atomic(file.with_suffix(".sha256"), overwrite=True) as target:
            target.write(hash_bytes(data).encode())
        _trim(file)
    except (OSError, PyfocusError):
        return False
    return True


def _trim(newest: Path) -> None:
    """Take engines away until the rest is small enough; never the newest."""
    files = sorted(newest.parent.glob(f"*{SUFFIX}"), key=lambda file: file.stat().st_mtime)
    total = sum(file.stat().st_size for file in files)
    for file in files:
        if total <= LIMIT_BYTES:
            return
        if file != newest:
            total -= file.stat().st_size
            file.unlink()
            file.with_suffix(".sha256").unlink(missing_ok=True)
