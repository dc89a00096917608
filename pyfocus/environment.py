"""What the process's environment asks of the library; read when pyfocus is imported, never by a kernel."""

from __future__ import annotations

import os

from .errors import ArgumentError

THREADS = "PYFOCUS_THREADS"
MOST_THREADS = 1024


def threads() -> int:
    """Number of threads that ``PYFOCUS_THREADS`` asks for, 0 (all processors) when unset. Raises ArgumentError."""
    text = os.environ.get(THREADS, "").strip()
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and int(text) <= MOST_THREADS):
        raise ArgumentError(
            f"{THREADS} must be a whole number from 0 (all processors) to {MOST_THREADS}, got {text!r}; "
            "change or unset it"
        )
    return int(text)
