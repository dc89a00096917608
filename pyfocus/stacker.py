"""Frames as they arrive: each is brought to where the work is, placed, equalised, warped once and folded."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from .affine import Matrix, as_matrix, common_valid_rect
from .arrays import HOST, AnyArray, Arrays, arrays_of
from .bring import Bringer, Brought
from .burst import Array, Frame, Meta, check_pixels
from .develop import develop, enlarge, mosaic_of
from .equalise import Equaliser
from .errors import BurstError, DeviceError, RegistrationError, ResourceError
from .fuse import Average, Fused, Fuser
from .fusers import FuserName, resolve_fuser
from .ghosts import Ghosts
from .io import MIN_SIZE_PX, upright
from .laplacian import Laplacian
from .register import Motion, Registrar, Registration, luminance_of
from .warp import Domain, Interpolation, Warper
from .wavelet import WaveletFuser

Run = Callable[..., Any]  # of a step and its arguments
_SPILLING = ("average", "laplacian", "wavelet")  # those whose accumulators may lie in the host's memory
_SPILLED = "; the accumulators are kept in host memory, which is slower"
_ON_CPU = "; the work goes on on the CPU"


@dataclass(frozen=True)
class Stacked:
    """A stacked burst: the fused planes with their facts, and how it went.

    ``fused`` as the fuser gave it, cropped to ``crop`` (y0, x0, y1, x1 in reference pixels); ``meta`` of the burst;
    ``registration`` or None when not aligned; ``left_out`` names the frames that were not used; ``seconds`` per stage;
    ``ghosts``: the share of each frame that was left out because something moved there, by name, where there is some.
    """

    fused: Fused
    meta: Meta
    names: list[str]
    crop: tuple[int, int, int, int]
    registration: Registration | None = None
    left_out: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    threads: int = 0
    ghosts: dict[str, float] = field(default_factory=dict)

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

    def cut(self, rect: tuple[int, int, int, int]) -> Stacked:
        """The part in (y0, x0, y1, x1) of the fused planes' pixels, even for mosaics; ``crop`` is moved with it."""
        y0, x0, y1, x1 = rect
        top, left = self.crop[:2]
        step = 2 if self.is_mosaic else 1
        fused = _cut(self.fused, tuple(v // step for v in rect))
        return replace(self, fused=fused, crop=(top + y0, left + x0, top + y1, left + x1))

    def _map(self, plane: npt.NDArray[np.float32] | None) -> npt.NDArray[np.float32] | None:
        if plane is None or self.meta.cfa is None:
            return plane
        return upright(enlarge(plane, threads=self.threads) if self.is_mosaic else plane, self.meta.orientation)


class Stacker:
    """Frames as they arrive: ``push`` each one, ``preview`` at any time, ``finish`` once.

    The first frame is the reference; each later one is registered to the frame before it and resampled once. Memory
    stays the same for any number of frames. ``transform`` skips registration for a frame whose place is known.
    ``fuser``: "laplacian", "wavelet" and "average" fold; "auto" and "depthmap" keep frames, and their previews take as
    long as ``finish``; "focusdeep" (a network, needs torch), a model's file or any Fuser.
    ``device``: "cpu", "cuda", "cuda:1" or "auto" (the first CUDA device, if there is one); ``device_memory``: bytes of
    it not to exceed. Where that or the device's memory does not suffice, the accumulators are kept in page-locked
    memory of the host (slower, the same pixels); where even the frame in work does not fit, the work goes on on the
    CPU. A run says that with one RuntimeWarning. Memory that is gone when a later frame comes is treated alike.
    Raises BurstError for frames that do not match the first, ResourceError for a device that is not there.
    """

    def __init__(
        self,
        fuser: FuserName | str | Fuser = "laplacian",
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
        self._depth, self._threads = depth, threads
        place = arrays_of(device, device_memory)
        self._wanted = resolve_fuser(fuser, domain=domain, threads=threads, device=place.name, depth=depth)
        self._motion: Motion | None = motion if align else None
        self._equalise, self._crop = equalise, crop
        self._domain, self._interpolation = domain, interpolation
        self._first: Meta | None = None
        self._given: tuple[int, int] | None = None  # size of the frames as they come; mosaics are worked on cut to even
        self._used: list[Matrix] = []
        self._names: list[str] = []
        self.left_out: list[str] = []
        self.ghosts: Ghosts | None = None  # what frames show that is not to be folded, by their places
        self._begun, self._warned = False, False
        self._work_on(place)

    def _work_on(self, arrays: Arrays, spill: bool = False) -> None:
        """Begin, or begin anew, with everything on one side; ``spill`` as for :class:`pyfocus.Laplacian`."""
        self._arrays, self._bringer = arrays, Bringer(arrays, self._equalise)
        self._fuser = _make_fuser(self._wanted, self._threads, self._depth, arrays, spill)
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
        return self._begun

    def push_brought(self, frame: Frame | Brought, transform: npt.ArrayLike | None, index: float | None) -> bool:
        """``push`` for a frame that ``bring`` brought, or that is still to be."""
        name = (frame.frame if isinstance(frame, Brought) else frame).meta.name or f"frame {len(self._names)}"
        place = float(len(self._names) if index is None else index)
        known = None if transform is None else as_matrix("Stacker.push", transform)
        if isinstance(frame, Frame) and not self._begun:
            matrix = self._push_first(frame, known, place)
        else:
            matrix = self._fold(self._or_with_less, frame, known, place)
        self._names.append(name)
        if matrix is None:
            self.left_out.append(name)
            return False
        self._used.append(matrix)
        return True

    def _push_first(self, frame: Frame, known: Matrix | None, place: float) -> Matrix | None:
        """The first frame, with which all memory is taken: on the device, or less of it, or else on the CPU."""
        text = ""
        for spill in (False, True) if self._wanted in _SPILLING else (False,):
            if spill:
                self._work_on(self._arrays, spill)
            try:
                self._begin(frame)
                matrix = self._fold(_once, frame, known, place)
            except ResourceError as error:
                text = self._no_memory(error)
                continue  # out of here, so that the error lets go of the arrays that it saw
            if spill:
                self._warn(f"Stacker: {self._arrays.shortage()}{_SPILLED}")
            self._begun = True
            return matrix
        self._warn(text + _ON_CPU)
        self._work_on(HOST)
        self._begin(frame)
        self._begun = True
        return self._fold(_once, frame, known, place)

    def _fold(self, run: Run, frame: Frame | Brought, known: Matrix | None, place: float) -> Matrix | None:
        """Bring, register, equalise, warp and fuse a frame; None when it could not be registered."""
        brought = run(self._bring, frame)
        try:
            matrix = run(self._place, brought) if known is None else known
            if matrix is not None:
                run(self._fuse, brought, matrix, place)
            return matrix
        finally:
            brought.give_back()

    def _or_with_less(self, step: Callable[..., Any], *arguments: Any) -> Any:
        """What a step gives; where the device has no memory for it, the work takes less of it and the step is tried
        again: a step that fails changes nothing, and what was folded is kept."""
        while True:
            try:
                return step(*arguments)
            except ResourceError as error:
                text = self._no_memory(error)
            self._take_less(text)

    def _no_memory(self, error: ResourceError) -> str:
        """The error's text. Raises the error itself when it is none of a device's memory."""
        if not self._arrays.is_device or isinstance(error, DeviceError):
            raise error
        return str(error)

    def _take_less(self, text: str) -> None:
        """Let the accumulators go on in mapped memory; when they do already, or cannot, all the work on the CPU."""
        fuser = self._fuser if self._wanted in _SPILLING and isinstance(self._fuser, (Average, Laplacian)) else None
        if fuser and not fuser.spilled:
            try:
                fuser.spill()
                self._warn(text + _SPILLED)
                return
            except ResourceError as error:
                text = self._no_memory(error)
        self._warn(text + _ON_CPU)
        if fuser:
            fuser.move_to_host()
        if self._registrar:
            self._registrar.move_to_host()
        self._arrays, self._bringer = HOST, Bringer(HOST, self._equalise)
        self._warper = self._make_warper()

    def _warn(self, text: str) -> None:
        """Once in a run, of the first thing that went another way, at the line that called the library."""
        caller, level = sys._getframe(), 1
        while caller.f_back and caller.f_globals.get("__package__") == __package__:
            caller, level = caller.f_back, level + 1
        if not self._warned:
            warnings.warn(text, RuntimeWarning, stacklevel=level)
        self._warned = True

    def bring(self, frame: Frame) -> Frame | Brought:
        """A frame to where the work is, with what the equaliser sees of it: may run in the thread that read it.

        One that there is no memory for is given back as it is; ``push_brought`` then sees to it.
        """
        try:
            return self._bring(frame)
        except ResourceError as error:
            if isinstance(error, DeviceError):
                raise
            return frame

    def _bring(self, frame: Frame | Brought) -> Brought:
        if isinstance(frame, Brought):
            return frame
        self._check(frame)
        return self._bringer.bring(frame, self._first)

    def _fuse(self, brought: Brought, matrix: Matrix, place: float) -> None:
        frame = self._bringer.here(brought)
        gain = self._equaliser.gain(brought.thumb or frame, matrix) if self._equalise else 1.0
        planes, valid = self._warper.warp(frame, matrix, self._size, gain)
        if self.ghosts is not None:
            valid = self.ghosts.cut(int(place), valid, self._arrays)
        if self._arrays.is_device and getattr(self._fuser, "arrays", HOST) is not self._arrays:
            planes, valid = self._arrays.to_host(planes), self._arrays.to_host(valid)  # a fuser that knows only NumPy
        self._fuser.push(planes, valid, index=place)

    def preview(self) -> Array:
        """The picture so far, (H, W, 3) or (H, W) uint8 sRGB. Of a mosaic at half size, without demosaicing."""
        if self._first is None:
            raise BurstError("Stacker.preview: no frames were pushed")
        planes = self._at_host(self._fuser.preview())
        if planes.shape[0] == 4:
            planes = np.stack([planes[0], (planes[1] + planes[2]) / 2, planes[3]])
        return develop(planes, self._first, bits=8, threads=self._threads)

    def finish(self) -> Stacked:
        """The result. Raises BurstError without frames, RegistrationError when none could be used."""
        if self._first is None:
            if self._names:
                raise RegistrationError("Stacker.finish: none of the frames could be used; try align=False")
            raise BurstError("Stacker.finish: no frames were pushed")
        self._warper.forget()
        fused = self._fuser.finish()
        fused = Fused(self._at_host(fused.image), fused.depth, fused.confidence)
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
        self._first = frame.meta
        self._warper = self._make_warper()
        if hasattr(self._fuser, "begin"):
            self._fuser.begin(frame)

    def _make_warper(self) -> Warper:
        return Warper(self._domain, self._interpolation, levels=self._first, threads=self._threads, arrays=self._arrays)

    def _at_host(self, planes: AnyArray) -> Array:
        """A fuser's planes in the host's memory, wherever it works."""
        if isinstance(planes, np.ndarray):
            return planes
        host: Array = getattr(self._fuser, "arrays", self._arrays).to_host(planes)
        return host

    def _check(self, frame: Frame) -> None:
        if self._given is None:
            self._given, self._mosaic = frame.size, frame.is_mosaic
        if frame.size != self._given or frame.is_mosaic != self._mosaic:
            raise BurstError(
                f"Stacker.push: {frame.meta.name or 'a frame'} is {frame.size[1]} x {frame.size[0]} px, "
                f"the first frame is {self._given[1]} x {self._given[0]} px; all frames must be alike"
            )

    def _place(self, brought: Brought) -> Matrix | None:
        if self._registrar is None:
            return np.eye(3)
        frame = self._bringer.here(brought)
        step = self._registrar.push(luminance_of(frame, threads=self._threads, arrays=self._arrays))
        return step.transform if step.registered else None


def _make_fuser(fuser: FuserName | Fuser, threads: int, depth: bool, arrays: Arrays, spill: bool) -> Fuser:
    if not isinstance(fuser, str):
        return fuser
    if fuser == "average":
        return Average(threads, arrays=arrays, spill=spill)
    make = WaveletFuser if fuser == "wavelet" else Laplacian
    return make(threads, depth=depth, arrays=arrays, spill=spill)


def _once(step: Callable[..., Any], *arguments: Any) -> Any:
    return step(*arguments)


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
