"""``pyfocus noise`` as its users have it: what it says, as text and JSON, and everything that can be wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
from command import refuse, run

from pyfocus import Meta, read_burst
from pyfocus.io import write_dng
from pyfocus.simulate import iso_noise

META = Meta(make="Maker", model="One", cfa="RGGB", black=(512.0,) * 4, white=16383.0)


@pytest.fixture(scope="module")
def raws(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two flat raws at ISO 0.5 of the scale, a rough one, a broken one, a grey TIFF; never written to."""
    folder = tmp_path_factory.mktemp("raws")
    random, (shot, read) = np.random.default_rng(0), iso_noise(0.5)
    for k in range(2):
        light = np.kron(random.uniform(0, 0.7, (8, 12)), np.ones((40, 40)))
        noisy = light + np.sqrt(shot * light + read) * random.standard_normal(light.shape)
        write_dng(folder / f"flat{k}.dng", np.rint(512 + noisy * 15871).clip(0, 16383).astype(np.uint16), META)
    write_dng(
        folder / "rough.dng", random.integers(600, 9000, (40, 60)).repeat(8, 0).repeat(8, 1).astype(np.uint16), META
    )
    (folder / "cut.dng").write_bytes((folder / "flat0.dng").read_bytes()[:9000])
    tifffile.imwrite(folder / "grey.tif", random.normal(30000, 300, (128, 128)).astype(np.uint16))
    return folder


def test_lines(raws: Path) -> None:
    done = run("noise", "flat0.dng", "flat1.dng", cwd=raws)
    assert done.returncode == 0, done.stderr
    shot = float(re.search(r"^shot ([\d.e-]+)", done.stdout, re.MULTILINE)[1])
    assert abs(shot / iso_noise(0.5)[0] - 1) < 0.1
    assert re.search(r"scale of pyfocus simulate: 0\.\d\d, inside its 0 to 1; read noise [\d.]+ times", done.stdout)
    assert "electrons per count" in done.stdout and re.search(
        r"^\d+ of 4800 blocks are flat", done.stdout, re.MULTILINE
    )
    for name in ("R ", "G1", "G2", "B ", "flat0.dng:", "flat1.dng:"):
        assert re.search(rf"^{name}.*shot [\d.e-]+, read [\d.e-]+, \d+ flat blocks", done.stdout, re.MULTILINE), name
    assert re.search(r"measure: 2 of 2", done.stderr)


def test_json(raws: Path) -> None:
    done = run("noise", "flat*.dng", "rough.dng", "--json", "-q", cwd=raws)
    assert done.returncode == 0 and done.stderr == ""
    report = json.loads(done.stdout)
    assert set(report) == {
        "shot", "read", "shot_error", "read_error", "planes", "blocks", "looked_at", "misfit", "darkest", "brightest",
        "grain", "read_deviation", "iso_scale", "read_ratio", "frames", "warnings",
    }  # fmt: skip
    assert abs(report["iso_scale"] - 0.5) < 0.03 and report["read_deviation"] ** 2 == pytest.approx(report["read"])
    assert [plane["name"] for plane in report["planes"]] == ["R", "G1", "G2", "B"]
    flat, _, rough = report["frames"]
    assert flat["name"] == "flat0.dng" and flat["blocks"] > 100 and flat["reason"] is None
    assert rough["shot"] is None and "blocks of 8 x 8 samples are flat" in rough["reason"]


def test_pictures_and_developed_raws(raws: Path) -> None:
    done = run("noise", "grey.tif", cwd=raws)
    assert done.returncode == 0 and "counts" not in done.stdout and done.stdout.count("flat blocks") == 1
    assert read_burst(raws / "grey.tif")[0].meta.cfa is None
    done = run("noise", "flat0.dng", "--domain", "rgb", "--json", cwd=raws)
    assert done.returncode == 0 and [plane["name"] for plane in json.loads(done.stdout)["planes"]] == ["R", "G", "B"]


def test_what_is_refused(raws: Path) -> None:
    refuse("noise", cwd=raws, code=2, says="RAW")
    refuse("noise", "flat0.dng", "--iso", "3", cwd=raws, code=2, says="--iso")
    refuse("noise", "flat0.dng", "--domain", "lab", cwd=raws, code=2, says="--domain")
    refuse("noise", "nowhere.dng", cwd=raws, code=1, says="nowhere.dng: no such file")
    refuse("noise", "cut.dng", "-q", cwd=raws, code=1, says="cut.dng: ")
    refuse("noise", "rough.dng", "-q", cwd=raws, code=1, says="are flat, 48 of one plane are needed")
    refuse("noise", "flat0.dng", "grey.tif", "-q", cwd=raws, code=1, says="not of one burst")
