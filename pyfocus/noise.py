"""How noisy a camera's samples are, told from the flat places of its own frames. NumPy only, no files.

A sample of mean x, linear in [0, 1] above black, has the variance ``shot * x + read``. Each plane is cut into blocks of
8 x 8, and each block written in orthonormal polynomials, in which white noise is equally strong and independent:

    degree 0        its brightness
    degree 1        a slope: shading, ignored
    degree 2 to 4   its shape: none where it is flat, but for noise
    degree 5 to 14  fine detail: noise alone, where the block is flat

A block is flat when its shape, and everything in the other planes of the same place, is no stronger than noise. Noise
in those is independent of noise in the fine part, so choosing quiet blocks does not make the noise look small: the
idea of Ponomarenko et al. (2007) and Colom, Buades & Morel (2014), with polynomials for cosines. What counts as quiet
follows from the fit, so both are repeated from below until they agree.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import log
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from .burst import Array, Frame, check_pixels
from .colour import decode_lut, srgb_to_linear
from .errors import ArgumentError, NoiseError
from .raw import pack
from .simulate.bracket import SHOT_RANGE, iso_noise

Float = npt.NDArray[np.float32]
Double = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]

BLOCK = 8
FEWEST = 48  # flat blocks, below which a plane tells nothing
_SITES = 16_384  # blocks of one plane of one frame: enough for 1 %
_ROUNDS = 12
_RANGES, _PER_RANGE = 24, 16  # brightness ranges of the fit, and the fewest blocks in one
_QUIET_SHAPE, _QUIET_OTHERS = 1.3, 1.15  # in units of the noise: where a block stops being flat
_CLEAR = 3.0  # standard deviations that a block's mean keeps from clipping
_SATURATED = 0.98
_QUIETEST = 0.1  # share of blocks that are looked at first
_COARSEST = 16.0  # grain, beyond which it is no noise
_LENIENT = 1.5  # how much noisier than the first line a block may be
_NARROW = 0.02  # range of brightness, relative, that is none
_SMALLEST = 1e-14


@dataclass(frozen=True)
class PlaneNoise:
    """``shot`` and ``read`` of one plane, its flat ``blocks``, and how far (relative, rms) they lie off the line."""

    name: str
    shot: float
    read: float
    blocks: int
    misfit: float


@dataclass(frozen=True)
class NoiseLevel:
    """Noise of samples linear in [0, 1]: the variance at mean x is ``shot * x + read``, both >= 0.

    ``shot_error`` and ``read_error`` are standard errors of the fit. ``planes`` has the fit of each plane that showed
    enough; ``blocks`` is how many flat blocks (of 8 x 8 samples of a plane) the fit stands on, out of ``looked_at``.
    ``misfit`` is the rms relative distance of the brightness ranges from the line, ``darkest`` and ``brightest`` the
    means it spans: beyond them it is a guess. ``grain`` is how much stronger the noise is in coarse detail than in
    fine: 1 for a sensor's (white), more where a picture was demosaiced or smoothed.

    Rounding to whole counts is part of ``read``: a twelfth of a count squared.
    """

    shot: float
    read: float
    shot_error: float
    read_error: float
    planes: tuple[PlaneNoise, ...]
    blocks: int
    looked_at: int
    misfit: float
    darkest: float
    brightest: float
    grain: float = 1.0

    def variance(self, x: npt.ArrayLike) -> Double:
        """``shot * x + read`` of linear values, any shape; nowhere below 0."""
        return np.maximum(self.shot * np.asarray(x, np.float64) + self.read, 0)

    @property
    def iso(self) -> float | None:
        """Place of ``shot`` on the scale of :func:`pyfocus.simulate.iso_noise`: 0 clean, 1 very noisy; may lie outside.

        None without shot noise.
        """
        low, high = (log(shot) for shot in SHOT_RANGE)
        return (log(self.shot) - low) / (high - low) if self.shot > 0 else None

    @property
    def read_ratio(self) -> float | None:
        """Standard deviation of read noise over what that scale has with this shot noise; None without shot noise."""
        return None if self.iso is None else float(np.sqrt(self.read / iso_noise(self.iso)[1]))


def estimate_noise(frames: Frame | Array | Iterable[Frame | Array]) -> NoiseLevel:
    """The noise of one frame, or of several taken alike (one camera, one ISO), a :class:`Burst` for instance.

    Mosaics (H, W) uint16 give the sensor's noise, of samples before white balance. Images (H, W) or (H, W, 3) are taken
    to linear light by their ``meta.encoding`` (arrays are sRGB unless told otherwise), and give that of their pixels.
    Several frames are better than one: a place out of focus is flat. Deterministic. Raises NoiseError when hardly
    anything is flat, ArgumentError for what is no frame.
    """
    meter = NoiseMeter()
    for frame in [frames] if isinstance(frames, Frame | np.ndarray) else frames:
        meter.push(frame)
    return meter.level()


class NoiseMeter:
    """The same for frames that arrive one by one: ``push`` each, ``level`` at any time. 1 MB per plane and frame."""

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._blocks: list[_Blocks] = []

    def push(self, frame: Frame | Array) -> None:
        """Look at a frame. Raises ArgumentError for what is no frame, or one of other planes than those before."""
        names, planes, span = _planes_of(frame if isinstance(frame, Frame) else Frame(np.asarray(frame)))
        if self._names and names != self._names:
            raise ArgumentError(
                f"NoiseMeter.push: frame must have the planes of those before, {' '.join(self._names)}, got "
                f"{' '.join(names)}; measure mosaics, pictures and grey frames apart"
            )
        self._names = names
        self._blocks.append(_measure(planes, span))

    def join(self, other: NoiseMeter) -> None:
        """Take over what another one saw. Raises ArgumentError when its frames have other planes."""
        if self._names and other._names and other._names != self._names:
            raise ArgumentError(f"NoiseMeter.join: planes must be {self._names}, got {other._names}")
        self._names = self._names or other._names
        self._blocks += other._blocks

    def level(self) -> NoiseLevel:
        """The noise of all frames so far. Raises NoiseError when hardly anything in them is flat."""
        if not self._blocks:
            raise NoiseError("NoiseMeter.level: no frames; push at least one")
        mean, shape, fine = (
            np.concatenate([getattr(blocks, part) for blocks in self._blocks], axis=1)
            for part in ("mean", "shape", "fine")
        )
        seen = _Blocks(mean, shape, fine, self._blocks[0].span)
        return _fit(seen, self._names)


# --- blocks ------------------------------------------------------------


@dataclass(frozen=True)
class _Blocks:
    """Per plane and site (C, n): mean, and mean squared coefficient of shape and of fine detail. ``span``: values that
    are not clipped."""

    mean: Float
    shape: Float
    fine: Float
    span: tuple[float, float]


def _planes_of(frame: Frame) -> tuple[tuple[str, ...], Array, tuple[float, float]]:
    """Names, planes (C, h, w) float32 in linear light, and the values between which nothing is clipped."""
    check_pixels("estimate_noise", frame.data)
    if min(frame.size) < 2 * BLOCK:
        least = f"{2 * BLOCK} x {2 * BLOCK} pixels"
        raise ArgumentError(f"estimate_noise: frame must have {least} or more, got {frame.size[0]} x {frame.size[1]}")
    if frame.is_mosaic:
        meta = frame.meta
        lowest = max(-black / (meta.white - black) for black in meta.black) if meta.white > max(meta.black) else 0
        return ("R", "G1", "G2", "B"), pack(frame.data, meta), (lowest, _SATURATED)
    data = frame.data if frame.data.ndim == 3 else frame.data[..., None]
    if data.dtype.kind == "f":
        values = srgb_to_linear(data) if frame.meta.encoding == "srgb" else data
    elif frame.meta.encoding == "srgb":
        values = decode_lut(data.dtype)[data]
    else:
        values = data.astype(np.float32) / np.float32(np.iinfo(data.dtype).max)
    lowest = 0.0 if data.dtype.kind == "u" else -np.inf  # floats may go below black, and then nothing is clipped there
    return ("R", "G", "B") if data.shape[2] == 3 else ("grey",), values.transpose(2, 0, 1), (lowest, _SATURATED)


def _polynomials() -> tuple[Float, Float]:
    """The change to two-dimensional orthonormal polynomials (64, 64), and the means over shape and fine (64, 2)."""
    powers = np.vander(np.linspace(-1, 1, BLOCK), increasing=True)
    basis = np.linalg.qr(powers)[0]  # column d: the polynomial of degree d
    degree = np.add.outer(np.arange(BLOCK), np.arange(BLOCK)).ravel()
    shape, fine = (degree >= 2) & (degree <= 4), degree >= 5
    means = np.stack([shape / shape.sum(), fine / fine.sum()], axis=1)
    return np.kron(basis, basis).astype(np.float32), means.astype(np.float32)


_CHANGE, _MEANS = _polynomials()
_SHAPE_COUNT, _FINE_COUNT = (int(n) for n in np.count_nonzero(_MEANS, axis=0))
_SCATTER = np.pi / _FINE_COUNT  # variance of the median's relative error over n blocks, times n


def _measure(planes: Array, span: tuple[float, float]) -> _Blocks:
    """Brightness, shape and fine detail of the blocks of every plane, at most _SITES of them, in rows far apart."""
    count, height, width = planes.shape
    rows, columns = height // BLOCK, width // BLOCK
    step = max(1, round(rows * columns / _SITES))
    found = np.empty((3, count, len(range(0, rows, step)) * columns), np.float32)
    for plane, (mean, shape, fine) in zip(planes, found.transpose(1, 0, 2), strict=True):
        cut = plane[: rows * BLOCK, : columns * BLOCK].reshape(rows, BLOCK, columns, BLOCK)[::step]
        blocks = np.ascontiguousarray(cut.transpose(0, 2, 1, 3), np.float32).reshape(-1, BLOCK * BLOCK)
        mean[:] = blocks.mean(axis=1)
        if not np.isfinite(mean).all():
            raise ArgumentError("estimate_noise: frame must be finite, got NaN or infinity; mend it first")
        blocks -= mean[:, None]  # what follows are differences far below the mean
        parts = blocks @ _CHANGE
        np.square(parts, out=parts)
        shape[:], fine[:] = (parts @ _MEANS).T
    return _Blocks(found[0], found[1], found[2], span)


# --- the fit -----------------------------------------------------------


@dataclass(frozen=True)
class _Line:
    """Variance of fine detail over brightness, and how well the ranges of brightness lie on it."""

    shot: float
    read: float
    shot_error: float = 0.0
    read_error: float = 0.0
    misfit: float = 0.0

    def at(self, mean: npt.ArrayLike) -> Double:
        """The variance there, above 0."""
        return np.maximum(self.shot * np.asarray(mean, np.float64) + self.read, _SMALLEST)


def _fit(seen: _Blocks, names: tuple[str, ...]) -> NoiseLevel:
    """Choice of flat blocks and fit in turn, plane by plane; then one line through all planes."""
    planes = range(len(names))
    lines, grain = [_first_line(seen, c) for c in planes], 1.0
    before: Mask | None = None
    for lenient in np.maximum(1, np.linspace(_LENIENT, 0.5, _ROUNDS)):
        if len(names) != 4:  # a sensor's noise is white
            grain = _grain_of(seen, lines)
        flat = _choose(seen, lines, grain, lenient)
        if lenient == 1 and before is not None and np.array_equal(flat, before):
            break
        before = flat
        for c in planes:
            if flat[c].any():
                lines[c] = _fit_line(*_points(seen, flat, c, lines[c]))
    enough = [c for c in planes if flat[c].sum() >= FEWEST]
    if not enough:
        raise NoiseError(
            f"estimate_noise: {int(flat.sum())} of {flat.size} blocks of {BLOCK} x {BLOCK} samples are flat, {FEWEST} "
            f"of one plane are needed; give more frames, or one that is out of focus and not clipped"
        )
    parts = zip(*(_points(seen, flat, c, lines[c]) for c in enough), strict=True)
    every = _fit_line(*(np.concatenate(part) for part in parts))
    means = np.concatenate([seen.mean[c][flat[c]] for c in enough])
    k = (_FINE_COUNT + (BLOCK**2 - _FINE_COUNT) * grain) / BLOCK**2  # coarse detail has its share in a sample's noise
    each = [(lines[c], names[c], int(flat[c].sum())) for c in enough]
    return NoiseLevel(
        every.shot * k, every.read * k, every.shot_error * k, every.read_error * k,
        tuple(PlaneNoise(name, line.shot * k, line.read * k, blocks, line.misfit) for line, name, blocks in each),
        int(means.size), flat.size, every.misfit, float(means.min()), float(means.max()), grain,
    )  # fmt: skip


def _choose(seen: _Blocks, lines: list[_Line], grain: float, lenient: float) -> Mask:
    """Which blocks (C, n) are flat and not clipped, if noise is as these lines say."""
    noise, flat = _noise_by(seen, lines)
    flat &= seen.shape <= lenient * _QUIET_SHAPE * grain * noise
    if len(noise) > 1:
        whole = (_SHAPE_COUNT * seen.shape + _FINE_COUNT * seen.fine) / (_SHAPE_COUNT * grain + _FINE_COUNT) / noise
        flat &= whole.sum(axis=0) - whole <= lenient * _QUIET_OTHERS * (len(noise) - 1)
    return flat


def _noise_by(seen: _Blocks, lines: list[_Line]) -> tuple[Double, Mask]:
    """The variance of each block (C, n) by these lines, and which blocks are so far from clipping that it shows."""
    noise = np.stack([line.at(mean) for line, mean in zip(lines, seen.mean, strict=True)])
    reach, (low, high) = _CLEAR * np.sqrt(noise), seen.span
    return noise, (seen.mean - reach >= low) & (seen.mean + reach <= high)


def _grain_of(seen: _Blocks, lines: list[_Line]) -> float:
    """Noise in a block's shape over noise in its fine detail, by the tenth of all blocks whose shape is quietest."""
    noise, clear = _noise_by(seen, lines)
    if not clear.any():
        return 1.0
    quietest = np.quantile(seen.shape[clear] / noise[clear], _QUIETEST)
    return float(np.clip(quietest / _chi_square(_QUIETEST, _SHAPE_COUNT), 1, _COARSEST))


def _first_line(seen: _Blocks, plane: int) -> _Line:
    """From below: the quietest tenth in each range of brightness, as if nothing else were noise."""
    mean, fine = seen.mean[plane], seen.fine[plane]
    use = np.flatnonzero((mean > seen.span[0]) & (mean < seen.span[1]))
    if use.size < FEWEST:
        return _Line(0.0, 0.0)
    parts = _ranges(mean, use)
    x = np.array([mean[part].mean() for part in parts], np.float64)
    y = np.array([np.quantile(fine[part], _QUIETEST) for part in parts]) / _chi_square(_QUIETEST, _FINE_COUNT)
    return _fit_line(x, y + _SMALLEST, np.array([part.size for part in parts], np.float64))


def _points(seen: _Blocks, flat: Mask, plane: int, before: _Line) -> tuple[Double, Double, Double]:
    """Brightness, variance and number of flat blocks, by range of brightness in one plane."""
    mean, fine = seen.mean[plane], seen.fine[plane]
    parts = _ranges(mean, np.flatnonzero(flat[plane]))
    x = np.array([mean[part].mean(dtype=np.float64) for part in parts])
    # the median: a hot pixel, an edge that was taken for flat
    middle = np.array([np.median(fine[part] / before.at(mean[part])) for part in parts]) / _chi_square(0.5, _FINE_COUNT)
    return x, middle * before.at(x) + _SMALLEST, np.array([part.size for part in parts], np.float64)


def _ranges(mean: Float, use: Indices) -> list[Indices]:
    """``use`` in ranges of brightness, equally many in each."""
    order: Indices = use[np.argsort(mean[use], kind="stable")]
    return np.array_split(order, min(_RANGES, max(1, use.size // _PER_RANGE)))


def _fit_line(x: Double, y: Double, count: Double) -> _Line:
    """The line through variances ``y`` of ``count`` blocks at brightness ``x``: least squares, no part negative."""
    spread = float(np.sqrt(np.median(y)))  # of a sample; a block's mean scatters by an eighth of it
    if x.max() - x.min() <= max(_NARROW * np.abs(x).max(), spread):  # one brightness: nothing says which part it is
        middle, variance = float(np.average(x, weights=count)), float(np.average(y, weights=count))
        if abs(middle) < _CLEAR * np.sqrt(variance):
            return _Line(0.0, variance, 0.0, variance)
        return _Line(variance / middle, 0.0, variance / middle, variance)
    model = y
    for _ in range(3):  # the errors belong to the line, not to the scattered points
        root = np.sqrt(count / _SCATTER) / model
        design = np.stack([x, np.ones_like(x)], axis=1) * root[:, None]
        use = [0, 1]
        found = np.linalg.lstsq(design, y * root, rcond=None)[0]
        if found.min() < 0:
            use = [int(np.argmax(found))]
            found = np.zeros(2)
            found[use] = np.linalg.lstsq(design[:, use], y * root, rcond=None)[0]
        model = np.maximum(found[0] * x + found[1], _SMALLEST)
    rest = (y / model - 1) ** 2
    excess = max(1.0, float((rest * count / _SCATTER).sum()) / max(1, x.size - 2))
    errors = np.sqrt(np.diag(np.linalg.inv(design.T @ design)) * excess)
    shot, read, shot_error, read_error = (float(v) for v in (*found, *errors))
    return _Line(shot, read, shot_error, read_error, float(np.sqrt(np.average(rest, weights=count))))


def _chi_square(share: float, count: int) -> float:
    """Quantile of the mean of ``count`` squared standard normals (Wilson & Hilferty 1931)."""
    spread = 2 / (9 * count)
    return float((1 - spread + NormalDist().inv_cdf(share) * np.sqrt(spread)) ** 3)
