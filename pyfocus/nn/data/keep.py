"""A burst into the store: its warped frames written to their places, its truth made, its facts noted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ... import __version__
from ...affine import Matrix, Rect, common_valid_rect
from ...burst import Array, Burst
from ...errors import BurstError, NoiseError
from ...fuse import Fused, Fuser, Mask
from ...io import MIN_SIZE_PX
from ...noise import estimate_noise
from ...register import Progress, Registration
from ...stack import stack
from .command import CommandFuser
from .store import STORED_KINDS, BurstFacts, Planes, StoredKind, encode, new_array, new_burst, write_facts

FuserMaker = Callable[[], Fuser]
_NOISE_FRAMES = 4  # looked at for a burst's noise


@dataclass(frozen=True)
class Recipe:
    """How bursts become a data set.

    ``truth``: a fuser as :func:`pyfocus.stack` takes it by name, or a function that makes one; ``truth_command``, if
    given, is a program to run instead (:class:`CommandFuser`). ``noise``: shot and read of one raw sample; None
    measures it in mosaics, and has zeros for pictures and where nothing is flat enough.
    """

    kind: StoredKind
    truth: str | FuserMaker = "laplacian"
    truth_command: str | None = None
    equalise: bool = True
    noise: tuple[float, float] | None = None

    @property
    def truth_name(self) -> str:
        """Who makes the truth, in words."""
        if self.truth_command is not None:
            return self.truth_command
        return self.truth if isinstance(self.truth, str) else getattr(self.truth, "__name__", "a fuser")


@dataclass(frozen=True)
class Picture:
    """A truth that exists already: (H, W, 3) uint8 sRGB, ``start`` (y, x) of the frames' first pixel in it."""

    pixels: Array
    name: str
    start: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Found:
    """A burst to keep: its frames, where they lie to each other, and what else is known."""

    name: str
    scene: str
    burst: Burst
    registration: Registration
    sources: list[tuple[str, int]] = field(default_factory=list)
    picture: Picture | None = None


class _Keeper:
    """A fuser that fuses nothing: every warped frame goes to its place in a file, cut to what all of them see."""

    def __init__(
        self, out: Array, places: dict[int, int], rect: Rect, white_balance: tuple[float, float, float]
    ) -> None:
        self._out, self._places, self._white_balance = out, places, white_balance
        y0, x0, y1, x1 = rect
        self._part = np.s_[:, y0:y1, x0:x1]

    def push(self, planes: Planes, valid: Mask | None = None, *, index: float | None = None) -> None:
        """Write a frame."""
        assert index is not None  # stack always says
        encode(planes[self._part], self._out[self._places[int(index)]], self._white_balance)

    def preview(self) -> Planes:
        """Nothing to see."""
        return np.zeros((3, 1, 1), np.float32)

    def finish(self) -> Fused:
        """Nothing was fused."""
        return Fused(self.preview())


def keep(root: Path, found: Found, recipe: Recipe, settings: dict[str, Any], tell: Progress) -> BurstFacts:
    """Write a burst below ``root``, whole or not at all. Raises BurstError, WriteError and what reading raises.

    ``settings`` are noted in its facts: what it was made with.
    """
    first = found.burst[found.registration.reference]
    places = {int(i): place for place, i in enumerate(np.flatnonzero(found.registration.registered))}
    if len(found.burst) < 2:
        raise BurstError(f"{found.name}: has one frame; a burst is of two or more")
    if len(places) < 2:
        raise BurstError(f"{found.name}: fewer than two of its {len(found.burst)} frames could be registered")
    if first.data.ndim == 2 and not first.is_mosaic:
        raise BurstError(f"{found.name}: its frames are grey; a data set is of colour frames")
    if recipe.kind == "rggb" and not first.is_mosaic:
        raise BurstError(f"{found.name}: its frames are pictures, not mosaics; keep them as rgb (--kind rgb)")
    rect = shared_rect(found.registration)
    if min(rect[2] - rect[0], rect[3] - rect[1]) < MIN_SIZE_PX:
        raise BurstError(f"{found.name}: its frames share no part of the scene of {MIN_SIZE_PX} px; leave it out")
    meta, picture = first.meta, found.picture
    facts = BurstFacts(
        found.name, found.scene, recipe.kind, [found.burst.names[i] for i in places],
        places[found.registration.reference], (rect[2] - rect[0], rect[3] - rect[1]), rect,
        white_balance=meta.white_balance, noise=_noise(found, recipe), camera=meta.camera,
        xyz_to_camera=meta.xyz_to_camera,
        truth=picture.name if picture else recipe.truth_name, truth_colours="rendered" if picture else "camera",
        left_out=[name for i, name in enumerate(found.burst.names) if i not in places],
        registration=found.registration.to_json(), sources=found.sources, made_with=settings, pyfocus=__version__,
    )  # fmt: skip
    eight = first.data.dtype == np.uint8
    with new_burst(root, found.name) as folder:
        _keep_frames(folder, found, recipe, facts, places, np.uint8 if eight else np.uint16, tell)
        if picture:
            (y, x), (height, width) = picture.start, facts.size
            cut = picture.pixels[y + rect[0] :, x + rect[1] :][:height, :width]
            _save(folder / "truth.npy", cut.transpose(2, 0, 1))
        else:
            _make_truth(folder, found, recipe, facts, places, tell)
        write_facts(folder, facts)
    return facts


def shared_rect(registration: Registration) -> Rect:
    """(y0, x0, y1, x1), even, of what every registered frame sees of the reference."""
    height, width = registration.size
    size = (height // 2 * 2, width // 2 * 2)
    y0, x0, y1, x1 = common_valid_rect(registration.transforms[registration.registered], size)
    return y0 + y0 % 2, x0 + x0 % 2, y1 - y1 % 2, x1 - x1 % 2


def known_registration(maps: Matrix, size: tuple[int, int], names: list[str]) -> Registration:
    """A registration that was found elsewhere: frame 0 is the reference, every frame counts."""
    count = len(maps)
    blank = np.full(count, np.nan)
    return Registration(
        maps, 0, size, "affine", np.ones(count, bool), blank, np.zeros(count, int), np.ones(count, bool), tuple(names)
    )


def _noise(found: Found, recipe: Recipe) -> tuple[float, float]:
    """Shot and read of the burst, as given or as a few of its mosaics show them; zeros where they do not."""
    if recipe.noise is not None:
        return recipe.noise
    every = max(1, len(found.burst) // _NOISE_FRAMES)
    frames = (found.burst[i] for i in range(0, len(found.burst), every))
    try:
        level = estimate_noise(frame for frame in frames if frame.is_mosaic)
    except NoiseError:
        return (0.0, 0.0)
    return level.shot, level.read


def _keep_frames(
    folder: Path, found: Found, recipe: Recipe, facts: BurstFacts, places: dict[int, int], dtype: npt.DTypeLike,
    tell: Progress,
) -> None:  # fmt: skip
    out = new_array(folder / "frames.npy", facts.shape(), dtype)
    step = STORED_KINDS[facts.kind][1]
    y0, x0, y1, x1 = (v // step for v in facts.crop)
    keeper = _Keeper(out, places, (y0, x0, y1, x1), facts.white_balance)
    domain: Literal["raw", "rgb"] = "raw" if facts.kind == "rggb" else "rgb"
    stack(
        found.burst, fuser=keeper, domain=domain, transforms=found.registration, crop=False, equalise=recipe.equalise,
        progress=lambda stage, done, total: tell("warp", done, total),
    )  # fmt: skip
    out.flush()  # type: ignore[attr-defined]


def _make_truth(
    folder: Path, found: Found, recipe: Recipe, facts: BurstFacts, places: dict[int, int], tell: Progress
) -> None:
    """``truth.npy``, and ``depth.npy`` where the fuser gives a depth."""
    fuser: str | Fuser
    if recipe.truth_command is not None:
        fuser = CommandFuser(recipe.truth_command, folder / "aligned", facts.crop, max(facts.white_balance))
    else:
        fuser = recipe.truth if isinstance(recipe.truth, str) else recipe.truth()
    fused = stack(
        found.burst, fuser=fuser, domain="rgb", transforms=found.registration, crop=False, equalise=recipe.equalise,
        progress=lambda stage, done, total: tell("truth", done, total),
    ).fused  # fmt: skip
    y0, x0, y1, x1 = facts.crop if recipe.truth_command is None else (0, 0, *facts.size)
    part = np.s_[..., y0:y1, x0:x1]
    if fused.image.shape[0] != 3 or fused.image[part].shape[1:] != facts.size:
        raise BurstError(f"{found.name}: the truth should be (3, H, W) of the frames' size, is {fused.image.shape}")
    truth = np.empty((3, *facts.size), np.uint16)
    encode(np.ascontiguousarray(fused.image[part]), truth, facts.white_balance)
    _save(folder / "truth.npy", truth)
    if fused.depth is not None and fused.confidence is not None:
        depth = np.interp(fused.depth[part], list(places), list(places.values()))
        _save(folder / "depth.npy", np.stack([depth, fused.confidence[part]]).astype(np.float16))


def _save(path: Path, array: Array) -> None:
    out = new_array(path, array.shape, array.dtype)
    out[:] = array
    out.flush()  # type: ignore[attr-defined]
