"""Where arrays live: in the host's memory (NumPy) or on a CUDA device. Stages that take an ``Arrays`` run on either.

What a stage needs of it is little: new arrays, a stream to hand to the kernels, and a way to and from the host.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from . import _C
from .errors import ArgumentError, ResourceError

#: A NumPy array or a ``_C.DeviceArray``: kernels take both, by where they lie.
AnyArray = Any
Shape = tuple[int, ...]


class Arrays:
    """Arrays in the host's memory. ``stream`` is what kernels take as ``stream=`` (nothing, on the host)."""

    is_device = False
    stream = 0
    name = "cpu"

    def empty(self, shape: Shape, dtype: npt.DTypeLike = np.float32, *, mapped: bool = False) -> AnyArray:
        """An uninitialised array. ``mapped``: in the host's memory, also where kernels run on a device."""
        return np.empty(shape, dtype)

    def zeros(self, shape: Shape, dtype: npt.DTypeLike = np.float32, *, mapped: bool = False) -> AnyArray:
        """An array of zeros, ``mapped`` as for ``empty``."""
        return np.zeros(shape, dtype)

    def kept(self, name: str, shape: Shape, dtype: npt.DTypeLike = np.float32) -> AnyArray:
        """An uninitialised array; a device gives the same one for the same ``name`` again, to one thread at a time."""
        return self.empty(shape, dtype)

    def upload(self, array: npt.NDArray[Any]) -> AnyArray:
        """The same values here; on the host the very array."""
        return array

    def constant(self, array: npt.NDArray[Any]) -> AnyArray:
        """Like upload, for tables that stay: a device keeps the copy and gives it again."""
        return array

    def to_host(self, array: AnyArray) -> npt.NDArray[Any]:
        """The values as a NumPy array; waits for the work that makes them."""
        return np.asarray(array)

    def wait(self) -> None:
        """Until all work given so far is done."""

    def shortage(self) -> str:
        """In words, that what lies here and in mapped memory is too much for the device."""
        return "there is no device"


class DeviceArrays(Arrays):
    """Arrays on CUDA device ``device``, and a stream of its own on which their kernels run.

    ``limit``: bytes of device memory that may be in use here, or None. Raises ResourceError past it, when the device's
    memory is full, and when there is no such device. ``mapped`` arrays lie in page-locked memory of the host, which the
    kernels reach over the bus at a twentieth of the speed or less; they count neither to the limit nor to the device.
    """

    is_device = True

    def __init__(self, device: int = 0, limit: int | None = None) -> None:
        count = _C.device_count()
        if device >= count:
            why = _C.device_reason() or f"there are {count}"
            raise ResourceError(f"DeviceArrays: no CUDA device {device}: {why}")
        self.device, self.name, self.limit = device, f"cuda:{device}", limit
        self.queue = _C.Stream(device)
        self.stream = self.queue.handle
        self._constants: dict[int, tuple[npt.NDArray[Any], AnyArray]] = {}
        self._kept: dict[str, AnyArray] = {}

    @property
    def room(self) -> int:
        """Bytes of device memory that may be in use here: what is and what is free, or the limit."""
        most = _C.device_in_use() + int(_C.device_facts(self.device)["memory_free"])
        return most if self.limit is None else min(most, self.limit)

    def shortage(self) -> str:
        """In words, that what lies here and in mapped memory is too much for the device."""
        wanted, room = _C.device_in_use() + _C.mapped_in_use(), self.room
        return f"{wanted / 1e9:.3g} GB do not fit in {room / 1e9:.3g} GB of device memory"

    def empty(self, shape: Shape, dtype: npt.DTypeLike = np.float32, *, mapped: bool = False) -> AnyArray:
        """An uninitialised array. Raises ResourceError when there is no room."""
        kind = np.dtype(dtype)
        if self.limit is not None and not mapped:
            wanted, used = int(np.prod(shape, dtype=np.int64)) * kind.itemsize, _C.device_in_use()
            if used + wanted > self.limit:
                raise ResourceError(
                    f"DeviceArrays.empty: {wanted / 1e6:.0f} MB wanted, {used / 1e6:.0f} of the allowed "
                    f"{self.limit / 1e6:.0f} MB of {self.name} are in use; allow more, or work on the CPU"
                )
        return _C.DeviceArray(list(shape), str(kind), self.device, mapped)

    def zeros(self, shape: Shape, dtype: npt.DTypeLike = np.float32, *, mapped: bool = False) -> AnyArray:
        """An array of zeros."""
        array = self.empty(shape, dtype, mapped=mapped)
        _C.device_fill(array, 0, stream=self.stream)
        return array

    def kept(self, name: str, shape: Shape, dtype: npt.DTypeLike = np.float32) -> AnyArray:
        """An uninitialised array, made when there is none of that name, shape and dtype yet."""
        array = self._kept.get(name)
        if array is None or array.shape != tuple(shape) or array.dtype != str(np.dtype(dtype)):
            array = self._kept[name] = self.empty(shape, dtype)
        return array

    def upload(self, array: npt.NDArray[Any]) -> AnyArray:
        """A copy on the device, in stream order."""
        there = self.empty(array.shape, array.dtype)
        _C.device_copy(there, np.ascontiguousarray(array), stream=self.stream)
        return there

    def constant(self, array: npt.NDArray[Any]) -> AnyArray:
        """A copy on the device that is made once per array."""
        kept = self._constants.get(id(array))
        if kept is None:
            kept = self._constants[id(array)] = (
                array,
                self.upload(array),
            )  # the array too, so that its id stays its own
        return kept[1]

    def to_host(self, array: AnyArray) -> npt.NDArray[Any]:
        """The values as a NumPy array; waits for this stream's work."""
        here = np.empty(array.shape, array.dtype)
        if array.mapped:
            self.wait()  # a copy within the host's memory need not be in stream order
        _C.device_copy(here, array, stream=self.stream)
        self.wait()
        return here

    def wait(self) -> None:
        """Until all work given to this stream is done."""
        self.queue.synchronize()


HOST = Arrays()


def arrays_of(device: str | Arrays, limit: int | None = None) -> Arrays:
    """``"cpu"``, ``"cuda"``, ``"cuda:1"``, or ``"auto"``: the first CUDA device if there is one, else the host.

    Arrays are given back as they are. Raises ArgumentError for another word, ResourceError for a device that is not
    there.
    """
    if isinstance(device, Arrays):
        return device
    if device == "auto":
        return DeviceArrays(0, limit) if _C.device_count() > 0 else HOST
    if device == "cpu":
        return HOST
    head, _, number = device.partition(":")
    if head != "cuda" or (number and not number.isdigit()) or device.endswith(":"):
        raise ArgumentError(f"device must be auto, cpu, cuda or cuda:N, got {device!r}")
    return DeviceArrays(int(number or 0), limit)
