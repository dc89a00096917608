"""The simulation on one page: what is drawn for a burst, and how its frames and its truth come about."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...affine import Matrix
from ...errors import ArgumentError
from ..batch import Batch
from ..bursts import LAYOUTS, Kind
from ..noise import READ_OFFSET, READ_SLOPE, READ_SPREAD, SHOT_RANGE, add_noise
from .lens import REACH, Lens
from .pictures import Pictures, Source, find_photos
from .scene import draw_scene
from .sensor import centred, code, develop_mosaic, mosaic_of, move, soften
from .settings import SimulationSettings

MARGIN_PX = 8  # what frames see past the crop, for shifts, scales and the reach of the resampling
CLEAN = (1e-6, 1e-8)

Noise = str | tuple[float, float]


@dataclass(frozen=True)
class Camera:
    """What one burst is taken with."""

    mosaic: bool
    coded: int  # largest sRGB code, 0 for none
    noise: tuple[float, float]
    white_balance: tuple[float, float, float]
    colour: Matrix  # (3, 3), linear sRGB to camera RGB
    softness_px: float


class Simulation:
    """Bursts without end, each with its truth; see :class:`Batch` for what they hold.

    ``photos`` is a folder, a file, a list of files, or None for painted pictures alone. ``size`` px is the side of the
    square truth; frames are as large, or half as large for kind "rggb". ``frames`` is the number of frames, or a range
    from which each batch draws one. ``noise``: "drawn", "none", or (shot, read) of one raw sample. Raises
    ArgumentError, and ReadError for photos that cannot be read.
    """

    def __init__(
        self,
        photos: Source | Sequence[Source] | None = None,
        *,
        size: int = 128,
        frames: int | tuple[int, int] = (3, 8),
        kind: Kind = "rgb",
        device: torch.device | str = "cpu",
        noise: Noise = "drawn",
        seed: int = 0,
        settings: SimulationSettings | None = None,
    ) -> None:
        self.settings = settings or SimulationSettings()
        self.frames = (frames, frames) if isinstance(frames, int) else (int(frames[0]), int(frames[1]))
        self.size, self.kind, self.noise, self.seed = size, kind, noise, seed
        _check(size, self.frames, kind, noise, seed)
        self.device = torch.device(device)
        self._reach = math.ceil(self.settings.blur_px * REACH)
        self._side = -(-(size + 2 * (MARGIN_PX + self._reach)) // 16) * 16
        self._edge = (self._side - size) // 2 - MARGIN_PX
        paths = find_photos(photos)
        self.pictures = Pictures(paths, self.settings.pool, self._side, seed, self.device)
        self.lens = Lens(self._side, self.settings.blur_px, seed, self.device)

    def draw(self, index: int, count: int = 1) -> Batch:
        """Batch ``index`` of ``count`` bursts: on the CPU the same numbers give the same batch, bit for bit."""
        if index < 0 or count < 1:
            raise ArgumentError(
                f"Simulation.draw: index must be 0 or more and count 1 or more, got {index} and {count}"
            )
        length = int(np.random.default_rng([self.seed, 1, index]).integers(self.frames[0], self.frames[1] + 1))
        with torch.no_grad():
            bursts = [self._burst(np.random.default_rng([self.seed, 2, index, k]), length) for k in range(count)]
        frames, places, truth, depth, sharp, noise, balance = (torch.stack(x) for x in zip(*bursts, strict=True))
        return Batch(frames, places, truth, depth, sharp, noise, balance, self.kind)

    def _burst(self, random: np.random.Generator, count: int) -> tuple[Tensor, ...]:
        """Frames, index, truth, depth, sharp, noise, white balance of one burst."""
        settings = self.settings
        camera = draw_camera(random, settings, self.kind, self.noise)
        order = draw_order(random, count)
        step = float(random.uniform(*settings.step_px))
        scene = draw_scene(random, settings, self.pictures, count, step, self._side, self._edge)
        light, depth = scene.light.to(self.device), scene.depth.to(self.device)
        mix = torch.as_tensor(camera.colour, dtype=torch.float32, device=self.device)
        light[:, :3] = torch.einsum("ij,kjyx->kiyx", mix, light[:, :3])
        places = torch.tensor(order, dtype=torch.float32, device=self.device)
        aperture = int(random.integers(self.lens.pool)) if random.uniform() < 0.7 else 0
        views = self.lens.render(light, depth, places, step, self._edge, aperture)
        crop = slice(self._edge, self._side - self._edge)
        truth, front = see_sharp(light[..., crop, crop], depth[..., crop, crop])
        truth = soften(truth[None], camera.softness_px)[0]
        frames = self._expose(random, views, camera)
        if random.uniform() < settings.reversed:
            places, front = count - 1 - places, count - 1 - front
        nearest = (front[None] - torch.arange(count, device=self.device)[:, None, None]).abs().amin(0) * step
        sharp = (1 - (nearest - max(1.0, step / 2)) / 2).clamp(0, 1)
        m = slice(MARGIN_PX, -MARGIN_PX)
        noise, balance = torch.tensor(camera.noise), torch.tensor(camera.white_balance)
        return (
            frames, places, truth[:, m, m].clamp(0, 1), front[None, m, m], sharp[None, m, m],
            noise.to(self.device), balance.to(self.device),
        )  # fmt: skip

    def _expose(self, random: np.random.Generator, views: Tensor, camera: Camera) -> Tensor:
        """Frames (N, C, h, w) of views (N, 3, V, V), the first of which is the reference."""
        settings, side = self.settings, views.shape[2]
        generator = torch.Generator(self.device).manual_seed(int(random.integers(2**62)))
        still, rest = bool(random.uniform() < settings.still), float(random.uniform(0, 1.7)) * settings.shift_px
        paths = [
            draw_motion(random, settings, rest, side, self.kind == "rgb") if n and not still else None
            for n in range(len(views))
        ]
        gains = 1 + settings.drift * random.uniform(-1, 1, len(views))
        gains[0] = 1
        moved = torch.stack([v if p is None else move(v, p[0]) for v, p in zip(views, paths, strict=True)])
        gain = torch.as_tensor(gains, dtype=torch.float32, device=self.device)
        light = soften(moved, camera.softness_px) * gain[:, None, None, None]
        if camera.mosaic:
            light = mosaic_of(light)
        light = light.clamp_min(0)
        if camera.noise != CLEAN:
            light = add_noise(light, torch.tensor(camera.noise), generator)
        light = light.clamp_max(1)
        m = slice(MARGIN_PX, -MARGIN_PX)
        if self.kind == "mosaic":
            return light[:, None, m, m].contiguous()
        if self.kind == "rggb":
            planes = [light[:, y::2, x::2] for y, x in ((0, 0), (0, 1), (1, 0), (1, 1))]
            half = slice(MARGIN_PX // 2, -(MARGIN_PX // 2))
            return torch.stack(planes, 1)[..., half, half].contiguous()
        if camera.coded:
            light = code(light, camera.coded)
        frames = [self._develop(x, None if p is None else p[1], camera) for x, p in zip(light, paths, strict=True)]
        return torch.stack(frames)[..., m, m].contiguous()

    def _develop(self, light: Tensor, back: Matrix | None, camera: Camera) -> Tensor:
        """One frame as the stacker hands it on: demosaiced if it is a mosaic, and warped unless it is the reference."""
        if not camera.mosaic:
            return light if back is None else move(light, back)
        roots = develop_mosaic(light, camera.white_balance)
        frame = roots * roots.abs() if back is None else move(roots, back, root=False)
        return frame / torch.tensor(camera.white_balance, device=frame.device)[:, None, None]


def see_sharp(light: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
    """What surfaces (K, 4, V, V) at ``depth`` (K, V, V) show with all in focus: colour (3, V, V), depth (V, V)."""
    view, front = light[0, :3], depth[0]
    for surface, place in zip(light[1:], depth[1:], strict=True):
        view = surface[:3] + (1 - surface[3:]) * view
        front = torch.where(surface[3] > 0.5, place, front)
    return view, front


def draw_camera(random: np.random.Generator, settings: SimulationSettings, kind: Kind, noise: Noise) -> Camera:
    """A camera: with a mosaic and colours of its own, or one that gives sRGB."""
    mosaic = kind != "rgb" or bool(random.uniform() < settings.raw)
    log_shot = random.uniform(*np.log(SHOT_RANGE))
    log_read = random.normal(READ_SLOPE * log_shot + READ_OFFSET, READ_SPREAD)
    pair = (math.exp(log_shot), math.exp(log_read))
    if not mosaic and random.uniform() < settings.clean:
        pair = CLEAN
    if noise == "none":
        pair = CLEAN
    elif not isinstance(noise, str):
        pair = (float(noise[0]), float(noise[1]))
    coded = 0 if mosaic else 255 if random.uniform() < settings.coded else 65535
    colour, balance = np.eye(3), (1.0, 1.0, 1.0)
    if mosaic:
        balance = (float(random.uniform(1.4, 2.4)), 1.0, float(random.uniform(1.3, 2.0)))
        if random.uniform() < 0.6:
            mixed = random.uniform(0, 1, (3, 3))
            mixed = mixed / mixed.sum(1, keepdims=True)
            amount = random.uniform(0, 0.5, (3, 1))
            colour = (1 - amount) * np.eye(3) + amount * mixed
        colour = colour / np.array(balance)[:, None]
    exposure = 1.0 if random.uniform() < 0.5 else math.exp(random.uniform(math.log(0.3), math.log(1.2)))
    low, high = settings.softness_px
    softness = float(random.uniform((low + high) / 2, high)) if mosaic else float(random.uniform(low, high))
    if not mosaic and random.uniform() < 0.5:
        softness = low
    return Camera(mosaic, coded, pair, balance, colour * exposure, softness)


def draw_order(random: np.random.Generator, count: int) -> list[int]:
    """Places of the frames as given: in order, or with the middle one, or any one, moved to the front."""
    kind = random.choice(3, p=(0.6, 0.3, 0.1))
    first = (count // 2, 0, int(random.integers(count)))[kind]
    return [first, *(k for k in range(count) if k != first)]


def draw_motion(
    random: np.random.Generator, settings: SimulationSettings, rest_px: float, side: int, undone: bool
) -> tuple[Matrix, Matrix]:
    """Maps (3, 3) by which a frame moves, and by which registration undoes it but for a small rest.

    ``undone`` False: nothing will be undone, so only the rest moves the frame.
    """
    limit = settings.shift_limit_px
    rest = np.clip(random.normal(0, rest_px, 2), -limit, limit)
    left = centred(1 + float(random.uniform(-1, 1)) * settings.scale, (float(rest[0]), float(rest[1])), side)
    away = random.uniform(-1, 1, 2)
    whole = centred(1 + float(random.uniform(-1, 1)) * settings.breathing, (float(away[0]), float(away[1])), side)
    if not undone:
        return left, np.eye(3)
    return whole, np.linalg.inv(whole) @ left


def _check(size: int, frames: tuple[int, int], kind: str, noise: Noise, seed: int) -> None:
    if size < 16 or size % 2:
        raise ArgumentError(f"Simulation: size must be even and at least 16 px, got {size}; 128 is common")
    if not 1 <= frames[0] <= frames[1]:
        raise ArgumentError(f"Simulation: frames must be 1 or more and rise from low to high, got {frames}")
    if kind not in LAYOUTS:
        raise ArgumentError(f"Simulation: kind must be one of {', '.join(LAYOUTS)}, got {kind!r}")
    if isinstance(noise, str) and noise not in ("drawn", "none"):
        raise ArgumentError(f"Simulation: noise must be 'drawn', 'none' or (shot, read), got {noise!r}")
    if not isinstance(noise, str) and (len(noise) != 2 or min(noise) < 0):
        raise ArgumentError(f"Simulation: noise must be (shot, read), both 0 or more, got {noise}")
    if seed < 0:
        raise ArgumentError(f"Simulation: seed must be 0 or more, got {seed}")
