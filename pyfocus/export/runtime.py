"""A session of ONNX Runtime: opened, placed and asked for its metadata, with its errors as ours."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
from ..arrays import HOST, AnyArray, Arrays, DeviceArrays
from ..errors import ReadError, ResourceError
from ..networks import Runtime
from .binding import run_bound
from .facts import Facts, read_facts

Array = npt.NDArray[Any]
CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
LARGEST_BATCH = 8192  # what graphs are exported with
_NO_MEMORY = ("bad_alloc", "out of memory", "failed to allocate", "bfc_arena", "cudaerrormemoryallocation")


class Session:
    """An exported file in ONNX Runtime: its ``facts``, the ``runtime`` that runs it, and ``run``.

    ``device``: "cpu", "cuda", "cuda:1", or "auto": a card if the runtime has one that works; ``fell_back`` says why
    there is none where one was to be expected. ``threads``: 0 for as many as the kernels have. ``arrays``: where the
    arrays of ``run_bound`` lie. Raises ReadError for a file that is no model of ours, ResourceError for a device that
    is not there.
    """

    most_at_once = LARGEST_BATCH

    def __init__(self, path: str | os.PathLike[str], device: str = "cpu", threads: int = 0) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise ReadError(f"{self.path}: there is no such file; name what pyfocus-export onnx wrote")
        self._session, self.fell_back = _open(self.path, threads, device)
        self.provider: str = self._session.get_providers()[0]
        self.runtime = Runtime("ONNX Runtime", onnxruntime.__version__, self.provider)
        self.facts: Facts = read_facts(self.path, self._session.get_modelmeta().custom_metadata_map)
        takes = tuple(value.name for value in self._session.get_inputs())
        if takes != self.facts.inputs:
            raise ReadError(f"{self.path}: takes {', '.join(takes)}, its metadata says {', '.join(self.facts.inputs)}")
        self.arrays: Arrays = HOST
        if self.provider == CUDA and _C.device_count() > 0:
            self.arrays = DeviceArrays(_number(device))

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        """All outputs. Raises ResourceError when the runtime fails, MemoryError when memory ends."""
        with self._said():
            outputs: Sequence[Array] = self._session.run(None, dict(inputs))
        return list(outputs)

    def run_bound(self, inputs: Mapping[str, AnyArray], outputs: Mapping[str, AnyArray]) -> None:
        """Run over arrays of ``arrays``, float32 in C order, into ``outputs``. Raises as ``run`` does."""
        self.arrays.wait()
        with self._said():
            run_bound(self._session, inputs, outputs)

    @contextlib.contextmanager
    def _said(self) -> Any:
        """The runtime's own kinds of errors, which say in words what happened, as ours."""
        try:
            yield
        except Exception as error:
            text = _first_line(error)
            said = f"{self.path}: ONNX Runtime {onnxruntime.__version__} failed on {self.provider}: {text[:300]}"
            if isinstance(error, MemoryError) or any(words in str(error).lower() for words in _NO_MEMORY):
                raise MemoryError(said) from error
            raise ResourceError(f"{said}; try smaller tiles (tile_px) or another device") from error


def _open(path: Path, threads: int, device: str) -> tuple[Any, str]:
    """The session, and why it is not on a card where one was to be expected."""
    kind = device.partition(":")[0]
    version = f"ONNX Runtime {onnxruntime.__version__}"
    session, why = None, ""
    if kind in ("cuda", "auto"):
        session, why = _on_card(path, threads, _number(device))
        if kind == "auto" and CUDA not in onnxruntime.get_available_providers() and _C.device_count() == 0:
            why = ""  # no card, and nobody asked for one
    if kind == "cuda" and session is None:
        raise ResourceError(f"{path}: {why}, or work on the CPU (device='cpu', --device cpu)")
    if session is None:
        try:
            session = _session(path, threads, [CPU])
        except Exception as error:
            if "pyfocus:DeformConv2d" in str(error):
                raise ReadError(
                    f"{path}: has a node of the TensorRT plugin, which ONNX Runtime does not know; build an engine "
                    "(pyfocus-export tensorrt, rtx), or export with --variant standard"
                ) from error
            older = "; 1.25 and newer know DeformConv, or take --variant gridsample"
            raise ReadError(
                f"{path}: {version} cannot read it ({path.stat().st_size} bytes): it is cut short, damaged or no ONNX "
                f"model: {_first_line(error)[:200]}{older if 'NOT_IMPLEMENTED' in str(error) else ''}"
            ) from error
    return session, why


def _on_card(path: Path, threads: int, number: int) -> tuple[Any, str]:
    """A session that really is on the card, or None and why not: nothing, where no card was to be expected."""
    if CUDA not in onnxruntime.get_available_providers():
        return None, "this ONNX Runtime has no CUDA; pip uninstall onnxruntime and pip install 'pyfocus-stack[gpu]'"
    # Exact sums, as torch's on the CPU; and no search for the fastest kernel at every new size of a tile.
    card = (CUDA, {"device_id": str(number), "use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"})
    said = ""
    try:
        if hasattr(onnxruntime, "preload_dlls"):
            with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find
                onnxruntime.preload_dlls()
        session = _session(path, threads, [card, CPU])
        if session.get_providers()[0] == CUDA:  # it falls back in silence
            return session, ""
    except Exception as error:
        said = f" ({_first_line(error)[:200]})"
    return None, (
        f"ONNX Runtime {onnxruntime.__version__} could not start on cuda:{number}{said}; see that driver, CUDA and "
        "cuDNN fit it"
    )


def _session(path: Path, threads: int, providers: list[Any]) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or _C.threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # it writes past Python; what matters is raised
    # Its threads wait busily within a run, which is 6 % faster, and not beside our own threads between runs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    # Without its own way of falling back, which prints.
    return onnxruntime.InferenceSession(str(path), options, providers=providers, enable_fallback=0)


def _number(device: str) -> int:
    return int(device.partition(":")[2] or 0)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
