"""What `vlm-pruner eval --recipe` stands for: model, precision, resolution, tasks and plans of a published row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from vlm_pruner.cli.options import parse_list
from vlm_pruner.errors import InputError

if TYPE_CHECKING:
    from vlm_pruner.asking import Loaded
    from vlm_pruner.evaluation.lmms.run import Task
    from vlm_pruner.evaluation.recipes import Recipe

__all__ = ["Official", "RecipeName", "chosen"]

RecipeName = Annotated[
    str | None,
    typer.Option("--recipe", help="Repeat a published row with its model, tasks, precision, resolution and budgets."),
]
Official = Annotated[
    str,
    typer.Option(
        "--official",
        help="With --recipe, do as the released code does in: rounding, early-stop, unmerged-grid, or all.",
    ),
]


@dataclass(frozen=True)
class Steps:
    """A recipe, and the habits of the released code that shall be repeated."""

    recipe: Recipe
    official: tuple[str, ...]

    def over(self, model: str | None, dtype: str, suite: str, tasks: str) -> tuple[str, str, str]:
        """(model, dtype, suite): what was named by itself wins over the recipe."""
        precision = self.recipe.dtype if dtype == "auto" and model is None else dtype
        return model or self.recipe.model, precision, suite or ("" if tasks else self.recipe.suite)

    def pixels(self, model: str | None, most: int | None) -> tuple[int | None, int | None]:
        """The least and the most pixels of a picture; the recipe's are for its own model."""
        return (self.recipe.min_pixels, most or self.recipe.max_pixels) if model is None else (None, most)

    def cells(self, loaded: Loaded) -> list[Task]:
        """A cell for every budget of the recipe."""
        from vlm_pruner.evaluation.lmms.arguments import Treatment
        from vlm_pruner.evaluation.lmms.run import Task

        plans = self.recipe.plans(loaded.layers, self.official)
        label = "vlm-pruner" if not self.official else f"vlm-pruner ({', '.join(self.official)})"
        return [Task(label, keep, Treatment(plan, label)) for keep, plan in zip(self.recipe.keep, plans, strict=True)]


def chosen(recipe: str | None, official: str) -> Steps | None:
    """The recipe that was asked for; None where none was.

    Raises:
        InputError: no such recipe or habit, or a habit without a recipe.
    """
    from vlm_pruner.evaluation.recipes import load_recipe
    from vlm_pruner.evaluation.released import HABITS

    if recipe is None:
        if official:
            raise InputError("--official repeats habits of the released code of a --recipe: name one")
        return None
    habits = HABITS if official == "all" else tuple(parse_list(official)) if official else ()
    steps = Steps(load_recipe(recipe), habits)
    steps.recipe.plans(1 + steps.recipe.layer, habits)  # unknown habits are refused before a model is loaded
    return steps
