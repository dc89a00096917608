"""``pyfocus stack``: check everything that can be checked, then work, then write."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from .. import _C, __version__
from ..burst import Array, Burst
from ..depthmap import DepthMapFuser
from ..errors import BurstError, ReadError
from ..fuse import Fuser
from ..fusers import FUSERS, FuserName, resolve_fuser
from ..io import FrameSource, atomic, check_target, find_frames, read_burst, write_depth, write_dng, write_image
from ..register import Progress, Registration, register
from ..report import left_out_warnings, stack_report, summary, too_many_left_out
from ..stack import stack
from ..stacker import Stacked
from ..warp import Domain
from .arguments import UsageError
from .choosing import choose_frames
from .repairing import repair
from .resuming import keep_work
from .slabbing import slab_files, stack_written, write_slabs
from .surfaces import Job, check_depth, check_scale, surface_jobs, surface_targets, wants_depth
from .terminal import Terminal

MANY_LEFT_OUT = 3


def run(options: argparse.Namespace, terminal: Terminal) -> int:
    """Stack; returns 0, or 3 when more than a quarter of the frames was left out."""
    started = time.perf_counter()
    sources = find_frames(options.files, options.order)
    targets = check_targets(options, sources)
    with terminal.catch_warnings():
        fuser = choose_fuser(options)
    domain = choose_domain(options, sources, terminal, getattr(fuser, "domain", None))
    burst = read_burst(_files(sources), order="as-given", domain="raw" if domain == "raw" else "auto")
    burst = choose_frames(burst, options)
    check_alignment(options, len(burst))
    check_scale(options, burst)
    slabs = slab_files(options, len(burst), [*_files(sources), *targets])
    transforms = load_transforms(options.transforms, burst) if options.transforms else None
    if len(burst) == 1 and options.save_transforms and transforms is None:
        transforms = register(burst)  # one frame needs none, but it was asked to be written
    burst = repair(burst, options, terminal)
    if len(burst) == 1:
        terminal.warn(f"{burst.names[0]} is the only frame: there is nothing to stack, it is written as it is")
    terminal.detail(f"stacking {len(burst)} frames, {burst.names[0]} to {burst.names[-1]}")
    if getattr(fuser, "runtime", None):
        terminal.detail(f"{options.fuser} runs in {fuser.runtime}")  # type: ignore[union-attr]
    keeping = keep_work(options, fuser, domain, _files(sources), terminal)
    with keeping, terminal.progress() as tell, terminal.catch_warnings():
        how: dict[str, Any] = {
            "device": options.device, "device_memory": options.gpu_memory, "fuser": fuser, "domain": domain,
            "equalise": options.equalise, "ghosts": options.ghosts == "on", "interpolation": options.interpolation,
            "depth": wants_depth(options), "memory": options.memory, "progress": tell,
        }  # fmt: skip
        place = {name: getattr(options, name) for name in ("align", "crop", "motion", "reference")}
        place["transforms"] = transforms
        if slabs:
            slabs, found = write_slabs(burst, slabs, options, {**how, **place})
            stacked = stack_written(slabs, burst, found, how)
        else:
            stacked = stack(burst, **how, **place)
        writer = _Writer(stacked, options)
        writer.write(tell)
    ended = time.perf_counter()
    for line in left_out_warnings(stacked):
        terminal.warn(line)
    _explain(stacked, terminal)
    report = stack_report(
        stacked,
        version=__version__,
        inputs=_files(sources),
        outputs=[*targets, *slabs],
        seconds={**stacked.seconds, **writer.seconds, "total": ended - started},
        threads=_C.threads(),
        warnings=terminal.warnings,
        runtime=getattr(fuser, "runtime", None),
    )
    if terminal.json:
        terminal.result(json.dumps(report, indent=1, allow_nan=False))
    elif not terminal.quiet:
        terminal.result("\n".join(summary(report)))
    return MANY_LEFT_OUT if too_many_left_out(stacked) else 0


def choose_fuser(options: argparse.Namespace) -> FuserName | Fuser:
    """The fuser that is asked for, a network already loaded. Raises UsageError, ReadError, ResourceError."""
    if options.fuser in FUSERS:
        if options.noise is not None:
            raise UsageError(f"--noise is what a network is told; leave it out with --fuser {options.fuser}")
        named = resolve_fuser(options.fuser, depth=wants_depth(options))
        if isinstance(named, DepthMapFuser):
            named.near = options.near or "first"
        check_depth(options, named)
        return named
    dng = next((path for path in options.output if path.suffix.lower() == ".dng"), None)
    if dng is not None:
        raise UsageError(f"{dng} needs mosaics, a network gives a picture; write .tif, or use --fuser laplacian")
    fuser = resolve_fuser(options.fuser, threads=options.threads or 0, device=options.device, noise=options.noise)
    check_depth(options, fuser)
    return fuser


def choose_domain(
    options: argparse.Namespace, sources: Sequence[FrameSource], terminal: Terminal, needed: Domain | None = None
) -> Domain:
    """Where raws are fused: as asked, as the fuser needs it, "raw" for the sake of a DNG, else "rgb".

    Raises UsageError.
    """
    wanted: Domain | None = options.domain or needed
    if needed not in (None, wanted):
        raise UsageError(f"--fuser {options.fuser} works in --domain {needed}; leave --domain {wanted} out")
    image = next((source.name for source in sources if not source.is_raw), None)
    dng = next((path for path in options.output if path.suffix.lower() == ".dng"), None)
    if dng is not None and wanted == "rgb":
        raise UsageError(f"{dng} needs the mosaics, which --domain rgb gives up; write .tif, or leave --domain out")
    if image is not None and (dng is not None or wanted == "raw"):
        asked = dng or (f"--fuser {options.fuser}" if needed else "--domain raw")
        raise UsageError(f"{asked} needs camera raws, {image} is a picture already; write .tif and leave --domain out")
    if dng is not None and wanted is None:
        terminal.detail(f"fusing in the raw domain, because {dng} asks for a mosaic")
    return wanted or ("raw" if dng is not None else "rgb")


def check_targets(options: argparse.Namespace, sources: Sequence[FrameSource]) -> list[Path]:
    """Every file that will be written, if all of them can be. Raises UsageError or WriteError."""
    extra = surface_targets(options)
    targets = [*options.output, *extra, *([options.save_transforms] if options.save_transforms else [])]
    read = [source.path for source in sources] + ([options.transforms] if options.transforms else [])
    seen: set[str] = set()
    for target in targets:
        place = os.path.realpath(target)
        if place in seen:
            raise UsageError(f"{target} is named twice as an output; give each one its own name")
        seen.add(place)
        if target.exists() and any(os.path.samefile(target, path) for path in dict.fromkeys(read) if path.exists()):
            raise UsageError(f"{target} is one of the inputs, which are never changed; write to another name")
    for target in options.output:
        check_target(target, options.overwrite)
    for target, suffixes in extra.items():
        check_target(target, options.overwrite, suffixes=suffixes)
    if options.save_transforms:
        check_target(options.save_transforms, options.overwrite, suffixes=(".json",))
    return targets


def check_alignment(options: argparse.Namespace, count: int) -> None:
    """Raise UsageError for options of alignment that contradict each other or the number of frames."""
    if isinstance(options.reference, int) and options.reference >= count:
        raise UsageError(
            f"--reference must be below the number of frames, {count}, got {options.reference}; it counts from 0"
        )
    if options.transforms and not options.align:
        raise UsageError("--transforms and --no-align contradict each other; leave one of them out")
    if options.transforms and options.reference != "auto":
        raise UsageError("--transforms says already which frame is the reference; leave --reference out")
    if options.save_transforms and not options.align:
        raise UsageError("--save-transforms has nothing to write with --no-align; leave one of them out")


def load_transforms(path: Path, burst: Burst) -> Registration:
    """A saved alignment, if it fits the burst. Raises ReadError or BurstError."""
    try:
        found = Registration.from_json(json.loads(path.read_bytes()))
    except OSError as error:
        raise ReadError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:  # no UTF-8, no JSON, or no transforms
        raise ReadError(f"{path}: {error}; write such a file with --save-transforms") from error
    if len(found.transforms) != len(burst):
        raise BurstError(f"{path}: holds transforms of {len(found.transforms)} frames, the burst has {len(burst)}")
    height, width = burst[0].size
    if tuple(found.size) != (height, width):
        raise BurstError(
            f"{path}: its transforms are for frames of {found.size[1]} x {found.size[0]} px, "
            f"these are {width} x {height} px"
        )
    return found


class _Writer:
    """Writes the outputs in turn, each whole or not at all."""

    def __init__(self, stacked: Stacked, options: argparse.Namespace) -> None:
        self._stacked, self._options, self._overwrite = stacked, options, bool(options.overwrite)
        self._pictures: dict[int, Array] = {}
        self.seconds = {"develop": 0.0, "write": 0.0}

    def write(self, tell: Progress) -> None:
        """All that was asked for."""
        options, started = self._options, time.perf_counter()
        maps = (
            (options.depth, self.depth),
            (options.confidence, self.confidence),
            (options.save_transforms, self.maps),
        )
        jobs: list[Job] = [(path, self.picture) for path in options.output]
        jobs += [(path, job) for path, job in maps if path]
        jobs += surface_jobs(self._stacked, options)
        for done, (path, job) in enumerate(jobs):
            tell("write", done, len(jobs))
            job(path)
        tell("write", len(jobs), len(jobs))
        self.seconds["write"] = time.perf_counter() - started - self.seconds["develop"]

    def picture(self, path: Path) -> None:
        """The fused picture, or the mosaic when the name ends in .dng."""
        stacked, text = self._stacked, None
        if "ImageDescription" not in stacked.meta.exif:
            text = f"{len(stacked.names) - len(stacked.left_out)} frames stacked by pyfocus {__version__}"
        if path.suffix.lower() == ".dng":
            write_dng(path, *stacked.mosaic(), overwrite=self._overwrite, description=text)
            return
        bits: Literal[8, 16] = 8 if path.suffix.lower() in (".jpg", ".jpeg") or self._options.bits == 8 else 16
        if bits not in self._pictures:
            started = time.perf_counter()
            self._pictures[bits] = stacked.image(bits)
            self.seconds["develop"] += time.perf_counter() - started
        write_image(
            path, self._pictures[bits], meta=stacked.meta, bits=bits, quality=self._options.quality,
            overwrite=self._overwrite, description=text,
        )  # fmt: skip

    def depth(self, path: Path) -> None:
        """Which frame is sharpest where."""
        depth = self._stacked.depth()
        assert depth is not None  # check_targets refuses fusers without one
        write_depth(path, depth, frames=len(self._stacked.names), overwrite=self._overwrite)

    def confidence(self, path: Path) -> None:
        """How clearly it is."""
        confidence = self._stacked.confidence()
        assert confidence is not None
        text = "confidence of the depth index: 0 = none, 65535 = certain"
        write_image(path, confidence, bits=16, overwrite=self._overwrite, description=text)

    def maps(self, path: Path) -> None:
        """The alignment, as ``--transforms`` reads it."""
        registration = self._stacked.registration
        assert registration is not None  # check_targets refuses runs without one
        with atomic(path, self._overwrite) as file:
            file.write(json.dumps(registration.to_json(), indent=1, allow_nan=False).encode() + b"\n")


def _files(sources: Sequence[FrameSource]) -> list[Path]:
    """The files in order, each once for all of its pages."""
    return [s.path for i, s in enumerate(sources) if not (i and s.page is not None and sources[i - 1].path == s.path)]


def _explain(stacked: Stacked, terminal: Terminal) -> None:
    for name, share in stacked.ghosts.items():
        terminal.detail(f"{name}: something moved there, {100 * share:.2f} % of it is left out (--ghosts off keeps it)")
    registration = stacked.registration
    if registration is None:
        return
    terminal.detail(f"the reference is {stacked.names[registration.reference]}")
    shifts = registration.shift_px
    for i, name in enumerate(stacked.names):
        if not registration.registered[i]:
            continue  # its warning says more
        terminal.detail(
            f"{name}: correlation {registration.correlation[i]:.4f}, {int(registration.iterations[i])} iterations, "
            f"{shifts[i]:.2f} px away at the corners"
        )
