"""The published archive in miniature: transforms, mosaics, pictures and crops, against a scene that is a formula."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from lsfd_miniature import KEY, NAMES, make_archive, scene, to_reference

torch = pytest.importorskip("torch")

from pyfocus.burst import Burst, Frame, Meta  # noqa: E402
from pyfocus.errors import BurstError, ReadError  # noqa: E402
from pyfocus.io import read_burst  # noqa: E402
from pyfocus.nn import data  # noqa: E402
from pyfocus.nn.data import store  # noqa: E402
from pyfocus.nn.data.lsfd_convert import on_red  # noqa: E402
from pyfocus.raw import CFA_ORDERS, pack  # noqa: E402
from pyfocus.simulate.camera import NEUTRAL  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


def test_transforms_come_back_inverted(tmp_path: Path) -> None:
    maps = [to_reference(k)[:2] for k in range(1, 4)]
    forms = {
        "list of arrays": [m.astype(np.float32) for m in maps],
        "one array": np.stack(maps),
        "tuple of tensors": tuple(torch.from_numpy(m) for m in maps),
        "one tensor": torch.from_numpy(np.stack(maps)),
        "with frame 0": [np.eye(3)[:2], *maps],
    }
    for name, form in forms.items():
        torch.save(form, tmp_path / "t.pth", _use_new_zipfile_serialization=name != "one array")
        found = data.read_transforms(tmp_path / "t.pth", 4)
        assert np.array_equal(found[0], np.eye(3)), name
        for k in range(1, 4):
            assert np.abs(found[k] @ to_reference(k) - np.eye(3)).max() < 1e-4, name
    for form, text in (
        (maps[:2], "it has 2 transforms, 4 frames need 3"),
        ([np.eye(4)] * 3, "where \\(2, 3\\) belongs"),
        ([np.full((2, 3), np.nan)] * 3, "finite numbers"),
        ([np.zeros((2, 3))] * 3, "Singular"),
        ({"a": 1}, "holds no transforms"),
        ("text", "holds no transforms"),
    ):
        torch.save(form, tmp_path / "t.pth")
        with pytest.raises(ReadError, match=text):
            data.read_transforms(tmp_path / "t.pth", 4)
    whole = (tmp_path / "t.pth").read_bytes()
    (tmp_path / "t.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ReadError, match="damaged, cut short"):
        data.read_transforms(tmp_path / "t.pth", 4)


@pytest.mark.parametrize("cfa", CFA_ORDERS)
def test_mosaics_begin_on_red(cfa: str) -> None:
    random = np.random.default_rng(2)
    counts = random.integers(100, 4000, (36, 40)).astype(np.uint16)
    meta = Meta(cfa=cfa, black=(1.0, 2.0, 3.0, 4.0), white=5000.0)
    cut, start = on_red(Burst(["x"], lambda i: Frame(counts, meta)), (30, 32))
    y, x = 3 + start[0], 4 + start[1]
    frame = cut[0]
    assert frame.meta.cfa == "RGGB" and cfa[2 * (y % 2) + x % 2] == "R" and max(start) <= 1
    assert frame.size[0] % 2 == frame.size[1] % 2 == 0
    assert 3 + 30 - 2 < y + frame.size[0] <= 3 + 30 and 4 + 32 - 2 < x + frame.size[1] <= 4 + 32
    red = pack(frame.data, frame.meta)[0]
    black = meta.black[2 * (y % 2) + x % 2]
    assert np.allclose(red, (counts[y : y + frame.size[0] : 2, x : x + frame.size[1] : 2] - black) / (5000 - black))
    with pytest.raises(BurstError, match="do not fit the photo's pictures"):
        on_red(Burst(["x"], lambda i: Frame(counts, meta)), (40, 32))


@pytest.mark.parametrize("cfa", ["RGGB", "GBRG"])
def test_archive_raws_lie_where_the_transforms_say(tmp_path: Path, cfa: str) -> None:
    make_archive(tmp_path, cfa=cfa)
    archive = data.read_lsfd(tmp_path)
    done = data.convert_lsfd(archive, tmp_path / "set", data.Recipe("rggb"))
    assert done.made == [KEY, NAMES[1]] and sorted(done.left_out) == sorted(NAMES[2:])
    made = data.open_dataset(tmp_path / "set")
    assert made.names == [NAMES[1], KEY] and made.splits == ["test", "train"]
    facts = made.facts(1)
    y0, x0, y1, x1 = facts.crop
    start = {"RGGB": (0, 0), "GBRG": (1, 0)}[cfa]  # of the first red pixel in the picture
    yy, xx = np.mgrid[y0:y1, x0:x1].astype(np.float64) + np.reshape(start, (2, 1, 1))
    frames = store.decode(np.load(made.folder / "bursts" / KEY.replace("/", "~") / "frames.npy"))
    assert facts.reference == 0 and facts.truth == "helicon_focus_aligned_tiff.jpg" and len(facts.frames) == 4
    sites = ((0, 0, 0), (1, 0, 1), (1, 1, 0), (2, 1, 1))
    expected = np.stack([scene(xx, yy)[c, dy::2, dx::2] * NEUTRAL[c] for c, dy, dx in sites])
    inner = np.s_[..., 2:-2, 2:-2]  # at the very edge demosaicing knows one side only
    worst = float(np.abs(frames - expected)[inner].max())
    # what is left is demosaicing; it must not look like a shift (x, y) of any frame's plane
    slopes = np.stack([scene(xx + dx, yy + dy) - scene(xx - dx, yy - dy) for dx, dy in ((0.5, 0), (0, 0.5))])
    for frame in frames:
        for plane, (c, dy, dx) in enumerate(sites):
            slope = (slopes[:, c, dy::2, dx::2] * NEUTRAL[c])[inner].reshape(2, -1).T
            shift = np.linalg.lstsq(slope, (frame[plane] - expected[plane])[inner].ravel(), rcond=None)[0]
            assert np.abs(shift).max() < 0.01, shift  # px of the picture; measured: 0.0045
    swapped = np.linalg.inv(to_reference(3)) @ np.linalg.inv(to_reference(3))  # had the map been taken the other way
    points = np.stack([xx, yy, np.ones_like(xx)], -1) @ swapped.T
    away = float(np.abs(scene(points[..., 0], points[..., 1])[1, 0::2, 1::2] * NEUTRAL[1] - expected[1]).max())
    assert worst < 0.0015 < 0.05 < away, (worst, away)  # measured: 0.0010 and 0.16
    # the published truth: a finished picture, which balanced frames are compared with
    batch = made.crop(1, 0, 0, facts.size)
    assert facts.truth_colours == "rendered"
    balanced = batch.truth[0].numpy() * batch.white_balance[0].numpy()[:, None, None]
    assert np.abs(balanced - scene(xx, yy)).max() < 0.03  # of JPEG; measured: 0.018


def test_archive_without_transforms_is_registered_here(tmp_path: Path) -> None:
    make_archive(tmp_path)
    folder = tmp_path / "focus_stack_dataset" / "dataset" / KEY
    (folder / "transforms.pth").unlink()
    shutil.rmtree(tmp_path / "focus_stack_dataset" / "dataset" / "test")
    archive = data.read_lsfd(tmp_path / "focus_stack_dataset")
    data.convert_lsfd(archive, tmp_path / "set", data.Recipe("rggb", truth="average"), truth="ours")
    facts = data.open_dataset(tmp_path / "set").facts(0)
    assert facts.truth == "average" and facts.truth_colours == "camera" and facts.reference == 0
    maps = np.array([f["transform"] for f in facts.registration["frames"]])
    for k, found in enumerate(maps):
        assert np.abs((found @ to_reference(k) - np.eye(3))[:2, 2]).max() < 0.05  # px; measured: 0.010


def test_archive_pictures(tmp_path: Path) -> None:
    make_archive(tmp_path)
    archive = data.read_lsfd(tmp_path)
    data.convert_lsfd(archive, tmp_path / "set", data.Recipe("rgb", equalise=False))
    made = data.open_dataset(tmp_path / "set")
    assert made.names == [KEY]  # the other has no pictures
    photo = archive.photos[0]
    stored = np.load(tmp_path / "set" / "bursts" / KEY.replace("/", "~") / "frames.npy")
    for k, path in enumerate(photo.aligned):
        assert np.array_equal(stored[k].transpose(1, 2, 0), read_burst(path)[0].data)  # aligned already: as they are
    truth = np.load(tmp_path / "set" / "bursts" / KEY.replace("/", "~") / "truth.npy")
    assert np.array_equal(truth.transpose(1, 2, 0), read_burst(photo.folder / "helicon_focus.jpg")[0].data)
    shutil.rmtree(photo.folder / "aligned")
    data.convert_lsfd(data.read_lsfd(tmp_path), tmp_path / "other", data.Recipe("rgb", equalise=False))
    frames = data.open_dataset(tmp_path / "other")
    y0, x0, y1, x1 = frames.facts(0).crop
    yy, xx = np.mgrid[y0:y1, x0:x1].astype(np.float64)
    light = frames.crop(0, 0, 0, frames.facts(0).size).frames[0].numpy()
    assert np.abs(light - scene(xx, yy)).max() < 0.04  # jpg/ by transforms.pth; of JPEG; measured: 0.022


def test_archive_says_what_there_is(tmp_path: Path) -> None:
    make_archive(tmp_path)
    archive = data.read_lsfd(tmp_path)
    assert archive == data.read_lsfd(tmp_path / "focus_stack_dataset" / "dataset")
    assert [photo.key for photo in archive.photos] == [KEY, "train/olympus_macro_lens/leaf1", NAMES[1]]
    assert archive.absent == ["test/lumix_lens/chairs3"] and archive.missing == []
    one = archive.photos[0]
    assert (len(one.raws), len(one.jpgs), len(one.aligned), one.crops) == (4, 4, 4, {"crops_raw": 1, "crops3": 1})
    assert [p.name for p in one.raws] == ["P1_2.rw2", "P1_9.rw2", "P1_10.rw2", "P1_11.rw2"] and one.missing == []
    assert archive.photos[1].missing == [
        "raw/", "jpg/", "aligned/", "transforms.pth", "helicon_focus.jpg", "helicon_focus_aligned_tiff.jpg",
    ]  # fmt: skip
    (archive.folder / "dataset.csv").write_text("name;where\na;b\n")
    with pytest.raises(ReadError, match=r"dataset.csv: is damaged: expected lines of set;lens;photo"):
        data.read_lsfd(tmp_path)
    (archive.folder / "dataset.csv").unlink()
    assert data.read_lsfd(tmp_path).missing == ["dataset.csv"]
    with pytest.raises(ReadError, match="no LSFD archive here"):
        data.read_lsfd(tmp_path / "nowhere")


def test_published_crops(tmp_path: Path) -> None:
    make_archive(tmp_path)
    folder = tmp_path / "focus_stack_dataset" / "dataset" / KEY
    raw, rgb = data.read_crop(folder / "crops_raw" / "crop0.pkl"), data.read_crop(folder / "crops3" / "crop0.pkl")
    assert raw.kind == "rggb" and raw.frames.shape == (1, 4, 4, 8, 8) and raw.truth.shape == (1, 3, 16, 16)
    assert raw.white_balance.tolist() == [[2.0, 1.0, 1.5]] and raw.index.tolist() == [[0, 1, 2, 3]]
    assert torch.allclose(raw.truth[0, :, 0, 0] * raw.white_balance[0], torch.tensor([1.0, 0.0, 1.0]))
    assert rgb.kind == "rgb" and float(rgb.frames.max()) == 1 and not rgb.depth.any()
    torch.save({"burst": torch.zeros(2, 3, 8, 8), "target": torch.zeros(3)}, tmp_path / "x.pkl")
    with pytest.raises(ReadError, match="holds no crop"):
        data.read_crop(tmp_path / "x.pkl")
