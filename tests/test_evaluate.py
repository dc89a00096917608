"""Fusers judged by scenes with truth: what is compared with what, the tables, the pictures."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tifffile
from command import make_burst
from skimage.metrics import peak_signal_noise_ratio

import pyfocus
from pyfocus.burst import Meta
from pyfocus.colour import linear_to_srgb, srgb_to_linear
from pyfocus.errors import BurstError, ReadError, RegistrationError
from pyfocus.evaluate import (
    PUBLISHED,
    Score,
    evaluate,
    evaluation_report,
    find_scenes,
    judge,
    picture_names,
    report_text,
)
from pyfocus.evaluate.pictures import Worst, worst_tiles
from pyfocus.evaluate.protocols import Compared, as_paper, as_score
from pyfocus.fuse import Fused
from pyfocus.stacker import Stacked

SIZE = (96, 128)


def textured(height: int, width: int, seed: int = 9) -> np.ndarray:
    """Linear light (H, W, 3) float32 with detail of several sizes."""
    random = np.random.default_rng(seed)
    out = 0.1 + 0.2 * random.random((height, width, 3))
    for cell in (4, 8, 16):
        coarse = np.kron(random.random((height // cell + 1, width // cell + 1, 3)), np.ones((cell, cell, 1)))
        out += 0.2 * coarse[:height, :width]
    return out.astype(np.float32)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small scenes, ``two/near`` of pictures and ``two/raw`` of mosaics; never written to."""
    folder = tmp_path_factory.mktemp("data")
    make_burst(folder / "two" / "near")
    make_burst(folder / "two" / "raw", raw=True)
    return folder / "two"


@pytest.fixture
def scene(data: Path, tmp_path: Path) -> Path:
    """A scene of one's own, ``scene`` in an otherwise empty folder."""
    return Path(shutil.copytree(data / "near", tmp_path / "scene"))


# --- what is compared --------------------------------------------------


@pytest.mark.parametrize("name", ["near", "raw"])
def test_the_paper_protocol_compares_the_crop_in_8_bits(data: Path, name: str):
    (score,), _ = evaluate(["laplacian"], find_scenes(data / name), border=4)
    reference = json.loads((data / name / "scene.json").read_text())["reference"]
    burst = pyfocus.read_burst(data / name / "frames", domain="auto")
    stacked = pyfocus.stack(burst, fuser="laplacian", reference=reference, depth=False)
    y0, x0, y1, x1 = stacked.crop
    assert (y1 - y0, x1 - x0) == score.size != SIZE
    result = np.rint(stacked.image(16) / 257).astype(np.uint8)
    truth = np.rint(tifffile.imread(data / name / "truth.tif")[y0:y1, x0:x1] / 257).astype(np.uint8)
    assert score.psnr == pytest.approx(peak_signal_noise_ratio(truth, result, data_range=255), abs=0.01)
    inner = np.s_[4:-4, 4:-4]
    assert score.inner_psnr == pytest.approx(peak_signal_noise_ratio(truth[inner], result[inner]), abs=0.01)
    assert score.psnr > 25 and 0.8 < score.ssim < 1 and score.frames == 5 and score.left_out == ()
    moved = truth[:-1, 1:], result[1:, :-1]
    assert peak_signal_noise_ratio(*moved) < score.psnr - 5  # so it lies where the truth does


def test_a_fuser_gets_the_domain_it_asks_for(data: Path, monkeypatch: pytest.MonkeyPatch):
    class OfMosaics(pyfocus.Laplacian):
        domain = "raw"

    monkeypatch.setattr(judge, "resolve_fuser", lambda name, **how: OfMosaics() if name == "mine.pt" else name)
    (mine, plain), _ = evaluate(["mine.pt", "laplacian"], find_scenes(data / "raw"))
    burst = pyfocus.read_burst(data / "raw" / "frames")
    y0, x0, y1, x1 = (stacked := pyfocus.stack(burst, fuser="laplacian", domain="raw", reference=2)).crop
    truth = np.rint(tifffile.imread(data / "raw" / "truth.tif")[y0:y1, x0:x1] / 257).astype(np.uint8)
    assert mine.psnr == pytest.approx(peak_signal_noise_ratio(truth, stacked.image(8)), abs=1e-6)
    assert (mine.fuser, plain.fuser) == ("mine.pt", "laplacian") and abs(mine.psnr - plain.psnr) > 0.01


def stacked_of(light: np.ndarray, crop: tuple[int, int, int, int] | None = None, meta: Meta | None = None) -> Stacked:
    """A result whose fused planes are a picture (H, W, 3) in linear light."""
    y0, x0, y1, x1 = crop or (0, 0, *light.shape[:2])
    planes = np.ascontiguousarray(light[y0:y1, x0:x1].transpose(2, 0, 1), np.float32)
    return Stacked(Fused(planes), meta or Meta(), ["a", "b"], (y0, x0, y1, x1))


def test_the_score_protocol_forgives_a_shift_and_a_gain():
    light = textured(220, 300)
    light = sum(np.roll(light, (dy, dx), (0, 1)) for dy in range(3) for dx in range(3)) / 12
    truth = np.rint(linear_to_srgb(light) * 65535).astype(np.uint16)
    result = shifted(light, 0.6, -0.4) * np.array([0.8, 1.1, 0.95])
    for crop in (None, (6, 4, 214, 290)):
        strict, fair = (how(stacked_of(result, crop), truth, (220, 300)) for how in (as_paper, as_score))
        assert fair.truth.shape[:2] == (220 - 26, 300 - 26) and fair.where is not None and fair.where.mean() > 0.97
        assert peak_signal_noise_ratio(strict.truth, strict.result) < 28.5
        error = np.square(fair.result - fair.truth / 65535)[fair.where].mean()
        assert -10 * np.log10(error) > 45  # measured 46.0


def shifted(light: np.ndarray, dx: float, dy: float) -> np.ndarray:
    """A picture sampled at (x + dx, y + dy), bilinearly, its edge repeated."""
    height, width = light.shape[:2]
    y, x = np.clip(np.arange(height) + dy, 0, height - 1.001), np.clip(np.arange(width) + dx, 0, width - 1.001)
    i, j = y.astype(int), x.astype(int)
    v, u = (y - i)[:, None, None], (x - j)[None, :, None]
    rows = light[i] * (1 - v) + light[i + 1] * v
    return rows[:, j] * (1 - u) + rows[:, j + 1] * u


def test_the_score_protocol_refuses_another_scene():
    other = np.rint(linear_to_srgb(textured(200, 240, seed=1)) * 255).astype(np.uint8)
    with pytest.raises(RegistrationError, match="could not be registered on the truth"):
        as_score(stacked_of(textured(200, 240)), other, (200, 240))


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_picture_that_was_turned_meets_an_upright_truth(orientation: int):
    light = textured(60, 80)
    meta = Meta(cfa="RGGB", orientation=orientation)
    whole, part = stacked_of(light, meta=meta), stacked_of(light, (4, 10, 50, 60), meta)
    compared = as_paper(part, whole.image(16), (60, 80))
    assert np.array_equal(compared.result, part.image(8)) and compared.truth.shape == compared.result.shape
    assert np.abs(compared.truth.astype(int) - compared.result).max() <= 1


@pytest.mark.parametrize(
    ("truth", "text"),
    [
        (np.zeros((60, 81, 3), np.uint8), "the truth is 81 x 60 px, the frames are 80 x 60 px"),
        (np.zeros((60, 80), np.uint8), "the frames are in colour, the truth is grey"),
    ],
)
def test_a_truth_that_does_not_fit(truth: np.ndarray, text: str):
    with pytest.raises(BurstError, match=text):
        as_paper(stacked_of(textured(60, 80)), truth, (60, 80))


# --- the shared brackets, against the shared script --------------------


@pytest.fixture(scope="module")
def script(shared: Path) -> ModuleType:
    """The shared script that scores any tool's result."""
    spec = importlib.util.spec_from_file_location("score", shared / "tools" / "score.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "crop"), [("align", True), ("easy", False), ("raw", True)]
)  # moved, in place, and with a gain of 1.11
def test_the_score_protocol_is_the_shared_scripts(
    shared: Path, script: ModuleType, tmp_path: Path, name: str, crop: bool
):
    (scene,) = find_scenes(shared / "data" / "brackets" / name)
    burst, truth = scene.burst(), scene.truth_picture()
    stacked = pyfocus.stack(burst, fuser="laplacian", reference=scene.reference, depth=False, crop=crop)
    compared = as_score(stacked, truth, truth.shape[:2])
    pair = {"result": compared.result, "truth": compared.truth, "where": compared.where}
    out = pyfocus.write_image(tmp_path / "out.tif", stacked.image())
    theirs = script.score(script.load(out), script.load(scene.folder / "truth.tif"))
    assert pyfocus.metrics.psnr(**pair) == pytest.approx(theirs["psnr"], abs=0.02)
    assert pyfocus.metrics.ssim(**pair) == pytest.approx(theirs["ssim"], abs=5e-4)


# --- scenes ------------------------------------------------------------


def test_scenes_are_found_at_any_depth_in_natural_order(data: Path, tmp_path: Path):
    for name in ("s10", "s9", "deep/er/s1"):
        shutil.copytree(data / "near", tmp_path / "all" / name)
    assert [scene.name for scene in find_scenes(tmp_path / "all")] == ["deep/er/s1", "s9", "s10"]
    (alone,) = find_scenes(data / "raw")
    assert (alone.name, alone.reference, len(alone.burst())) == ("raw", 2, 5)


def test_without_facts_the_first_frame_is_the_reference(scene: Path):
    (scene / "scene.json").unlink()
    assert find_scenes(scene)[0].reference == 0


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("scene.json", "{", "is not JSON"),
        ("scene.json", '{"reference": "middle"}', "reference must be the number of a frame"),
        ("scene.json", "[]", "reference must be the number of a frame"),
        ("scene.json", '{"reference": 5}', "reference must be below the number of frames, 5, got 5"),
        ("truth.tif", "no picture", "truth.tif: "),
    ],
)
def test_a_damaged_scene_is_named(scene: Path, name: str, text: str, says: str):
    (scene / name).write_text(text)
    with pytest.raises(ReadError, match=says):
        evaluate(["average"], find_scenes(scene))


def test_a_float_truth_is_taken(scene: Path):
    want = evaluate(["average"], find_scenes(scene))[0][0].psnr
    truth = srgb_to_linear(tifffile.imread(scene / "truth.tif") / np.float32(65535))
    tifffile.imwrite(scene / "truth.tif", truth, photometric="rgb")
    assert evaluate(["average"], find_scenes(scene))[0][0].psnr == pytest.approx(want, abs=0.01)
    truth[3, 4] = np.nan
    tifffile.imwrite(scene / "truth.tif", truth, photometric="rgb")
    with pytest.raises(ReadError, match=r"truth.tif: "):
        evaluate(["average"], find_scenes(scene))


def stored(folder: Path, kind: str, light: np.ndarray, balance: list[float], rendered: bool = False) -> None:
    """A data set of two bursts by its documented layout, each of three frames that equal their truth, (H, W, 3)."""
    codes = np.rint(light / balance * 64511 + 1024).astype(np.uint16).transpose(2, 0, 1)
    planes = codes
    if kind == "rggb":
        planes = np.stack([codes[0, ::2, ::2], codes[1, ::2, 1::2], codes[1, 1::2, ::2], codes[2, 1::2, 1::2]])
    if rendered:
        planes = codes = np.rint(linear_to_srgb(light) * 255).astype(np.uint8).transpose(2, 0, 1)
    bursts = []
    for name, split in (("one", "train"), ("deep/two", "test")):
        place = folder / "bursts" / name.replace("/", "~")
        place.mkdir(parents=True)
        np.save(place / "frames.npy", np.stack([planes] * 3))
        np.save(place / "truth.npy", codes)
        facts = {"kind": kind, "frames": ["a", "b", "c"], "reference": 1, "white_balance": balance}
        form = {"format": "pyfocus burst", "version": 1, "xyz_to_camera": None}
        (place / "burst.json").write_text(json.dumps({**form, **facts}))
        bursts.append({"name": name, "scene": name, "split": split})
    content = {"format": "pyfocus dataset", "version": 1, "kind": kind, "settings": {}, "bursts": bursts}
    (folder / "dataset.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("kind", "rendered", "least"), [("rgb", False, 60), ("rgb", True, 60), ("rggb", False, 33)]
)  # a mosaic has to be demosaiced
def test_a_data_set_of_arrays_is_read_too(tmp_path: Path, kind: str, rendered: bool, least: float):
    y, x = np.mgrid[0:64, 0:96]
    light = 0.4 + 0.2 * np.stack([np.sin(x / 7), np.sin(y / 5), np.sin((x + y) / 9)], axis=-1)
    stored(tmp_path, kind, light, [1.0, 1.0, 1.0] if rendered else [1.9, 1.0, 1.5], rendered)
    (score,), _ = evaluate(["average"], find_scenes(tmp_path))
    assert score.scene == "deep/two" and score.size == (64, 96) and score.psnr > least, score
    assert [scene.name for scene in find_scenes(tmp_path, "all")] == ["one", "deep/two"]
    with pytest.raises(ReadError, match="no bursts in the split 'val', its splits are test, train"):
        find_scenes(tmp_path, "val")
    frames = tmp_path / "bursts/deep~two/frames.npy"
    frames.write_bytes(frames.read_bytes()[:-100])
    with pytest.raises(ReadError, match=r"frames.npy: is damaged or cut short"):
        evaluate(["average"], find_scenes(tmp_path))
    (tmp_path / "dataset.json").write_text('{"format": "pyfocus dataset", "version": 2}')
    with pytest.raises(ReadError, match="no pyfocus dataset of version 1"):
        find_scenes(tmp_path)


# --- tables ------------------------------------------------------------

SCORES = [
    Score("laplacian", "s1", 30.0, 0.9, 31.0, 0.91, 1.0, (90, 100), 5),
    Score("laplacian", "s2", 40.0, 0.96, 43.0, 0.97, 2.0, (90, 100), 8, ("x",)),
    Score("a/model.pt", "s1", np.inf, 1.0, np.inf, 1.0, 0.5, (90, 100), 5),
]


def report_of(border: int = 4, published: bool = True) -> dict[str, Any]:
    return evaluation_report(SCORES, version="1", data="d", protocol="paper", border=border, published=published)


def test_means_are_over_scenes():
    first, second = report_of()["means"]
    assert (first["fuser"], first["scenes"], first["psnr"], first["inner_psnr"]) == ("laplacian", 2, 35.0, 37.0)
    assert first["ssim"] == pytest.approx(0.93) and first["seconds"] == 1.5
    assert (second["fuser"], second["scenes"], second["psnr"], second["ssim"]) == ("a/model.pt", 1, None, 1.0)


def test_markdown_has_every_figure():
    rows = [line for line in report_text(report_of(), "markdown").splitlines() if line.startswith("|")]
    assert rows[0] == "| fuser | scene | PSNR dB | SSIM | PSNR -4 px | SSIM -4 px | s |"
    assert rows[2] == "| laplacian | s1 | 30.00 | 0.9000 | 31.00 | 0.9100 | 1.00 |"
    assert rows[4] == "| laplacian | mean of 2 | 35.00 | 0.9300 | 37.00 | 0.9400 | 1.50 |"
    assert rows[5] == "| a/model.pt | s1 | inf | 1.0000 | inf | 1.0000 | 0.50 |"
    assert "| FocusDeep (raw), published | LSFD test | 32.89 | 0.898 |  |  |  |" in rows
    assert len(rows) == 6 + 2 * len(PUBLISHED) and len({row.count("|") for row in rows}) == 1


def test_text_is_aligned_and_json_is_complete():
    text = report_text(report_of(border=0, published=False), "text").splitlines()
    assert text[0].split() == ["fuser", "scene", "PSNR", "dB", "SSIM", "s"] and len(set(map(len, text[:6]))) == 1
    assert "protocol paper" in text[-1] and "published" not in "".join(text)
    report = json.loads(report_text(report_of(), "json"))
    assert report["rows"][1]["left_out"] == ["x"] and report["rows"][2]["psnr"] is None
    theirs = {"model": "FocusDeep", "input": "RGB", "data": "LSFD test", "psnr": 38.47, "ssim": 0.965}
    assert theirs in report["published"]
    assert "published: Table 3" in report_text(report_of(), "text")


# --- pictures ----------------------------------------------------------


def test_the_worst_tiles_are_where_the_error_is():
    truth = np.full((260, 390, 3), 100, np.uint8)
    result = truth.copy()
    result[140:150, 300:310] += 20
    result[5:15, 135:145] += 12
    first, second = worst_tiles(Compared(result, truth), "f", "s", 2)
    assert (first.y, first.x, second.y, second.x) == (130, 260, 0, 130)
    assert first.result.shape == (130, 130, 3)
    assert first.error == pytest.approx(100 * (20 / 255) ** 2 / 130**2, rel=1e-4)
    hidden = np.ones((260, 390), bool)
    hidden[130:, 260:] = False
    assert worst_tiles(Compared(result, truth, hidden), "f", "s", 1)[0].x == 130


def test_a_picture_is_result_truth_and_difference():
    result, truth = np.full((7, 5, 3), 90, np.uint8), np.full((7, 5, 3), 100, np.uint8)
    result[0, 0] = 0
    picture = Worst("a/m.pt", "deep/s 1", 3, 4, 0.1, result, truth).picture()
    assert picture.shape == (7, 3 * 5 + 2 * 4, 3)
    assert np.array_equal(picture[:, :5], result) and np.array_equal(picture[:, 9:14], truth)
    assert (picture[:, 18:][1:] == 80).all() and (picture[0, 18] == 255).all()
    tiles = [Worst(name, "deep/s 1", 3, 4, 0.1, result, truth) for name in ("a/m.pt", "b/m.pt")]
    assert picture_names(tiles) == ["m-01-deep-s-1-x3-y4.png", "m-02-deep-s-1-x3-y4.png"]
