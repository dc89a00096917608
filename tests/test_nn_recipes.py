"""Recipes to the letter: the published settings, what may be changed, files, the learning rate's formula."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pyfocus.errors import ArgumentError, ReadError  # noqa: E402
from pyfocus.nn.checkpoint import build_network  # noqa: E402
from pyfocus.nn.train import RECIPES, changed, named_recipe, recipe_json  # noqa: E402
from pyfocus.nn.train.schedule import AFRESH, rate  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


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
        ("frames=1", "frames must be 2 or more"),
        ("frames=1,5", "frames must be 2 or more"),
        ("size_px=16", "size_px must be more than 16, twice the border"),
        ("kind=rggb", "kind must be rgb for FocusDeepStream, got 'rggb'"),
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


def test_a_u_net_of_raws_takes_mosaics():
    with pytest.raises(ArgumentError, match="kind must be rgb or mosaic for UNet, got 'rggb'"):
        changed(RECIPES["unet_raw"], ["kind=rggb"])


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
