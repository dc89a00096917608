"""Ghosts: what walks through a few frames is left out, and nothing of scenes in which nothing moves."""

from __future__ import annotations

import json
from functools import lru_cache

import command
import numpy as np
import pytest
import tifffile

import pyfocus
from pyfocus.burst import Burst
from pyfocus.metrics import psnr
from pyfocus.simulate import simulate, synthetic_depth

SIZE = (220, 300)


def scene(seed: int) -> np.ndarray:
    """A photograph's stand-in: dead leaves, linear light."""
    random = np.random.default_rng(seed)
    picture = np.zeros((*SIZE, 3), np.float32)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    for radius in np.geomspace(70, 4, 400):
        cy, cx = random.uniform(0, SIZE[0]), random.uniform(0, SIZE[1])
        inside = (y - cy) ** 2 + (x - cx) ** 2 < radius**2
        picture[inside] = random.uniform(0.05, 0.7, 3) * random.uniform(0.85, 1.15, (int(inside.sum()), 1))
    return picture


def bracket(seed: int, ghost: int, **settings):
    return simulate(
        scene(seed), synthetic_depth(SIZE, seed=seed), seed=seed, frames=9, blur_px=5, ghost=ghost, **settings
    )


@lru_cache
def frames_of(seed: int, ghost: int) -> list[np.ndarray]:
    made = bracket(seed, ghost)
    return [made[i] for i in range(len(made))]


def burst(made) -> Burst:
    plain = made.settings == bracket(made.settings.seed, made.settings.ghost).settings
    frames = frames_of(made.settings.seed, made.settings.ghost) if plain else [made[i] for i in range(len(made))]
    return Burst.from_arrays(frames)


def quality(made, result) -> float:
    """PSNR of the picture, in the part that was kept, dB."""
    y0, x0, y1, x1 = result.crop
    truth = np.clip(pyfocus.colour.linear_to_srgb(made.truth), 0, 1)[y0:y1, x0:x1]
    return float(psnr(truth[8:-8, 8:-8], (result.image() / 65535)[8:-8, 8:-8]))


@pytest.mark.parametrize(("seed", "count"), [(1, 1), (2, 2), (3, 3)])
def test_what_walks_through_is_left_out(seed, count):
    made = bracket(seed, count)
    numbers = sorted(made.ghosts)
    assert len(numbers) == count
    on, off = (
        pyfocus.stack(burst(made), ghosts=ghosts, fuser="laplacian", depth=False, reference=4)
        for ghosts in (True, False)
    )
    found = sorted(int(name.split()[-1]) for name in on.ghosts)
    assert found == numbers and all(0.003 < share < 0.25 for share in on.ghosts.values()) and not off.ghosts
    assert quality(made, on) > quality(made, off) + 1.5


@pytest.mark.parametrize("settings", [{}, {"flicker": 0.08}, {"iso": 0.6}, {"breathing": 0.03, "jitter_px": 3.0}])
def test_where_nothing_moves_nothing_is_left_out(settings):
    made = bracket(4, 0, **settings)
    on, off = (pyfocus.stack(burst(made), ghosts=ghosts, fuser="laplacian", depth=False) for ghosts in (True, False))
    assert on.ghosts == {}
    np.testing.assert_array_equal(on.image(), off.image())


def test_a_thing_that_only_one_frame_has_sharp_is_none():
    """Blurred it is in the others too: a thin bar between two depths, and a bright point."""
    made = bracket(5, 0)
    frames = []
    for k in range(9):
        frame = pyfocus.colour.srgb_to_linear(made[k] / 65535.0)
        blur = 2 * abs(k - 4) + 1
        bar = np.zeros(SIZE)
        bar[80:140, 150:154] = 1
        for axis in (0, 1):
            bar = sum(np.roll(bar, s - blur // 2, axis) for s in range(blur)) / blur
        frame = frame * (1 - bar[..., None]) + 0.9 * bar[..., None]
        frames.append(np.rint(65535 * pyfocus.colour.linear_to_srgb(frame.clip(0, 1))).astype(np.uint16))
    assert pyfocus.stack(frames, fuser="laplacian", depth=False).ghosts == {}


def test_every_fuser_goes_without_and_short_bursts_are_not_judged():
    made = bracket(2, 2)
    for fuser in ("auto", "average"):
        on, off = (pyfocus.stack(burst(made), ghosts=g, fuser=fuser, depth=False, reference=4) for g in (True, False))
        assert on.ghosts and quality(made, on) > quality(made, off)
    assert pyfocus.stack(burst(made).chosen(range(3)), fuser="average").ghosts == {}


def test_frames_that_see_it_differ_from_those_of_the_same_bracket_without_it():
    made, empty = bracket(3, 3), bracket(3, 0)
    np.testing.assert_array_equal(made.truth, empty.truth)
    for i in range(9):
        assert np.array_equal(made[i], empty[i]) == (i not in made.ghosts)
    with pytest.raises(pyfocus.errors.ArgumentError, match="ghost must be 0 to the 9 frames, got 10"):
        bracket(1, 10)


def test_the_command(tmp_path):
    tifffile.imwrite(tmp_path / "photo.tif", np.rint(65535 * pyfocus.colour.linear_to_srgb(scene(6))).astype(np.uint16))
    done = command.run(
        "simulate",
        "photo.tif",
        "-o",
        "sim",
        "--frames",
        "8",
        "--size",
        "400",
        "--ghost",
        "2",
        "--seed",
        "5",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "sim" / "scene.json").read_text())["ghost_frames"]
    pictures = {}
    for choice in ("on", "off"):
        done = command.run(
            "stack",
            "sim/frames",
            "-o",
            f"{choice}.tif",
            "--ghosts",
            choice,
            "--fuser",
            "laplacian",
            "--json",
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        ghosts = json.loads(done.stdout)["ghosts"]
        assert sorted(ghosts) == ([f"IMG_{i:04d}.tif" for i in told] if choice == "on" else [])
        pictures[choice] = tifffile.imread(tmp_path / f"{choice}.tif")
    assert len(told) == 2 and not np.array_equal(pictures["on"], pictures["off"])
    command.refuse("stack", "sim/frames", "-o", "x.tif", "--ghosts", "some", cwd=tmp_path, code=2, says="--ghosts")
