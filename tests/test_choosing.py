"""--from, --to, --every: the frames that are stacked are those, and what does not fit is named."""

from __future__ import annotations

import json
from pathlib import Path

import command
import numpy as np
import pytest
import tifffile

import pyfocus


@pytest.fixture(scope="module")
def frames(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("frames")
    random = np.random.default_rng(4)
    for i in range(7):
        tifffile.imwrite(folder / f"f{i}.tif", random.integers(0, 65535, (64, 72, 3)).astype(np.uint16))
    return folder


@pytest.mark.parametrize(
    ("words", "taken"),
    [
        (["--from", "2"], [2, 3, 4, 5, 6]),
        (["--to", "2"], [0, 1, 2]),
        (["--every", "3"], [0, 3, 6]),
        (["--from", "1", "--to", "6", "--every", "2"], [1, 3, 5]),
        (["--from", "3", "--to", "3"], [3]),
    ],
)
def test_these_frames_are_stacked(frames, tmp_path, words, taken):
    done = command.run("stack", frames, "-o", "out.tif", "--no-align", "--no-equalise", "--json", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    names = [frame["name"] for frame in json.loads(done.stdout)["frames"]]
    assert names == [f"f{i}.tif" for i in taken]
    given = [tifffile.imread(frames / f"f{i}.tif") for i in taken]
    alone = pyfocus.stack(given, align=False, equalise=False).image()
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif"), alone)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--from", "7"], "--from 7: there are 7 frames, numbered 0 to 6"),
        (["--to", "9"], "--to 9: there are 7 frames"),
        (["--from", "4", "--to", "2"], "--from 4 comes after --to 2: no frame is left"),
        (["--every", "0"], "must be 1 or more"),
        (["--from", "-1"], "must be a frame's number, 0 or more"),
        (["--to", "last"], "must be a frame's number, 0 or more, got 'last'"),
    ],
)
def test_what_does_not_fit_is_a_usage_error(frames, tmp_path, words, says):
    command.refuse("stack", frames, "-o", "out.tif", *words, cwd=tmp_path, code=2, says=says)


def test_frames_of_a_burst_may_be_chosen_by_number():
    burst = pyfocus.Burst.from_arrays([np.full((4, 4), i, np.uint8) for i in range(5)])
    some = burst.chosen([4, 1])
    assert some.names == ["frame 4", "frame 1"] and some[0].data[0, 0] == 4 and some[1].data[0, 0] == 1
    with pytest.raises(pyfocus.errors.BurstError, match="no frames"):
        burst.chosen([])
    with pytest.raises(IndexError):
        burst.chosen([5])


def test_heights_count_the_frames_between(frames, tmp_path):
    alike = (
        [frames, "--every", "2", "--step-um", "5"],
        [*(frames / f"f{i}.tif" for i in (0, 2, 4, 6)), "--step-um", "10"],
    )
    heights = []
    for i, words in enumerate(alike):
        done = command.run("stack", *words, "-o", f"o{i}.tif", "--no-align", "--height", f"h{i}.tif", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        heights.append(tifffile.imread(tmp_path / f"h{i}.tif"))
    np.testing.assert_array_equal(*heights)
    assert heights[0].max() > 15  # of at most 30
