"""Registration of a burst: neighbours by pyramid ECC, chained; every frame is resampled once, later.

Each frame is registered to the one before it, which is nearly equally sharp at the same places, and the maps are
multiplied (Araujo et al. 2023, 3.2, without its repeated resampling). A frame that cannot be registered is left out,
and the next one is registered to the last good one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from .affine import Matrix, central_view, corner_shift
from .ahead import read_ahead
from .align import Luma, align_pair, luminance_of
from .arrays import HOST, Arrays, DeviceArrays, arrays_of
from .burst import Burst, Frame
from .ecc import Motion
from .errors import ArgumentError, BurstError, DeviceError, RegistrationError, ResourceError
from .staging import Staging

__all__ = ["Motion", "Registrar", "Registration", "Step", "luminance_of", "register"]
Progress = Callable[[str, float, int], None]
Reference = Literal["auto", "first", "middle", "last"]
_MOTIONS = ("translation", "similarity", "affine", "homography")
_AHEAD = 2  # frames read at a time
_TAILS = 3  # ends of chains a new frame is tried against


@dataclass(frozen=True)
class Step:
    """One frame's registration: ``transform`` (3, 3) from the first frame's pixels to its own, and how it went."""

    transform: Matrix | None
    registered: bool
    correlation: float
    iterations: int
    converged: bool


@dataclass(frozen=True)
class Registration:
    """Where every frame of a burst lies.

    ``transforms`` (N, 3, 3) map reference pixels (x, y, 1) to frame pixels, full resolution, pixel centres at
    integers; ``size`` (h, w) of a frame. Per frame: ``registered``, ``correlation`` with its neighbour (of square-root
    luminance), ``iterations``, ``converged`` and ``shift_px``, the largest displacement of a corner.
    """

    transforms: Matrix
    reference: int
    size: tuple[int, int]
    motion: Motion
    registered: npt.NDArray[np.bool_]
    correlation: npt.NDArray[np.float64]
    iterations: npt.NDArray[np.int_]
    converged: npt.NDArray[np.bool_]
    names: tuple[str, ...] = ()

    @property
    def shift_px(self) -> npt.NDArray[np.float64]:
        """Largest displacement of a corner per frame, px; NaN for frames that were not registered."""
        shifts = [corner_shift(m, self.size) for m in self.transforms]
        return np.where(self.registered, shifts, np.nan)

    def rebase(self, reference: int) -> Registration:
        """The same with another frame as the reference."""
        if not 0 <= reference < len(self.transforms) or not self.registered[reference]:
            raise ArgumentError(f"Registration.rebase: frame {reference} is not a registered frame of the burst")
        moved = self.transforms @ np.linalg.inv(self.transforms[reference])
        moved /= moved[:, 2:, 2:]
        moved[reference] = np.eye(3)
        return replace(self, transforms=moved, reference=reference)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and lists, for a file."""
        frames = [
            {
                "name": self.names[i] if self.names else f"frame {i}",
                "registered": bool(self.registered[i]),
                "correlation": _number(self.correlation[i]),
                "iterations": int(self.iterations[i]),
                "converged": bool(self.converged[i]),
                "transform": self.transforms[i].tolist(),
            }
            for i in range(len(self.transforms))
        ]
        height, width = self.size
        kind = "reference pixel (x, y, 1) to frame pixel, pixel centres at integers"
        return {
            "format": "pyfocus transforms", "version": 1, "maps": kind, "motion": self.motion,
            "width": width, "height": height, "reference": self.reference, "frames": frames,
        }  # fmt: skip

    @classmethod
    def from_json(cls, data: Any) -> Registration:
        """From what ``to_json`` gave. Raises ArgumentError for anything else."""
        try:
            if data["format"] != "pyfocus transforms" or data["version"] != 1:
                raise ValueError("it is not a version 1 transforms file")
            frames = data["frames"]
            maps = np.array([f["transform"] for f in frames], np.float64)
            if maps.ndim != 3 or maps.shape[1:] != (3, 3) or not np.isfinite(maps).all():
                raise ValueError("a transform is not a finite 3 x 3 matrix")
            if not 0 <= data["reference"] < len(frames):
                raise ValueError("the reference is not one of the frames")
            if data["motion"] not in _MOTIONS or not (data["height"] > 0 and data["width"] > 0):
                raise ValueError("motion or size is not one that pyfocus writes")
            return cls(
                maps,
                int(data["reference"]),
                (int(data["height"]), int(data["width"])),
                data["motion"],
                np.array([bool(f["registered"]) for f in frames]),
                np.array([np.nan if f["correlation"] is None else float(f["correlation"]) for f in frames]),
                np.array([int(f["iterations"]) for f in frames]),
                np.array([bool(f["converged"]) for f in frames]),
                tuple(str(f["name"]) for f in frames),
            )
        except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
            raise ArgumentError(f"Registration.from_json: not saved transforms of pyfocus: {error}") from error


@dataclass
class _Tail:
    """The end of a chain: its last frame's luminance, its map from the chain's start, the motion that led there."""

    luma: Luma
    transform: Matrix
    motion: Matrix
    members: list[int]


class Registrar:
    """Registers frames as they come: each to the last good one. Keeps a few small luminance pyramids, no frames."""

    def __init__(self, motion: Motion = "similarity", *, threads: int = 0, arrays: Arrays = HOST) -> None:
        if motion not in _MOTIONS:
            raise ArgumentError(f"register: motion must be one of {', '.join(_MOTIONS)}, got {motion!r}")
        self._motion: Motion = motion
        self._threads, self._arrays = threads, arrays
        self._chains: list[_Tail] = []
        self._steps: list[Step] = []

    def push(self, luma: Luma) -> Step:
        """Register the next frame. ``Step.registered`` is True when it joins the first frame's chain."""
        place = len(self._steps)
        if self._chains and luma.size != self._chains[0].luma.size:
            height, width = self._chains[0].luma.size
            raise BurstError(
                f"register: frame {place} is {luma.size[1]} x {luma.size[0]} px, "
                f"the first one is {width} x {height} px; all frames must be alike"
            )
        step, chain = self._join(luma)
        if chain is None:
            chain = _Tail(luma, np.eye(3), np.eye(3), [])
            self._chains.append(chain)
            self._forget()
            first = place == 0
            step = Step(np.eye(3), first, 1.0, 0, True) if first else replace(step, registered=False)
        chain.members.append(place)
        self._steps.append(step)
        return step if step.registered and chain is self._chains[0] else replace(step, registered=False)

    def move_to_host(self) -> None:
        """Go on on the CPU; what was registered stays."""
        for chain in self._chains:
            levels = [self._arrays.to_host(level) for level in chain.luma.levels]
            chain.luma = replace(chain.luma, levels=levels, first_small=0, small=levels)
        self._arrays = HOST

    def _forget(self) -> None:
        """Keep the first chain, the newest and the longest others: strays must not cost memory for ever."""
        if len(self._chains) > _TAILS + 2:
            middle = self._chains[1:-1]
            self._chains.remove(min(middle, key=lambda c: len(c.members)))

    def _join(self, luma: Luma) -> tuple[Step, _Tail | None]:
        """Try the ends of the chains, the longest first; on success the chain's end becomes this frame."""
        best = Step(None, False, 0.0, 0, False)
        for chain in sorted(self._chains, key=lambda c: -len(c.members))[:_TAILS]:
            pair = align_pair(
                chain.luma, luma, self._motion, predicted=chain.motion, threads=self._threads, arrays=self._arrays
            )
            if not pair.good:
                if best.transform is None or pair.correlation > best.correlation:
                    best = Step(np.eye(3), False, pair.correlation, pair.iterations, pair.converged)
                continue
            transform = pair.matrix @ chain.transform
            transform /= transform[2, 2]
            chain.luma, chain.transform, chain.motion = luma, transform, pair.matrix
            return Step(transform, True, pair.correlation, pair.iterations, pair.converged), chain
        return best, None

    def result(self, size: tuple[int, int], names: tuple[str, ...] = ()) -> Registration:
        """The longest chain as a Registration with its first frame as the reference; the other frames are left out."""
        if not self._chains:
            raise BurstError("register: no frames were pushed")
        chain = max(self._chains, key=lambda c: len(c.members))
        used = np.zeros(len(self._steps), bool)
        used[chain.members] = True
        start = chain.members[0]
        maps = np.stack([np.eye(3)] * len(self._steps))
        for i in chain.members:
            transform = self._steps[i].transform
            maps[i] = np.eye(3) if transform is None else transform
        maps[start] = np.eye(3)
        correlation = np.array([s.correlation for s in self._steps])
        converged = np.array([s.converged for s in self._steps])
        correlation[start], converged[start] = 1.0, True
        iterations = np.array([s.iterations for s in self._steps])
        return Registration(maps, start, size, self._motion, used, correlation, iterations, converged, names)


def register(
    burst: Burst,
    *,
    motion: Motion = "similarity",
    reference: str | int = "auto",
    threads: int = 0,
    device: str = "cpu",
    device_memory: int | None = None,
    progress: Progress | None = None,
) -> Registration:
    """Register every frame of a burst, chained neighbour to neighbour.

    ``motion``: "translation", "similarity" (shift, rotation, scale: enough for breathing and a moved camera),
    "affine" or "homography". ``reference``: "auto" takes the frame that the others are nearest to, so that all
    are resampled least; "first", "middle", "last" or an index. Frames of another scene than most, blank frames and
    frames too different to follow are marked as not registered. ``device``, ``device_memory`` as for
    :class:`pyfocus.Stacker`.
    Raises ArgumentError, RegistrationError, ResourceError for a device that is not there, and what reading raises.
    """
    reference = check_reference(reference, len(burst))
    tell = progress or (lambda stage, done, total: None)
    found, _ = register_on(arrays_of(device, device_memory), burst, motion, threads, tell)
    return found.rebase(choose_reference(found, reference))


def register_on(
    arrays: Arrays, burst: Burst, motion: Motion, threads: int, tell: Progress
) -> tuple[Registration, Arrays]:
    """The longest chain, with its first frame as the reference, and where it was found: on the host if need be."""
    try:
        return _register(burst, motion, threads, arrays, tell), arrays
    except ResourceError as error:
        if not arrays.is_device or isinstance(error, DeviceError):
            raise
        warnings.warn(f"{error}; the work goes on on the CPU", RuntimeWarning, stacklevel=3)
    return _register(burst, motion, threads, HOST, tell), HOST


def _register(burst: Burst, motion: Motion, threads: int, arrays: Arrays, tell: Progress) -> Registration:
    registrar, size = Registrar(motion, threads=threads, arrays=arrays), (0, 0)
    staging = Staging(arrays, slots=_AHEAD + 1) if isinstance(arrays, DeviceArrays) else None

    # The luminance is taken where the frame is read, on that thread: the pool stays with the registration beside it.
    def look(frame: Frame) -> Luma:
        if staging is None:
            return luminance_of(frame, threads=1)
        there, slot = staging.put(frame)
        luma = luminance_of(there, arrays=staging.arrays)  # its coarse levels come to the host: the work is then done
        slot.free = True
        return replace(luma, size=frame.size)

    for i, luma in read_ahead(burst, range(len(burst)), look, ahead=_AHEAD):
        tell("register", i, len(burst))
        size = luma.size
        registrar.push(luma)
    tell("register", len(burst), len(burst))
    return registrar.result(size, tuple(burst.names))


def check_reference(reference: str | int, count: int) -> str | int:
    """The reference as :func:`register` takes it. Raises ArgumentError for another word or number."""
    reference = reference if isinstance(reference, str) else int(reference)
    if isinstance(reference, str):
        if reference not in ("auto", "first", "middle", "last"):
            raise ArgumentError(f"register: reference must be auto, first, middle, last or an index, got {reference!r}")
    elif not 0 <= reference < count:
        raise ArgumentError(f"register: reference must be 0 to {count - 1}, got {reference}")
    return reference


def choose_reference(found: Registration, reference: str | int) -> int:
    """The frame that ``reference`` means. Raises RegistrationError when it was not registered."""
    used = np.flatnonzero(found.registered)
    if isinstance(reference, int):
        if not found.registered[reference]:
            name = found.names[reference] if found.names else f"frame {reference}"
            raise RegistrationError(
                f"register: the reference {name} could not be registered to the others; choose another one"
            )
        return reference
    if reference == "auto":
        return int(used[central_view(found.transforms[used], found.size)])
    return int(used[{"first": 0, "middle": len(used) // 2, "last": -1}[reference]])


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)
