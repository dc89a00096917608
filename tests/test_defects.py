"""Defects of the sensor: planted ones are found and mended, scenes have none, and darks and flats do what they say."""

from __future__ import annotations

import command
import numpy as np
import pytest
import tifffile

import pyfocus
from pyfocus import Burst, Defects, Frame, Meta, find_defects, repaired
from pyfocus.colour import decode_lut
from pyfocus.errors import ArgumentError, BurstError

RGGB = Meta(cfa="RGGB", black=(64.0, 64.0, 64.0, 64.0), white=4095.0)
HOT, DEAD = [(10, 11), (31, 60), (0, 5), (47, 79)], [(20, 20), (33, 8)]


def mosaics(count: int = 7, seed: int = 1) -> list[np.ndarray]:
    """A scene that drifts and goes out of focus, with noise."""
    random = np.random.default_rng(seed)
    scene = random.random((80, 110))
    found = []
    for k in range(count):
        soft, blur = scene, abs(k - 3) + 1
        for axis in (0, 1):
            soft = sum(np.roll(soft, s, axis) for s in range(-blur, blur + 1)) / (2 * blur + 1)
        light = 300 + 2500 * soft[k : k + 48, 2 * k : 2 * k + 80]
        found.append(np.clip(random.normal(light, 20), 0, 4095).astype(np.uint16))
    return found


def planted(frames: list[np.ndarray]) -> list[np.ndarray]:
    sick = [f.copy() for f in frames]
    for f in sick:
        for y, x in HOT:
            f[y, x] = 4095
        for y, x in DEAD:
            f[y, x] = 64
    return sick


def places(found: list[np.ndarray]) -> set[tuple[int, int]]:
    """Of the four planes, in the mosaic."""
    return {(2 * int(y) + p // 2, 2 * int(x) + p % 2) for p, plane in enumerate(found) for y, x in plane.T}


def burst_of(frames: list[np.ndarray], meta: Meta = RGGB) -> Burst:
    return Burst.from_arrays(frames, meta)


def test_planted_pixels_are_found_and_nothing_else():
    found = find_defects(burst_of(planted(mosaics())))
    assert places(found.hot) == set(HOT) and places(found.dead) == set(DEAD) and found.count == 6
    assert find_defects(burst_of(mosaics())).count == 0


def test_they_become_the_median_of_their_colour_s_neighbours():
    given = planted(mosaics())
    before = [f.copy() for f in given]
    mended = repaired(burst_of(given))
    for original, sick, frame in zip(before, given, mended, strict=True):
        np.testing.assert_array_equal(sick, original)  # what was given is not changed
        expected = original.copy()
        for y, x in [(10, 11), (20, 20), (31, 60), (33, 8)]:
            around = [original[y + dy, x + dx] for dy in (-2, 0, 2) for dx in (-2, 0, 2) if (dy, dx) != (0, 0)]
            expected[y, x] = np.rint(np.median(around))
        changed = np.argwhere(frame.data != original)
        assert {tuple(map(int, p)) for p in changed} == {*HOT, *DEAD}
        for y, x in [(10, 11), (20, 20), (31, 60), (33, 8)]:
            assert frame.data[y, x] == expected[y, x]


def test_neighbours_that_are_defects_too_do_not_count():
    frame = Frame(mosaics()[0], RGGB)
    none = np.empty((2, 0), np.intp)
    # of the first plane (10, 10) is hot and (10, 11) beside it dead: in the mosaic (20, 20) and (20, 22)
    known = Defects([np.array([[10], [10]]), none, none, none], [np.array([[10], [11]]), none, none, none])
    original = frame.data.astype(float)
    mended = known.mend(frame).data
    for x, sick in ((20, 22), (22, 20)):
        around = [(20 + dy, x + dx) for dy in (-2, 0, 2) for dx in (-2, 0, 2) if (dy, dx) != (0, 0)]
        sound = [original[place] for place in around if place != (20, sick)]
        assert len(sound) == 7 and mended[20, x] == np.rint(np.median(sound))
    assert (np.argwhere(mended != original) == [[20, 20], [20, 22]]).all()


def test_a_point_of_light_that_is_sharp_in_some_frames_stays():
    frames = mosaics()
    for k in (2, 3, 4):
        frames[k][24, 40] = 4000
    assert find_defects(burst_of(frames)).count == 0
    frames = mosaics()
    for k, f in enumerate(frames):  # or that moves
        f[20, 20 + 2 * k] = 4000
    assert find_defects(burst_of(frames)).count == 0


def test_of_fewer_than_three_frames_nothing_is_said():
    assert find_defects(burst_of(planted(mosaics())[:2])).count == 0
    assert find_defects(burst_of(planted(mosaics())[:3])).count == 6


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_images_channel_by_channel(dtype):
    random = np.random.default_rng(5)
    top = 1.0 if dtype == np.float32 else np.iinfo(dtype).max
    frames = [(random.uniform(0.2, 0.6, (30, 40, 3)) * top).astype(dtype) for _ in range(6)]
    for f in frames:
        f[12, 13, 1] = top
    found = find_defects(Burst.from_arrays(frames))
    assert [p.T.tolist() for p in found.hot] == [[], [[12, 13]], []] and not sum(p.size for p in found.dead)
    mended = repaired(Burst.from_arrays(frames))[0]
    assert mended.data.dtype == dtype and mended.data[12, 13, 1] < 0.7 * top


def test_a_dark_frame_is_taken_off_and_tells_hot_pixels():
    random = np.random.default_rng(6)
    dark = (64 + 10 * random.random((48, 80))).astype(np.uint16)
    dark[7, 9] = 900
    frames = mosaics()
    mended = repaired(burst_of(frames), dark=Frame(dark, RGGB), find=False)
    for original, frame in zip(frames, mended, strict=True):
        expected = np.maximum(original.astype(int) - (dark.astype(int) - 64), 0)
        around = [expected[7 + dy, 9 + dx] for dy in (-2, 0, 2) for dx in (-2, 0, 2) if (dy, dx) != (0, 0)]
        expected[7, 9] = np.rint(np.median(around))  # the hot pixel's own dark value does not come into it
        np.testing.assert_array_equal(frame.data, expected)


def test_a_flat_field_gives_back_what_shading_took():
    y, x = np.mgrid[:48, :80]
    shade = (1 - 0.4 * ((y - 24) ** 2 + (x - 40) ** 2) / 2176).astype(np.float32)
    shade[30:36, 50:56] *= 0.7  # dust
    clean = mosaics()
    shaded = [np.rint(64 + (f - 64.0) * shade).astype(np.uint16) for f in clean]
    flat = np.rint(64 + 3000 * shade).astype(np.uint16)
    mended = repaired(burst_of(shaded), flat=Frame(flat, RGGB), find=False)
    for original, frame in zip(clean, mended, strict=True):
        for dy in (0, 1):
            for dx in (0, 1):
                part = np.s_[dy::2, dx::2]
                mean = ((flat[part] - 64.0) / 3000).mean()
                expected = 64 + (original[part] - 64.0) * mean
                assert np.abs(frame.data[part] - expected).max() <= 1.5 + 4095 / 3000


def test_images_are_corrected_in_linear_light():
    frames = [np.full((20, 24, 3), 180, np.uint8)] * 3
    flat = np.full((20, 24, 3), 128, np.uint8)
    flat[:, :12] = 100
    table = decode_lut(np.uint8).astype(float)
    frame = repaired(Burst.from_arrays(frames), flat=flat, find=False)[0]
    mean = (table[100] + table[128]) / 2
    assert frame.data.dtype == np.float32 and frame.meta.encoding == "linear"
    np.testing.assert_allclose(frame.data[0, [0, 20], 0], table[180] * mean / table[[100, 128]], rtol=1e-5)


def test_what_does_not_fit_is_named():
    burst = burst_of(mosaics())
    with pytest.raises(BurstError, match="dark is 10 x 10 px, a RGGB mosaic, the burst's frames are 80 x 48 px"):
        repaired(burst, dark=Frame(np.zeros((10, 10), np.uint16), RGGB))
    with pytest.raises(BurstError, match="flat is 80 x 48 px, grey, the burst's frames are 80 x 48 px, a RGGB"):
        repaired(burst, flat=Frame(np.zeros((48, 80), np.uint16), Meta()))
    with pytest.raises(ArgumentError, match="flat is all black"):
        repaired(burst, flat=Frame(np.full((48, 80), 64, np.uint16), RGGB))
    with pytest.raises(ArgumentError, match="repaired: dark"):
        repaired(burst, dark=np.zeros((4, 4, 4, 4), np.uint16))


def test_the_command_mends_grey_images_by_itself_and_others_when_asked(tmp_path):
    for i, f in enumerate(planted(mosaics())):
        tifffile.imwrite(tmp_path / f"f{i}.tif", f * 16)
    words = ("stack", *[f"f{i}.tif" for i in range(7)], "--no-align", "--no-equalise", "--fuser", "average")
    for more, hot in (((), False), (("--repair", "off"), True)):
        done = command.run(*words, "-o", "o.tif", "--overwrite", "-v", *more, cwd=tmp_path)
        assert done.returncode == 0 and ("dead pixels of the sensor are mended" in done.stderr) != hot, done.stderr
        picture = tifffile.imread(tmp_path / "o.tif")
        assert (picture[31, 60] > 60000) == hot
    command.refuse(*words, "-o", "p.tif", "--dark", "none.tif", cwd=tmp_path, code=1, says="none.tif")
    tifffile.imwrite(tmp_path / "small.tif", np.zeros((32, 32), np.uint16))
    command.refuse(*words, "-o", "p.tif", "--flat", "small.tif", cwd=tmp_path, code=1, says="flat is 32 x 32 px")


def test_the_pipeline_takes_a_repaired_burst():
    sick, clean = burst_of(planted(mosaics())), burst_of(mosaics())
    kwargs = {"align": False, "equalise": False, "fuser": "laplacian"}
    truth = pyfocus.stack(clean, **kwargs).image().astype(float)
    before, after = (np.abs(pyfocus.stack(b, **kwargs).image() - truth).max() for b in (sick, repaired(sick)))
    assert after < 0.35 * before
