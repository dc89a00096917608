"""The pipeline on one page: read, register, warp, fuse, develop.

Two passes over the files. The first registers neighbours on small luminance pictures, so that the reference can be the
frame that the others are nearest to, and bad frames are known before they do harm. The second warps each frame once and
folds it. Reading the next frame overlaps work on this one; memory does not grow with the number of frames.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from .ahead import read_ahead
from .arrays import Arrays, arrays_of
from .bring import Brought
from .burst import Array, Burst, Frame
from .combine import CombinedFuser
from .depthmap import DepthMapFuser
from .errors import BurstError, RegistrationError, ResourceError
from .fuse import Fuser
from .fusers import FuserName, resolve_fuser
from .ghosts import FEWEST_FRAMES, Ghosts
from .register import Motion, Progress, Registration, check_reference, choose_reference, register_on
from .stacker import Stacked, Stacker
from .warp import Domain, Interpolation

# Bytes at the peak: the warped frame, accumulators and scratch of the fold; the warped frame's mask, its luminance,
# energies and the guide where frames are kept (the frame itself is counted by plane); Python, libraries and tiles.
_FOLDED_PER_PLANE, _KEPT_PER_PIXEL, _PROCESS_BYTES = 18, 11, 300_000_000


def stack(
    frames: Burst | Sequence[Array],
    *,
    fuser: FuserName | str | Fuser = "auto",
    domain: Domain = "rgb",
    motion: Motion = "similarity",
    reference: str | int = "auto",
    align: bool = True,
    crop: bool = True,
    equalise: bool = True,
    ghosts: bool = True,
    depth: bool = True,
    interpolation: Interpolation = "lanczos3",
    transforms: Registration | None = None,
    threads: int = 0,
    memory: int | None = None,
    device: str = "cpu",
    device_memory: int | None = None,
    progress: Progress | None = None,
) -> Stacked:
    """Stack a burst: register, warp, fuse. The picture is ``stack(frames).image()``.

    ``frames``: a Burst (``read_burst(paths)``) or arrays (H, W[, 3]). ``domain``: "rgb" demosaics each raw frame and
    fuses at full size, "raw" fuses the mosaic's planes and can give a DNG; images are the same in both. ``reference``:
    "auto" (the frame that the others are nearest to, so that all are resampled least), "first", "middle", "last" or an
    index. ``fuser``: as for :class:`Stacker`; "auto" is "laplacian" on a device, and where no frames can be kept.
    ``transforms``: an earlier registration to use. ``crop``: cut to what every frame saw. ``ghosts``: leave out what
    only up to three frames in a row show, because it moved. ``depth``: also make the depth and confidence maps.
    ``memory``: bytes not to exceed; what the accumulators leave of it keeps decoded frames between the two passes, or
    what a fuser keeps. ``device``, ``device_memory``: as for :class:`Stacker`.
    ``progress(stage, done, total)`` is called from this thread and may raise; parts of a frame count. Raises
    BurstError, ReadError, RegistrationError, ResourceError.
    """
    started, tell = time.perf_counter(), progress or (lambda stage, done, total: None)
    burst = frames if isinstance(frames, Burst) else Burst.from_arrays(frames)
    arrays = arrays_of(device, device_memory)
    fuser = resolve_fuser(fuser, domain=domain, threads=threads, device=device, depth=depth)
    burst, ahead = _fit(burst, fuser, memory)
    registration, watch = transforms, Ghosts(len(burst), threads) if ghosts and len(burst) >= FEWEST_FRAMES else None
    if registration is None and align and len(burst) > 1:
        wanted = check_reference(reference, len(burst))
        found, arrays = register_on(arrays, watch.watch(burst) if watch else burst, motion, threads, tell)
        registration = found.rebase(choose_reference(found, wanted))
    if registration is not None and len(registration.transforms) != len(burst):
        raise BurstError(f"stack: transforms are for {len(registration.transforms)} frames, the burst has {len(burst)}")
    if watch:
        _find_ghosts(watch, burst, registration, tell)
    registered = time.perf_counter()
    fuser = _or_fold(fuser, burst, registration, arrays)
    stacker = Stacker(
        fuser, domain=domain, align=False, equalise=equalise, crop=crop, depth=depth, interpolation=interpolation,
        threads=threads, device=arrays,
    )  # fmt: skip
    stacker.ghosts = watch
    with _told_by(fuser, tell) as tell_all:
        left_out = _fold(burst, registration, stacker, tell_all, ahead)
        result = stacker.finish()
    seconds = {"register": registered - started, "fuse": time.perf_counter() - registered}
    moved = {burst.names[i]: share for i, share in watch.shares.items()} if watch else {}
    return Stacked(result.fused, result.meta, burst.names, result.crop, registration, left_out, seconds, threads, moved)


def _find_ghosts(watch: Ghosts, burst: Burst, found: Registration | None, tell: Progress) -> None:
    """Judge the frames that will be fused; those that no registration has read are read for it."""
    missing = watch.missing()
    for done, _ in enumerate(read_ahead(watch.watch(burst), missing, lambda frame: None)):
        tell("look", done + 1, len(missing))
    used = range(len(burst)) if found is None else np.flatnonzero(found.registered).tolist()
    watch.find(np.stack([np.eye(3)] * len(burst)) if found is None else found.transforms, list(used))


def _fold(
    burst: Burst, registration: Registration | None, stacker: Stacker, tell: Progress, ahead: int = 1
) -> list[str]:
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

    def bring(frame: Frame) -> Frame | Brought:
        if registration is not None and frame.size != registration.size:
            (h, w), (height, width) = frame.size, registration.size
            raise BurstError(
                f"stack: transforms are for frames of {width} x {height} px, {frame.meta.name} is {w} x {h}"
            )
        return stacker.bring(frame) if stacker.has_begun else frame

    for done, (i, frame) in enumerate(read_ahead(burst, order, bring, ahead=ahead)):
        tell("fuse", done, len(order))
        stacker.push_brought(frame, matrices[i], i)
        del frame  # before the one after the next is read, so that two exist at a time, not three
    tell("fuse", len(order), len(order))
    return [burst.names[i] for i in range(count) if not used[i]]


@contextmanager
def _told_by(fuser: FuserName | Fuser, tell: Progress) -> Iterator[Progress]:
    """``tell``, also of tiles, where a network tells them: as parts of a frame, at the end as a stage of its own."""
    if getattr(fuser, "tell", 0) is not None:
        yield tell
        return
    before: tuple[float, int] = 0.0, 1

    def frames(stage: str, done: float, total: int) -> None:
        nonlocal before
        before = done, total
        tell(stage, done, total)

    def tiles(what: str, done: float, total: int) -> None:
        if what == "push":
            tell("fuse", before[0] + done / total, before[1])
        else:
            tell(what, done, total)

    fuser.tell = tiles  # type: ignore[union-attr]
    try:
        yield frames
    finally:
        fuser.tell = None  # type: ignore[union-attr]


def _or_fold(fuser: FuserName | Fuser, burst: Burst, found: Registration | None, arrays: Arrays) -> FuserName | Fuser:
    """ "auto" as it is, or the fold, which keeps no frames, where the work is on a device or no disk has room."""
    if not isinstance(fuser, CombinedFuser):
        return fuser
    if arrays.is_device:
        return "laplacian"
    size = burst[0].size if found is None else found.size
    if fuser.has_room(len(burst), size):
        return fuser
    warnings.warn(
        f"stack: no room to keep {len(burst)} frames of {size[1]} x {size[0]} px, neither in memory nor on the disk; "
        "fuser='laplacian' is taken, which keeps none: allow more memory, or set TMPDIR to a folder with room",
        RuntimeWarning,
        stacklevel=3,
    )
    return "laplacian"


def _fit(burst: Burst, fuser: FuserName | Fuser, memory: int | None) -> tuple[Burst, int]:
    """The burst as it is to be read within so much memory, and how many frames may be read ahead of the work."""
    if memory is None:
        return burst, 1
    room, ahead = _room(burst, fuser, memory)
    return _use(burst, fuser, room), ahead


def _use(burst: Burst, fuser: FuserName | Fuser, room: int) -> Burst:
    """Give the room that is left to a fuser that asks for some, a network, or else to decoded frames."""
    if getattr(fuser, "memory", 0) is not None:
        return _kept(burst, room)
    fuser.memory = room  # type: ignore[union-attr]
    return burst


def _room(burst: Burst, fuser: FuserName | Fuser, memory: int) -> tuple[int, int]:
    """Bytes that the work itself leaves of ``memory``, and how many frames may be read ahead of it.

    Raises ResourceError when it takes more than all.
    """
    first = burst[0]
    height, width = first.size
    planes = 1 if first.data.ndim == 2 and not first.is_mosaic else 3
    each = _KEPT_PER_PIXEL + 4 * planes if isinstance(fuser, DepthMapFuser) else _FOLDED_PER_PLANE * planes
    need = height * width * (each + 4 * planes * first.is_mosaic) + 2 * first.data.nbytes
    if need > memory:
        raise ResourceError(
            f"stack: frames of {first.size[1]} x {first.size[0]} px need {need / 1e9:.2f} GB, "
            f"memory allows {memory / 1e9:.2f} GB; raise it or use smaller frames"
        )
    room = memory - need - _PROCESS_BYTES
    ahead = int(room >= first.data.nbytes)
    return max(0, room - ahead * first.data.nbytes), ahead


def _kept(burst: Burst, room: int) -> Burst:
    """The burst, its decoded frames kept between the passes as far as there is room for them."""
    keep = room // max(1, burst[0].data.nbytes)
    cache: dict[int, Frame] = {}

    def read(i: int) -> Frame:
        frame = cache.get(i)
        if frame is None:
            frame = burst[i]
            if len(cache) < keep:
                cache[i] = frame
        return frame

    return Burst(burst.names, read)
