"""What a training run does, as plain data: the recipes by name, ``key=value`` changes to them, and their JSON file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ...errors import ArgumentError, ReadError
from ..losses import BORDER_PX

FORMAT, VERSION = "pyfocus-recipe", 1
CHOICES = {
    "network": ("FocusDeepStream", "FocusDeep", "UNet"),
    "kind": ("rgb", "rggb", "mosaic"),
    "noise": ("drawn", "none"),
    "loss": ("stream", "l1"),
    "schedule": ("cosine", "steps", "constant"),
    "optimiser": ("adamw", "adam"),
    "amp": ("auto", "bf16", "fp16", "none"),
    "checkpoint": ("exact", "compact", "weights"),
    "drawn_on": ("auto", "cpu", "device"),
}
_FROM_1 = ("size_px", "batch", "draws", "steps", "bad_steps", "validation", "save_every", "log_every", "prefetch")
_FROM_0 = ("border_px", "epochs", "warmup_steps", "weight_decay", "clip", "ema", "lr_end", "factor", "validate_every",
           "seed", "workers", "minutes")  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """One training run. Two runs of one recipe on one kind of machine are the same run.

    Network: ``network`` and its ``config``; the published ones get ``kind`` and the number of frames from below.

    Data: ``photos``, a folder or a picture to simulate brackets from ("" for the scene that is built in), or ``data``,
    a data-set folder. ``kind`` of frames; ``size_px`` of the squares learned from, in the truth's pixels; ``frames``
    least and most of a burst; ``noise`` "drawn" or "none"; ``simulation``, further settings of the simulation.
    ``batch`` bursts a step, drawn in ``draws`` parts one after the other, which processes share out.

    Optimisation: ``steps``; ``lr`` reached after ``warmup_steps``, then as ``schedule`` says: cosine to ``lr_end``
    times it, or times ``factor`` at each of ``milestones`` (parts of the run). ``epochs`` above 0 sets the steps where
    there is a data set: one is as many squares as it has tiles of 128 px. ``clip`` of the gradient's norm, ``ema`` of
    the weights that are kept (0: none for either). ``amp`` arithmetic of the network, "auto": bf16 where the device
    has it. ``bad_steps`` in a row end a run.

    Watching: a validation of ``validation`` draws of ``batch`` bursts each ``validate_every`` steps, a checkpoint
    every ``save_every``, a line every ``log_every``. A ``checkpoint`` that is "exact" goes on to the bit (16 bytes a
    weight), "compact" has half-precision moments and mean (10), "weights" half-precision weights alone (2).

    Where it runs: ``device`` auto, cpu, cuda or cuda:N. Bursts are ``drawn_on`` the CPU, in ``workers`` processes of
    their own (0: between the steps), ``prefetch`` ahead for each; or on the device between the steps, which "auto" does
    on a card. ``minutes`` above 0 ends this call in time, to be resumed.
    """

    name: str
    network: str = "FocusDeepStream"
    config: Mapping[str, Any] = field(default_factory=dict)
    loss: str = "stream"
    border_px: int = 4

    photos: str = ""
    data: str = ""
    kind: str = "rgb"
    size_px: int = 128
    frames: tuple[int, int] = (3, 8)
    noise: str = "drawn"
    simulation: Mapping[str, Any] = field(default_factory=dict)
    batch: int = 8
    draws: int = 1

    steps: int = 100_000
    epochs: int = 0
    lr: float = 1e-3
    warmup_steps: int = 500
    schedule: str = "cosine"
    lr_end: float = 0.01
    milestones: tuple[float, ...] = (1 / 3, 2 / 3)
    factor: float = 0.5
    optimiser: str = "adamw"
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 1e-4
    clip: float = 1.0
    ema: float = 0.999
    amp: str = "auto"
    bad_steps: int = 25

    validate_every: int = 1000
    validation: int = 8
    save_every: int = 500
    log_every: int = 20
    checkpoint: str = "exact"
    seed: int = 0

    device: str = "auto"
    drawn_on: str = "auto"
    workers: int = 1
    prefetch: int = 4
    minutes: float = 0

    def __post_init__(self) -> None:
        for key, allowed in CHOICES.items():
            if getattr(self, key) not in allowed:
                _refuse(key, f"one of {', '.join(allowed)}", getattr(self, key))
        for key in _FROM_1:
            if getattr(self, key) < 1:
                _refuse(key, "1 or more", getattr(self, key))
        for key in _FROM_0:
            if not 0 <= getattr(self, key) < math.inf:
                _refuse(key, "0 or more", getattr(self, key))
        if not 0 < self.lr < math.inf:
            _refuse("lr", "above 0", self.lr)
        if not self.ema < 1:
            _refuse("ema", "below 1", self.ema)
        if len(self.frames) != 2 or not 2 <= self.frames[0] <= self.frames[1]:
            _refuse("frames", "2 or more, or least and most, such as 3,8", self.frames)
        if len(self.betas) != 2 or not all(0 <= b < 1 for b in self.betas):
            _refuse("betas", "two numbers in [0, 1)", self.betas)
        if self.batch % self.draws:
            _refuse("draws", f"a divisor of batch {self.batch}", self.draws)
        if self.network != "FocusDeepStream" and self.frames[0] != self.frames[1]:
            _refuse("frames", f"one number for {self.network}, which takes a fixed number of them", self.frames)
        edge = BORDER_PX if self.loss == "stream" else self.border_px
        if self.size_px <= 2 * edge:
            _refuse("size_px", f"more than {2 * edge}, twice the border that the loss leaves out", self.size_px)
        kinds = {"FocusDeepStream": ("rgb",), "UNet": ("rgb", "mosaic")}.get(self.network, CHOICES["kind"])
        if self.kind not in kinds:
            _refuse("kind", f"{' or '.join(kinds)} for {self.network}", self.kind)
        if (self.loss == "stream") != (self.network == "FocusDeepStream"):
            _refuse("loss", f"{'stream' if self.network == 'FocusDeepStream' else 'l1'} for {self.network}", self.loss)

    @property
    def network_config(self) -> dict[str, Any]:
        """What the network is made with."""
        if self.network == "FocusDeepStream":
            return dict(self.config)
        return {"kind": self.kind, "frames": self.frames[0], **self.config}


# 128 crops a step, 8 on each of 16 cards; 300 epochs of 84 bursts of 1200 tiles; half the rate at 100 and 200 epochs.
_PAPER: dict[str, Any] = {
    "loss": "l1", "noise": "none", "size_px": 64, "frames": (30, 30), "batch": 128, "draws": 16, "steps": 236_400,
    "epochs": 300, "lr": 1e-4, "warmup_steps": 0, "schedule": "steps", "optimiser": "adam", "betas": (0.9, 0.999),
    "weight_decay": 0.0, "clip": 0.0, "ema": 0.0, "amp": "fp16", "validate_every": 788, "validation": 8,
    "save_every": 788,
}  # fmt: skip
_PAPER_RAW = {**_PAPER, "kind": "rggb"}

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe("rgb", "FocusDeep", **_PAPER),
        Recipe("raw", "FocusDeep", **_PAPER_RAW),
        Recipe("raw_noise", "FocusDeep", **{**_PAPER_RAW, "noise": "drawn"}),
        Recipe("unet_rgb", "UNet", **_PAPER),
        Recipe("unet_raw", "UNet", **{**_PAPER, "kind": "mosaic"}),
        Recipe("stream_lite", config={"size": "lite"}, batch=4, steps=60_000),
        Recipe("stream_base", config={"size": "base"}, batch=16, steps=100_000, validation=4, checkpoint="weights"),
        Recipe(
            "tiny", config={"size": "tiny"}, size_px=64, frames=(3, 4), simulation={"pool": 2, "blur_px": 8.0}, batch=2,
            steps=200, lr=3e-3, warmup_steps=10, ema=0.95, amp="none", validate_every=50, validation=8, save_every=50,
            log_every=10, workers=0,
        ),
    )
}  # fmt: skip


def named_recipe(name: str) -> Recipe:
    """A recipe by its name, or from a JSON file that :func:`recipe_json` made. Raises ArgumentError or ReadError."""
    if name in RECIPES:
        return RECIPES[name]
    path = Path(name)
    if path.suffix != ".json":
        raise ArgumentError(f"train: no recipe {name!r}; there are {', '.join(RECIPES)}, and files of .json")
    try:
        return recipe_of(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ReadError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # ArgumentError is one
        raise ReadError(f"{path}: is no recipe: {error}") from error


def changed(recipe: Recipe, settings: Iterable[str]) -> Recipe:
    """The recipe with ``key=value`` settings; ``config.`` and ``simulation.`` lead into these. Raises ArgumentError."""
    values: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise ArgumentError(f"train: --set must be key=value, got {setting!r}")
        outer, dot, inner = key.strip().partition(".")
        if dot:
            if outer not in ("config", "simulation") or not inner:
                raise ArgumentError(f"train: --set {key}: only config. and simulation. have settings inside")
            values[outer] = {**values.get(outer, getattr(recipe, outer)), inner: _parsed(text)}
        else:
            values[outer] = _typed(outer, _parsed(text))
    return replace(recipe, **values)


def recipe_json(recipe: Recipe) -> str:
    """The recipe as JSON text."""
    return json.dumps({"format": FORMAT, "version": VERSION, **asdict(recipe)}, indent=1) + "\n"


def recipe_of(values: Any) -> Recipe:
    """The recipe that :func:`recipe_json`'s values describe. Raises ArgumentError."""
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise ArgumentError(f'recipe: must be an object with "format": {FORMAT!r}')
    if values.get("version") != VERSION:
        raise ArgumentError(f"recipe: version {values.get('version')!r} is not read here, {VERSION} is")
    rest = {key: value for key, value in values.items() if key not in ("format", "version")}
    if "name" not in rest:
        raise ArgumentError("recipe: has no name")
    return Recipe(**{key: _typed(key, value) for key, value in rest.items()})


def _parsed(text: str) -> Any:
    """A value as JSON writes it, a list with commas, or the text itself."""
    text = text.strip()
    try:
        return json.loads(text)
    except ValueError:
        return [_parsed(part) for part in text.split(",")] if "," in text and text[:1] not in '[{"' else text


def _typed(key: str, value: Any) -> Any:
    """A value as the field of that name has it. Raises ArgumentError."""
    kinds = {f.name: str(f.type) for f in fields(Recipe)}
    if key not in kinds:
        raise ArgumentError(f"train: a recipe has no {key!r}; it has {', '.join(sorted(kinds))}")
    kind, number = kinds[key], isinstance(value, int | float) and not isinstance(value, bool)
    if kind == "str":
        return value if isinstance(value, str) else json.dumps(value)
    if kind == "int" and number and float(value).is_integer():
        return int(value)
    if kind == "float" and number:
        return float(value)
    if kind.startswith("Mapping") and isinstance(value, dict):
        return value
    if kind.startswith("tuple"):
        parts = list(value) if isinstance(value, list | tuple) else [value] * (2 if key == "frames" else 1)
        inner = "int" if "int" in kind else "float"
        if all(isinstance(p, int | float) and (inner == "float" or float(p).is_integer()) for p in parts):
            return tuple(int(p) if inner == "int" else float(p) for p in parts)
    wanted = {"int": "a whole number", "float": "a number"}.get(kind, "an object" if "Map" in kind else "numbers")
    return _refuse(key, wanted, value)


def _refuse(key: str, expected: str, got: Any) -> Any:
    raise ArgumentError(f"train: {key} must be {expected}, got {got!r}")
