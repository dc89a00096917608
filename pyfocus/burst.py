"""What a burst is: frames in focus order, and the facts about them. No I/O, no arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from .errors import ArgumentError, BurstError

Array = npt.NDArray[Any]
Encoding = Literal["linear", "srgb"]


@dataclass(frozen=True)
class Meta:
    """Facts about a frame that its pixels do not carry.

    ``cfa`` is the colour of the four pixels of the top-left 2x2 block, row by row (``"RGGB"``), or None when
    the frame is already an image. ``black`` (per CFA position, row by row) and ``white`` are raw counts (DN).
    ``white_balance`` holds the R, G, B multipliers with G = 1. ``xyz_to_camera`` is the 3x3 matrix from CIE XYZ
    (D65) to linear camera RGB, row-major. ``orientation`` is the EXIF value 1..8 that is still to be applied
    (1 for images: readers turn them upright). ``encoding`` says whether image values are linear light or
    sRGB-encoded. ``exif`` maps EXIF tag names to values, for writing back. ``step_um`` and ``pixel_um`` come
    from OME or TIFF metadata.
    """

    name: str = ""
    make: str = ""
    model: str = ""
    cfa: str | None = None
    black: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    white: float = 1.0
    white_balance: tuple[float, float, float] = (1.0, 1.0, 1.0)
    xyz_to_camera: tuple[float, ...] | None = None
    orientation: int = 1
    encoding: Encoding = "srgb"
    icc: bytes | None = None
    exif: Mapping[str, Any] = field(default_factory=dict)
    pixel_um: float | None = None
    step_um: float | None = None

    @property
    def camera(self) -> str:
        """Make and model in one string, or an empty one."""
        return self.model if self.model.startswith(self.make) else f"{self.make} {self.model}".strip()


@dataclass(frozen=True)
class Frame:
    """Pixels and their facts: a mosaic ``(H, W)`` uint16 with ``meta.cfa``, or an image ``(H, W[, 3])``.

    Images are uint8, uint16 (full scale = 1.0) or float32 (1.0 = white).
    """

    data: Array
    meta: Meta = Meta()

    @property
    def is_mosaic(self) -> bool:
        """True for undeveloped sensor data."""
        return self.meta.cfa is not None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return int(self.data.shape[0]), int(self.data.shape[1])


class Burst(Sequence[Frame]):
    """Frames of one scene in focus order, read when asked for: ``burst[i]`` may open a file every time.

    ``names`` identify the frames in reports. ``read(i)`` gives frame i.
    """

    def __init__(self, names: Sequence[str], read: Callable[[int], Frame]) -> None:
        if not names:
            raise BurstError("Burst: no frames; give at least one image")
        self.names = list(names)
        self._read = read

    @classmethod
    def from_arrays(cls, frames: Sequence[Array], meta: Meta | None = None) -> Burst:
        """Burst over arrays in memory: ``(H, W)``, ``(H, W, 3)``, all of one shape and dtype."""
        for i, frame in enumerate(frames):
            check_pixels("Burst.from_arrays", frame)
            if frame.shape != frames[0].shape or frame.dtype != frames[0].dtype:
                raise BurstError(
                    f"Burst.from_arrays: frame {i} is {frame.shape} {frame.dtype}, frame 0 is "
                    f"{frames[0].shape} {frames[0].dtype}; all frames must be alike"
                )
        facts = meta or Meta()
        return cls([f"frame {i}" for i in range(len(frames))], lambda i: Frame(frames[i], facts))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Frame:  # type: ignore[override]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self._read(index % len(self))

    def chosen(self, places: Sequence[int]) -> Burst:
        """A burst of the frames at these places, in that order. Raises IndexError, or BurstError for none."""
        frames = range(len(self))
        kept = [frames[place] for place in places]
        return Burst([self.names[i] for i in kept], lambda i: self[kept[i]])

    def __iter__(self) -> Iterator[Frame]:
        return (self[i] for i in range(len(self)))


def check_pixels(function: str, data: Array) -> None:
    """Raise ArgumentError unless ``data`` is an (H, W) or (H, W, 3) uint8, uint16 or float32 array."""
    if data.ndim not in (2, 3) or (data.ndim == 3 and data.shape[2] not in (1, 3)):
        raise ArgumentError(f"{function}: frame must be (H, W) or (H, W, 3), got {data.shape}")
    if data.dtype not in (np.uint8, np.uint16, np.float32):
        raise ArgumentError(f"{function}: frame must be uint8, uint16 or float32, got {data.dtype}")
