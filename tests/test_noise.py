"""Noise told from flat places: against the noise that was put in, the shared brackets' own, and patches cut by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import pyfocus
from pyfocus import Frame, Meta, NoiseLevel, estimate_noise, read_burst
from pyfocus.errors import ArgumentError, NoiseError
from pyfocus.noise import BLOCK, NoiseMeter, _Blocks, _measure
from pyfocus.raw import pack
from pyfocus.simulate import iso_noise, procedural_scene, simulate, synthetic_depth

BLACK, WHITE = 512, 16383
META = Meta(cfa="RGGB", black=(float(BLACK),) * 4, white=float(WHITE))
ROUNDING = 1 / 12 / (WHITE - BLACK) ** 2  # variance of rounding to counts
Light = npt.NDArray[np.float64]


def steps(height: int = 640, width: int = 960, side: int = 40, seed: int = 0) -> Light:
    """Patches of even light, as dark as black and as bright as 0.7, each a little sloped as shading is."""
    random = np.random.default_rng(seed)
    light = random.uniform(0, 1, (height // side, width // side)) ** 2 * 0.7
    slope = np.linspace(0.97, 1, width)[None, :] * np.linspace(1, 0.97, height)[:, None]
    return np.kron(light, np.ones((side, side))) * slope


def exposed(light: Light, shot: float, read: float, seed: int = 1, black: int = BLACK) -> npt.NDArray[np.uint16]:
    """Counts of a sensor: heteroscedastic Gaussian noise by the formula, rounded, clipped."""
    random = np.random.default_rng(seed)
    noisy = light + np.sqrt(np.maximum(shot * light + read, 0)) * random.standard_normal(light.shape)
    return np.rint(np.clip(black + noisy * (WHITE - black), 0, WHITE)).astype(np.uint16)


def check(level: NoiseLevel, shot: float, read: float, most: tuple[float, float] = (0.03, 0.06)) -> None:
    """Shot and the standard deviation of read within these shares of what was put in."""
    assert abs(level.shot / shot - 1) < most[0], (level.shot / shot, np.sqrt(level.read / read))
    assert abs(np.sqrt(level.read / read) - 1) < most[1], (level.shot / shot, np.sqrt(level.read / read))


# --- what was put in ---------------------------------------------------


@pytest.mark.parametrize("iso", [0.0, 0.25, 0.6, 1.0])
def test_flat_patches_give_what_was_put_in(iso: float) -> None:
    shot, read = iso_noise(iso)
    level = estimate_noise(Frame(exposed(steps(), shot, read), META))
    assert abs(level.shot / shot - 1) < 0.03 and abs(level.shot - shot) < 5 * level.shot_error
    assert abs(level.read - read - ROUNDING) < 5 * level.read_error
    if iso > 0:  # at 0 read noise is that of 7 counts of light: next to nothing
        check(level, shot, read + ROUNDING, (0.03, 0.12))  # worst seen: 1.0 % and 6 %
    assert level.iso is not None and abs(level.iso - iso) < 0.01
    assert [plane.name for plane in level.planes] == ["R", "G1", "G2", "B"] and level.grain == 1
    assert level.looked_at == 4 * 40 * 60 and level.blocks == sum(plane.blocks for plane in level.planes)
    assert level.blocks > 0.2 * level.looked_at and level.misfit < 0.06
    np.testing.assert_allclose(level.variance([0, 0.5, -9]), [level.read, level.shot / 2 + level.read, 0])


def test_errors_are_those_of_many_repetitions() -> None:
    shot, read = iso_noise(0.5)
    light = steps(240, 320)
    found = [estimate_noise(Frame(exposed(light, shot, read, seed), META)) for seed in range(10)]
    scatter = np.std([level.shot for level in found])
    told = np.median([level.shot_error for level in found])
    assert 0.4 < told / scatter < 2.5 and abs(np.mean([level.shot for level in found]) / shot - 1) < 0.02


def test_texture_is_not_noise() -> None:
    """Half of the picture and all colours hold detail of the noise's strength and more; the rest is flat."""
    shot, read = iso_noise(0.3)
    light = steps()
    random = np.random.default_rng(5)
    rough = np.kron(random.normal(0, 1, (320, 480)), np.ones((2, 2)))  # one value per 2 x 2: white in every plane
    light[:, :480] *= np.exp(rough * np.geomspace(0.01, 0.3, 640)[:, None])[:, :480]
    check(estimate_noise(Frame(exposed(light, shot, read), META)), shot, read + ROUNDING, (0.06, 0.15))


def test_hot_pixels_and_clipping_do_no_harm() -> None:
    shot, read = iso_noise(0.6)
    light = steps()
    light[:, :200] = np.linspace(0.8, 1.3, 200)  # past white
    raw = exposed(light, shot, read)
    random = np.random.default_rng(2)
    raw[random.integers(0, 640, 400), random.integers(0, 960, 400)] = WHITE
    check(estimate_noise(Frame(raw, META)), shot, read + ROUNDING, (0.04, 0.1))
    meta = Meta(cfa="GBRG", black=(0.0,) * 4, white=float(WHITE))  # a camera that cuts off below black
    level = estimate_noise(Frame(exposed(steps(), shot, read, black=0), meta))
    assert abs(level.shot / shot - 1) < 0.05 and level.darkest > 3 * np.sqrt(read)


def test_a_dark_frame_and_an_even_one_have_one_part() -> None:
    dark = estimate_noise(Frame(exposed(np.zeros((320, 320)), 1e-3, 4e-6), META))
    assert dark.shot == 0 and abs(dark.read / (4e-6 + ROUNDING) - 1) < 0.05 and dark.iso is dark.read_ratio is None
    even = estimate_noise(Frame(exposed(np.full((320, 320), 0.4), 1e-3, 0.0), META))
    assert even.read == 0 and abs(even.shot / 1e-3 - 1) < 0.05 and even.read_error >= even.shot * 0.4 * 0.9


def test_several_frames_are_one_measurement() -> None:
    shot, read = iso_noise(0.4)
    frames = [Frame(exposed(steps(320, 320, seed=k), shot, read, k), META) for k in range(3)]
    together, meter, other = estimate_noise(frames), NoiseMeter(), NoiseMeter()
    for frame in frames[:2]:
        meter.push(frame)
    other.push(frames[2])
    meter.join(other)
    assert meter.level() == together and together.looked_at == 3 * estimate_noise(frames[0]).looked_at
    assert together.shot_error < estimate_noise(frames[0]).shot_error


def test_large_frames_are_looked_at_in_part() -> None:
    raw = np.tile(exposed(steps(750, 1000, 50), 1e-3, 1e-6), (4, 4))
    level = estimate_noise(Frame(raw, META))
    assert raw.size == 12_000_000 and level.looked_at < 80_000 and abs(level.shot / 1e-3 - 1) < 0.03


# --- pictures ----------------------------------------------------------


def test_linear_pictures_grey_and_colour() -> None:
    shot, read = iso_noise(0.6)
    light = np.stack([steps(seed=k) for k in range(3)], axis=-1)
    random = np.random.default_rng(3)
    picture = (light + np.sqrt(shot * light + read) * random.standard_normal(light.shape)).astype(np.float32)
    meta = Meta(encoding="linear")
    level = estimate_noise(Frame(picture, meta))
    check(level, shot, read, (0.05, 0.15))
    assert [plane.name for plane in level.planes] == ["R", "G", "B"] and level.grain < 1.05
    grey = estimate_noise(Frame(np.ascontiguousarray(picture[..., 1]), meta))
    check(grey, shot, read, (0.08, 0.25))
    assert [plane.name for plane in grey.planes] == ["grey"]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_srgb_is_taken_to_linear_light(dtype: type) -> None:
    shot = 2e-3
    light = 0.1 + steps(side=80)
    random = np.random.default_rng(3)
    noisy = np.clip(light + np.sqrt(shot * light) * random.standard_normal(light.shape), 0, 1)
    coded = np.where(noisy <= 0.0031308, noisy * 12.92, 1.055 * noisy ** (1 / 2.4) - 0.055)
    top = np.iinfo(dtype).max if dtype != np.float32 else None
    picture = coded.astype(np.float32) if top is None else np.rint(coded * top).astype(dtype)
    assert abs(estimate_noise(picture).shot / shot - 1) < 0.08


def test_smoothed_noise_is_told_as_strong_as_a_sample_has_it() -> None:
    shot = 1e-3
    light = 0.1 + steps(side=80)
    random = np.random.default_rng(3)
    noise = np.pad(random.standard_normal(light.shape), 1, mode="wrap")
    smooth = 0.5 * noise[1:-1, 1:-1] + 0.25 * (noise[1:-1, :-2] + noise[1:-1, 2:])
    strength = float(smooth.var())  # 3/8
    picture = (light + np.sqrt(shot * light) * smooth).astype(np.float32)
    level = estimate_noise(Frame(picture, Meta(encoding="linear")))
    assert level.grain > 1.5 and abs(level.variance(0.4) / (shot * 0.4 * strength) - 1) < 0.15


# --- blocks ------------------------------------------------------------


def test_a_slope_has_neither_shape_nor_detail_and_white_noise_as_much_of_both() -> None:
    y, x = np.mgrid[:64, :64]
    blocks = _measure((0.2 + 0.003 * x - 0.002 * y)[None].astype(np.float32), (-1, 2))
    assert blocks.mean.shape == (1, (64 // BLOCK) ** 2)
    assert max(blocks.shape.max(), blocks.fine.max()) < 1e-13
    noise = np.random.default_rng(0).standard_normal((1, 1024, 1024)).astype(np.float32)
    blocks = _measure(noise, (-9, 9))
    assert abs(blocks.shape.mean() - 1) < 0.02 and abs(blocks.fine.mean() - 1) < 0.01
    assert abs(np.corrcoef(blocks.shape[0], blocks.fine[0])[0, 1]) < 5 / np.sqrt(blocks.mean.size)
    quiet = blocks.shape < 0.8
    assert abs(blocks.fine[quiet].mean() - 1) < 0.01, "choosing by shape must not change what detail says"
    assert isinstance(blocks, _Blocks)


# --- what is refused ---------------------------------------------------


def test_nothing_flat() -> None:
    photo, depth = procedural_scene(200, 300)
    bracket = simulate(photo, depth, frames=1, blur_px=0, raw=True, iso=0.0)
    with pytest.raises(NoiseError, match=r"estimate_noise: \d+ of 864 blocks of 8 x 8 samples are flat, 48 .* needed"):
        estimate_noise(bracket.burst)
    white = np.full((320, 320), WHITE, np.uint16)
    with pytest.raises(NoiseError, match="not clipped"):
        estimate_noise(Frame(white, META))
    with pytest.raises(NoiseError, match="not clipped"):
        estimate_noise(np.full((64, 64, 3), 255, np.uint8))
    with pytest.raises(NoiseError, match="no frames; push at least one"):
        estimate_noise([])


def test_what_is_no_frame() -> None:
    with pytest.raises(ArgumentError, match="16 x 16 pixels or more, got 15 x 64"):
        estimate_noise(np.zeros((15, 64), np.uint8))
    with pytest.raises(ArgumentError, match="must be uint8, uint16 or float32, got int32"):
        estimate_noise(np.zeros((64, 64), np.int32))
    with pytest.raises(ArgumentError, match=r"must be \(H, W\) or \(H, W, 3\), got \(64,\)"):
        estimate_noise(np.zeros(64, np.uint8))
    for bad in (np.nan, np.inf):
        picture = np.full((64, 64), 0.5, np.float32)
        picture[3, 4] = bad
        with pytest.raises(ArgumentError, match="frame must be finite"):
            estimate_noise(Frame(picture, Meta(encoding="linear")))
    meter = NoiseMeter()
    meter.push(np.zeros((64, 64), np.uint8))
    with pytest.raises(ArgumentError, match="planes of those before, grey, got R G B"):
        meter.push(np.zeros((64, 64, 3), np.uint8))
    other = NoiseMeter()
    other.push(np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(ArgumentError, match=r"NoiseMeter.join: planes"):
        meter.join(other)
    with pytest.raises(ArgumentError, match="white must be above"):
        estimate_noise(Frame(np.zeros((64, 64), np.uint16), Meta(cfa="RGGB", black=(9.0,) * 4, white=9.0)))


# --- brackets and cameras ----------------------------------------------


@pytest.mark.parametrize("iso", [0.25, 0.75])
def test_a_simulated_bracket(iso: float) -> None:
    random = np.random.default_rng(8)
    photo = (0.02 + 0.6 * np.kron(random.random((4, 5, 3)) ** 2, np.ones((64, 64, 1)))).astype(np.float32)
    photo[:, :96] *= random.uniform(0.5, 1.5, (256, 96, 1)).astype(np.float32)
    bracket = simulate(photo, synthetic_depth((256, 320), 2), frames=2, blur_px=4, raw=True, iso=iso)
    shot, read = iso_noise(iso)
    level = estimate_noise(bracket.burst)
    assert abs(level.shot / shot - 1) < 0.1 and level.variance(0.3) / (shot * 0.3 + read) == pytest.approx(1, abs=0.06)


@pytest.mark.parametrize("name", ["raw", "raw_noisy"])
def test_the_shared_brackets(shared: Path, name: str) -> None:
    folder = shared / "data" / "brackets" / name
    shot, read = iso_noise(float(json.loads((folder / "scene.json").read_text())["iso"]))
    burst = read_burst(folder / "frames")
    frames = [burst[k] for k in (0, 5, 11)]
    check(estimate_noise(frames), shot, read + ROUNDING, (0.02, 0.05))  # worst seen 1.0 % and 2.1 %
    for frame in frames:
        check(estimate_noise(frame), shot, read + ROUNDING, (0.03, 0.08))  # worst of all frames 1.7 % and 3.8 %


def test_a_camera_agrees_with_itself_and_with_patches_cut_by_hand(shared: Path) -> None:
    chart, scene = (read_burst(shared / "data/raw/canon-s40" / f"CRW_{n}.CRW")[0] for n in ("0101", "0117"))
    level, other = estimate_noise(chart), estimate_noise(scene)
    assert chart.meta.white - chart.meta.black[0] == 991  # 10 bit
    assert abs(other.shot / level.shot - 1) < 0.08  # 4.7 % seen: a printed picture beside a colour chart
    assert 5 < 1 / (level.shot * 991) < 12  # electrons per count: full well near 8000 for a small sensor at ISO 50
    assert 0.29 < np.sqrt(level.read) * 991 < 1 and 0.29 < np.sqrt(other.read) * 991 < 1  # counts; rounding has 0.289
    x, variance = _patches(pack(chart.data, chart.meta))
    np.testing.assert_allclose(np.median(level.variance(x) / variance), 1, atol=0.03)
    assert np.abs(level.variance(x) / variance - 1).max() < 0.3  # the dustiest patch: 26 %
    weighted = np.stack([x, np.ones_like(x)], 1) / variance[:, None]
    slope = np.linalg.lstsq(weighted, np.ones_like(x), rcond=None)[0][0]
    assert abs(level.shot / slope - 1) < 0.06


def _patches(planes: npt.NDArray[np.float32]) -> tuple[Light, Light]:
    """Mean and variance about a quadratic surface of the chart's 24 patches, as they lie in the planes, per plane."""
    rows, columns = ((110, 215), (262, 370), (418, 525), (575, 680)), (125, 278, 435, 592, 750, 905)
    means, variances = [], []
    for top, bottom in rows:
        for left in columns:
            patch = planes[:, top:bottom, left : left + 105].astype(np.float64)
            y, x = np.mgrid[-1 : 1 : 1j * patch.shape[1], -1 : 1 : 1j * patch.shape[2]]
            surface = np.stack([np.ones_like(x), x, y, x * y, x * x, y * y], -1).reshape(-1, 6)
            values = patch.reshape(4, -1).T
            rest = values - surface @ np.linalg.lstsq(surface, values, rcond=None)[0]
            means.append(values.mean(0))
            variances.append((rest**2).sum(0) / (len(values) - 6))
    return np.concatenate(means), np.concatenate(variances)


def test_the_names_are_public() -> None:
    assert pyfocus.estimate_noise is estimate_noise and pyfocus.NoiseLevel is NoiseLevel
