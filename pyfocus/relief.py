"""What a depth map says of the scene's shape: heights, the frame of each pixel, a mesh, and a view of it.

Heights grow towards the camera. ``near`` says which end of the burst shows near things, "first" or "last".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from .errors import ArgumentError

Map = npt.NDArray[np.float32]
Picture = npt.NDArray[Any]
End = Literal["first", "last"]

DEFAULT_VERTICES = 200_000
MOST_VERTICES = 50_000_000
_RELIEF = 0.2  # of the longer side: how high the relief is where no step is known
_TEXTURE_PX = 4096
_DISTANCE = 2.6  # of the eye, in longer sides
_AMBIENT = 0.35
_POINTS_PER_PX = 1.2  # along the longer side, so that a flat relief has no holes
_MOST_BETWEEN = 4_000_000  # points drawn between neighbours along rows, and along columns
_SKY = 0.12  # brightness of what is behind the relief


@dataclass(frozen=True)
class Mesh:
    """A relief as triangles; the fields are arguments of :func:`pyfocus.write_mesh`.

    ``vertices`` (V, 3) float32: x to the right, y up, z to the viewer, in micrometres, or in pixels where no step is
    known; ``faces`` (F, 3) uint32; ``colours`` (V, 3) uint8; ``places`` (V, 2) float32 in the ``texture`` (h, w, 3)
    uint8; ``metres`` that a unit is long.
    """

    vertices: Map
    faces: npt.NDArray[np.uint32]
    colours: npt.NDArray[np.uint8]
    places: Map
    texture: npt.NDArray[np.uint8]
    metres: float


def heights_um(depth: Map, frames: int, step_um: float, near: End = "first") -> Map:
    """Height (H, W) float32 in micrometres above the farthest plane of focus, of a depth index (H, W).

    ``frames``: their number; ``step_um``: how far the focus moves from one to the next. Raises ArgumentError.
    """
    if depth.ndim != 2 or depth.size == 0 or frames < 1:
        raise ArgumentError(f"heights_um: depth must be (H, W) and frames >= 1, got {depth.shape} and {frames}")
    if not 0 < step_um < np.inf:
        raise ArgumentError(f"heights_um: step_um must be above 0, got {step_um}")
    if near not in ("first", "last"):
        raise ArgumentError(f"heights_um: near must be 'first' or 'last', got {near!r}")
    steps = np.asarray(depth, np.float32)
    return np.asarray((frames - 1 - steps if near == "first" else steps) * np.float32(step_um), np.float32)


def provenance(depth: Map, used: Sequence[int]) -> npt.NDArray[np.uint16]:
    """Number of the frame nearest to a depth index (H, W), of the frames that were ``used``; the lower one of two.

    Raises ArgumentError.
    """
    numbers = np.unique(np.asarray(used, np.int64))
    if not numbers.size or numbers[0] < 0 or numbers[-1] > 65535:
        raise ArgumentError(f"provenance: used must hold numbers of frames from 0 to 65535, got {list(used)[:4]}")
    middles = (numbers[:-1] + numbers[1:]) / 2
    return np.asarray(numbers[np.searchsorted(middles, depth)], np.uint16)


def relief_mesh(
    depth: Map,
    picture: Picture,
    frames: int,
    *,
    step_um: float | None = None,
    pixel_um: float | None = None,
    near: End = "first",
    vertices: int = DEFAULT_VERTICES,
) -> Mesh:
    """A mesh of a depth index (H, W) with its picture, (H, W) or (H, W, 3), uint8 or uint16.

    At most ``vertices`` of them, on an even grid; each is the mean of its block. In micrometres where ``step_um`` and
    ``pixel_um`` are both known, else in pixels, the relief a fifth of the longer side high. Raises ArgumentError.
    """
    colours = _check("relief_mesh", depth, picture)
    if not 4 <= vertices <= MOST_VERTICES or min(depth.shape) < 2:
        raise ArgumentError(
            f"relief_mesh: vertices must be 4 to {MOST_VERTICES} and depth 2 x 2 or more, got {vertices}, {depth.shape}"
        )
    height, pixel, metres = _scaled(depth, frames, step_um, pixel_um, near)
    rows, columns = _grid(depth.shape, vertices)
    z, y, x = _means(height, rows, columns), _middles(rows), _middles(columns)
    points = np.empty((*z.shape, 3), np.float32)
    points[..., 0] = (x - (depth.shape[1] - 1) / 2) * pixel
    points[..., 1] = ((depth.shape[0] - 1) / 2 - y)[:, None] * pixel
    points[..., 2] = z
    places = np.empty((*z.shape, 2), np.float32)
    places[..., 0] = (x + 0.5) / depth.shape[1]
    places[..., 1] = ((y + 0.5) / depth.shape[0])[:, None]
    shown = np.stack([_means(colours[..., c], rows, columns) for c in range(3)], axis=-1)
    step = -(-max(depth.shape) // _TEXTURE_PX)
    return Mesh(
        points.reshape(-1, 3), _faces(*z.shape), np.rint(shown).astype(np.uint8).reshape(-1, 3), places.reshape(-1, 2),
        _thinned(colours, step), metres,
    )  # fmt: skip


def render_relief(
    depth: Map,
    picture: Picture,
    frames: int,
    *,
    step_um: float | None = None,
    pixel_um: float | None = None,
    near: End = "first",
    size_px: int = 1200,
    turn_deg: float = 25.0,
    tilt_deg: float = 40.0,
) -> npt.NDArray[np.uint8]:
    """A view of the relief in perspective, (h, w, 3) uint8 sRGB, shaded as if lit from the upper left.

    Arguments as for :func:`relief_mesh`; ``size_px``: the view's longer side; ``turn_deg`` about the line of sight of
    the camera, ``tilt_deg`` away from it. Points are drawn far to near. Raises ArgumentError.
    """
    colours = _check("render_relief", depth, picture)
    if not 16 <= size_px <= 16384 or not abs(tilt_deg) < 85 or min(depth.shape) < 2:
        raise ArgumentError(
            f"render_relief: size_px must be 16 to 16384, tilt_deg within 85 and depth 2 x 2 or more, got {size_px}, "
            f"{tilt_deg}, {depth.shape}"
        )
    height, pixel, _ = _scaled(depth, frames, step_um, pixel_um, near)
    rows, columns = _grid(depth.shape, round((_POINTS_PER_PX * size_px) ** 2))
    unit = np.float32(1 / (max(depth.shape) * pixel))
    z = _means(height, rows, columns) * unit
    x = ((_middles(columns) - (depth.shape[1] - 1) / 2) * pixel * unit).astype(np.float32)
    y = (((depth.shape[0] - 1) / 2 - _middles(rows)) * pixel * unit).astype(np.float32)
    shown = np.stack([_means(colours[..., c], rows, columns) for c in range(3)])
    times = int(np.ceil(_POINTS_PER_PX * size_px / max(z.shape)))
    x, y, z, shown = _between(x, times), _between(y, times), _grown(z, times), _grown(shown, times)
    shown = np.moveaxis(shown * _shade(z, y, x), 0, -1)
    points = np.stack([*np.broadcast_arrays(x[None, :], y[:, None]), z - (z.max() + z.min()) / 2])
    points, shown = _with_walls(points, shown, 0.7 / size_px)
    across, up, away = _turned(points, np.deg2rad(turn_deg), np.deg2rad(tilt_deg))
    shrink = 1 / (1 + away / np.float32(_DISTANCE))
    return _draw(np.stack([across, up]) * shrink, away, shown, size_px)


def _check(name: str, depth: Map, picture: Picture) -> npt.NDArray[np.uint8]:
    """The picture as (H, W, 3) uint8."""
    if depth.ndim != 2 or picture.shape[:2] != depth.shape or picture.ndim not in (2, 3):
        raise ArgumentError(f"{name}: depth and picture must be of one size, got {depth.shape} and {picture.shape}")
    if picture.dtype not in (np.uint8, np.uint16):
        raise ArgumentError(f"{name}: picture must be uint8 or uint16, got {picture.dtype}")
    if not np.isfinite(depth).all():
        raise ArgumentError(f"{name}: depth must be finite, got NaN or infinity")
    small = picture if picture.dtype == np.uint8 else ((picture.astype(np.uint32) * 255 + 32895) >> 16).astype(np.uint8)
    return np.repeat(small[..., None], 3, axis=2) if small.ndim == 2 else small


def _scaled(
    depth: Map, frames: int, step_um: float | None, pixel_um: float | None, near: End
) -> tuple[Map, float, float]:
    """Heights, what a pixel is long in their unit, and the unit in metres: 1 mm where it is a pixel."""
    if step_um is not None and pixel_um is not None:
        if not 0 < pixel_um < np.inf:
            raise ArgumentError(f"relief: pixel_um must be above 0, got {pixel_um}")
        return heights_um(depth, frames, step_um, near), float(pixel_um), 1e-6
    return heights_um(depth, frames, _RELIEF * max(depth.shape) / max(frames - 1, 1), near), 1.0, 1e-3


def _grid(shape: tuple[int, ...], most: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Where blocks begin, along rows and columns: nearly square ones, at most ``most``, at least 2 along each."""
    h, w = shape
    down = int(np.clip(np.sqrt(most * h / w), 2, min(h, most // 2)))
    across = int(np.clip(most // down, 2, w))
    return _starts(h, down), _starts(w, across)


def _starts(length: int, count: int) -> npt.NDArray[np.intp]:
    return np.append(np.arange(count) * length // count, length).astype(np.intp)


def _middles(starts: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
    return np.asarray((starts[:-1] + starts[1:] - 1) / 2)


def _means(values: npt.NDArray[Any], rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp]) -> Map:
    """Mean of every block."""
    if len(rows) == values.shape[0] + 1 and len(columns) == values.shape[1] + 1:
        return np.asarray(values, np.float32)
    sums = np.add.reduceat(np.add.reduceat(values, rows[:-1], axis=0, dtype=np.float32), columns[:-1], axis=1)
    return np.asarray(sums / (np.diff(rows)[:, None] * np.diff(columns)), np.float32)


def _thinned(colours: npt.NDArray[np.uint8], step: int) -> npt.NDArray[np.uint8]:
    """The texture, its longer side at most _TEXTURE_PX."""
    if step == 1:
        return np.ascontiguousarray(colours)
    h, w = (max(2, n // step) for n in colours.shape[:2])
    rows, columns = _starts(colours.shape[0], h), _starts(colours.shape[1], w)
    return np.stack([np.rint(_means(colours[..., c], rows, columns)) for c in range(3)], axis=-1).astype(np.uint8)


def _faces(rows: int, columns: int) -> npt.NDArray[np.uint32]:
    """Two triangles per cell of the grid, counterclockwise as the camera sees them."""
    first = (np.arange(rows - 1, dtype=np.uint32)[:, None] * columns + np.arange(columns - 1, dtype=np.uint32)).ravel()
    right, below, across = first + 1, first + columns, first + columns + 1
    return np.stack([first, below, right, right, below, across], axis=1).reshape(-1, 3).astype(np.uint32)


def _shade(z: Map, y: Map, x: Map) -> Map:
    """Lambert's law, and some light from everywhere, relative to a surface that faces the camera."""
    down, across = np.gradient(z, y, x)
    normal = np.stack([-across, -down, np.ones_like(z)])
    normal /= np.sqrt(np.square(normal).sum(0))
    lamp = np.array([-0.45, 0.45, 0.77], np.float32)
    lamp /= np.sqrt((lamp**2).sum())
    lit = np.maximum(np.tensordot(lamp, normal, 1), 0) / lamp[2]
    return np.asarray(np.minimum(_AMBIENT + (1 - _AMBIENT) * lit, 1.2), np.float32)


def _between(values: Map, times: int) -> Map:
    """Values (..., n) with ``times - 1`` more between two of them, on the line from one to the other."""
    count = values.shape[-1]
    at = np.arange((count - 1) * times + 1)
    low = np.minimum(at // times, count - 2)
    share = ((at - low * times) / times).astype(np.float32)
    return np.asarray(values[..., low] + share * (values[..., low + 1] - values[..., low]), np.float32)


def _grown(values: Map, times: int) -> Map:
    """Maps (..., h, w), likewise along rows and columns."""
    if times == 1:
        return values
    return np.swapaxes(_between(np.swapaxes(_between(values, times), -1, -2), times), -1, -2)


def _with_walls(points: Map, colours: Map, apart: float) -> tuple[Map, Map]:
    """Points (3, h, w) and colours (h, w, 3) as lists (3, n), (n, 3), with more between neighbours of unlike height."""
    all_points, all_colours = [points.reshape(3, -1)], [colours.reshape(-1, 3)]
    for lower, upper in ((np.s_[:-1, :], np.s_[1:, :]), (np.s_[:, :-1], np.s_[:, 1:])):
        a, b = points[(slice(None), *lower)].reshape(3, -1), points[(slice(None), *upper)].reshape(3, -1)
        shown = colours[lower].reshape(-1, 3)
        more = (np.abs(a[2] - b[2]) / np.float32(apart)).astype(np.int64)
        if more.sum() > _MOST_BETWEEN:  # a rugged relief: walls are drawn thinner, so that memory stays bounded
            more = (more * (_MOST_BETWEEN / more.sum())).astype(np.int64)
        which = np.repeat(np.arange(len(more)), more)
        first = np.cumsum(more) - more
        share = ((np.arange(len(which)) - first[which] + 1) / (more[which] + 1)).astype(np.float32)
        all_points.append(a[:, which] + share * (b[:, which] - a[:, which]))
        all_colours.append(shown[which])
    return np.concatenate(all_points, axis=1), np.concatenate(all_colours)


def _turned(points: Map, turn: float, tilt: float) -> tuple[Map, Map, Map]:
    """Points (3, n) as the eye sees them: to the right, up, and away from it."""
    c, s = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    x, y = c * points[0] - s * points[1], s * points[0] + c * points[1]
    c, s = np.float32(np.cos(tilt)), np.float32(np.sin(tilt))
    return x, c * y + s * points[2], s * y - c * points[2]


def _draw(places: npt.NDArray[Any], away: Map, colours: Map, size_px: int) -> npt.NDArray[np.uint8]:
    """Points (2, n), to the right and up, as squares of 2 x 2 px, the nearest on top."""
    x, y = places
    span = max(float(np.ptp(x)), float(np.ptp(y)), 1e-6)
    scale = (size_px - 8) / span
    w, h = int(np.ptp(x) * scale) + 8, int(np.ptp(y) * scale) + 8
    column, row = ((x - x.min()) * scale).astype(np.int64) + 3, ((y.max() - y) * scale).astype(np.int64) + 3
    order = np.argsort(-away, kind="stable")
    shown = np.rint(np.clip(colours, 0, 255)).astype(np.uint8)[order]
    at = (row * w + column)[order]
    nearest = np.full(h * w, -1, np.int64)
    rank = np.arange(len(at))
    for shift in (0, 1, w, w + 1):
        here = np.full(h * w, -1, np.int64)
        here[at + shift] = rank  # of several at one place the last, which is the nearest
        np.maximum(nearest, here, out=nearest)
    view = np.full((h * w, 3), round(255 * _SKY), np.uint8)
    view[nearest >= 0] = shown[nearest[nearest >= 0]]
    return view.reshape(h, w, 3)
