"""Defects of a sensor: hot and dead pixels found from the burst itself, dark frames taken off, flat fields divided out.

All of it in sensor coordinates, before anything is registered: what is defective stays at its pixel while the scene
moves over it and goes in and out of focus. Neighbours are the eight nearest pixels of the same colour:

    hot     v - max(neighbours) > max(neighbours) - min(neighbours) + least      in (nearly) every frame looked at
    dead    min(neighbours) - v > max(neighbours) - min(neighbours) + least

Noise does that once in 100 000 pixels of one frame, and not again at the same pixel; a point of light does it where it
is sharp, in few frames. A defect becomes the median of those neighbours that are none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from .burst import Array, Burst, Frame, check_pixels
from .colour import decode_lut
from .errors import ArgumentError, BurstError

Places = npt.NDArray[np.intp]
_LOOKS = 5  # frames, spread evenly; all but one must agree, or all of four and fewer
_FEWEST = 3
_SCANNED = 2  # of them are searched in full, the others only where these found something
_LEAST = 0.004  # of the range between black and white
_MOST_SHARE = 0.005  # of the pixels: a sensor with more of them is none
_DARKEST = 0.05  # of the flat field's mean: there it tells nothing
_AROUND = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]


@dataclass(frozen=True)
class Defects:
    """Rows and columns (2, n) of defective pixels for each plane of a frame: the four of a mosaic, or its channels."""

    hot: list[Places]
    dead: list[Places]

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(places.shape[1] for places in (*self.hot, *self.dead))

    def mend(self, frame: Frame) -> Frame:
        """The frame with each of them as the median of its sound neighbours; its pixels are copied."""
        if not self.count:
            return frame
        data = frame.data.copy()
        for plane, *kinds in zip(_planes_of(data, frame.is_mosaic), self.hot, self.dead, strict=True):
            rows, columns = np.concatenate(kinds, axis=1)
            if not len(rows):
                continue
            sick = np.zeros(plane.shape, bool)
            sick[rows, columns] = True
            around = _neighbours(rows, columns, plane.shape)
            values = np.where(sick[around], np.nan, plane[around])
            lost = np.isnan(values).all(axis=0)  # a cluster's middle: its neighbours are all it has
            values[:, lost] = plane[around][:, lost]
            middle = np.nanmedian(values, axis=0)
            plane[rows, columns] = middle if data.dtype.kind == "f" else np.rint(middle)
        return Frame(data, frame.meta)


def find_defects(burst: Burst) -> Defects:
    """Hot and dead pixels of the sensor that made a burst, which has three frames or more; of fewer, none.

    Reads up to five frames. What is wider than a pixel is not found, nor what the scene hides: a hot pixel where every
    frame is white.
    """
    places = sorted({round(p) for p in np.linspace(0, len(burst) - 1, min(_LOOKS, len(burst)))})
    if len(places) < _FEWEST:
        return Defects(*([np.empty((2, 0), np.intp)] * len(_planes_of_frame(burst[0])) for _ in range(2)))
    frames = [burst[p] for p in _scanned_first(places)]
    if any(frame.data.shape != frames[0].data.shape for frame in frames):
        raise BurstError("find_defects: the frames are not of one size")
    found: tuple[list[Places], list[Places]] = ([], [])
    for views in zip(*(_planes_of_frame(frame) for frame in frames), strict=True):
        least = _least(frames[0])
        for kind, sign in zip(found, (1, -1), strict=True):
            candidates = np.unique(np.concatenate([_scan(view, sign, least) for view in views[:_SCANNED]], 1), axis=1)
            agree = sum(_stands_out(view, candidates, sign, least).astype(int) for view in views)
            kept = candidates[:, agree >= len(views) - (len(views) >= _LOOKS)]
            kind.append(kept if kept.shape[1] <= _MOST_SHARE * views[0].size else kept[:, :0])
    return Defects(*found)


def repaired(
    burst: Burst,
    *,
    dark: Frame | Array | None = None,
    flat: Frame | Array | None = None,
    find: bool | Defects = True,
) -> Burst:
    """The burst with its sensor's defects repaired, frame by frame as they are read; nothing given is changed.

    ``dark``: a frame with the lens covered, taken off above the black level, and searched for hot pixels. ``flat``: an
    even, bright, unfocused field, each colour divided by its mean: frames are divided by it, where it is not dark.
    Both of the burst's size and kind; images become float32 of linear light. ``find``: also search the burst, or what
    :func:`find_defects` found in it. Raises BurstError for frames that do not fit, ArgumentError for a flat field
    without light.
    """
    first = burst[0]
    covered, gains = _fitting("dark", dark, first), _fitting("flat", flat, first)
    levels = None if covered is None else _above_black(covered)
    gain = None if gains is None else _gain(gains)
    known = [find] if isinstance(find, Defects) else [find_defects(burst)] if find else []
    if covered is not None:
        known.append(_of_dark(covered))

    def read(i: int) -> Frame:
        frame = burst[i]
        if levels is not None or gain is not None:
            frame = _corrected(frame, levels, gain)
        for defects in known:  # now, since a hot pixel's own dark value would be taken off its neighbours' median
            frame = defects.mend(frame)
        return frame

    return Burst(burst.names, read)


def _scanned_first(places: Sequence[int]) -> list[int]:
    """The same places, the middle one and the last one before the others."""
    return [places[len(places) // 2], places[-1], *(p for p in places[:-1] if p != places[len(places) // 2])]


def _planes_of_frame(frame: Frame) -> list[Array]:
    return _planes_of(frame.data, frame.is_mosaic)


def _planes_of(data: Array, mosaic: bool) -> list[Array]:
    """Views of pixels of one colour: (H / 2, W / 2) four times, or the channels."""
    if mosaic:
        return [data[y::2, x::2] for y in (0, 1) for x in (0, 1)]
    return [data] if data.ndim == 2 else [data[..., c] for c in range(data.shape[2])]


def _least(frame: Frame) -> float:
    """By how much a defect stands out at least, in the frame's own numbers."""
    if frame.is_mosaic:
        return _LEAST * (frame.meta.white - min(frame.meta.black))
    return _LEAST * (float(np.iinfo(frame.data.dtype).max) if frame.data.dtype.kind == "u" else 1.0)


def _scan(plane: Array, sign: int, least: float) -> Places:
    """Where a whole plane stands out, (2, n); ``sign`` 1 above, -1 below. Band by band, which keeps memory small."""
    found = []
    for top in range(0, plane.shape[0], 256):
        first, end = max(0, top - 1), min(top + 257, plane.shape[0])
        values = sign * plane[first:end].astype(np.float32)
        padded = np.pad(values, 1, mode="reflect") if min(values.shape) > 1 else np.pad(values, 1, mode="edge")
        beside_high = np.maximum(padded[:, :-2], padded[:, 2:])
        beside_low = np.minimum(padded[:, :-2], padded[:, 2:])
        row_high, row_low = np.maximum(beside_high, padded[:, 1:-1]), np.minimum(beside_low, padded[:, 1:-1])
        high = np.maximum(np.maximum(row_high[:-2], row_high[2:]), beside_high[1:-1])
        low = np.minimum(np.minimum(row_low[:-2], row_low[2:]), beside_low[1:-1])
        rows, columns = np.nonzero(values - high > high - low + least)
        rows += first
        inside = (rows >= top) & (rows < top + 256)
        found.append(np.stack([rows[inside], columns[inside]]))
    return np.concatenate(found, axis=1)


def _stands_out(plane: Array, places: Places, sign: int, least: float) -> npt.NDArray[np.bool_]:
    """The same for some places only."""
    rows, columns = places
    around = sign * plane[_neighbours(rows, columns, plane.shape)].astype(np.float32)
    high, low = around.max(axis=0, initial=-np.inf), around.min(axis=0, initial=np.inf)
    out: npt.NDArray[np.bool_] = sign * plane[rows, columns].astype(np.float32) - high > high - low + least
    return out


def _neighbours(rows: Places, columns: Places, shape: tuple[int, ...]) -> tuple[Places, Places]:
    """Rows and columns (8, n) of the pixels around, mirrored at the edges."""
    y = np.stack([rows + dy for dy, _ in _AROUND])
    x = np.stack([columns + dx for _, dx in _AROUND])
    return _mirrored(y, shape[0]), _mirrored(x, shape[1])


def _mirrored(places: Places, size: int) -> Places:
    mirrored: Places = np.where(places < 0, -places, np.where(places >= size, 2 * size - 2 - places, places))
    return np.clip(mirrored, 0, size - 1)


def _fitting(name: str, given: Frame | Array | None, first: Frame) -> Frame | None:
    """The dark frame or flat field as a frame of the burst's kind."""
    if given is None:
        return None
    if not isinstance(given, Frame):
        check_pixels(f"repaired: {name}", given)
        given = Frame(given, first.meta)
    if given.data.shape != first.data.shape or given.meta.cfa != first.meta.cfa:
        raise BurstError(
            f"repaired: {name} is {_said(given)}, the burst's frames are {_said(first)}; "
            f"take a {name} of the same camera, size and format"
        )
    if given.is_mosaic and first.is_mosaic:  # the burst's levels
        return Frame(given.data, replace(given.meta, black=first.meta.black, white=first.meta.white))
    return given


def _said(frame: Frame) -> str:
    shape, kind = frame.data.shape, frame.meta.cfa
    return f"{shape[1]} x {shape[0]} px, " + (f"a {kind} mosaic" if kind else f"{'grey' if len(shape) == 2 else 'RGB'}")


def _above_black(frame: Frame) -> npt.NDArray[np.float32]:
    """What a frame holds above its black level: counts of a mosaic, linear light of an image."""
    if not frame.is_mosaic:
        return _light(frame)
    values = frame.data.astype(np.float32)
    for plane, black in zip(_planes_of(values, True), frame.meta.black, strict=True):
        plane -= black
    return values


def _light(frame: Frame) -> npt.NDArray[np.float32]:
    """Linear light of an image, as a copy."""
    data: Any = frame.data
    if frame.meta.encoding == "srgb" and data.dtype.kind == "u":
        light: npt.NDArray[np.float32] = decode_lut(data.dtype)[data]
        return light
    top = float(np.iinfo(data.dtype).max) if data.dtype.kind == "u" else 1.0
    return np.asarray(data / top if top != 1 else data, np.float32).copy()


def _gain(flat: Frame) -> npt.NDArray[np.float32]:
    """What frames are multiplied by; 1 where the field is too dark to tell."""
    values = _above_black(flat)
    for plane in _planes_of(values, flat.is_mosaic):
        mean = float(plane.mean(dtype=np.float64))
        if not mean > 0 or not np.isfinite(mean):
            raise ArgumentError("repaired: flat is all black; take a picture of an even bright field, out of focus")
        told = plane > _DARKEST * mean
        plane[told] = mean / plane[told]
        plane[~told] = 1
    return values


def _of_dark(dark: Frame) -> Defects:
    """Hot pixels of a dark frame."""
    views, least = _planes_of_frame(dark), _least(dark)
    return Defects([_scan(view, 1, least) for view in views], [np.empty((2, 0), np.intp)] * len(views))


def _corrected(frame: Frame, dark: npt.NDArray[np.float32] | None, gain: npt.NDArray[np.float32] | None) -> Frame:
    """(frame - dark) gain above black; mosaics stay whole counts, below black as far as their type goes."""
    values = _above_black(frame)
    if dark is not None:
        values -= dark
    if gain is not None:
        values *= gain
    if not frame.is_mosaic:
        return Frame(values, replace(frame.meta, encoding="linear"))
    for plane, black in zip(_planes_of(values, True), frame.meta.black, strict=True):
        plane += black
    top = np.iinfo(frame.data.dtype).max
    return Frame(np.clip(np.rint(values), 0, top).astype(frame.data.dtype), frame.meta)
