"""What this library keeps on disk, read back: arrays mapped into memory and JSON. Nothing in them is ever executed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ..burst import Array
from ..errors import ReadError


def map_array(path: Path, remedy: str) -> Array:
    """The array of an .npy file, any shape and dtype, mapped and not read.

    Raises ReadError where it is not there, damaged or cut short; ``remedy`` ends its text.
    """
    try:
        found: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise ReadError(f"{path}: cannot be read: {error.strerror or error}; {remedy}") from error
    except (ValueError, EOFError) as error:
        raise ReadError(f"{path}: is damaged or cut short ({error}); {remedy}") from error
    return found


def load_json(path: Path) -> Any:
    """What a JSON file holds. Raises ReadError where it is not there or is no JSON."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise ReadError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ReadError(f"{path}: is damaged: {error}") from error
