"""What ``pyfocus stack`` writes of the scene's shape: provenance, heights, a mesh, a view. Options, checks and jobs."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..burst import Burst
from ..depthmap import NEAR
from ..io.maps import HEIGHT_TARGETS, write_height, write_provenance
from ..io.mesh_files import MESH_TARGETS, write_mesh
from ..io.write import DEPTH_TARGETS, IMAGE_TARGETS, write_image
from ..relief import DEFAULT_VERTICES, MOST_VERTICES, End, heights_um, provenance, relief_mesh, render_relief
from ..stacker import Stacked
from .arguments import UsageError

_TARGETS = {
    "depth": DEPTH_TARGETS,
    "confidence": DEPTH_TARGETS,
    "provenance": DEPTH_TARGETS,
    "height": HEIGHT_TARGETS,
    "mesh": MESH_TARGETS,
    "view": IMAGE_TARGETS,
}
Job = tuple[Path, Callable[[Path], None]]


def add_surfaces(command: argparse.ArgumentParser) -> None:
    """The options of ``pyfocus stack`` for these files."""
    add = command.add_argument_group("what is written of the depth").add_argument
    add("--depth", type=Path, metavar="FILE", help="which frame is sharpest where, 16-bit .tif or .png")
    add("--confidence", type=Path, metavar="FILE", help="how clearly it is, 16-bit .tif or .png")
    add("--provenance", type=Path, metavar="FILE", help="the number of the frame each pixel is of, 16-bit .tif or .png")
    add("--height", type=Path, metavar="FILE", help="heights in micrometres, float .tif; needs --step-um")
    add("--mesh", type=Path, metavar="FILE", help="the relief as triangles, .ply, .obj or .glb")
    add("--view", type=Path, metavar="FILE", help="a view of the relief in perspective, .png, .tif or .jpg")
    add("--step-um", type=parse_um, metavar="UM", help="focus step between frames (default: the files', if they tell)")
    add("--pixel-um", type=parse_um, metavar="UM", help="size of a pixel in the scene (default: likewise)")
    add(
        "--mesh-vertices",
        type=parse_vertices,
        default=DEFAULT_VERTICES,
        metavar="N",
        help="at most (default: %(default)s)",
    )
    add(
        "--near",
        choices=NEAR,
        help="which end of the burst shows near things (default: first); none: auto and depthmap prefer neither",
    )


def parse_um(text: str) -> float:
    """A length in micrometres, above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be micrometres above 0, such as 2.5, got {text!r}")
    return value


def parse_vertices(text: str) -> int:
    """A number of vertices that makes a mesh."""
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 4 <= int(text) <= MOST_VERTICES):
        raise argparse.ArgumentTypeError(f"must be a whole number from 4 to {MOST_VERTICES}, got {text!r}")
    return int(text)


def surface_targets(options: argparse.Namespace) -> dict[Path, Sequence[str]]:
    """Every file that a depth map is needed for, and what its name may end in. Raises UsageError."""
    asked = [(getattr(options, name), suffixes) for name, suffixes in _TARGETS.items() if getattr(options, name)]
    if asked and options.fuser == "average":
        raise UsageError(f"{_words()} need a fuser that judges sharpness; use --fuser auto, depthmap or laplacian")
    paths = [path for path, _ in asked]
    twice = next((path for i, path in enumerate(paths) if path in paths[:i]), None)
    if twice is not None:
        raise UsageError(f"{twice} is named twice as an output; give each one its own name")
    return dict(asked)


def wants_depth(options: argparse.Namespace) -> bool:
    """True when a file is asked for that a depth map is needed for."""
    return any(getattr(options, name) for name in _TARGETS)


def check_depth(options: argparse.Namespace, fuser: Any) -> None:
    """Raise UsageError for files of a depth that the fuser does not give, and options that only depth maps have."""
    if wants_depth(options) and not getattr(fuser, "gives_depth", True):
        raise UsageError(f"{_words()}: {options.fuser} gives none of them; use --fuser auto, depthmap or laplacian")
    if options.near == "none" and options.fuser not in ("auto", "depthmap"):
        raise UsageError("--near none is for --fuser auto and depthmap; write --near first or --near last")


def check_scale(options: argparse.Namespace, burst: Burst) -> None:
    """Raise UsageError for a height map whose step nobody tells."""
    if options.height and options.step_um is None and burst[0].meta.step_um is None:
        raise UsageError(f"{options.height} needs the focus step, which these files do not tell; add --step-um UM")


def surface_jobs(stacked: Stacked, options: argparse.Namespace) -> list[Job]:
    """What to write beside depth and confidence, each by a function of its path."""
    step = options.step_um or stacked.meta.step_um
    if step is not None:
        step *= options.every or 1  # frames between were not taken
    pixel = options.pixel_um or stacked.meta.pixel_um
    end: End = "last" if options.near == "last" else "first"
    frames, over = len(stacked.names), bool(options.overwrite)
    scale: dict[str, Any] = {"step_um": step, "pixel_um": pixel, "near": end}

    def depth() -> Any:
        found = stacked.depth()
        assert found is not None  # surface_targets and check_depth refuse fusers without one
        return found

    def frames_of(path: Path) -> None:
        used = [i for i, name in enumerate(stacked.names) if name not in stacked.left_out]
        write_provenance(path, provenance(depth(), used), overwrite=over)

    def height(path: Path) -> None:
        assert step is not None  # check_scale refuses runs without one
        write_height(path, heights_um(depth(), frames, step, end), pixel_um=pixel, overwrite=over)

    def mesh(path: Path) -> None:
        made = relief_mesh(depth(), stacked.image(8), frames, vertices=options.mesh_vertices, **scale)
        write_mesh(path, **vars(made), overwrite=over)

    def view(path: Path) -> None:
        write_image(path, render_relief(depth(), stacked.image(8), frames, **scale), overwrite=over)

    jobs = ((options.provenance, frames_of), (options.height, height), (options.mesh, mesh), (options.view, view))
    return [(path, job) for path, job in jobs if path]


def _words() -> str:
    return ", ".join(f"--{name}" for name in _TARGETS)
