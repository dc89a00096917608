"""Training: the objectives against NumPy, a loop that learns, and the same in several processes."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_runs import PLAIN, SMALL, Halves, go, log_of, weights

torch = pytest.importorskip("torch")

from pyfocus import metrics  # noqa: E402
from pyfocus.errors import ArgumentError, ReadError  # noqa: E402
from pyfocus.nn import data  # noqa: E402
from pyfocus.nn.batch import Batch  # noqa: E402
from pyfocus.nn.checkpoint import build_network, load_model, read_pack  # noqa: E402
from pyfocus.nn.train import RECIPES, Moment, Recipe, changed, named_recipe, objectives, sources, train  # noqa: E402
from pyfocus.nn.train import journal as journals  # noqa: E402
from pyfocus.nn.train.objectives import mean_of_frames, objective_of, published_input  # noqa: E402
from pyfocus.nn.train.processes import check_share  # noqa: E402
from pyfocus.nn.train.sources import Draws, Share  # noqa: E402
from pyfocus.nn.train.state import RunState  # noqa: E402
from pyfocus.simulate import procedural_scene, simulate, write_bracket  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


# --- objectives --------------------------------------------------------


def srgb(x: np.ndarray) -> np.ndarray:
    return np.where(x <= 0.0031308, 12.92 * x, 1.055 * np.maximum(x, 0.0031308) ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("kind", ["rgb", "rggb"])
def test_the_published_loss_is_the_mean_error_of_what_is_looked_at_without_the_border(kind):
    batch = Halves(16, kind).draw(3, 2)
    recipe = Recipe("x", "FocusDeep", {"features": 8}, "l1", 4, kind=kind, frames=(2, 2), amp="none")
    torch.manual_seed(0)
    net = build_network("FocusDeep", recipe.network_config)
    with torch.no_grad():
        value, parts = objective_of(recipe, "cpu").loss(net, batch)
        out = net(published_input(batch)).double().numpy()
    white = batch.white_balance.double().numpy()[:, :, None, None]
    truth = np.clip(srgb(batch.truth.double().numpy() * white), 0, 1)
    seen = out if kind == "rgb" else srgb(out * white)
    assert float(value) == pytest.approx(np.abs(seen - truth)[:, :, 4:-4, 4:-4].mean(), rel=1e-5)
    assert parts == {"l1": pytest.approx(float(value))}
    fed = published_input(batch).double().numpy()
    raw = batch.frames.double().numpy()
    assert np.allclose(fed, np.clip(srgb(raw * white[:, None]), 0, 1) if kind == "rgb" else raw, atol=1e-6)


def test_psnr_and_the_mean_of_frames_are_what_they_say():
    batch = Halves(16).draw(0, 2)
    white = batch.white_balance.double().numpy()[:, :, None, None]
    mean = np.clip(srgb(batch.frames.double().numpy().mean(1) * white), 0, 1)
    truth = np.clip(srgb(batch.truth.double().numpy() * white), 0, 1)
    assert np.allclose(mean_of_frames(batch).numpy(), mean, atol=1e-5)
    expected = [-10 * np.log10(np.square(a - b).mean()) for a, b in zip(mean, truth, strict=True)]
    mine = objectives.psnr(mean_of_frames(batch), objectives.target(batch)).numpy()
    assert np.allclose(mine, expected, atol=1e-3)
    pictures = (x.numpy().transpose(0, 2, 3, 1) for x in (mean_of_frames(batch), objectives.target(batch)))
    assert np.allclose(mine, [metrics.psnr(a, b) for a, b in zip(*pictures, strict=True)], atol=1e-4)
    flat = Halves(16, "rggb").draw(0, 1)
    grey = replace(flat, frames=torch.full_like(flat.frames, 0.25))
    shown = mean_of_frames(grey)
    assert shown.shape == flat.truth.shape and np.allclose(
        shown.numpy()[0, :, 5, 5], np.clip(srgb(0.25 * white[0, :, 0, 0]), 0, 1), atol=1e-5
    )


# --- learning ----------------------------------------------------------


def test_the_tiny_recipe_learns_and_beats_the_mean_of_frames(tmp_path):
    told: list[Moment] = []
    recipe = changed(RECIPES["tiny"], ["steps=60", "validate_every=20"])
    judges = sources.validation_source(recipe, "cpu")
    outcome = train(recipe, tmp_path / "run", tell=told.append, validation=judges)
    net, facts = load_model(tmp_path / "run" / "best.pt")
    objective, batches = objective_of(recipe, "cpu"), [judges.draw(n, 2) for n in range(8)]
    with torch.no_grad():
        before, after = (
            np.mean([float(objective.loss(one, batch)[0]) for batch in batches])
            for one in (RunState(recipe, "cpu").net, net)
        )
    assert after < 0.95 * before  # measured: 0.0288 of 0.0315
    assert (
        outcome.reason == "done" and outcome.skipped == 0 and outcome.psnr > outcome.mean_psnr + 1
    )  # measured: 1.35 dB
    assert net.config["size"] == "tiny" and facts["recipe"] == "tiny" and facts["encoding"] == "linear"
    assert facts["psnr"] == pytest.approx(max(m.psnr for m in told if m.psnr is not None))
    assert told[-2].step == 60 and told[-2].left_s == 0 and told[0].rate > 0


def test_a_run_leaves_its_files(whole_run):
    names = {p.name for p in whole_run.iterdir()} - {"tensorboard"}  # which may be installed
    assert names == {"best.pt", "last.pt", "log.jsonl", "recipe.json", "samples"}
    assert [p.name for p in sorted((whole_run / "samples").iterdir())] == ["0000004.png", "0000008.png"]
    assert [entry["step"] for entry in log_of(whole_run)] == list(range(1, 9))
    assert {"loss", "lr", "gradient", "skipped", "rate", "image"} <= log_of(whole_run)[0].keys()
    assert [entry["step"] for entry in log_of(whole_run, "validation")] == [4, 8]
    recipe = named_recipe(str(whole_run / "recipe.json"))
    assert recipe == changed(RECIPES["tiny"], SMALL)


def test_the_mean_of_weights_is_the_running_mean():
    state = RunState(changed(RECIPES["tiny"], ["ema=0.5"]), "cpu")
    key = "weigh.weight"
    expected = state.net.state_dict()[key].double().clone()
    for step in range(12):
        state.step = step
        with torch.no_grad():
            state.net.state_dict()[key].add_(1.0)
        state.average_in()
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * state.net.state_dict()[key].double()
    assert torch.allclose(state.average.state_dict()[key].double(), expected, atol=1e-5)
    assert not any(p.requires_grad for p in state.average.parameters())


@pytest.mark.parametrize("name,kind", [("rgb", "rgb"), ("raw_noise", "rggb")])
def test_a_published_recipe_takes_a_step(tmp_path, name, kind):
    outcome = go(
        tmp_path / "run", "config.features=8", "amp=none", "draws=1", "steps=2", "size_px=16", name=name,
        source=Halves(16, kind), validation=Halves(16, kind),
    )  # fmt: skip
    _, facts = load_model(tmp_path / "run" / "best.pt")
    assert outcome.step == 2 and facts["encoding"] == {"rgb": "srgb", "rggb": "linear"}[kind]


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_half_precision_learns_as_full_precision_does_at_first(tmp_path, whole_run, amp):
    go(tmp_path / "run", f"amp={amp}", "steps=4")
    mine, full = log_of(tmp_path / "run"), log_of(whole_run)
    assert mine[0]["loss"] != full[0]["loss"] and mine[0]["loss"] == pytest.approx(full[0]["loss"], rel=0.05)
    assert (read_pack(tmp_path / "run" / "last.pt", "pyfocus-run", 1)["scaler"] != {}) == (amp == "fp16")


def test_validation_is_of_other_brackets_than_training(monkeypatch):
    made: list[tuple[int, str]] = []
    monkeypatch.setattr(sources, "Simulation", lambda *a, seed, device, **k: made.append((seed, device)))
    recipe = changed(RECIPES["tiny"], ["seed=5"])
    sources.training_source(recipe, "cpu")
    sources.validation_source(recipe, "cpu")
    assert made == [(5, "cpu"), (5 + 1_000_003, "cpu")]


@pytest.fixture(scope="module")
def bursts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of raw bursts, one to learn from and one to judge by; never written to."""
    folder = tmp_path_factory.mktemp("data")
    picture, depth = procedural_scene(64, 64)
    for seed, name in enumerate(("cup", "key", "tin", "pan")):
        write_bracket(simulate(picture, depth, frames=2, raw=True, blur_px=3.0, seed=seed), folder / "bursts" / name)
    data.build_dataset(folder / "bursts", folder / "set", data.Recipe("rggb"), shares=data.Shares(0.5, 0))
    return folder / "set"


@pytest.mark.parametrize("name,kind", [("raw_noise", "rggb"), ("unet_raw", "mosaic")])
def test_a_data_set_is_learnt_from_and_judged_by_other_scenes(tmp_path, bursts, name, kind):
    settings = [*SMALL, f"data={bursts}", "config.features=8", "amp=none", "draws=1", "batch=2", "epochs=1"]
    recipe = changed(RECIPES[name], settings)
    train(recipe, tmp_path / "run", source=None)
    assert [e["step"] for e in log_of(tmp_path / "run")] == [1]  # no tile of 128 px: an epoch of one square
    drawn = sources.FolderSource(recipe, "train").draw(3, 2)
    clean = sources.FolderSource(replace(recipe, noise="none"), "train").draw(3, 2)
    assert drawn.kind == kind and drawn.truth.shape == (2, 3, 32, 32)
    added = (drawn.frames - clean.frames).square().mean()
    if name == "unet_raw":
        assert added == 0
    else:
        shot, read = (drawn.noise - clean.noise).T[:, :, None, None, None, None].double()
        assert float(added) == pytest.approx(float((shot * clean.frames + read).mean()), rel=0.1)
    judged = sources.FolderSource(recipe, "val").draw(0, 2)
    assert not any(torch.equal(a, b) for a in judged.truth for b in clean.truth)
    assert torch.equal(sources.FolderSource(recipe, "train").draw(3, 2).frames, drawn.frames)


def test_a_data_set_without_scenes_to_judge_by_says_how_to_have_some(tmp_path, bursts):
    recipe = changed(RECIPES["raw"], [*SMALL, f"data={bursts}", "config.features=8", "amp=none", "draws=1"])
    with pytest.raises(ReadError, match=r"set: has no burst of 66 px or more in its split 'val' .* judged by; .*--val"):
        sources.FolderSource(replace(recipe, size_px=66), "val")


def test_tensorboard_gets_scalars_and_samples_where_it_is(tmp_path, monkeypatch):
    written: list[tuple[str, int]] = []

    class Writer:
        def __init__(self, folder: str, purge_step: int) -> None:
            written.append((Path(folder).name, purge_step))

        def add_scalar(self, name: str, value: float, step: int) -> None:
            written.append((name, step))

        def add_image(self, name: str, picture: Any, step: int) -> None:
            assert picture.shape[0] == 3
            written.append((name, step))

        def close(self) -> None:
            written.append(("close", 0))

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monkeypatch.setattr(journals.importlib.util, "find_spec", lambda name: name)
    go(tmp_path / "run", "steps=4")
    assert written[0] == ("tensorboard", 1) and written[-1] == ("close", 0)
    assert {("train/loss", 1), ("train/lr", 4), ("validation/psnr", 4), ("samples", 4)} <= set(written)


# --- several processes -------------------------------------------------


def test_two_processes_have_the_loss_of_one_with_all_draws(tmp_path):
    words = [w for s in [*PLAIN, "batch=4", "draws=2", "steps=3"] for w in ("--set", s)]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    done = subprocess.run(
        [*launch, "pyfocus", "train", "tiny", "-o", "two", "--threads", "1", *words], cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (
        sum(line.startswith("step 3 of 3, loss") for line in done.stderr.splitlines()) == 2
    )  # learnt and judged: once
    train(changed(RECIPES["tiny"], [*PLAIN, "batch=4", "draws=2", "steps=3"]), tmp_path / "one")
    two, one = log_of(tmp_path / "two"), log_of(tmp_path / "one")
    assert [e["loss"] for e in two] == pytest.approx([e["loss"] for e in one], rel=1e-5)
    a, b = weights(tmp_path / "two"), weights(tmp_path / "one")
    assert all(torch.allclose(a[k].float(), b[k].float(), atol=1e-4) for k in a)


def test_draws_are_shared_out_without_gap_or_overlap():
    recipe = changed(RECIPES["tiny"], ["batch=4", "draws=4"])
    assert Share().draws(recipe, 3) == [12, 13, 14, 15]
    assert sorted(Share(0, 2).draws(recipe, 3) + Share(1, 2).draws(recipe, 3)) == [12, 13, 14, 15]
    with pytest.raises(ArgumentError, match="draws must be a multiple of the 3 processes, got 4"):
        check_share(recipe, Share(0, 3))


def test_one_large_batch_and_its_parts_give_the_same_gradient(tmp_path):
    class Parts(Halves):
        """Draw n of two bursts is bursts 2 n and 2 n + 1 of one endless row."""

        def draw(self, index: int, count: int) -> Batch:
            each = [super(Parts, self).draw(index * count + k, 1) for k in range(count)]
            fields = [f for f in each[0].__dataclass_fields__ if f != "kind"]
            return Batch(**{f: torch.cat([getattr(b, f) for b in each]) for f in fields})

    go(tmp_path / "whole", "batch=4", "steps=1", source=Parts())
    go(tmp_path / "parts", "batch=4", "draws=2", "steps=1", source=Parts())
    one, two = log_of(tmp_path / "whole")[0], log_of(tmp_path / "parts")[0]
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)
    assert two["gradient"] == pytest.approx(one["gradient"], rel=1e-3)


def test_workers_divide_the_draws_in_order(monkeypatch):
    recipe = changed(RECIPES["tiny"], [*SMALL, "batch=4", "draws=2", "steps=4"])
    seen = []
    for number in range(3):
        source = Halves()
        worker = types.SimpleNamespace(id=number, num_workers=3)
        monkeypatch.setattr(sources, "get_worker_info", lambda worker=worker: worker)
        list(Draws(recipe, Share(), 1, source))
        seen.append(source.asked)
    assert seen == [[2, 5], [3, 6], [4, 7]]
