"""Training: recipes, and the loop that follows them. ``pyfocus train`` in Python."""

from __future__ import annotations

import importlib.util as _importlib

import torch as _torch

from .loop import Moment, Outcome, saved_recipe, train
from .recipes import RECIPES, Recipe, changed, named_recipe, recipe_json

__all__ = [
    "RECIPES", "Moment", "Outcome", "Recipe", "changed", "has_tensorboard", "named_recipe", "recipe_json",
    "saved_recipe", "train", "use_threads",
]  # fmt: skip


def use_threads(count: int) -> None:
    """How many threads torch computes with; 0 leaves it as it is."""
    if count:
        _torch.set_num_threads(count)


def has_tensorboard() -> bool:
    """Whether runs write scalars for TensorBoard too."""
    return _importlib.find_spec("tensorboard") is not None
