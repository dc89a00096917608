"""The learning rate of a step, from the recipe alone: a run that stops and goes on has nothing to remember of it."""

from __future__ import annotations

import math

from .recipes import Recipe

AFRESH = 200  # steps of rising anew where the optimiser's moments were not kept


def rate(recipe: Recipe, step: int, since: int | None = None) -> float:
    """The learning rate of a step, counted from 0; ``since`` the step where moments were last lost, if they were.

    A straight rise over ``warmup_steps``, times: "constant", 1; "cosine", from 1 to ``lr_end`` (Loshchilov & Hutter
    2017, one period); "steps", ``factor`` for each of ``milestones`` that lies behind.
    """
    rise = min(1.0, (step + 1) / recipe.warmup_steps) if recipe.warmup_steps else 1.0
    if since is not None:
        rise *= min(1.0, (step - since + 1) / AFRESH)
    if recipe.schedule == "cosine":
        fall = (1 + math.cos(math.pi * min(1.0, step / recipe.steps))) / 2
        return recipe.lr * rise * (recipe.lr_end + (1 - recipe.lr_end) * fall)
    if recipe.schedule == "steps":
        passed = sum(step >= round(milestone * recipe.steps) for milestone in recipe.milestones)
        return float(recipe.lr * rise * recipe.factor**passed)
    return recipe.lr * rise
