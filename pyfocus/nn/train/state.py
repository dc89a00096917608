"""Everything a run is at one moment: weights, their running mean, the optimiser, counters; in a file and back.

``last.pt`` goes on where it was, on the CPU to the bit. For a borrowed machine's small parcel, ``checkpoint="compact"``
halves moments and mean and goes on nearly where it was; ``"weights"`` keeps half-precision weights alone: the mean
begins from them, the moments from nothing, with a learning rate that rises anew.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import ArgumentError, ReadError
from ..checkpoint import build_network, check_weights, read_pack, write_pack
from .recipes import CHOICES, Recipe, recipe_of
from .recipes import FORMAT as RECIPE_FORMAT
from .recipes import VERSION as RECIPE_VERSION

FORMAT, VERSION = "pyfocus-run", 1
LAST = "last.pt"
COUNTERS = {"step": int, "best": float, "smooth": float, "skipped": int, "bad_in_a_row": int, "seconds": float}


class RunState:
    """A run after ``step`` steps. ``average`` is the network that is kept: the running mean of ``net``'s weights."""

    def __init__(self, recipe: Recipe, device: str) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.device = recipe, device
        self.net: nn.Module = build_network(recipe.network, recipe.network_config)
        self.net.to(device=device, memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.net).eval().requires_grad_(False)
        self.optimiser = _optimiser(recipe, self.net)
        self.scaler = torch.amp.GradScaler(device.partition(":")[0], enabled=recipe.amp == "fp16")
        self.step = 0
        self.since: int | None = None  # the step where the moments were last lost
        self.best = -math.inf  # PSNR of the best validation, dB
        self.smooth = math.nan  # running mean of the loss
        self.skipped = 0  # bad steps in all
        self.bad_in_a_row = 0
        self.seconds = 0.0

    def set_rate(self, lr: float) -> None:
        """The learning rate of the next step."""
        for group in self.optimiser.param_groups:
            group["lr"] = lr

    @torch.no_grad()
    def average_in(self) -> None:
        """Bring the running mean up to the weights; shorter memory while the run is young."""
        decay = min(self.recipe.ema, (1 + self.step) / (10 + self.step))
        for mean, value in zip(_floats(self.average), _floats(self.net), strict=True):
            mean.lerp_(value, 1 - decay)

    def save(self, path: Path) -> int:
        """Write it, whole or not at all; returns the bytes. Raises WriteError."""
        kept = self.recipe.checkpoint
        weights, average = _stored(self.net.state_dict()), _stored(self.average.state_dict())
        moments = _stored(self.optimiser.state_dict()) if kept != "weights" else {}
        if kept == "weights":
            weights, average = _each(weights, lambda key, value: value.half()), {}
        elif kept == "compact":
            average = _each(average, lambda key, value: _halved(value - weights[key]))
            moments["state"] = {n: _halved_moments(one) for n, one in moments["state"].items()}
        return write_pack(path, {
            "format": FORMAT, "version": VERSION, "kept": kept,
            "recipe": {"format": RECIPE_FORMAT, "version": RECIPE_VERSION, **_listed(asdict(self.recipe))},
            "weights": weights, "average": average, "optimiser": moments, "scaler": self.scaler.state_dict(),
            "random": self._random(), **{name: getattr(self, name) for name in COUNTERS},
        })  # fmt: skip

    def _random(self) -> dict[str, Any]:
        return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if self.device != "cpu" else []}

    def restore(self, path: Path, pack: Mapping[str, Any]) -> None:
        """Go to where a file's run was. Raises ReadError."""
        try:
            weights, moments, kept = pack["weights"], pack["optimiser"], pack["kept"]
            if kept not in CHOICES["checkpoint"]:
                raise ValueError(f"kept is {kept!r}")
            average = pack["average"] or weights
            check_weights(path, self.recipe.network, self.net.state_dict(), weights)
            check_weights(path, self.recipe.network, self.net.state_dict(), average)
            if kept == "compact":
                average = _each(average, lambda key, value: weights[key] + value.float())
                moments = {**moments, "state": {n: _whole_moments(one) for n, one in moments["state"].items()}}
            self.net.load_state_dict(weights)
            self.average.load_state_dict(average)
            if moments:
                self.optimiser.load_state_dict(moments)
            if pack["scaler"] and self.scaler.is_enabled():
                self.scaler.load_state_dict(pack["scaler"])
            torch.set_rng_state(pack["random"]["cpu"])
            if self.device != "cpu" and len(pack["random"]["cuda"]) == torch.cuda.device_count():
                torch.cuda.set_rng_state_all(pack["random"]["cuda"])
            for name, kind in COUNTERS.items():
                setattr(self, name, kind(pack[name]))
            self.since = None if moments or not self.step else self.step
        except (AttributeError, IndexError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ReadError(f"{path}: holds no run that can go on: {error}; begin anew (--overwrite)") from error


def read_state(path: Path) -> tuple[Recipe, dict[str, Any]]:
    """The recipe in a run's file, and all that the file holds. Raises ReadError."""
    pack = read_pack(path, FORMAT, VERSION)
    try:
        return recipe_of(pack.get("recipe")), pack
    except ArgumentError as error:
        raise ReadError(f"{path}: {error}") from error


def _optimiser(recipe: Recipe, net: nn.Module) -> torch.optim.Optimizer:
    made = torch.optim.AdamW if recipe.optimiser == "adamw" else torch.optim.Adam
    decayed = [p for p in net.parameters() if p.dim() > 1]
    rest = [p for p in net.parameters() if p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return made([g for g in groups if g["params"]], lr=recipe.lr, betas=recipe.betas)


def _floats(net: nn.Module) -> list[Tensor]:
    return [value for value in net.state_dict().values() if value.is_floating_point()]


def _stored(value: Any) -> Any:
    """The same on the CPU, in C order, apart from what goes on changing."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True).contiguous()
    if isinstance(value, dict):
        return {key: _stored(entry) for key, entry in value.items()}
    return [_stored(entry) for entry in value] if isinstance(value, list | tuple) else value


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _listed(entry) for key, entry in value.items()}
    return [_listed(entry) for entry in value] if isinstance(value, list | tuple) else value


def _each(tensors: dict[str, Tensor], change: Callable[[str, Tensor], Tensor]) -> dict[str, Tensor]:
    """The same with every tensor of floats changed."""
    return {key: change(key, value) if value.is_floating_point() else value for key, value in tensors.items()}


def _halved(value: Tensor) -> Tensor:
    return value.to(torch.bfloat16)


def _halved_moments(one: dict[str, Any]) -> dict[str, Any]:
    return {k: _halved(v) if isinstance(v, Tensor) and v.dim() else v for k, v in one.items()}


def _whole_moments(one: dict[str, Any]) -> dict[str, Any]:
    return {k: v.float() if isinstance(v, Tensor) and v.dim() else v for k, v in one.items()}
