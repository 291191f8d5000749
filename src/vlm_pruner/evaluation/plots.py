"""Accuracy against cost, with the confidence band of every method. Needs matplotlib (`pip install vlm-pruner[viz]`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlm_pruner.errors import BackendUnavailableError
from vlm_pruner.evaluation.results import BenchResults
from vlm_pruner.evaluation.statistics import Bootstrap
from vlm_pruner.evaluation.table import is_frame

__all__ = ["leaders", "plot_curves"]

Point = tuple[float, float, float, float]
"""Tokens per layer; accuracy, low and high end of its interval, in per cent."""


def plot_curves(results: BenchResults, path: str | Path, labels: Sequence[str] | None = None) -> Path:
    """Accuracy against visual tokens per layer, one curve per method, its 95 % band shaded.

    Args:
        path: of the picture; its suffix chooses the format (`.svg`, `.png`, `.pdf`).
        labels: methods in colour, in this order, the others thin and grey; None = the `leaders`.

    Raises:
        BackendUnavailableError: matplotlib is not installed.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise BackendUnavailableError("curves need matplotlib: pip install 'vlm-pruner[viz]'") from error
    bootstrap = results.bootstrap()
    curves = _curves(results, bootstrap)
    shown = [name for name in (labels or leaders(results, bootstrap)) if name in curves]
    figure = Figure(figsize=(8.0, 5.0), layout="constrained")
    axes = figure.subplots()
    for name in curves.keys() - set(shown):
        x, middle, _, _ = zip(*curves[name], strict=True)
        axes.plot(x, middle, color="0.8", linewidth=0.8, zorder=1)
    for number, name in enumerate(shown):
        x, middle, low, high = zip(*curves[name], strict=True)
        color, dashes = f"C{number % 10}", ("-", "--", ":")[number // 10 % 3]
        axes.plot(x, middle, dashes, color=color, marker="o", markersize=3.5, linewidth=1.5, label=name)
        axes.fill_between(x, low, high, color=color, alpha=0.12, lw=0)
    _ends(axes, results, bootstrap)
    axes.set_xlabel("visual tokens per decoder layer (mean)")
    axes.set_ylabel("accuracy, % (mean over question types)")
    axes.grid(alpha=0.25, linewidth=0.6)
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
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


def _curves(results: BenchResults, bootstrap: Bootstrap) -> dict[str, list[Point]]:
    curves: dict[str, list[Point]] = {}
    for row in results.rows():
        if not is_frame(row):
            value = bootstrap.accuracy(row.correct)
            point = (row.mean("layer_average") or 0.0, 100 * value.value, 100 * value.low, 100 * value.high)
            curves.setdefault(row.label, []).append(point)
    return {name: sorted(points) for name, points in curves.items()}


def _ends(axes: Any, results: BenchResults, bootstrap: Bootstrap) -> None:
    """Lines at the accuracy of the unpruned model and at chance."""
    full = 100 * bootstrap.accuracy(results.row("none").correct).value
    chance = 100 * sum(results.chance.values()) / len(results.chance)
    for level, name in ((full, f"all {results.model['tokens']} tokens"), (chance, "chance")):
        axes.axhline(level, color="0.4", linewidth=0.9, linestyle="--")
        axes.annotate(name, (0.99, level), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8)
