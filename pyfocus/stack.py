"""The pipeline on one page: read, register, warp, fuse, develop.

Two passes over the files. The first registers neighbours on small luminance pictures, so that the reference can be the
frame with the narrowest view and bad frames are known before they do harm. The second warps each frame once and folds
it. Reading the next frame overlaps work on this one; memory does not grow with the number of frames.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from .affine import Matrix, as_matrix, common_valid_rect
from .ahead import read_ahead
from .burst import Array, Burst, Frame, Meta, check_pixels
from .develop import develop, enlarge, mosaic_of
from .equalise import Equaliser
from .errors import ArgumentError, BurstError, RegistrationError, ResourceError
from .fuse import Average, Fused, Fuser
from .io import MIN_SIZE_PX, upright
from .laplacian import Laplacian
from .register import Motion, Registrar, Registration, luminance_of, register
from .warp import Domain, Interpolation, Warper

Progress = Callable[[str, int, int], None]
FuserName = Literal["average", "laplacian"]
FUSERS: tuple[FuserName, ...] = ("average", "laplacian")
_BYTES_PER_PIXEL = 18  # per plane, at the peak of the default fuser: the warped frame, accumulators, scratch


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


class Stacker:
    """Frames as they arrive: ``push`` each one, ``preview`` at any time, ``finish`` once.

    The first frame is the reference; each later one is registered to the frame before it and resampled once. Memory
    stays the same for any number of frames. ``transform`` skips registration for a frame whose place is known.
    Raises BurstError for frames that do not match the first.
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
    ) -> None:
        self._fuser = _make_fuser(fuser, threads, depth)
        self._registrar = Registrar(motion, threads=threads) if align else None
        self._equalise, self._crop, self._threads = equalise, crop, threads
        self._domain, self._interpolation = domain, interpolation
        self._first: Frame | None = None
        self._used: list[Matrix] = []
        self._names: list[str] = []
        self.left_out: list[str] = []

    def push(self, frame: Frame | Array, *, transform: npt.ArrayLike | None = None, index: float | None = None) -> bool:
        """Fold a frame in; False when it could not be registered and was left out.

        ``frame``: (H, W[, 3]) uint8, uint16 or float32, or a Frame with its facts. ``transform`` (2, 3) or (3, 3) maps
        reference to frame pixels. ``index``: place in focus order, default the order of the calls.
        """
        if isinstance(frame, np.ndarray):
            check_pixels("Stacker.push", frame)
            frame = Frame(frame)
        name = frame.meta.name or f"frame {len(self._names)}"
        place = float(len(self._names) if index is None else index)
        self._check(frame, name)
        self._names.append(name)
        matrix = self._place(frame) if transform is None else as_matrix("Stacker.push", transform)
        if matrix is None:
            self.left_out.append(name)
            return False
        if self._first is None:
            self._begin(frame)
        gain = self._equaliser.gain(frame, matrix) if self._equalise else 1.0
        planes, valid = self._warper.warp(frame, matrix, self._size, gain)
        self._fuser.push(planes, valid, index=place)
        self._used.append(matrix)
        return True

    def preview(self) -> Array:
        """The picture so far, (H, W, 3) or (H, W) uint8 sRGB. Of a mosaic at half size, without demosaicing."""
        if self._first is None:
            raise BurstError("Stacker.preview: no frames were pushed")
        planes = self._fuser.preview()
        if planes.shape[0] == 4:
            planes = np.stack([planes[0], (planes[1] + planes[2]) / 2, planes[3]])
        return develop(planes, self._first.meta, bits=8, threads=self._threads)

    def finish(self) -> Stacked:
        """The result. Raises BurstError without frames, RegistrationError when none could be used."""
        if self._first is None:
            if self._names:
                raise RegistrationError("Stacker.finish: none of the frames could be used; try align=False")
            raise BurstError("Stacker.finish: no frames were pushed")
        fused = self._fuser.finish()
        rect = (0, 0, *self._size)
        if self._crop and len(self._used) > 1:
            rect = _even(common_valid_rect(np.stack(self._used), self._size))
            if rect[2] - rect[0] < MIN_SIZE_PX or rect[3] - rect[1] < MIN_SIZE_PX:
                raise BurstError(
                    "Stacker.finish: the frames share no part of the scene to crop to; "
                    "try crop=False (--no-crop), or leave out the frames that moved most"
                )
        step = 2 if fused.image.shape[0] == 4 else 1
        meta = self._first.meta
        return Stacked(
            _cut(fused, tuple(v // step for v in rect)), meta, list(self._names), rect,
            left_out=list(self.left_out), threads=self._threads,
        )  # fmt: skip

    def _begin(self, frame: Frame) -> None:
        self._first, self._size = Frame(frame.data[:0], frame.meta), frame.size
        self._equaliser = Equaliser(frame.meta, self._threads)
        self._warper = Warper(self._domain, self._interpolation, levels=frame.meta, threads=self._threads)

    def _check(self, frame: Frame, name: str) -> None:
        if self._first is None:
            return
        if frame.size != self._size or frame.is_mosaic != (self._first.meta.cfa is not None):
            raise BurstError(
                f"Stacker.push: {name} is {frame.size[1]} x {frame.size[0]} px, "
                f"the first frame is {self._size[1]} x {self._size[0]} px; all frames must be alike"
            )

    def _place(self, frame: Frame) -> Matrix | None:
        if self._registrar is None:
            return np.eye(3)
        step = self._registrar.push(luminance_of(frame, threads=self._threads))
        return step.transform if step.registered else None


def stack(
    frames: Burst | Sequence[Array],
    *,
    fuser: FuserName | Fuser = "laplacian",
    domain: Domain = "rgb",
    motion: Motion = "similarity",
    reference: str | int = "auto",
    align: bool = True,
    crop: bool = True,
    equalise: bool = True,
    depth: bool = True,
    interpolation: Interpolation = "lanczos3",
    transforms: Registration | None = None,
    threads: int = 0,
    memory: int | None = None,
    progress: Progress | None = None,
) -> Stacked:
    """Stack a burst: register, warp, fuse. The picture is ``stack(frames).image()``.

    ``frames``: a Burst (``read_burst(paths)``) or arrays (H, W[, 3]). ``domain``: "rgb" demosaics each raw frame and
    fuses at full size, "raw" fuses the mosaic's planes and can give a DNG; images are the same in both.
    ``reference``: "auto" (the frame with the narrowest view, so that no border is invented), "first", "middle", "last"
    or an index. ``transforms``: an earlier registration to use instead of registering. ``crop``: cut to what every
    frame saw. ``depth``: also make the depth and confidence maps. ``memory``: bytes not to exceed; what the
    accumulators leave of it keeps decoded frames between the two passes. ``progress(stage, done, total)`` is called
    from this thread and may raise to stop. Raises BurstError, ReadError, RegistrationError, ResourceError.
    """
    burst = frames if isinstance(frames, Burst) else Burst.from_arrays(frames)
    tell = progress or (lambda stage, done, total: None)
    started = time.perf_counter()
    burst = _kept(burst, memory)
    registration = transforms
    if registration is None and align and len(burst) > 1:
        registration = register(burst, motion=motion, reference=reference, threads=threads, progress=tell)
    if registration is not None and len(registration.transforms) != len(burst):
        raise BurstError(f"stack: transforms are for {len(registration.transforms)} frames, the burst has {len(burst)}")
    registered = time.perf_counter()
    stacker = Stacker(
        fuser,
        domain=domain,
        align=False,
        equalise=equalise,
        crop=crop,
        depth=depth,
        interpolation=interpolation,
        threads=threads,
    )
    left_out = _fold(burst, registration, stacker, tell)
    result = stacker.finish()
    seconds = {"register": registered - started, "fuse": time.perf_counter() - registered}
    return Stacked(result.fused, result.meta, burst.names, result.crop, registration, left_out, seconds, threads)


def _fold(burst: Burst, registration: Registration | None, stacker: Stacker, tell: Progress) -> list[str]:
    """Second pass: the reference first, then the others in order. Returns the names of frames left out."""
    count = len(burst)
    if registration is None:
        order, matrices, used = list(range(count)), np.stack([np.eye(3)] * count), [True] * count
    else:
        matrices, used = registration.transforms, list(registration.registered)
        first = registration.reference
        order = [first, *(i for i in range(count) if i != first)]
    order = [i for i in order if used[i]]
    if not order:
        raise RegistrationError("stack: no frame could be registered; try align=False or another reference")
    for done, (i, frame) in enumerate(read_ahead(burst, order, lambda frame: frame)):
        tell("fuse", done, len(order))
        if registration is not None and frame.size != registration.size:
            (h, w), (height, width) = frame.size, registration.size
            raise BurstError(
                f"stack: transforms are for frames of {width} x {height} px, {burst.names[i]} is {w} x {h}"
            )
        stacker.push(frame, transform=matrices[i], index=i)
        del frame  # before the one after the next is read, so that two exist at a time, not three
    tell("fuse", len(order), len(order))
    return [burst.names[i] for i in range(count) if not used[i]]


def _kept(burst: Burst, memory: int | None) -> Burst:
    """The burst, its decoded frames kept between the passes as far as ``memory`` allows."""
    if memory is None:
        return burst
    first = burst[0]
    height, width = first.size
    planes = 1 if first.data.ndim == 2 and not first.is_mosaic else 3
    need = planes * height * width * (_BYTES_PER_PIXEL + 4 * first.is_mosaic) + 3 * first.data.nbytes
    if need > memory:
        raise ResourceError(
            f"stack: frames of {first.size[1]} x {first.size[0]} px need {need / 1e9:.2f} GB, "
            f"memory allows {memory / 1e9:.2f} GB; raise it or use smaller frames"
        )
    keep = int((memory - need) // max(1, first.data.nbytes))
    cache: dict[int, Frame] = {}

    def read(i: int) -> Frame:
        frame = cache.get(i)
        if frame is None:
            frame = burst[i]
            if len(cache) < keep:
                cache[i] = frame
        return frame

    return Burst(burst.names, read)


def _make_fuser(fuser: FuserName | Fuser, threads: int, depth: bool) -> Fuser:
    if not isinstance(fuser, str):
        return fuser
    if fuser not in FUSERS:
        raise ArgumentError(f"stack: fuser must be one of {', '.join(FUSERS)}, got {fuser!r}")
    return Laplacian(threads, depth=depth) if fuser == "laplacian" else Average(threads)


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
