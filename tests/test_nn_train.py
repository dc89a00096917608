"""Training: recipes to the letter, a loop that learns, goes on to the bit after any end, and stops when it should."""

from __future__ import annotations

import json
import math
import os
import pickle
import re
import signal
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import STRICT, refuse, run

torch = pytest.importorskip("torch")

from pyfocus import cli  # noqa: E402
from pyfocus.errors import ArgumentError, ReadError, ResourceError, TrainingError, WriteError  # noqa: E402
from pyfocus.nn import checkpoint, data  # noqa: E402
from pyfocus.nn.batch import Batch  # noqa: E402
from pyfocus.nn.checkpoint import build_network, load_model, read_pack, write_pack  # noqa: E402
from pyfocus.nn.train import RECIPES, Moment, Recipe, changed, named_recipe, objectives, recipe_json, sources, train  # noqa: E402  # noqa: E402
from pyfocus.nn.train import journal as journals  # noqa: E402
from pyfocus.nn.train.objectives import mean_of_frames, objective_of, published_input  # noqa: E402
from pyfocus.nn.train.processes import check_share, device_of, half_precision  # noqa: E402
from pyfocus.nn.train.schedule import AFRESH, rate  # noqa: E402
from pyfocus.nn.train.sources import Draws, Share  # noqa: E402
from pyfocus.nn.train.state import RunState  # noqa: E402
from pyfocus.simulate import procedural_scene, simulate, write_bracket  # noqa: E402

SMALL = ["steps=8", "size_px=32", "batch=2", "validate_every=4", "validation=1", "save_every=2", "log_every=1",
         "warmup_steps=2", "frames=2"]  # fmt: skip
# The same through the command line, whose bursts are simulated: one painted picture, small discs.
PLAIN = [*SMALL, "frames=2,3", "simulation.pool=1", "simulation.blur_px=4"]


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Halves:
    """Bursts of noise pictures, each frame sharp in one half and flat in the other; no painting, no optics."""

    def __init__(self, size: int = 32, kind: str = "rgb", spoilt: Any = ()) -> None:
        self.size, self.kind, self.spoilt, self.asked = size, kind, spoilt, []

    def draw(self, index: int, count: int) -> Batch:
        self.asked.append(index)
        random, n = torch.Generator().manual_seed(index), self.size
        truth = torch.rand(count, 3, n, n, generator=random)
        flat = truth.mean((2, 3), keepdim=True).expand_as(truth)
        left = (torch.arange(n) < n // 2).float()
        frames = torch.stack([truth * left + flat * (1 - left), flat * left + truth * (1 - left)], 1)
        if self.kind == "rggb":
            frames = torch.stack([frames[:, :, c, y::2, x::2] for c, y, x in
                                  ((0, 0, 0), (1, 0, 1), (1, 1, 0), (2, 1, 1))], 2)  # fmt: skip
        if index in self.spoilt:
            frames = frames * math.nan
        depth = (1 - left).expand(count, 1, n, n)
        noise, white = torch.full((count, 2), 1e-6), torch.tensor([[1.6, 1.0, 1.3]]).expand(count, 3)
        index_ = torch.arange(2.0).expand(count, 2)
        return Batch(frames, index_, truth / 2, depth, torch.ones_like(depth), noise, white, self.kind)


def go(folder: Path, *settings: str, name: str = "tiny", **more: Any) -> Any:
    more = {"source": Halves(), "validation": Halves(), **more}
    return train(changed(RECIPES[name], [*SMALL, *settings]), folder, **more)


def weights(folder: Path) -> dict[str, Any]:
    """All numbers that a run has, by name."""
    pack = read_pack(folder / "last.pt", "pyfocus-run", 1)
    moments = {f"{n}.{k}": v for n, one in pack["optimiser"].get("state", {}).items() for k, v in one.items()}
    kept = {f"net.{k}": v for k, v in pack["weights"].items()} | {f"mean.{k}": v for k, v in pack["average"].items()}
    return {**kept, **moments, "step": torch.tensor(pack["step"]), "loss": torch.tensor(pack["smooth"])}


def check_same(one: Path, two: Path) -> None:
    a, b = weights(one), weights(two)
    assert a.keys() == b.keys()
    assert [key for key in a if not torch.equal(a[key], b[key])] == []


def log_of(folder: Path, what: str = "train") -> list[dict[str, Any]]:
    entries = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [entry for entry in entries if entry["what"] == what]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of eight steps, never stopped; never written to."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    torch.set_num_threads(1)
    go(folder)
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of simulated bursts; never written to."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    torch.set_num_threads(1)
    train(changed(RECIPES["tiny"], PLAIN), folder)
    return folder


# --- recipes -----------------------------------------------------------


def test_the_recipes_are_there_and_their_networks_can_be_built():
    published = ["rgb", "raw", "raw_noise", "unet_rgb", "unet_raw"]
    assert list(RECIPES) == [*published, "stream_lite", "stream_base", "tiny"]
    for recipe in RECIPES.values():
        with torch.device("meta"):
            net = build_network(recipe.network, recipe.network_config)
        assert type(net).__name__ == recipe.network and getattr(net, "kind", "rgb") == recipe.kind


def test_published_recipes_have_the_published_settings():
    steps_an_epoch = math.ceil(84 * 1200 / 128)
    for name in ("rgb", "raw", "raw_noise", "unet_rgb", "unet_raw"):
        r = RECIPES[name]
        assert (r.loss, r.border_px, r.optimiser, r.betas, r.weight_decay) == ("l1", 4, "adam", (0.9, 0.999), 0)
        assert (r.batch, r.batch // r.draws, r.size_px, r.frames, r.amp) == (128, 8, 64, (30, 30), "fp16")
        assert (r.epochs, r.steps, r.clip, r.ema) == (300, 300 * steps_an_epoch, 0, 0)
        at = [rate(r, epoch * steps_an_epoch) for epoch in (0, 99, 100, 199, 200, 299)]
        assert at == pytest.approx([1e-4, 1e-4, 5e-5, 5e-5, 2.5e-5, 2.5e-5])
    assert [RECIPES[n].noise for n in ("rgb", "raw", "raw_noise")] == ["none", "none", "drawn"]


def test_a_recipe_comes_back_from_its_file(tmp_path):
    recipe = changed(RECIPES["raw"], ["lr=3e-4", "milestones=0.5,0.75,0.9", "simulation.step_px=0.5,2", "seed=7"])
    (tmp_path / "mine.json").write_text(recipe_json(recipe))
    again = named_recipe(str(tmp_path / "mine.json"))
    assert again == replace(recipe, simulation={"step_px": [0.5, 2]})


def test_settings_change_what_they_name():
    recipe = changed(RECIPES["stream_lite"], ["steps=1e5", "frames=5", "config.size=tiny", "photos=a,b", "lr=1",
                                              "config.reach_px=4", "betas=0.8,0.9", "minutes=8.5"])  # fmt: skip
    assert (recipe.steps, recipe.frames, recipe.lr, recipe.minutes) == (100_000, (5, 5), 1.0, 8.5)
    assert recipe.config == {"size": "tiny", "reach_px": 4} and recipe.betas == (0.8, 0.9)
    assert RECIPES["stream_lite"].config == {"size": "lite"}


@pytest.mark.parametrize(
    "setting,text",
    [
        ("steps", "must be key=value"),
        ("speed=3", "no 'speed'; it has amp, "),
        ("steps=many", "steps must be a whole number, got 'many'"),
        ("steps=1.5", "whole number"),
        ("steps=0", "steps must be 1 or more, got 0"),
        ("lr=nan", "lr must be "),
        ("lr=0", "lr must be above 0"),
        ("lr=true", "lr must be a number"),
        ("ema=1", "below 1"),
        ("clip=-1", "clip must be 0 or more"),
        ("minutes=-1", "minutes must be 0 or more"),
        ("frames=8,3", "least and most"),
        ("frames=3,4,5", "least and most"),
        ("frames=a", "frames must be numbers"),
        ("betas=0.9,1", "betas must be two numbers"),
        ("amp=int8", "amp must be one of auto, bf16, fp16, none"),
        ("draws=3", "draws must be a divisor of batch 2"),
        ("loss=l1", "loss must be stream for FocusDeepStream"),
        ("network=UNet", "loss must be l1 for UNet"),
        ("config=3", "config must be an object"),
        ("seed.x=3", "only config. and simulation."),
        ("simulation.=3", "only config. and simulation."),
    ],
)
def test_settings_that_cannot_be_say_so(setting, text):
    with pytest.raises(ArgumentError, match=f"train: .*{text}"):
        changed(RECIPES["tiny"], ["batch=2", "frames=3", setting])


def test_a_fixed_network_wants_a_fixed_number_of_frames():
    with pytest.raises(ArgumentError, match="one number for FocusDeep"):
        changed(RECIPES["rgb"], ["frames=3,8"])


@pytest.mark.parametrize(
    "text,says",
    [
        ("{}", '"format"'), ("[1]", '"format"'), ("{", "is no recipe"),
        ('{"format": "pyfocus-recipe", "version": 9}', "version 9"),
        ('{"format": "pyfocus-recipe", "version": 1}', "has no name"),
        ('{"format": "pyfocus-recipe", "version": 1, "name": "a", "colour": 1}', "no 'colour'"),
    ],
)  # fmt: skip
def test_files_that_are_no_recipes_say_so(tmp_path, text, says):
    (tmp_path / "mine.json").write_text(text)
    with pytest.raises(ReadError, match=says):
        named_recipe(str(tmp_path / "mine.json"))


def test_the_rate_rises_and_falls_as_its_formula_says():
    recipe = changed(RECIPES["tiny"], ["lr=2", "steps=100", "warmup_steps=10", "lr_end=0.1"])
    assert rate(recipe, 0) == pytest.approx(0.2)
    assert rate(recipe, 50) == pytest.approx(2 * (0.1 + 0.9 * 0.5))
    assert rate(recipe, 99) == pytest.approx(2 * (0.1 + 0.9 * (1 + np.cos(np.pi * 0.99)) / 2))
    assert rate(recipe, 50, since=41) == pytest.approx(rate(recipe, 50) * 10 / AFRESH)
    assert rate(replace(recipe, schedule="constant"), 70) == 2
    steps = replace(recipe, schedule="steps", milestones=(0.5, 0.6), factor=0.1)
    assert [rate(steps, s) for s in (49, 50, 60)] == pytest.approx([2, 0.2, 0.02])


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
    assert np.allclose(objectives.psnr(mean_of_frames(batch), objectives.target(batch)).numpy(), expected, atol=1e-3)
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


def test_a_run_leaves_its_files(whole):
    assert sorted(p.name for p in whole.iterdir()) == ["best.pt", "last.pt", "log.jsonl", "recipe.json", "samples"]
    assert [p.name for p in sorted((whole / "samples").iterdir())] == ["0000004.png", "0000008.png"]
    assert [entry["step"] for entry in log_of(whole)] == list(range(1, 9))
    assert {"loss", "lr", "gradient", "skipped", "rate", "image"} <= log_of(whole)[0].keys()
    assert [entry["step"] for entry in log_of(whole, "validation")] == [4, 8]
    recipe = named_recipe(str(whole / "recipe.json"))
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
def test_half_precision_learns_as_full_precision_does_at_first(tmp_path, whole, amp):
    go(tmp_path / "run", f"amp={amp}", "steps=4")
    mine, full = log_of(tmp_path / "run"), log_of(whole)
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


# --- going on ----------------------------------------------------------


@pytest.mark.parametrize("after", [1, 4, 7])
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(tmp_path, whole, after):
    asked = iter([False] * (after - 1) + [True])
    outcome = go(tmp_path / "run", stop=lambda: next(asked))
    assert (outcome.reason, outcome.step) == ("stopped", after)
    source = Halves()
    outcome = go(tmp_path / "run", resume=True, source=source)
    assert outcome.reason == "done" and source.asked == list(range(after, 8))
    check_same(tmp_path / "run", whole)
    assert [e["loss"] for e in log_of(tmp_path / "run")] == [e["loss"] for e in log_of(whole)]


def test_minutes_end_a_call_with_a_checkpoint(tmp_path, whole):
    outcome = go(tmp_path / "run", "minutes=1e-9")
    assert (outcome.reason, outcome.step) == ("minutes", 1)
    assert go(tmp_path / "run", resume=True).step == 8
    check_same(tmp_path / "run", whole)


def test_a_run_killed_while_it_writes_goes_on_to_the_same_bits(tmp_path, plain):
    """Killed by the system between two checkpoints, with a worker process; what it logged too early is taken out."""
    folder = tmp_path / "run"
    words = [w for s in [*PLAIN, "workers=1"] for w in ("--set", s)]
    command = [sys.executable, "-m", "pyfocus", "train", "tiny", "-o", str(folder), "--threads", "1", *words]
    with subprocess.Popen(command, env={**os.environ, **STRICT}, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = []
        while not lines or not lines[-1].startswith("step 5 "):
            lines.append(process.stderr.readline())
            assert lines[-1], lines
        process.kill()
    (folder / ".last.pt.00000000.part").write_bytes(b"half")
    with (folder / "log.jsonl").open("a") as file:
        file.write('{"what": "train", "st')
    outcome = train(changed(RECIPES["tiny"], PLAIN), folder, resume=True)
    assert outcome.reason == "done" and not list(folder.glob(".*"))
    check_same(folder, plain)
    assert [e["loss"] for e in log_of(folder)] == [e["loss"] for e in log_of(plain)]


def test_resuming_what_never_began_begins(tmp_path, whole):
    assert go(tmp_path / "run", resume=True).step == 8
    check_same(tmp_path / "run", whole)


def test_a_run_is_not_begun_over_another(tmp_path):
    go(tmp_path / "run", "steps=2")
    with pytest.raises(ArgumentError, match=r"holds a run; go on with it .--resume. or begin anew .--overwrite."):
        go(tmp_path / "run")
    assert go(tmp_path / "run", "steps=4", "seed=1", overwrite=True).step == 4
    assert [e["step"] for e in log_of(tmp_path / "run")] == [1, 2, 3, 4]


def test_a_finished_run_that_is_resumed_is_judged_again_or_lengthened(tmp_path):
    first = go(tmp_path / "run", "steps=2")
    again = go(tmp_path / "run", "steps=2", resume=True)
    assert again.reason == "done" and again.psnr == first.psnr
    assert go(tmp_path / "run", "steps=3", resume=True).step == 3


@pytest.mark.parametrize("kept,bytes_a_weight,near", [("exact", 16, 0), ("compact", 10, 1e-2), ("weights", 2, 1e-3)])
def test_smaller_checkpoints_go_on_nearly_where_they_were(tmp_path, kept, bytes_a_weight, near):
    outcome = go(tmp_path / "run", f"checkpoint={kept}", "steps=6")
    state = RunState(changed(RECIPES["tiny"], [*SMALL, f"checkpoint={kept}", "steps=6"]), "cpu")
    count = sum(p.numel() for p in state.net.parameters())
    assert outcome.bytes < bytes_a_weight * count + 100_000
    state.restore(tmp_path / "run" / "last.pt", read_pack(tmp_path / "run" / "last.pt", "pyfocus-run", 1))
    go(tmp_path / "exact", "steps=6")
    exact = read_pack(tmp_path / "exact" / "last.pt", "pyfocus-run", 1)
    for key, value in state.net.state_dict().items():
        assert torch.allclose(value, exact["weights"][key], rtol=near, atol=1e-6), key
    moments = state.optimiser.state_dict()["state"]
    if kept == "weights":
        assert not moments and state.since == 6
    else:
        for n, one in moments.items():
            assert torch.allclose(one["exp_avg_sq"], exact["optimiser"]["state"][n]["exp_avg_sq"], rtol=near, atol=0)
        for key, value in state.average.state_dict().items():
            assert torch.allclose(value, exact["average"][key], rtol=near, atol=1e-5), key


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


# --- what goes wrong ---------------------------------------------------


def test_a_bad_step_is_skipped_and_counted(tmp_path):
    told: list[Moment] = []
    outcome = go(tmp_path / "run", source=Halves(spoilt={3, 5}), tell=told.append)
    assert (outcome.step, outcome.skipped, told[-1].skipped) == (8, 2, 2)
    assert [e["step"] for e in log_of(tmp_path / "run") if e["loss"] is None] == [4, 6]
    assert all(torch.isfinite(v).all() for v in weights(tmp_path / "run").values())


def test_a_run_of_bad_steps_ends_and_its_last_good_checkpoint_stays(tmp_path):
    with pytest.raises(TrainingError, match=r"at step 8, 4 steps in a row .* learning rate .*last\.pt is from before"):
        go(tmp_path / "run", "bad_steps=4", "steps=20", source=Halves(spoilt=range(4, 99)))
    pack = read_pack(tmp_path / "run" / "last.pt", "pyfocus-run", 1)
    assert pack["step"] == 4 and all(torch.isfinite(v).all() for v in pack["weights"].values())
    assert go(tmp_path / "run", "steps=6", resume=True).reason == "done"


@pytest.mark.parametrize("rate", ["1e3", "1e30"])
def test_a_learning_rate_that_explodes_is_named(tmp_path, rate):
    with pytest.raises(TrainingError, match=rf"learning rate {re.escape(f'{float(rate):g}')} is too high.*--set lr="):
        go(tmp_path / "run", f"lr={rate}", "warmup_steps=0", "steps=400", "bad_steps=5", "save_every=1000")


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch, whole):
    calls = []

    def full(number: int) -> None:
        calls.append(number)
        if len(calls) > 2:
            raise OSError(28, os.strerror(28))

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    with pytest.raises(WriteError, match=r"\.pt: the disk is full .* needed"):
        go(tmp_path / "run")
    monkeypatch.undo()
    assert read_pack(tmp_path / "run" / "last.pt", "pyfocus-run", 1)["step"] == 2
    go(tmp_path / "run", resume=True)
    check_same(tmp_path / "run", whole)


def test_a_damaged_or_foreign_checkpoint_says_so(tmp_path):
    go(tmp_path / "run", "steps=2")
    last = tmp_path / "run" / "last.pt"
    pack, data = read_pack(last, "pyfocus-run", 1), last.read_bytes()
    last.write_bytes(data[: len(data) // 2])
    with pytest.raises(ReadError, match=r"last\.pt: .*cut short"):
        go(tmp_path / "run", resume=True)
    changes = [({"version": 9}, "version 9"), ({"format": "x"}, "is no pyfocus-run"), ({"weights": {}}, "do not fit")]
    changes += [({"optimiser": {"state": {}}}, "no run that can go on"), ({"recipe": {}}, '"format"')]
    for change, text in changes:
        write_pack(last, {**pack, **change})
        with pytest.raises(ReadError, match=text):
            go(tmp_path / "run", resume=True)
    write_pack(last, pack)
    with pytest.raises(ReadError, match="do not fit"):
        go(tmp_path / "run", "config.size=lite", resume=True)
    assert last.exists()


def test_a_worker_that_dies_is_told_in_one_line(tmp_path):
    class Dying(Halves):
        def draw(self, index: int, count: int) -> Batch:
            raise RuntimeError("DataLoader worker (pid 3) is killed by signal: Killed.\nmore")

    with pytest.raises(ResourceError, match=r"a process that makes bursts .* \(DataLoader worker .pid 3.*workers=0"):
        go(tmp_path / "run", source=Dying())


class Failing(Halves):
    def draw(self, index: int, count: int) -> Batch:
        raise ReadError("frame.tif: is cut short")


def test_what_is_wrong_in_a_worker_is_told_in_one_line(tmp_path, monkeypatch):
    """The worker is told of nothing but the recipe and where to begin, and its error comes through as it was."""
    monkeypatch.setattr(sources, "DataLoader", lambda made, **options: map(pickle.loads, map(pickle.dumps, made)))
    monkeypatch.setattr(sources, "training_source", lambda recipe, device: Failing())
    with pytest.raises(ReadError, match=r"^frame\.tif: is cut short$"):
        go(tmp_path / "run", "workers=1", source=None)


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


def test_devices_that_are_not_there_are_refused(monkeypatch):
    assert device_of("cpu") == "cpu" and half_precision("cpu") in ("bf16", "none")
    with pytest.raises(ArgumentError, match="device must be auto, cpu, cuda or cuda:N"):
        device_of("tpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ResourceError, match="cuda:3 is not there: torch sees 0"):
        device_of("cuda:3")


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


# --- the command -------------------------------------------------------


def test_the_command_stops_cleanly_and_goes_on(tmp_path, plain):
    words = [w for s in PLAIN for w in ("--set", s)]
    command = [sys.executable, "-m", "pyfocus", "train", "tiny", "-o", "run", "--threads", "1", *words]
    with subprocess.Popen(
        command, cwd=tmp_path, env={**os.environ, **STRICT}, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None and process.stdout is not None
        while not (line := process.stderr.readline()).startswith("step 1 of 8, loss"):
            assert line, "it ended too early"
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "; go on with --resume" in out and "error" not in err
    done = run("train", "tiny", "-o", "run", "--resume", "--json", "--threads", 1, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["reason"], result["step"], result["folder"]) == ("done", 8, "run")
    check_same(tmp_path / "run", plain)


def test_the_command_refuses_in_one_line(tmp_path):
    refuse("train", "nosuch", "-o", "run", cwd=tmp_path, code=2, says="no recipe 'nosuch'; there are rgb, raw")


@pytest.mark.parametrize(
    "words,code,says",
    [
        (["tiny", "--set", "lr=-1"], 2, "lr must be above 0"),
        (["tiny"], 1, "holds a run"),
        (["rgb", "--resume"], 2, "is a run of tiny, not rgb"),
        (["tiny", "--overwrite", "--set", "photos=nowhere"], 1, "photos must be a folder"),
        (["tiny", "--overwrite", "--set", "data=nowhere"], 1, "nowhere"),
        (["tiny", "--overwrite", "--set", "simulation.colour=3"], 1, "simulation has a setting it does not take"),
        (["tiny", "--overwrite", "--set", "config.size=vast"], 1, "size must be one of"),
        (["tiny", "--overwrite", "--set", "device=cuda:99"], 1, "cuda:99 is not there"),
    ],
)
def test_bad_words_end_in_one_line_and_leave_the_run(tmp_path, capsys, monkeypatch, words, code, says):
    go(tmp_path / "run", "steps=2")
    before = (tmp_path / "run" / "last.pt").read_bytes()
    monkeypatch.setattr(signal, "signal", lambda number, handler: signal.SIG_DFL)
    monkeypatch.setattr(cli.logging, "disable", lambda level: None)
    assert cli.main(["train", *words, "-o", str(tmp_path / "run")]) == code
    error = capsys.readouterr().err
    assert says in error and error.startswith("pyfocus: error: ") and error.count("\n") == 1
    assert (tmp_path / "run" / "last.pt").read_bytes() == before


# --- a borrowed card ---------------------------------------------------

PIECE = (sys.executable, str(Path(__file__).resolve().parents[1] / "benchmarks" / "gpu_train.py"))


def test_pieces_go_on_from_each_other_in_a_folder_that_can_travel(tmp_path):
    words = [w for s in [*PLAIN, "validate_every=0", "checkpoint=weights"] for w in ("--set", s)]
    piece = [*PIECE, "--run", "run", "--installed", "--device", "cpu", "--recipe", "tiny", "--keep", "kept", *words]
    for step, minutes in ((1, "1e-9"), (8, "1")):
        done = subprocess.run([*piece, "--minutes", minutes], cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert read_pack(tmp_path / "run" / "last.pt", "pyfocus-run", 1)["step"] == step
    assert sorted(p.name for p in (tmp_path / "kept").iterdir()) == [
        "0000001.png", "0000008.png", "best.pt", "last.pt", "log.jsonl", "recipe.json",
    ]  # fmt: skip
    assert [e["step"] for e in log_of(tmp_path / "kept")] == list(range(1, 9))


def test_photos_that_are_too_large_to_travel_are_refused(tmp_path):
    (tmp_path / "photos").mkdir()
    with (tmp_path / "photos" / "a.jpg").open("wb") as file:
        file.truncate(41_000_000)
    words = ["--run", "run", "--prepare", "--photos"]
    done = subprocess.run([*PIECE, *words, "photos"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stderr.startswith("gpu-train: photos are 41.0 MB, 40 MB travel")
    (tmp_path / "photos" / "a.jpg").write_bytes(b"small")
    done = subprocess.run([*PIECE, *words, "photos"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and (tmp_path / "run" / "photos" / "a.jpg").read_bytes() == b"small"
