"""A focus bracket with known truth, from one sharp picture and a depth map.

    scene (mirrored past its borders) ─ lens(focus k) ─ move(transform k) ─ flicker ─ sensor ─→ frame k

Made for the demo, for tests, and for trying settings: what a stacker should return is known in every pixel.

Convention: a transform (2, 3) maps a pixel (x, y) of the reference frame (destination) to the pixel of frame
k (source) that shows the same point; pixel centres are at integers. Depth 1 is near, and the first frame
focuses there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..burst import Array, Burst, Frame, Meta
from ..colour import encode_u16
from ..errors import ArgumentError, WriteError
from .camera import BLACK_DN, NEUTRAL, WHITE_DN, expose, invert, move, soften
from .intruder import walk_through
from .lens import Lens, build_lens
from .surfaces import Float, Surface

# Linear sRGB primaries from CIE XYZ (D65), IEC 61966-2-1: the simulated camera sees in these.
XYZ_TO_SRGB = (
    3.2404542,
    -1.5371385,
    -0.4985314,
    -0.969266,
    1.8760108,
    0.041556,
    0.0556434,
    -0.2040259,
    1.0572252,
)
SHOT_RANGE = (1e-4, 0.012)


@dataclass(frozen=True)
class Settings:
    """How a bracket is taken.

    ``frames`` focus from the nearest to the farthest depth. ``blur_px`` is the disc radius over that whole
    distance. ``breathing`` is the growth of the image from first to last frame (0.02 = 2 %), ``jitter_px``
    and ``rotation_deg`` the standard deviation of each frame's shift and turn, ``flicker`` the largest
    relative change of exposure, ``ghost`` the number of frames, in a row, that something walks through, which the truth
    does not show. ``iso`` from 0 (clean) to 1 (very noisy) sets shot and read noise, None
    leaves noise out. ``raw`` frames are RGGB mosaics, softened by ``softness_px`` (Gaussian sigma) as lens
    and filter do; None means 0.8 for raw frames and 0 for others.
    """

    frames: int = 12
    blur_px: float = 8.0
    breathing: float = 0.02
    jitter_px: float = 1.0
    rotation_deg: float = 0.0
    flicker: float = 0.0
    ghost: int = 0
    iso: float | None = None
    raw: bool = False
    softness_px: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise ArgumentError(f"simulate: frames must be at least 1, got {self.frames}")
        if not 0 <= self.ghost <= self.frames:
            raise ArgumentError(
                f"simulate: ghost must be 0 to the {self.frames} frames, got {self.ghost}; 1 to 3 is common"
            )
        for name in ("blur_px", "jitter_px", "rotation_deg", "flicker", "softness_px", "iso"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < np.inf:
                raise ArgumentError(f"simulate: {name} must be a finite number >= 0, got {value}")
        if not abs(self.breathing) <= 0.5 or self.flicker >= 1:
            raise ArgumentError(
                f"simulate: breathing must be within -0.5..0.5 and flicker below 1, got {self.breathing} and "
                f"{self.flicker}; 0.02 is common for both"
            )
        if self.blur_px > 400:
            raise ArgumentError(f"simulate: blur_px must be at most 400, got {self.blur_px}; 4 to 24 is common")

    @property
    def sigma_px(self) -> float:
        """Softness of the sensor image, its default resolved."""
        return (0.8 if self.raw else 0.0) if self.softness_px is None else self.softness_px

    @property
    def noise(self) -> tuple[float, float]:
        """Shot and read factors: the variance of a linear value x in [0, 1] is ``shot * x + read``."""
        return (0.0, 0.0) if self.iso is None else iso_noise(self.iso)


def iso_noise(iso: float) -> tuple[float, float]:
    """Shot and read noise of an ISO scale 0..1, after Brooks et al. 2019 (Unprocessing Images, eq. 4).

    log shot runs evenly over their range; log read = 2.18 log shot + 1.20, the mean of their distribution.
    """
    low, high = np.log(SHOT_RANGE)
    log_shot = low + iso * (high - low)
    return float(np.exp(log_shot)), float(np.exp(2.18 * log_shot + 1.20))


@dataclass(frozen=True)
class Bracket(Sequence[Array]):
    """A simulated bracket: ``bracket[k]`` renders frame k, the same bytes every time, holding none in memory.

    Frames are mosaics (H, W) uint16 when ``settings.raw``, else sRGB images (H, W, 3) uint16. ``truth`` (H,
    W, 3) float32 in linear light is the scene sharp everywhere, ``depth`` (H, W) its depth, both in the
    geometry of frame ``reference``. ``focus`` (N,) holds the depth each frame focuses on, ``transforms`` (N,
    2, 3) float64 the maps from reference to frame, ``gains`` (N,) the exposures; ``ghosts`` what walks through, by
    the numbers of the frames that see it.
    """

    settings: Settings
    truth: Float
    depth: Float
    focus: Float
    transforms: npt.NDArray[np.float64]
    gains: Float
    reference: int
    lens: Lens
    margin_px: int
    ghosts: dict[int, Surface] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.settings.frames

    def __getitem__(self, index: int) -> Array:  # type: ignore[override]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        random = np.random.default_rng([self.settings.seed, 1, index])
        return expose(self.light(index), self.settings.raw, self.settings.noise, random)

    def __iter__(self) -> Iterator[Array]:
        return (self[k] for k in range(len(self)))

    def light(self, index: int) -> Float:
        """Frame ``index`` (H, W, 3) as the sensor receives it: linear, before noise and clipping."""
        lens = self.lens
        if index in self.ghosts:
            lens = replace(lens, surfaces=[*lens.surfaces, self.ghosts[index]])
        view = lens.render(float(self.focus[index]))
        h, w = self.depth.shape
        view = move(view, self.transforms[index], (h, w), self.margin_px)
        return np.asarray(soften(view, self.settings.sigma_px) * self.gains[index], np.float32)

    @property
    def meta(self) -> Meta:
        """Facts that all frames share."""
        if not self.settings.raw:
            return Meta(make="pyfocus", model="simulated", encoding="srgb")
        red, green, blue = NEUTRAL
        return Meta(
            make="pyfocus",
            model="simulated",
            cfa="RGGB",
            black=(BLACK_DN, BLACK_DN, BLACK_DN, BLACK_DN),
            white=WHITE_DN,
            white_balance=(green / red, 1.0, green / blue),
            xyz_to_camera=XYZ_TO_SRGB,
            encoding="linear",
        )

    @property
    def burst(self) -> Burst:
        """The frames as a burst, rendered when read."""
        names = [frame_name(k, len(self)) for k in range(len(self))]
        return Burst(names, lambda k: Frame(self[k], self.meta))


def simulate(photo: Array, depth: Array, settings: Settings | None = None, **changes: Any) -> Bracket:
    """See a sharp picture through a thin lens that steps its focus from near to far.

    ``photo`` (H, W, 3) float32 is linear light in [0, 1]; ``depth`` (H, W) float, larger = nearer.
    ``changes`` are fields of ``settings`` (``frames=20, raw=True``). Past its borders the scene is mirrored,
    so frames that see more than the reference show no invented edge. A raw bracket of odd size loses its last
    row or column.
    """
    settings = replace(settings or Settings(), **changes)
    photo, depth = np.asarray(photo, np.float32), np.asarray(depth, np.float32)
    if photo.ndim != 3 or photo.shape[2] != 3 or photo.shape[:2] != depth.shape or min(depth.shape) < 8:
        raise ArgumentError(
            f"simulate: photo must be (H, W, 3) and depth (H, W), at least 8x8, got {photo.shape} and {depth.shape}"
        )
    if not (np.isfinite(photo).all() and np.isfinite(depth).all()):
        raise ArgumentError("simulate: photo and depth must be finite, got NaN or infinity; mend them first")
    if settings.raw:
        photo, depth = photo[: len(photo) // 2 * 2, : photo.shape[1] // 2 * 2], depth[: len(depth) // 2 * 2]
        depth = depth[:, : photo.shape[1]]
    near, far = float(depth.max()), float(depth.min())
    focus = np.linspace(near, far, settings.frames, dtype=np.float32)
    transforms, gains = draw_motion(depth.shape, settings)
    margin = margin_px(transforms, depth.shape)
    reach = int(np.ceil(settings.blur_px)) + 1
    border = ((margin + reach,) * 2,) * 2
    scene = np.pad(photo, (*border, (0, 0)), mode="symmetric"), np.pad(depth, border, mode="symmetric")
    lens = build_lens(*scene, settings.blur_px, near - far)
    truth = soften(photo, settings.sigma_px)
    ghosts: dict[int, Surface] = {}
    if settings.ghost:
        size = (int(depth.shape[0]), int(depth.shape[1]))
        ghosts = walk_through(size, focus, settings.ghost, margin + reach, reach, settings.seed)
    return Bracket(settings, truth, depth, focus, transforms, gains, settings.frames // 2, lens, margin, ghosts)


def draw_motion(shape: tuple[int, ...], settings: Settings) -> tuple[npt.NDArray[np.float64], Float]:
    """Transforms (N, 2, 3) from reference to frame, exposures (N,): identity and 1 for the middle frame."""
    random = np.random.default_rng([settings.seed, 0])
    count, middle = settings.frames, settings.frames // 2
    centre = np.array([(shape[1] - 1) / 2, (shape[0] - 1) / 2])
    transforms = np.empty((count, 2, 3))
    gains = np.ones(count, np.float32)
    for k in range(count):
        shift, turn = (
            random.normal(0, settings.jitter_px, 2),
            random.normal(0, np.deg2rad(settings.rotation_deg)),
        )
        gain = 1 + settings.flicker * random.uniform(-1, 1)
        if k == middle:
            shift, turn, gain = shift * 0, 0.0, 1.0
        scale = 1 + settings.breathing * (k - middle) / max(count - 1, 1)
        linear = scale * np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        transforms[k] = np.column_stack([linear, centre - linear @ centre + shift])
        gains[k] = gain
    return transforms, gains


def margin_px(transforms: npt.NDArray[np.float64], shape: tuple[int, ...]) -> int:
    """How far past the reference's borders the frames look, interpolation included; 0 when none moves."""
    h, w = shape
    corners = np.array([[0, 0, 1], [w - 1, 0, 1], [0, h - 1, 1], [w - 1, h - 1, 1]], float)
    worst = max(float(np.abs(corners @ invert(t).T - corners[:, :2]).max()) for t in transforms)
    return int(np.ceil(worst)) + 4 if worst > 1e-9 else 0


def frame_name(index: int, count: int) -> str:
    """File name of a frame without its ending: of one width, so that every sort agrees."""
    return f"IMG_{index:0{max(4, len(str(count - 1)))}d}"


def write_bracket(bracket: Bracket, folder: str | Path, *, overwrite: bool = False) -> list[Path]:
    """Write ``frames/IMG_0000.dng|.tif`` ..., ``truth.tif``, ``depth.png``, ``scene.json``; frame paths back.

    The truth is 16-bit sRGB, depth 16 bit with 65535 = near; ``scene.json`` holds the settings, transforms
    (from reference to frame), focus depths, exposures and the frames with a ghost. WriteError when something is there.
    """
    from ..io import write_dng, write_image

    folder = Path(folder)
    targets = [folder / name for name in ("frames", "truth.tif", "depth.png", "scene.json")]
    taken = [path for path in targets if path.exists()]
    if taken and not overwrite:
        raise WriteError(f"{taken[0]}: exists already; choose another folder or overwrite")
    try:
        targets[0].mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"{targets[0]}: cannot be created ({error.strerror}); choose another folder") from error
    written = []
    for k, frame in enumerate(bracket):
        name = frame_name(k, len(bracket))
        written.append(targets[0] / f"{name}{'.dng' if bracket.settings.raw else '.tif'}")
        if bracket.settings.raw:
            write_dng(written[-1], frame, bracket.meta, overwrite=overwrite)
        else:
            write_image(written[-1], frame, meta=bracket.meta, bits=16, overwrite=overwrite)
    span = max(float(np.ptp(bracket.depth)), 1e-6)
    near = np.rint((bracket.depth - bracket.depth.min()) / span * 65535).astype(np.uint16)
    truth = encode_u16(bracket.truth)
    write_image(targets[1], truth, meta=Meta(encoding="srgb"), bits=16, overwrite=overwrite)
    write_image(targets[2], near, bits=16, overwrite=overwrite)
    _write_scene(bracket, targets[3], overwrite)
    return written


def _write_scene(bracket: Bracket, path: Path, overwrite: bool) -> None:
    """Settings, and the truth about motion and focus, as JSON."""
    from ..io.atomic import atomic

    h, w = bracket.depth.shape
    scene = {
        **asdict(bracket.settings),
        "size": [w, h],
        "reference": bracket.reference,
        "focus": bracket.focus.tolist(),
        "gains": bracket.gains.tolist(),
        "ghost_frames": sorted(bracket.ghosts),
        "transforms": bracket.transforms.tolist(),
    }
    with atomic(path, overwrite) as file:
        file.write(json.dumps(scene, indent=1).encode() + b"\n")
