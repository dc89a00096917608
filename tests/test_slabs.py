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
    told = json.loads(done.stdout)
    assert [frame["name"] for frame in told["frames"]] == [f"f{i}.tif" for i in range(7)]
    assert [output["path"] for output in told["outputs"]] == ["out.tif", *names] and told["frames_used"] == 7
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
        (["--slab", "3", "--save-transforms", "t.json"], 2, "are for one stack, not for --slab"),
        (["--slab", "x"], 2, "--slab"),
        (["--slab", "2", "--depth", "d.png"], 2, "what is written of the depth are for one stack"),
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


def test_an_input_is_never_replaced_by_a_slab(tmp_path):
    frames_in(tmp_path, 4)
    (tmp_path / "f3.tif").rename(tmp_path / "o_slab01.tif")
    words = ("stack", "f0.tif", "f1.tif", "f2.tif", "o_slab01.tif", "-o", "o.tif", "--slab", "2", "--overwrite")
    command.refuse(*words, cwd=tmp_path, code=2, says="o_slab01.tif, a slab's file, is an input or another output")
    (tmp_path / "o_slab01.tif").unlink()
    words = ("stack", "f0.tif", "f1.tif", "f2.tif", "-o", "o.tif", "-o", "o_slab01.tif", "--slab", "2")
    command.refuse(*words, cwd=tmp_path, code=2, says="is an input or another output")


def test_frames_that_no_slab_has_are_told(tmp_path):
    frames_in(tmp_path, 5)
    noise = np.random.default_rng(2).integers(0, 65535, (90, 120, 3)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "f2.tif", noise, photometric="rgb")
    done = command.run("stack", *[f"f{i}.tif" for i in range(5)], "-o", "o.tif", "--slab", "2", "--json", cwd=tmp_path)
    told = json.loads(done.stdout)
    assert done.returncode == 0 and told["left_out"] == ["f2.tif"] and told["frames_used"] == 4
    assert "f2.tif was left out: it could not be registered" in done.stderr


def test_memory_is_given_anew_to_each_slab(small_bracket):
    frames = [np.rint(f * 65535).astype(np.uint16) for f in np.clip(small_bracket.frames, 0, 1)]
    fuser = pyfocus.DepthMapFuser()
    for _ in stack_slabs(pyfocus.Burst.from_arrays(frames), 2, fuser=fuser, align=False, memory=400_000_000):
        assert fuser.memory is None


def test_slabs_are_not_searched_for_ghosts_again(tmp_path, monkeypatch):
    from pyfocus.cli import slabbing

    frames_in(tmp_path, 4)
    seen = {}
    monkeypatch.setattr(slabbing, "stack", lambda burst, **how: seen.update(how) or pyfocus.stack(burst, **how))
    files = [tmp_path / f"f{i}.tif" for i in range(4)]
    slabbing.stack_written(files, pyfocus.read_burst(files), None, {"fuser": "average", "ghosts": True})
    assert seen["ghosts"] is False and seen["align"] is False
