"""Tables of the pages on choosing, evaluating and tuning: answers by kind of question, recipes, tuning and labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.common import RESULTS
from benchmarks.measured import provenance, result

from vlm_pruner.evaluation import BenchResults
from vlm_pruner.evaluation.recipes import load_recipe, recipe_names
from vlm_pruner.evaluation.table import table

__all__ = ["SOURCES", "by_kind", "recipes", "tuning"]

KINDS = {
    "things and colours": ("presence", "category", "color", "relation", "comparison", "background"),
    "where and how many": ("position", "counting"),
    "reading": ("number", "word", "code", "character"),
    "small things": ("small",),
    "two pictures": ("two_images",),
}
METHODS = ("vlm-pruner-plus", "vlm-pruner", "mmtok", "divprune", "text-attention", "grid", "random", "downsample")


def by_kind(folder: Path = RESULTS) -> str:
    """Accuracy less that of the unpruned model, in points, by kind of question."""
    results = BenchResults.load(folder / "offline.json")
    bootstrap = results.bootstrap()
    full = bootstrap.type_accuracy(results.row("none").correct)
    lines = []
    for label in METHODS:
        for budget in (192, 64):
            found = bootstrap.type_accuracy(results.row(label, budget).correct)
            cells = [
                f"{100 * sum(found[t].value - full[t].value for t in types) / len(types):+.1f}"
                for types in KINDS.values()
            ]
            lines.append([label, str(budget), *cells])
    head = ["method", "tokens of 576", *KINDS]
    return (
        table(head, lines)
        + "\n\n*Points of accuracy against all tokens, embedded model: `python -m benchmarks.offline`*"
    )


def recipes() -> str:
    """Every recipe, and the command that repeats its row."""
    lines = []
    for name in recipe_names():
        recipe = load_recipe(name)
        row = ", ".join(f"{value} at {budget}" for budget, value in recipe.published.items()) or "none"
        lines.append([f"`{name}`", recipe.model, ", ".join(map(str, recipe.keep)), recipe.dtype, row])
    return table(["recipe", "model", "keep", "precision", "published retention, %"], lines)


def tuning(folder: Path = RESULTS) -> str:
    """How often the true loss of a recommended plan was within what was asked."""
    found = result("tune", folder)
    if found is None:
        return "*Not measured yet: `python -m benchmarks.tune`.*"
    rows = [row for row in found["rows"] if "within" in row]
    within = sum(row["within"] for row in rows)
    plans = [row for row in rows if row["changed"] is not None]
    worst = max((row["true_loss"] for row in plans), default=0.0)
    minutes = next(aim["value"] for aim in found["aims"] if aim["aim"].startswith("minutes"))
    return (
        f"`tune` was asked for a loss of at most 10 % with 90 % confidence, each time on 64 other scenes of the "
        f"validation split. On the test split, the true loss was within 10 % in {within} of {len(rows)} runs. In "
        f"{len(plans)} runs `tune` recommended a plan, in the others all tokens. The largest true loss of a "
        f"recommended plan was {100 * worst:.1f} points. One run took {minutes:.1f} minutes.\n\n{provenance(found)}"
    )


SOURCES: dict[str, Callable[[], str]] = {"choosing-own": by_kind, "recipes": recipes, "tuning": tuning}
