"""A session of ONNX Runtime: opened, placed and asked for its metadata, with its errors as ours."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

try:
    import onnxruntime
except ModuleNotFoundError as missing:
    if missing.name != "onnxruntime":
        raise
    raise ModuleNotFoundError(
        "pyfocus.export needs ONNX Runtime, which is not installed: pip install 'pyfocus-stack[onnx]', or "
        "'pyfocus-stack[gpu]' with an NVIDIA card",
        name="onnxruntime",
    ) from None

from .. import _C
from ..errors import ReadError, ResourceError
from .facts import Facts, read_facts

Array = npt.NDArray[Any]


class Session:
    """An exported file in ONNX Runtime: its ``facts``, the ``provider`` that runs it, and ``run``.

    ``device``: "cpu", "cuda", "cuda:1", or "auto": a card if the runtime has one that works. ``threads``: 0 for as many
    as the kernels have. Raises ReadError for a file that is no model of ours, ResourceError for a device that is not
    there.
    """

    def __init__(self, path: str | os.PathLike[str], device: str = "cpu", threads: int = 0) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise ReadError(f"{self.path}: there is no such file; name what pyfocus-export onnx wrote")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or _C.threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # it writes past Python; what matters is raised
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # beside our own threads
        self._session = _open(self.path, options, device)
        self.provider: str = self._session.get_providers()[0]
        self.facts: Facts = read_facts(self.path, self._session.get_modelmeta().custom_metadata_map)
        takes = tuple(value.name for value in self._session.get_inputs())
        if takes != self.facts.inputs:
            raise ReadError(f"{self.path}: takes {', '.join(takes)}, its metadata says {', '.join(self.facts.inputs)}")

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        """All outputs. Raises ResourceError when memory ends."""
        try:
            outputs: Sequence[Array] = self._session.run(None, dict(inputs))
        except Exception as error:  # the runtime's own kinds, which say in words what happened
            text = (str(error).splitlines() or [type(error).__name__])[0]
            raise ResourceError(
                f"{self.path}: ONNX Runtime {onnxruntime.__version__} failed on {self.provider}: {text[:300]}; try "
                "smaller tiles (tile_px) or another device"
            ) from error
        return list(outputs)


def _open(path: Path, options: Any, device: str) -> Any:
    kind, _, number = device.partition(":")
    card = ("CUDAExecutionProvider", {"device_id": number or "0"})
    there = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    if kind == "cuda" and not there:
        raise ResourceError(
            f"{path}: this ONNX Runtime has no CUDA; pip uninstall onnxruntime and pip install 'pyfocus-stack[gpu]', "
            "or work on the CPU (device='cpu', --device cpu)"
        )
    wanted: list[Any] = [card] if there and kind in ("cuda", "auto") else []
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=[*wanted, "CPUExecutionProvider"])
    except Exception as error:
        text = (str(error).splitlines() or [type(error).__name__])[0]
        older = "; 1.25 and newer know DeformConv, or take --variant gridsample" if "NOT_IMPLEMENTED" in text else ""
        raise ReadError(
            f"{path}: ONNX Runtime {onnxruntime.__version__} cannot read it ({path.stat().st_size} bytes): it is cut "
            f"short, damaged or no ONNX model: {text[:200]}{older}"
        ) from error
    if kind == "cuda" and session.get_providers()[0] != card[0]:  # it falls back in silence
        raise ResourceError(
            f"{path}: ONNX Runtime {onnxruntime.__version__} could not start on {device}; see that driver, CUDA and "
            "cuDNN fit it, or work on the CPU (device='cpu', --device cpu)"
        )
    return session


def as_input(values: Array) -> Array:
    """(1, ...) float32 in C order."""
    return np.ascontiguousarray(values, np.float32)[None]
