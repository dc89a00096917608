"""Frames as they arrive: each is brought to where the work is, placed, equalised, warped once and folded."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from .affine import Matrix, as_matrix, common_valid_rect
from .arrays import HOST, Arrays, DeviceArrays, arrays_of
from .burst import Array, Frame, Meta, check_pixels
from .develop import develop, enlarge, mosaic_of
from .equalise import Equaliser, Thumb, thumb_of
from .errors import ArgumentError, BurstError, DeviceError, RegistrationError, ResourceError
from .fuse import Average, Fused, Fuser
from .io import MIN_SIZE_PX, upright
from .laplacian import Laplacian
from .register import Motion, Registrar, Registration, luminance_of
from .staging import Slot, Staging
from .warp import Domain, Interpolation, Warper

FuserName = Literal["average", "laplacian"]
FUSERS: tuple[FuserName, ...] = ("average", "laplacian")


@dataclass(frozen=True)
class Stacked:
    """A stacked burst: the fused planes with their facts, and how it went.

    ``fused`` as the fuser gave it, cropped to ``crop`` (y0, x0, y1, x1 in reference pixels); ``meta`` of the burst;
    ``registration`` or None when not aligned; ``left_out`` names the frames that were not used; ``seconds`` per stage.
    """

    fused: Fused
    meta: Meta
    names: list[str]
    crop: tuple[int, int, int, int]
    registration: Registration | None = None
    left_out: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    threads: int = 0

    @property
    def is_mosaic(self) -> bool:
        """True when the fused planes are R, G1, G2, B of a Bayer burst, at half its size."""
        return self.meta.cfa is not None and self.fused.image.shape[0] == 4

    def image(self, bits: int = 16) -> Array:
        """The picture, sRGB-encoded, (H, W, 3) or (H, W), uint16 or uint8; mosaics are developed now."""
        return develop(self.fused.image, self.meta, bits=bits, threads=self.threads)

    def mosaic(self) -> tuple[Array, Meta]:
        """The fused mosaic (H, W) uint16 and its levels, for a DNG. Raises ArgumentError for images."""
        return mosaic_of(self.fused.image, self.meta, threads=self.threads)

    def depth(self) -> npt.NDArray[np.float32] | None:
        """Index of the sharpest frame, (H, W) float32 at the size of the picture, or None."""
        return self._map(self.fused.depth)

    def confidence(self) -> npt.NDArray[np.float32] | None:
        """How much the sharpest frame stands out, (H, W) float32 in [0, 1] at the size of the picture, or None."""
        return self._map(self.fused.confidence)

    def _map(self, plane: npt.NDArray[np.float32] | None) -> npt.NDArray[np.float32] | None:
        if plane is None or self.meta.cfa is None:
            return plane
        return upright(enlarge(plane, threads=self.threads) if self.is_mosaic else plane, self.meta.orientation)


@dataclass(frozen=True)
class Brought:
    """A frame where the work is: on a device with its thumb and its place in the staging."""

    frame: Frame
    thumb: Thumb | None = None
    slot: Slot | None = None


class Stacker:
    """Frames as they arrive: ``push`` each one, ``preview`` at any time, ``finish`` once.

    The first frame is the reference; each later one is registered to the frame before it and resampled once. Memory
    stays the same for any number of frames. ``transform`` skips registration for a frame whose place is known.
    ``device``: "cpu", "cuda", "cuda:1" or "auto" (the first CUDA device, if there is one); ``device_memory``: bytes of
    it not to exceed. When a device's memory does not suffice, the work goes on on the CPU, with a RuntimeWarning.
    Raises BurstError for frames that do not match the first, ResourceError for a device that is not there.
    """

    def __init__(
        self,
        fuser: FuserName | Fuser = "laplacian",
        *,
        domain: Domain = "rgb",
        motion: Motion = "similarity",
        align: bool = True,
        equalise: bool = True,
        crop: bool = True,
        depth: bool = True,
        interpolation: Interpolation = "lanczos3",
        threads: int = 0,
        device: str | Arrays = "cpu",
        device_memory: int | None = None,
    ) -> None:
        self._wanted, self._depth, self._threads = fuser, depth, threads
        _check_fuser(fuser)
        self._motion: Motion | None = motion if align else None
        self._equalise, self._crop = equalise, crop
        self._domain, self._interpolation = domain, interpolation
        self._first: Meta | None = None
        self._given: tuple[int, int] | None = None  # size of the frames as they come; mosaics are worked on cut to even
        self._used: list[Matrix] = []
        self._names: list[str] = []
        self.left_out: list[str] = []
        self._work_on(arrays_of(device, device_memory))

    def _work_on(self, arrays: Arrays) -> None:
        """Begin, or begin anew, with everything on one side."""
        self._arrays = arrays
        self._staging = Staging(arrays) if isinstance(arrays, DeviceArrays) else None
        self._fuser = _make_fuser(self._wanted, self._threads, self._depth, arrays)
        self._registrar = Registrar(self._motion, threads=self._threads, arrays=arrays) if self._motion else None

    def push(self, frame: Frame | Array, *, transform: npt.ArrayLike | None = None, index: float | None = None) -> bool:
        """Fold a frame in; False when it could not be registered and was left out.

        ``frame``: (H, W[, 3]) uint8, uint16 or float32, or a Frame with its facts. ``transform`` (2, 3) or (3, 3) maps
        reference to frame pixels. ``index``: place in focus order, default the order of the calls.
        """
        if isinstance(frame, np.ndarray):
            check_pixels("Stacker.push", frame)
            frame = Frame(frame)
        return self.push_brought(frame, transform, index)

    @property
    def has_begun(self) -> bool:
        """True when a frame was folded: only then may others be brought ahead, in another thread."""
        return self._first is not None

    def push_brought(self, frame: Frame | Brought, transform: npt.ArrayLike | None, index: float | None) -> bool:
        """``push`` for a frame that ``bring`` brought, or that is still to be."""
        name = (frame.frame if isinstance(frame, Brought) else frame).meta.name or f"frame {len(self._names)}"
        place = float(len(self._names) if index is None else index)
        known = None if transform is None else as_matrix("Stacker.push", transform)
        if isinstance(frame, Frame) and self._first is None:
            matrix = self._push_first(frame, known, place)
        else:
            matrix = self._fold(self.bring(frame), known, place)
        self._names.append(name)
        if matrix is None:
            self.left_out.append(name)
            return False
        self._used.append(matrix)
        return True

    def _push_first(self, frame: Frame, known: Matrix | None, place: float) -> Matrix | None:
        """The first frame, with which all memory is taken: when a device has too little, the CPU takes over."""
        try:
            self._begin(frame)
            return self._fold(self.bring(frame), known, place)
        except ResourceError as error:
            if not self._arrays.is_device or isinstance(error, DeviceError):
                raise
            warnings.warn(f"{error}; the work goes on on the CPU", RuntimeWarning, stacklevel=4)
        self._work_on(HOST)
        self._begin(frame)
        return self._fold(self.bring(frame), known, place)

    def bring(self, frame: Frame | Brought) -> Brought:
        """A frame to where the work is, with what the equaliser sees of it: may run in the thread that read it."""
        if isinstance(frame, Brought):
            return frame
        self._check(frame)
        if self._staging is None:
            return Brought(frame)
        there, slot = self._staging.put(frame)
        thumb = None
        if self._equalise:
            thumb = thumb_of(there, self._first, threads=self._threads, arrays=self._staging.arrays)
        return Brought(there, thumb, slot)

    def _fold(self, brought: Brought, known: Matrix | None, place: float) -> Matrix | None:
        """Register, equalise, warp and fuse a frame; None when it could not be registered."""
        if self._staging and brought.slot:
            self._staging.ready(brought.slot)
        try:
            matrix = self._place(brought.frame) if known is None else known
            if matrix is not None:
                self._fuse(brought.frame, brought.thumb, matrix, place)
            return matrix
        finally:
            if self._staging and brought.slot:
                self._staging.done(brought.slot)

    def _fuse(self, frame: Frame, thumb: Thumb | None, matrix: Matrix, place: float) -> None:
        gain = self._equaliser.gain(thumb or frame, matrix) if self._equalise else 1.0
        planes, valid = self._warper.warp(frame, matrix, self._size, gain)
        if self._arrays.is_device and getattr(self._fuser, "arrays", HOST) is not self._arrays:
            planes, valid = self._arrays.to_host(planes), self._arrays.to_host(valid)  # a fuser that knows only NumPy
        self._fuser.push(planes, valid, index=place)

    def preview(self) -> Array:
        """The picture so far, (H, W, 3) or (H, W) uint8 sRGB. Of a mosaic at half size, without demosaicing."""
        if self._first is None:
            raise BurstError("Stacker.preview: no frames were pushed")
        planes = self._arrays.to_host(self._fuser.preview())
        if planes.shape[0] == 4:
            planes = np.stack([planes[0], (planes[1] + planes[2]) / 2, planes[3]])
        return develop(planes, self._first, bits=8, threads=self._threads)

    def finish(self) -> Stacked:
        """The result. Raises BurstError without frames, RegistrationError when none could be used."""
        if self._first is None:
            if self._names:
                raise RegistrationError("Stacker.finish: none of the frames could be used; try align=False")
            raise BurstError("Stacker.finish: no frames were pushed")
        fused = self._fuser.finish()
        if not isinstance(fused.image, np.ndarray):
            fused = Fused(self._arrays.to_host(fused.image), fused.depth, fused.confidence)
        rect = (0, 0, *self._size)
        if self._crop and len(self._used) > 1:
            rect = _even(common_valid_rect(np.stack(self._used), self._size))
            if rect[2] - rect[0] < MIN_SIZE_PX or rect[3] - rect[1] < MIN_SIZE_PX:
                raise BurstError(
                    "Stacker.finish: the frames share no part of the scene to crop to; "
                    "try crop=False (--no-crop), or leave out the frames that moved most"
                )
        step = 2 if fused.image.shape[0] == 4 else 1
        return Stacked(
            _cut(fused, tuple(v // step for v in rect)), self._first, list(self._names), rect,
            left_out=list(self.left_out), threads=self._threads,
        )  # fmt: skip

    def _begin(self, frame: Frame) -> None:
        self._check(frame)
        height, width = frame.size
        self._size = (height // 2 * 2, width // 2 * 2) if frame.is_mosaic else (height, width)
        self._equaliser = Equaliser(frame.meta, self._threads)
        self._warper = Warper(
            self._domain, self._interpolation, levels=frame.meta, threads=self._threads, arrays=self._arrays
        )
        self._first = frame.meta

    def _check(self, frame: Frame) -> None:
        if self._given is None:
            self._given, self._mosaic = frame.size, frame.is_mosaic
        if frame.size != self._given or frame.is_mosaic != self._mosaic:
            raise BurstError(
                f"Stacker.push: {frame.meta.name or 'a frame'} is {frame.size[1]} x {frame.size[0]} px, "
                f"the first frame is {self._given[1]} x {self._given[0]} px; all frames must be alike"
            )

    def _place(self, frame: Frame) -> Matrix | None:
        if self._registrar is None:
            return np.eye(3)
        step = self._registrar.push(luminance_of(frame, threads=self._threads, arrays=self._arrays))
        return step.transform if step.registered else None


def _check_fuser(fuser: FuserName | Fuser) -> None:
    if isinstance(fuser, str) and fuser not in FUSERS:
        raise ArgumentError(f"stack: fuser must be one of {', '.join(FUSERS)}, got {fuser!r}")


def _make_fuser(fuser: FuserName | Fuser, threads: int, depth: bool, arrays: Arrays) -> Fuser:
    if not isinstance(fuser, str):
        return fuser
    return Laplacian(threads, depth=depth, arrays=arrays) if fuser == "laplacian" else Average(threads)


def _even(rect: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """The largest rectangle inside ``rect`` whose borders are even, so that a Bayer pattern keeps its phase."""
    y0, x0, y1, x1 = rect
    return y0 + y0 % 2, x0 + x0 % 2, y1 - y1 % 2, x1 - x1 % 2


def _cut(fused: Fused, rect: tuple[int, ...]) -> Fused:
    """The rectangle of every map, as views."""
    y0, x0, y1, x1 = rect
    part = np.s_[..., y0:y1, x0:x1]

    def cut(plane: npt.NDArray[np.float32] | None) -> npt.NDArray[np.float32] | None:
        return None if plane is None else plane[part]

    return Fused(fused.image[part], cut(fused.depth), cut(fused.confidence))
