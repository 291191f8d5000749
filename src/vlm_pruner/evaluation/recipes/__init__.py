"""How a published row is repeated: one versioned JSON file a model, and the plans that it stands for."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from vlm_pruner.budget import Keep
from vlm_pruner.errors import InputError, unknown_name
from vlm_pruner.evaluation.released import HABITS, ReleasedVLMPruner
from vlm_pruner.json_text import read_json
from vlm_pruner.plan import PrunePlan, Stage

__all__ = ["RECIPE_VERSION", "Recipe", "load_recipe", "recipe_names"]

RECIPE_VERSION = 1

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Recipe:
    """One model as a paper ran it."""

    name: str
    model: str  # id of the checkpoint on the hub
    source: str
    suite: str  # of tasks, see `lmms.suites`
    dtype: str
    prompt: str  # the form that the checkpoint's own chat template writes
    layer: int
    keep: tuple[Keep, ...]  # tokens per image, or shares
    reduction_ratio: tuple[float, ...]  # as the released scripts say the same budgets
    rounding: str  # of the released code
    unmerged_grid: bool = False  # does the released code lay tokens out in the grid before merging?
    min_pixels: int | None = None
    max_pixels: int | None = None
    published: dict[str, float] = field(default_factory=dict)  # retention in per cent by budget, where there is a row
    notes: tuple[str, ...] = ()

    def plans(self, num_layers: int, official: Collection[str] = ()) -> list[PrunePlan]:
        """A plan for every budget.

        Args:
            official: habits of the released code that shall be repeated, of `released.HABITS`.

        Raises:
            InputError: a habit that is not known.
            PlanError: a model without that layer.
        """
        if unknown := [name for name in official if name not in HABITS]:
            raise InputError(unknown_name("habit of the released code", unknown[0], HABITS))
        if not official:
            return [PrunePlan.of("vlm-pruner", keep, self.layer, num_layers=num_layers) for keep in self.keep]
        made = []
        for keep, ratio in zip(self.keep, self.reduction_ratio, strict=True):
            method = ReleasedVLMPruner(
                reduction_ratio=ratio if "rounding" in official else None,
                rounding=self.rounding if "rounding" in official else "ceil",
                early_stop="early-stop" in official,
                unmerged_grid=self.unmerged_grid and "unmerged-grid" in official,
            )
            made.append(PrunePlan((Stage(method, keep, self.layer),), asked=keep).check(num_layers))
        return made


def recipe_names() -> list[str]:
    """The recipes of this package."""
    return sorted(path.stem for path in _FOLDER.glob("*.json"))


def load_recipe(name: str) -> Recipe:
    """A recipe of this package by its name, or a file of one.

    Raises:
        InputError: there is none, or the file is none of this version.
    """
    path = Path(name) if name.endswith(".json") else _FOLDER / f"{name}.json"
    if not name.endswith(".json") and name not in recipe_names():
        raise InputError(unknown_name("recipe", name, recipe_names()))
    try:
        data: dict[str, Any] = read_json(path.read_text(encoding="utf-8"))
        if data.pop("version") != RECIPE_VERSION:
            raise InputError(f"{name!r} is a recipe of another version; this library reads version {RECIPE_VERSION}")
        if unknown := [key for key in data if key not in {f.name for f in fields(Recipe)}]:
            raise InputError(unknown_name("key of a recipe", unknown[0], [f.name for f in fields(Recipe)]))
        lists = {key: tuple(value) for key, value in data.items() if isinstance(value, list)}
        return Recipe(name=path.stem, **data | lists)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"cannot read the recipe {name!r}: {error}") from error
