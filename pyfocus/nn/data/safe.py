"""torch's files as data: numbers, texts, lists, tensors and NumPy arrays, and nothing that could run."""

from __future__ import annotations

import _codecs
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...burst import Array
from ...errors import ReadError

try:
    from numpy._core.multiarray import _reconstruct
except ImportError:  # NumPy 1
    from numpy.core.multiarray import _reconstruct  # type: ignore[no-redef]

# What an array is put together from in a pickle, by the names that NumPy 1 and 2 have for it. An array of objects needs
# a type that is not among these.
_ARRAYS: list[Any] = [
    (_reconstruct, "numpy.core.multiarray._reconstruct"),
    (_reconstruct, "numpy._core.multiarray._reconstruct"),
    (np.ndarray, "numpy.ndarray"),
    (np.dtype, "numpy.dtype"),
    (_codecs.encode, "_codecs.encode"),
    *(type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "u1", "i2", "u2", "i4", "i8")),
]


def load_plain(path: Path) -> Any:
    """What ``torch.save`` wrote, on the CPU. Raises ReadError for a file that is damaged or needs more than data."""
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_ARRAYS):
            warnings.simplefilter("ignore")  # of formats that torch used to write
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ReadError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # zip, pickle, torch and Python each have their own for a damaged file
        asked = re.search(r"(?:GLOBAL|global:?|class) ([\w.]*\w)", str(error))
        if asked:
            raise ReadError(
                f"{path}: asks for {asked[1]}, and nothing but numbers, tensors and NumPy arrays is loaded from a data "
                "file; if you trust it, convert it to those yourself"
            ) from error
        raise ReadError(f"{path}: is damaged, cut short, or no file of torch's; take another copy") from error


def as_array(value: Any) -> Array:
    """A tensor, an array or a list of numbers as an array. Raises ValueError for other things."""
    array = value.detach().numpy() if isinstance(value, Tensor) else np.asarray(value)
    if array.dtype.kind not in "fiu" or (array.dtype.kind == "f" and not np.isfinite(array).all()):
        raise ValueError(f"it holds {array.dtype} where finite numbers belong")
    return array
