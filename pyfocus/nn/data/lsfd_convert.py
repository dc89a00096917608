"""The published archive into our store: its frames by its own transforms, with its truth or one of ours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from ...affine import Matrix
from ...burst import Array, Burst, Frame, Meta
from ...errors import BurstError
from ...io import read_burst, read_image
from ...raw import plane_offsets
from ...register import Progress, Registration, register
from .build import Built, Job, PathLike, Shares, Tell, run_jobs, settings_of
from .keep import Found, Picture, Recipe, known_registration
from .lsfd import TRUTHS, Archive, Photo, read_transforms
from .store import SPLITS, Split

_PANASONIC_BORDER_PX = 8  # around the picture in the raws of the archive's camera
_MOST_BORDER_PX = 64


def convert_lsfd(
    archive: Archive,
    target: PathLike,
    recipe: Recipe,
    *,
    truth: Literal["published", "ours"] = "published",
    val: float = 0.0,
    seed: int = 0,
    overwrite: bool = False,
    tell: Tell | None = None,
) -> Built:
    """Make a data set in ``target`` of an archive; photos that lack what it takes are left out, and named.

    Of kind "rggb" from ``raw/``, of kind "rgb" from ``aligned/``, or from ``jpg/`` where that is missing. Frames go to
    the geometry of frame 0 by ``transforms.pth``; without it they are registered here. ``truth``: "published" is the
    archive's own picture, another program's colours; "ours" is made as the recipe says, in camera colours. ``val``:
    part of the training scenes to judge by; the archive's test photos are "test". Raises as :func:`build_dataset` does.
    """
    shares, built, jobs = Shares(val, 0, seed), Built(), []
    for photo in archive.photos:
        lack = _lack(photo, recipe, truth)
        if lack:
            built.left_out[photo.key] = f"has no {lack}"
        else:
            jobs.append(_job(photo, recipe, truth, shares))
    for key in archive.absent:
        built.left_out[key] = "is in dataset.csv, not on disk"
    if not jobs:
        raise BurstError(
            f"{archive.folder}: no photo has all that kind {recipe.kind} with a {truth} truth takes "
            f"({', '.join(sorted(set(built.left_out.values()))) or 'it is empty'})"
        )
    settings = {**settings_of(recipe), "source": "LSFD", "split": {"val": val, "seed": seed}}
    if truth == "published":
        settings |= {"truth": "published", "truth_command": None}
    done = run_jobs(target, jobs, recipe, settings, overwrite, tell)
    return replace(done, left_out=built.left_out)


def _lack(photo: Photo, recipe: Recipe, truth: str) -> str:
    """What a photo lacks to be converted, or nothing."""
    frames = photo.raws if recipe.kind == "rggb" else photo.aligned or photo.jpgs
    if len(frames) < 2:
        return "raw/" if recipe.kind == "rggb" else "aligned/ or jpg/"
    return "" if photo.truths or truth == "ours" else " or ".join(TRUTHS)


def _job(photo: Photo, recipe: Recipe, truth: str, shares: Shares) -> Job:
    paths = photo.raws if recipe.kind == "rggb" else photo.aligned or photo.jpgs
    picture = _truth_of(photo, recipe) if truth == "published" else None
    others = [p for p in (photo.transforms, picture) if p is not None]
    files = [(path.relative_to(photo.folder).as_posix(), path.stat().st_size) for path in [*paths, *others]]
    scene = f"{photo.lens}/{shares.scene(photo.name)}"

    def find(progress: Progress) -> Found:
        pixels = read_image(picture).data if picture else None
        if recipe.kind == "rggb":
            size = _size_of(photo) if pixels is None else (pixels.shape[0], pixels.shape[1])
            burst, start = on_red(read_burst(paths, order="as-given"), size)
        else:
            burst, start = read_burst(paths, order="as-given"), (0, 0)
        shown = None
        if picture and pixels is not None:
            shown = Picture(_fitting(photo, pixels, burst[0].size, start), picture.name, start)
        registration = _registration(photo, burst, start, recipe.kind == "rgb" and bool(photo.aligned), progress)
        return Found(photo.key, scene, burst, registration, files, shown)

    known: Split = "test" if photo.set == "test" else shares.of(scene)
    assert known in SPLITS
    return Job(photo.key, scene, known, files, find)


def _truth_of(photo: Photo, recipe: Recipe) -> Path:
    """The published truth: the archive's programs use one for rgb and the other for raw."""
    wanted = TRUTHS[recipe.kind == "rggb"]
    return next((path for path in photo.truths if path.name == wanted), photo.truths[0])


def _size_of(photo: Photo) -> tuple[int, int] | None:
    """(h, w) of the photo's pictures, in whose pixels its transforms are; None when it has no picture."""
    pictures = [*photo.truths, *photo.aligned[:1], *photo.jpgs[:1]]
    return read_image(pictures[0]).size if pictures else None


def on_red(burst: Burst, size: tuple[int, int] | None) -> tuple[Burst, tuple[int, int]]:
    """Mosaics cut to where their pictures lie, from the first red pixel there on, even: RGGB.

    ``size`` (h, w) of the pictures, in the middle of the mosaics; None: the border that the archive's camera leaves.
    Also (y, x) of the first pixel kept, in the picture. Raises BurstError when the pictures are no part of the mosaics.
    """
    first = burst[0]
    if not first.is_mosaic:
        raise BurstError(f"{burst.names[0]}: is no mosaic")
    (rows, columns), border = first.size, _PANASONIC_BORDER_PX if first.meta.make == "Panasonic" else 0
    height, width = size or (rows - 2 * border, columns - 2 * border)
    if not (0 <= rows - height <= 2 * _MOST_BORDER_PX and 0 <= columns - width <= 2 * _MOST_BORDER_PX):
        raise BurstError(
            f"{burst.names[0]}: its {columns} x {rows} px do not fit the photo's pictures of {width} x {height} px"
        )
    top, left = (rows - height) // 2, (columns - width) // 2
    red_y, red_x = plane_offsets(str(first.meta.cfa))[0]
    start = (red_y + top) % 2, (red_x + left) % 2
    y, x = top + start[0], left + start[1]
    bottom, right = y + (height - start[0]) // 2 * 2, x + (width - start[1]) // 2 * 2
    black = np.roll(np.reshape(first.meta.black, (2, 2)), (-(y % 2), -(x % 2)), (0, 1)).ravel()

    def change(frame: Frame) -> Frame:
        meta: Meta = replace(frame.meta, cfa="RGGB", black=tuple(black.tolist()))
        return Frame(np.ascontiguousarray(frame.data[y:bottom, x:right]), meta)

    return Burst(burst.names, lambda i: change(burst[i])), start


def _fitting(photo: Photo, pixels: Array, size: tuple[int, int], start: tuple[int, int]) -> Array:
    """The published picture, if the frames lie in it. Raises BurstError."""
    height, width = pixels.shape[:2]
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or size[0] + start[0] > height or size[1] + start[1] > width:
        raise BurstError(
            f"{photo.key}: its published truth is {width} x {height} px, its frames {size[1]} x {size[0]} px; "
            "make one here (--truth laplacian)"
        )
    return pixels


def _registration(
    photo: Photo, burst: Burst, start: tuple[int, int], aligned: bool, progress: Progress
) -> Registration:
    """By the archive's transforms, in pixels of frames that begin at ``start`` in the picture; else found here."""
    size, count = burst[0].size, len(burst)
    if aligned:
        return known_registration(np.stack([np.eye(3)] * count), size, burst.names)
    if photo.transforms is None:
        return register(burst, motion="affine", reference="first", progress=progress)
    to_frame = np.array([[1.0, 0, -start[1]], [0, 1, -start[0]], [0, 0, 1]])
    maps: Matrix = to_frame @ read_transforms(photo.transforms, count) @ np.linalg.inv(to_frame)
    return known_registration(maps, size, burst.names)
