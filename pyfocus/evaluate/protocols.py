"""What of a result is compared with what of the truth, and how it is brought there.

``paper``: as the figures of the paper's Table 3 are made. The result in 8-bit sRGB is compared with the truth in the
reference frame's geometry, as it lies, wherever every frame saw the scene.

``score``: as results of other programs must be compared, which crop, shift and scale as they like: the result is
registered on the truth, one gain per channel is fitted in linear light, and 6 % of the shorter side is cut off on all
sides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..affine import Rect
from ..align import align_pair, luminance_of
from ..burst import Array, Frame
from ..colour import linear_to_srgb, srgb_to_linear
from ..errors import BurstError, RegistrationError
from ..io import upright
from ..metrics import Mask
from ..stacker import Stacked
from ..warp import warp

Protocol = Literal["paper", "score"]

_CUT = 0.06  # of the shorter side
_IN_PLACE = 0.03  # largest entry of a map, beside the identity's, that is not worth a resampling
_EDGE_PX = 4  # how far the edge of a warped picture spoils what is beside it
_DARKEST, _BRIGHTEST = 0.02, 0.98  # linear, encoded: values that a gain is fitted to


@dataclass(frozen=True)
class Compared:
    """Result and truth, of one shape and each encoded for viewing; ``where`` (H, W) they count, None for everywhere."""

    result: Array
    truth: Array
    where: Mask | None = None


def as_paper(stacked: Stacked, truth: Array, size: tuple[int, int]) -> Compared:
    """8 bit against 8 bit in the crop. ``size`` (h, w) of the frames. Raises BurstError when the truth does not fit."""
    y0, x0, y1, x1 = truth_rect(stacked, truth, size)
    return Compared(stacked.image(8), eight_bit(truth[y0:y1, x0:x1]))


def as_score(stacked: Stacked, truth: Array, size: tuple[int, int]) -> Compared:
    """Registered, with gains fitted, without the border. Raises RegistrationError when the two do not look alike."""
    y0, x0, y1, x1 = truth_rect(stacked, truth, size)
    cut = int(_CUT * min(truth.shape[:2]))
    inner = (max(y0, cut), max(x0, cut), min(y1, truth.shape[0] - cut), min(x1, truth.shape[1] - cut))
    here = np.s_[inner[0] - y0 : inner[2] - y0, inner[1] - x0 : inner[3] - x0]
    fixed = truth[y0:y1, x0:x1]
    light, where = _registered(stacked.image(16), fixed, whole=fixed.shape == truth.shape)
    fitted = _with_gains(light[here], fixed[here], where[here])
    return Compared(fitted, fixed[here], where[here])


PROTOCOLS: dict[Protocol, Callable[[Stacked, Array, tuple[int, int]], Compared]] = {
    "paper": as_paper,
    "score": as_score,
}


def truth_rect(stacked: Stacked, truth: Array, size: tuple[int, int]) -> Rect:
    """The part of the upright truth that the picture shows. Raises BurstError when truth and frames do not fit."""
    orientation = stacked.meta.orientation if stacked.meta.cfa is not None else 1  # images are read upright
    height, width = size[::-1] if orientation >= 5 else size
    if truth.shape[:2] != (height, width):
        raise BurstError(
            f"the truth is {truth.shape[1]} x {truth.shape[0]} px, the frames are {width} x {height} px; "
            "the truth must be in the geometry of the reference frame"
        )
    if (truth.ndim == 2) != (stacked.fused.image.shape[0] == 1):
        kinds = ("in colour", "grey")[:: 1 if truth.ndim == 2 else -1]
        raise BurstError(f"the frames are {kinds[0]}, the truth is {kinds[1]}; both must be alike")
    if orientation == 1:
        return stacked.crop
    y0, x0, y1, x1 = stacked.crop
    mark = np.zeros(size, np.bool_)
    mark[y0:y1, x0:x1] = True
    rows, columns = (np.flatnonzero(upright(mark, orientation).any(axis=axis)) for axis in (1, 0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def _registered(picture: Array, truth: Array, whole: bool) -> tuple[Array, Mask]:
    """Linear light of the picture in the truth's geometry, and where there is any. Raises RegistrationError.

    Only an uncropped picture may stay as it is: every other one has been moved, and is resampled like all that were.
    """
    pair = align_pair(luminance_of(Frame(truth)), luminance_of(Frame(picture)), "affine")
    if not pair.good:
        raise RegistrationError(
            f"the result could not be registered on the truth (correlation {pair.correlation:.2f}); "
            "is it of this scene? The protocol paper compares without registering"
        )
    if whole and np.abs(pair.matrix - np.eye(3)).max() < _IN_PLACE:
        return srgb_to_linear(unit(picture)), np.ones(truth.shape[:2], np.bool_)
    planes, valid = warp(Frame(picture), pair.matrix, size=(truth.shape[0], truth.shape[1]))
    light = planes.transpose(1, 2, 0)
    return (light if truth.ndim == 3 else light[:, :, 0]), _shrunk(valid.view(np.bool_))


def _shrunk(mask: Mask) -> Mask:
    """The mask without what is within 4 px of its edges, the picture's border not counting as one."""
    for axis in (0, 1):
        border = [(_EDGE_PX, _EDGE_PX) if a == axis else (0, 0) for a in (0, 1)]
        wide, length = np.pad(mask, border, constant_values=True), mask.shape[axis]
        parts = [np.take(wide, range(k, k + length), axis=axis) for k in range(2 * _EDGE_PX + 1)]
        mask = np.logical_and.reduce(parts)
    return mask


def _with_gains(light: Array, truth: Array, where: Mask) -> Array:
    """The picture, encoded, each channel brightened as the truth asks for by the median of their ratios."""
    height, width = truth.shape[:2]
    ours = np.clip(light, 0, 1).astype(np.float32).reshape(height, width, -1)
    wanted = unit(truth).reshape(height, width, -1)
    both_dim = (wanted.max(axis=2) < _BRIGHTEST) & (linear_to_srgb(ours).max(axis=2) < _BRIGHTEST)
    theirs = srgb_to_linear(wanted)
    for channel in range(ours.shape[2]):
        used = where & both_dim & (ours[..., channel] > _DARKEST)
        if used.any():
            ours[..., channel] *= np.median(theirs[used, channel] / ours[used, channel])
    return linear_to_srgb(np.clip(ours, 0, 1)).reshape(truth.shape)


def unit(picture: Array) -> Array:
    """float32 on a scale where white is 1."""
    if picture.dtype.kind == "f":
        return picture.astype(np.float32)
    return picture.astype(np.float32) / np.float32(np.iinfo(picture.dtype).max)


def eight_bit(picture: Array) -> Array:
    """uint8 of a picture as metrics take it, rounded to nearest."""
    return (
        picture
        if picture.dtype == np.uint8
        else (np.clip(unit(picture), 0, 1) * 255 + np.float32(0.5)).astype(np.uint8)
    )
