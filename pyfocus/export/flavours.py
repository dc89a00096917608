"""TensorRT and TensorRT-RTX: where each comes from, what it asks of the machine, and whether that is there.

Nothing here makes a TensorRT object that wants a driver: without one, TensorRT ends the process instead of raising.
"""

from __future__ import annotations

import ctypes
import importlib
from dataclasses import dataclass
from functools import cache
from typing import Any

from .. import _C
from ..errors import ArgumentError, ResourceError

# What TensorRT-RTX builds for when nobody says otherwise, and everything from this one on.
RTX_CAPABILITIES = ("8.0", "8.6", "8.9")
RTX_FROM = (12, 0)
LAST_WORDS = 3  # of a library's errors, in one text


@dataclass(frozen=True)
class Flavour:
    """``name`` in files, ``title`` in texts, the Python ``module``, the ``extra`` that installs it, and our command."""

    name: str
    title: str
    module: str
    extra: str
    command: str
    builds_without_card: bool


TENSORRT = Flavour("tensorrt", "TensorRT", "tensorrt", "tensorrt", "tensorrt", False)
RTX = Flavour("tensorrt-rtx", "TensorRT-RTX", "tensorrt_rtx", "rtx", "rtx", True)
FLAVOURS = {flavour.name: flavour for flavour in (TENSORRT, RTX)}


@dataclass(frozen=True)
class Card:
    """A CUDA device: its name, and its compute capability as in "8.9"."""

    name: str
    capability: str

    def __str__(self) -> str:
        return f"{self.name} ({self.capability})"


def flavour_named(name: str) -> Flavour:
    """Raises ArgumentError for another name."""
    if name not in FLAVOURS:
        raise ArgumentError(f"flavour must be one of {', '.join(FLAVOURS)}, got {name!r}")
    return FLAVOURS[name]


def load_module(flavour: Flavour) -> Any:
    """The Python module of TensorRT. Raises ResourceError when it is not installed, or cannot be loaded."""
    where = " --extra-index-url https://pypi.nvidia.com" if flavour is TENSORRT else ""
    install = f"pip install 'pyfocus-stack[{flavour.extra}]'{where}"
    try:
        module = importlib.import_module(flavour.module)
    except (ImportError, OSError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name == flavour.module:
            raise ResourceError(f"{flavour.title} is not installed: {install}") from None
        # its own parts or libraries, or CUDA's
        raise ResourceError(f"{flavour.title} cannot be loaded ({_line(error)}); install it whole: {install}") from None
    if not hasattr(module, "Builder"):  # an empty package of that name, as broken installs leave it
        raise ResourceError(f"{flavour.title} is not whole: its module has no Builder; install it again: {install}")
    return module


def logger(module: Any) -> Any:
    """A logger for TensorRT that keeps what it calls errors: ``last_words()`` is the end of them, on one line."""

    class Log(module.ILogger):
        def __init__(self) -> None:
            module.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, text: str) -> None:
            kinds = module.ILogger.Severity
            if severity in (kinds.ERROR, kinds.INTERNAL_ERROR):
                self.errors.append(" ".join(text.split()))

        def last_words(self) -> str:
            return "; ".join(self.errors[-LAST_WORDS:])[:600]

    return Log()


def card(device: int = 0) -> Card:
    """The CUDA device of that number. Raises ResourceError when there is none that works, with the reason."""
    why = driver_trouble() or (_C.device_reason() if _C.device_count() <= device else "")
    if not why and _C.device_count() <= device:
        why = f"there are {_C.device_count()}"
    if why:
        raise ResourceError(f"no CUDA device {device}: {why}")
    facts = _C.device_facts(device)
    return Card(str(facts["name"]), str(facts["compute_capability"]))


def driver_trouble() -> str:
    """Why NVIDIA's driver cannot be used; empty when it can."""
    if _C.device_archs() == "host":
        return ""  # the emulated device needs none
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "NVIDIA's driver is not installed (there is no libcuda.so.1)"
    code = int(driver.cuInit(0))
    return f"NVIDIA's driver does not start (cuInit gives {code})" if code else ""


def enter(device: int) -> None:
    """Make a device the calling thread's, for libraries that work on whatever device is current."""
    if _C.device_archs() != "host":
        _insist(ctypes.CDLL("libcuda.so.1").cuCtxSetCurrent(_context(device)), device)


@cache
def _context(device: int) -> ctypes.c_void_p:
    """The device's primary context, which the CUDA runtime uses, too."""
    driver, handle, context = ctypes.CDLL("libcuda.so.1"), ctypes.c_int(), ctypes.c_void_p()
    _insist(driver.cuDeviceGet(ctypes.byref(handle), ctypes.c_int(device)), device)
    _insist(driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), handle), device)
    return context


def _insist(code: int, device: int) -> None:
    """Raises ResourceError for any answer of the driver's but success."""
    if code:
        raise ResourceError(f"no CUDA device {device}: NVIDIA's driver refuses it (error {code})")


def runs_on(capabilities: tuple[str, ...], capability: str) -> bool:
    """Whether a TensorRT-RTX engine for these capabilities, none for the default ones, runs on a card of another."""
    if capabilities:
        return capability in capabilities
    return capability in RTX_CAPABILITIES or _number(capability) >= RTX_FROM


def _number(capability: str) -> tuple[int, int]:
    major, _, minor = capability.partition(".")
    return int(major), int(minor or 0)


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
