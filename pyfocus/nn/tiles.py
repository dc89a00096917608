"""A network over tiles (:mod:`pyfocus.tiles`): its state held for the whole frame, smaller tiles when memory ends."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from .. import _C
from ..errors import ResourceError
from ..framestore import Pages, half_of_memory
from ..networks import AT_ONCE, Runtime
from ..tiles import Box, Size, whole
from ..tilework import SMALLEST_TILE_PX, TileRuns

CPU = torch.device("cpu")


@contextmanager
def quietly(threads: int) -> Iterator[None]:
    """Without gradients, and with so many threads of torch (0: as many as the kernels have); both are set back."""
    before = torch.get_num_threads()
    wanted = threads or _C.threads()
    try:
        torch.set_num_threads(wanted)
        with torch.no_grad():
            yield
    finally:
        torch.set_num_threads(before)


# --- where the work is done --------------------------------------------


def torch_device(device: str) -> torch.device:
    """``cpu``, ``cuda``, ``cuda:1``, or ``auto``: a card if torch has one. Raises ResourceError when it has not."""
    there = torch.cuda.is_available()
    if device == "auto":
        return torch.device("cuda", 0) if there else CPU
    place = torch.device(device)
    if place.type != "cuda":
        return place
    if not there or (place.index or 0) >= torch.cuda.device_count():
        raise ResourceError(
            f"networks: torch {torch.__version__} sees no device {device}; install a torch with CUDA and a driver for "
            "it, or work on the CPU (device='cpu', --device cpu)"
        )
    return torch.device("cuda", place.index or 0)


def runtime_of(device: torch.device) -> Runtime:
    """What runs networks there."""
    return Runtime("torch", str(torch.__version__), str(device))


def tiles_at_once(wanted: int | None, device: torch.device) -> int:
    """How many tiles of one shape go through together: as wanted, or what suits the device."""
    return (1 if device == CPU else AT_ONCE) if wanted is None else wanted


class Tiler(TileRuns):
    """Runs a network tile by tile on one device.

    When memory there ends, tiles are halved, down to 64 pixels; then the CPU takes over, with one RuntimeWarning. What
    was halved stays so for the tiles to come. On a card the next tiles are gathered meanwhile; on the CPU, whose every
    thread is torch's, they are not.
    """

    def __init__(self, net: nn.Module, device: torch.device, tile_px: int, at_once: int = 1) -> None:
        super().__init__(tile_px, at_once=at_once, ahead=device != CPU)
        self.net, self.device = net, device
        self._wanted_px = tile_px
        self._settled = False

    def _prepare(self) -> None:
        if not self._settled:
            self.net.eval().to(self.device)
            self._settled = True

    def _shortage(self, error: Exception) -> str:
        return (str(error).splitlines() or ["out of memory"])[0] if _is_out_of_memory(error) else ""

    def _retreat(self, text: str, count: int) -> None:
        """Fewer tiles, half the tile, or the CPU."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if self._settled and (count > 1 or self.tile_px > SMALLEST_TILE_PX):
            super()._retreat(text, count)
            return
        name = type(self.net).__name__
        if self.device == CPU:
            raise ResourceError(
                f"{name}: tiles of {self.tile_px} px do not fit into memory: {text}; close other programs"
            )
        warnings.warn(
            f"{name}: {self.device} has no memory left for tiles of {self.tile_px} px; the work goes on on the CPU",
            RuntimeWarning,
            stacklevel=2,
        )
        self.device, self.tile_px, self.at_once, self._settled = CPU, self._wanted_px, 1, False


def _is_out_of_memory(error: Exception) -> bool:
    """Cards have a type for it, the CPU's allocator only words."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


# --- a state for the whole frame ---------------------------------------


class FrameState:
    """What a folding network remembers, for the whole frame: maps of which tiles are read and written, and the rest.

    ``init_state(batch, height, width)`` gives it for any size in multiples of ``step``: tensors in tuples, lists or
    dicts. Those that grow with the frame are maps (1, c, H / s, W / s); all else is the same for every tile.

    Maps lie on the device when half of its free memory holds them; else in this machine's up to ``memory`` bytes (None:
    half of it), else in one temporary file.
    """

    def __init__(
        self, net: Any, size: Size, step: int, device: torch.device, memory: int | None, folder: Any = None
    ) -> None:
        self._size = size
        small, large = (list(leaves(net.init_state(1, k * step, k * step))) for k in (1, 2))
        self._strides = [_stride(a, b, step) for a, b in zip(small, large, strict=True)]
        self._tree = net.init_state(1, step, step)
        self._pages: Pages | None = None
        shapes = [(leaf, s) for leaf, s in zip(small, self._strides, strict=True) if s]
        self.bytes = sum(a.shape[1] * a.element_size() * (size[0] // s) * (size[1] // s) for a, s in shapes)
        on_device = device.type == "cuda" and self.bytes <= torch.cuda.mem_get_info(device)[0] // 2
        self.home = device if on_device else CPU
        if self.home == CPU and self.bytes > (half_of_memory() if memory is None else memory):
            self._pages = Pages(folder)
        self._leaves = [self._take(leaf, s) if s else leaf for leaf, s in zip(small, self._strides, strict=True)]
        self._fill(net, step)

    @property
    def in_file(self) -> bool:
        """True when the maps lie in a temporary file."""
        return self._pages is not None

    def read(self, boxes: list[Box], device: torch.device) -> Any:
        """The state of parts of the frame of one size, a batch as the network takes it."""

        def part(leaf: Any, s: int) -> Any:
            if s:
                read = [_part(leaf, box.within(whole(self._size), s)).to(device) for box in boxes]
                return torch.cat(read) if len(read) > 1 else read[0].contiguous()
            there = moved(leaf, device)
            return there.repeat(len(boxes), *[1] * (there.dim() - 1)) if _is_batch(there) and len(boxes) > 1 else there

        parts = [part(leaf, s) for leaf, s in zip(self._leaves, self._strides, strict=True)]
        if self._pages:
            self._pages.release()
        return rebuilt(self._tree, iter(parts))

    def cores(self, state: Any, cores: list[Box], windows: list[Box]) -> list[list[Any]]:
        """Of a state of ``windows``, what lies in each one's core, on its way to where the maps are."""

        def part(leaf: Any, s: int, k: int) -> Any:
            if s:
                return _part(leaf[k : k + 1], cores[k].within(windows[k], s)).to(self.home, copy=True)
            return moved(leaf[:1] if _is_batch(leaf) else leaf, self.home)

        flat = list(zip(leaves(state), self._strides, strict=True))
        return [[part(leaf, s, k) for leaf, s in flat] for k in range(len(cores))]

    def write(self, done: Sequence[tuple[Box, list[Any]]]) -> None:
        """Put maps of parts of the frame in their places."""
        for box, parts in done:
            for leaf, part, s in zip(self._leaves, parts, self._strides, strict=True):
                if s:
                    _part(leaf, box.within(whole(self._size), s)).copy_(part)
        if self._pages:
            self._pages.release()

    def turn(self, parts: list[Any]) -> None:
        """A step is over: take over what is no map from any tile's ``cores``."""
        self._leaves = [leaf if s else part for leaf, part, s in zip(self._leaves, parts, self._strides, strict=True)]

    def arrays(self) -> Iterator[npt.NDArray[Any]]:
        """All of it, as arrays of this machine's memory: views of maps that lie there."""
        for leaf in self._leaves:
            yield leaf.cpu().numpy() if isinstance(leaf, Tensor) else np.asarray(leaf)

    def restore(self, arrays: Iterator[npt.NDArray[Any]]) -> None:
        """Take all of it from what ``arrays`` gave."""
        for k, (leaf, array) in enumerate(zip(self._leaves, arrays, strict=True)):
            if isinstance(leaf, Tensor):
                leaf.copy_(torch.from_numpy(array))
            else:
                self._leaves[k] = type(leaf)(array.item())
        if self._pages:
            self._pages.release()

    def close(self) -> None:
        """Give the memory away."""
        self._leaves.clear()
        if self._pages:
            self._pages.close()

    def _take(self, leaf: Tensor, stride: int) -> Tensor:
        shape = (1, leaf.shape[1], self._size[0] // stride, self._size[1] // stride)
        if self._pages is None:
            return torch.empty(shape, dtype=leaf.dtype, device=self.home)
        size = int(np.prod(shape)) * leaf.element_size()
        pages = self._pages.take(size, "StreamFuser: a part of the network's state")
        return torch.from_numpy(pages).view(leaf.dtype).view(shape)

    def _fill(self, net: Any, step: int) -> None:
        """The initial state, in rows of tiles."""
        for band in whole(self._size).cut(8 * step, self._size[1]):
            self.write([(band, self.cores(net.init_state(1, *band.size), [band], [band])[0])])


def leaves(tree: Any) -> Iterator[Any]:
    """What tuples, lists and dicts hold, in their order."""
    if isinstance(tree, dict | tuple | list):
        for entry in tree.values() if isinstance(tree, dict) else tree:
            yield from leaves(entry)
    else:
        yield tree


def rebuilt(tree: Any, parts: Iterator[Any]) -> Any:
    """A tree like ``tree`` with these leaves."""
    if isinstance(tree, dict):
        return {key: rebuilt(entry, parts) for key, entry in tree.items()}
    if isinstance(tree, tuple | list):
        entries = [rebuilt(entry, parts) for entry in tree]
        return type(tree)(*entries) if hasattr(tree, "_fields") else type(tree)(entries)
    return next(parts)


def _stride(small: Any, large: Any, step: int) -> int:
    """Pixels of the frame per pixel of a map that was made for frames of ``step`` and twice ``step``; 0: no map."""
    if not isinstance(small, Tensor) or small.shape == large.shape:
        return 0
    return step // int(small.shape[2])


def _part(tensor: Tensor, where: tuple[slice, slice]) -> Tensor:
    return tensor[:, :, where[0], where[1]]


def _is_batch(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.dim() > 0


def moved(leaf: Any, device: torch.device) -> Any:
    """A leaf of a state on a device."""
    return leaf.to(device) if isinstance(leaf, Tensor) else leaf
