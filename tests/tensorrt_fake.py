"""A TensorRT that needs no card, for tests: the calls that the package makes, over ONNX Runtime in the host's memory.

Copied as ``tensorrt.py`` to a folder on ``sys.path``, so that the process that builds finds it, too. An "engine" is a
line of JSON, what the builder was told, and the ONNX file. ``FAKE_TENSORRT`` makes it misbehave: "abort", "junk"
(writes to standard output and crashes at exit), "nothing" (builds nothing), "slow" (takes a minute), "raise", "no
context", "no run".
"""

from __future__ import annotations

import atexit
import ctypes
import enum
import json
import os
import time
from types import SimpleNamespace
from typing import Any

import numpy as np

__version__ = "10.9.0.34"
MAGIC = b"ftrt"
float32, float16 = "float32", "float16"


class ILogger:
    Severity = enum.Enum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO"])

    def __init__(self) -> None: ...


class IProgressMonitor:
    def __init__(self) -> None: ...


class NetworkDefinitionCreationFlag(enum.IntEnum):
    EXPLICIT_BATCH = 0
    STRONGLY_TYPED = 1


BuilderFlag = enum.Enum("BuilderFlag", ["TF32", "FP16"])
MemoryPoolType = enum.Enum("MemoryPoolType", ["WORKSPACE"])
TensorIOMode = enum.Enum("TensorIOMode", ["INPUT", "OUTPUT"])


def init_libnvinfer_plugins(log: Any, namespace: str) -> bool:
    return True


class Builder:
    def __init__(self, log: Any) -> None:
        self.log = log

    def create_network(self, flags: int) -> Any:
        return SimpleNamespace(flags=flags, data=b"", num_inputs=0, get_input=None)

    def create_builder_config(self) -> Any:
        return Config()

    def create_optimization_profile(self) -> Any:
        return Profile()

    def build_serialized_network(self, network: Any, config: Any) -> bytes | None:
        how = os.environ.get("FAKE_TENSORRT", "")
        config.progress_monitor.phase_start("Building", None, 3)
        for step in range(3):
            config.progress_monitor.step_complete("Building", step)
        if how == "abort":
            os.write(2, b"terminate called without an active exception\n")
            os.abort()
        if how == "raise":
            raise RuntimeError("an error\nof two lines")
        if how == "slow":
            os.write(1, b"asleep\n")
            time.sleep(60)
        if how == "junk":
            os.write(1, b"Hello, I am a library \xff\n")
            atexit.register(os.abort)
        if how == "nothing":
            self.log.log(ILogger.Severity.ERROR, "[no.cpp::tactic::1] could not find\nany implementation")
            return None
        config.cache.measured += b"+"
        told = {
            "flags": network.flags, "profile": config.profile.shapes, "cleared": config.cleared, "pools": config.pools,
            "version": __version__,
        }  # fmt: skip
        return MAGIC + json.dumps(told).encode() + b"\n" + network.data


class Profile:
    def __init__(self) -> None:
        self.shapes: dict[str, Any] = {}

    def set_shape(self, name: str, least: Any, usual: Any, most: Any) -> None:
        self.shapes[name] = [least, usual, most]


class Config:
    def __init__(self) -> None:
        self.cleared: list[str] = []
        self.pools: dict[str, int] = {}
        self.cache = self.create_timing_cache(b"")

    def add_optimization_profile(self, profile: Profile) -> int:
        self.profile = profile
        return 0

    def clear_flag(self, flag: Any) -> None:
        self.cleared.append(flag.name)

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        self.pools[pool.name] = size

    def create_timing_cache(self, data: bytes) -> Any:
        cache = SimpleNamespace(measured=data)
        cache.serialize = lambda: cache.measured
        return cache

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        self.cache = cache
        return not cache.measured.startswith(b"other card")

    def get_timing_cache(self) -> Any:
        return self.cache


class OnnxParser:
    def __init__(self, network: Any, log: Any) -> None:
        self.network, self.num_errors = network, 0

    def parse(self, data: bytes) -> bool:
        import onnx

        graph = onnx.load_from_string(data).graph
        names = [value.name for value in graph.input]
        self.network.data, self.network.num_inputs = data, len(names)
        self.network.get_input = lambda k: SimpleNamespace(name=names[k])
        self.num_errors = sum(node.op_type == "Exp" for node in graph.node) if os.environ.get("FAKE_NO_EXP") else 0
        return self.num_errors == 0

    def get_error(self, k: int) -> Any:
        return SimpleNamespace(desc=lambda: "not\nsupported", node_name=lambda: "exp_1", node_operator=lambda: "Exp")


class Runtime:
    def __init__(self, log: Any) -> None:
        self.log = log

    def deserialize_cuda_engine(self, data: bytes) -> Any:
        if not data.startswith(MAGIC):
            self.log.log(ILogger.Severity.ERROR, "magicTag does not match")
            return None
        return Engine(data.partition(b"\n")[2])


class Engine:
    def __init__(self, data: bytes) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        self.inputs = [value.name for value in self.session.get_inputs()]
        self.outputs = [value.name for value in self.session.get_outputs()][::-1]  # an order that nobody promised
        self.num_io_tensors = len(self.inputs) + len(self.outputs)

    def get_tensor_name(self, k: int) -> str:
        return [*self.inputs, *self.outputs][k]

    def get_tensor_mode(self, name: str) -> Any:
        return TensorIOMode.INPUT if name in self.inputs else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> str:
        return float32

    def create_execution_context(self) -> Any:
        return None if os.environ.get("FAKE_TENSORRT") == "no context" else Context(self)


class Context:
    """Addresses are those of the emulated device, which is the host's memory."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.shapes, self.addresses = engine, dict[str, Any](), dict[str, int]()

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        return name in self.engine.inputs

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return address != 0

    def infer_shapes(self) -> list[str]:
        zeros = {name: np.zeros(self.shapes[name], np.float32) for name in self.engine.inputs}
        results = self.engine.session.run(self.engine.outputs, zeros)
        self.shapes |= {name: value.shape for name, value in zip(self.engine.outputs, results, strict=True)}
        return []

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shapes[name]

    def execute_async_v3(self, stream: int) -> bool:
        if os.environ.get("FAKE_TENSORRT") == "no run":
            return False
        results = self.engine.session.run(self.engine.outputs, {name: self._array(name) for name in self.engine.inputs})
        for name, value in zip(self.engine.outputs, results, strict=True):
            self._array(name)[...] = value
        return True

    def _array(self, name: str) -> np.ndarray:
        count = int(np.prod(self.shapes[name]))
        memory = (ctypes.c_float * count).from_address(self.addresses[name])
        return np.frombuffer(memory, np.float32).reshape(self.shapes[name])
