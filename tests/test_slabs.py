"""Slabs: which frames they have, that they fit onto each other, and what the command writes and refuses."""

from __future__ import annotations

import json

import command
import numpy as np
import pytest
import tifffile

import pyfocus
from pyfocus.errors import ArgumentError
from pyfocus.slabs import slab_ranges, stack_slabs


@pytest.mark.parametrize(
    ("count", "size", "overlap", "found"),
    [
        (10, 5, 0, [(0, 5), (5, 10)]),
        (10, 5, 2, [(0, 5), (3, 8), (6, 10)]),
        (10, 10, 3, [(0, 10)]),
        (7, 20, 3, [(0, 7)]),
        (11, 5, 0, [(0, 5), (5, 10), (10, 11)]),
        (8, 5, 2, [(0, 5), (3, 8)]),
        (1, 5, 2, [(0, 1)]),
    ],
)
def test_the_frames_of_slabs(count, size, overlap, found):
    ranges = slab_ranges(count, size, overlap)
    assert [(r.start, r.stop) for r in ranges] == found
    assert sorted({i for r in ranges for i in r}) == list(range(count))


@pytest.mark.parametrize(("size", "overlap"), [(0, 0), (5, 5), (5, -1)])
def test_sizes_that_make_no_slabs(size, overlap):
    with pytest.raises(ArgumentError, match="overlap from 0 to below it"):
        slab_ranges(10, size, overlap)


def test_slabs_lie_in_one_geometry_and_are_cut_alike(small_bracket):
    frames = [np.rint(f * 65535).astype(np.uint16) for f in np.clip(small_bracket.frames, 0, 1)]
    burst = pyfocus.Burst.from_arrays(frames)
    whole = pyfocus.register(burst)
    slabs = list(stack_slabs(burst, 3, 1, fuser="laplacian", transforms=whole))
    assert len(slabs) == len(slab_ranges(len(frames), 3, 1))
    assert len({slab.crop for slab in slabs}) == 1 and len({slab.image().shape for slab in slabs}) == 1
    together = pyfocus.stack(burst, fuser="laplacian", transforms=whole)
    assert together.crop == slabs[0].crop
    again = pyfocus.stack([slab.image() for slab in slabs], fuser="laplacian", align=False).image()
    apart = np.abs(again.astype(float) - together.image()) / 65535
    shuffled = np.abs(again[:, ::-1].astype(float) - together.image()) / 65535
    assert apart.mean() < 0.1 * shuffled.mean()


def frames_in(folder, count=7):
    random = np.random.default_rng(9)
    scene = random.integers(8000, 50000, (90, 120, 3))
    for i in range(count):
        soft, blur = scene, 1 + abs(i - 3)
        for axis in (0, 1):
            soft = sum(np.roll(soft, s, axis) for s in range(-blur, blur + 1)) // (2 * blur + 1)
        tifffile.imwrite(folder / f"f{i}.tif", soft.astype(np.uint16), photometric="rgb")


def test_the_command_writes_slabs_and_their_stack(tmp_path):
    frames_in(tmp_path)
    words = ("stack", *[f"f{i}.tif" for i in range(7)], "-o", "out.tif", "--slab", "3", "--slab-overlap", "1")
    done = command.run(*words, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    names = [f"out_slab{i:02d}.tif" for i in (1, 2, 3)]
    assert sorted(p.name for p in tmp_path.glob("out*")) == ["out.tif", *names]
    assert [frame["name"] for frame in json.loads(done.stdout)["frames"]] == names
    shapes = {tifffile.imread(tmp_path / name).shape for name in ("out.tif", *names)}
    assert len(shapes) == 1
    alone = pyfocus.stack([tifffile.imread(tmp_path / name) for name in names], align=False).image()
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif"), alone)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--slab-overlap", "2"], 2, "--slab-overlap is for --slab"),
        (["--slab", "1"], 2, "--slab must be 2 or more"),
        (["--slab", "3", "--slab-overlap", "3"], 2, "from 0 to below it, got 3 and 3"),
        (["--slab", "3", "--save-transforms", "t.json"], 2, "are for one stack; leave them out with --slab"),
        (["--slab", "x"], 2, "--slab"),
    ],
)
def test_what_the_command_refuses(tmp_path, words, code, says):
    frames_in(tmp_path, 4)
    command.refuse(
        "stack", "f0.tif", "f1.tif", "f2.tif", "f3.tif", "-o", "o.tif", *words, cwd=tmp_path, code=code, says=says
    )


def test_slabs_that_are_there_already_are_not_replaced(tmp_path):
    frames_in(tmp_path, 4)
    (tmp_path / "o_slab02.tif").write_bytes(b"mine")
    words = ("stack", "f0.tif", "f1.tif", "f2.tif", "f3.tif", "-o", "o.tif", "--slab", "2")
    command.refuse(*words, cwd=tmp_path, code=1, says="o_slab02.tif")
