"""Accuracy against cost, with the confidence band of every method. Needs matplotlib (`pip install vlm-pruner[viz]`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlm_pruner.evaluation.results import BenchResults, Row
from vlm_pruner.evaluation.statistics import Bootstrap
from vlm_pruner.evaluation.table import is_frame
from vlm_pruner.viz.plots import Curve, budget_plot, dot_plot

__all__ = ["leaders", "plot_curves"]


def plot_curves(results: BenchResults, path: str | Path, labels: Sequence[str] | None = None) -> Path:
    """Accuracy against visual tokens per layer, one curve per method, its 95 % band shaded, by `viz.budget_plot`.

    At one budget there are no curves: then methods are rows by name, by `viz.dot_plot`.

    Args:
        path: of the picture; its suffix chooses the format (`.svg`, `.png`, `.pdf`).
        labels: methods in colour, in this order, the others thin and grey; None = the `leaders`.

    Raises:
        BackendUnavailableError: matplotlib is not installed.
    """
    bootstrap = results.bootstrap()
    curves = _curves(results, bootstrap)
    shown = [name for name in (labels or leaders(results, bootstrap)) if name in curves]
    lines: dict[str, Any] = {
        "full": 100 * bootstrap.accuracy(results.row("none").correct).value,
        "chance": 100 * sum(results.chance.values()) / len(results.chance) if results.chance else None,
        "total": results.model["tokens"] or round(results.row("none").mean("kept") or 0),
    }
    scale, cost = "accuracy, % (mean over question types)", "visual tokens per decoder layer (mean)"
    if all(len(curve.keep) == 1 for curve in curves.values()):
        figure = dot_plot(list(curves.values()), bold=shown, xlabel=f"{scale}, with {cost}", **lines)
    else:
        figure = budget_plot(
            [curves[name] for name in shown],
            others=[curve for name, curve in curves.items() if name not in shown],
            xlabel=cost, ylabel=scale, **lines,
        )  # fmt: skip
    from matplotlib import rc_context

    undated = {"Date": None} if Path(path).suffix == ".svg" else None
    with rc_context({"svg.hashsalt": "vlm_pruner"}):  # with this and without a date, equal results give equal files
        figure.savefig(path, dpi=110, metadata=undated)
    return Path(path)


def leaders(results: BenchResults, bootstrap: Bootstrap, count: int = 7) -> list[str]:
    """The `count` methods of highest mean accuracy over the budgets, then the yardsticks that are not among them."""
    means: dict[str, list[float]] = {}
    for row in results.rows():
        if not is_frame(row):
            means.setdefault(row.label, []).append(bootstrap.accuracy(row.correct).value)
    ranked = sorted(means, key=lambda name: -sum(means[name]) / len(means[name]))
    always = [name for name in ("vlm-pruner", "divprune", "grid", "random", "downsample") if name in means]
    return [*ranked[:count], *(name for name in always if name not in ranked[:count])]


def _curves(results: BenchResults, bootstrap: Bootstrap) -> dict[str, Curve]:
    """Of every method, over its budgets."""
    methods: dict[str, list[Row]] = {}
    for row in results.rows():
        if not is_frame(row):
            methods.setdefault(row.label, []).append(row)
    curves = {}
    for name, rows in methods.items():
        found = [(row.mean("layer_average") or 0.0, bootstrap.accuracy(row.correct)) for row in rows]
        costs, values = zip(*sorted(found, key=lambda point: point[0]), strict=True)
        middle, low, high = ([100 * getattr(v, end) for v in values] for end in ("value", "low", "high"))
        curves[name] = Curve(name, costs, middle, low, high)
    return curves
