"""Slabs: a long burst as a few pictures, each of some neighbouring frames, all registered once and lying alike.

Retouchers paint from them where one picture of everything shows things one behind another; and stacked again they are
the whole. Slab i has frames [i (size - overlap), i (size - overlap) + size), the last one what is left.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from .affine import common_valid_rect
from .burst import Burst
from .errors import ArgumentError
from .register import Motion, Registration, check_reference, choose_reference, register
from .stack import stack
from .stacker import Stacked


def slab_ranges(count: int, size: int, overlap: int = 0) -> list[range]:
    """The frames of each slab. Raises ArgumentError for a size below 1, or an overlap that is not below the size."""
    if size < 1 or not 0 <= overlap < size:
        raise ArgumentError(
            f"slab_ranges: size must be 1 or more and overlap from 0 to below it, got size {size}, overlap {overlap}"
        )
    starts = range(0, max(1, count - overlap), size - overlap)
    return [range(start, min(start + size, count)) for start in starts]


def stack_slabs(
    burst: Burst,
    size: int,
    overlap: int = 0,
    *,
    align: bool = True,
    crop: bool = True,
    motion: Motion = "similarity",
    reference: str | int = "auto",
    transforms: Registration | None = None,
    **settings: Any,
) -> Iterator[Stacked]:
    """Stack a burst in slabs of ``size`` frames that share ``overlap`` with the next; each as it is asked for.

    The burst is registered once; all slabs lie in the geometry of one frame and are cut to what all frames see, so
    they fit onto each other. ``depth`` counts the frames of a slab. Slabs none of whose frames could be registered are
    left out. ``settings`` and errors as for :func:`pyfocus.stack`; ``fuser``: a name, or one that can begin anew.
    """
    parts = slab_ranges(len(burst), size, overlap)
    if transforms is None and align:
        progress = settings.get("progress")
        transforms = register_once(burst, motion, reference, threads=settings.get("threads", 0), progress=progress)
    rect = None
    if transforms is not None and crop:
        y0, x0, y1, x1 = common_valid_rect(transforms.transforms[transforms.registered], transforms.size)
        rect = y0 + y0 % 2, x0 + x0 % 2, y1 - y1 % 2, x1 - x1 % 2
    fuser = settings.get("fuser")
    memory = getattr(fuser, "memory", None)  # what the pipeline sets for one stack is of that one
    for part in parts:
        some = None if transforms is None else _part(transforms, part)
        if some is not None and not some.registered.any():
            continue
        stacked = stack(burst.chosen(part), align=False, crop=False, transforms=some, **settings)
        if hasattr(fuser, "memory"):
            fuser.memory = memory  # type: ignore[union-attr]
        yield stacked if rect is None else stacked.cut(rect)


def register_once(
    burst: Burst,
    motion: Motion = "similarity",
    reference: str | int = "auto",
    *,
    threads: int = 0,
    progress: Any = None,
) -> Registration | None:
    """Where all frames lie, for all slabs; None for one frame. Arguments as for :func:`stack_slabs`."""
    if len(burst) < 2:
        return None
    wanted = check_reference(reference, len(burst))
    found = register(burst, motion=motion, threads=threads, progress=progress)
    return found.rebase(choose_reference(found, wanted))


def _part(whole: Registration, part: range) -> Registration:
    """The registration of some frames, to the same reference pixels; the first of them that has one is taken first."""
    at = np.array(part)
    used = np.flatnonzero(whole.registered[at])
    return replace(
        whole,
        transforms=whole.transforms[at],
        reference=int(used[0]) if used.size else 0,
        registered=whole.registered[at],
        correlation=whole.correlation[at],
        iterations=whole.iterations[at],
        converged=whole.converged[at],
        names=tuple(whole.names[i] for i in part) if whole.names else (),
    )
