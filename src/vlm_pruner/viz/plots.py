"""Curves from benchmark results: accuracy against budget with confidence bands, and where the time goes.

The only module of this room that needs matplotlib (extra `viz`); figures are made without pyplot's global state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vlm_pruner.errors import BackendUnavailableError
from vlm_pruner.viz.palette import INK, MUTED, REGIONS, RGB

__all__ = ["Curve", "budget_plot", "time_plot"]

_MARKERS = "osD^vPX*<>"


@dataclass(frozen=True)
class Curve:
    """Accuracy of one method over several budgets."""

    name: str
    keep: Sequence[float]  # tokens kept
    accuracy: Sequence[float]  # percent
    low: Sequence[float] | None = None  # lower and upper end of the confidence interval, percent
    high: Sequence[float] | None = None


def budget_plot(
    curves: Sequence[Curve],
    *,
    full: float | None = None,
    chance: float | None = None,
    total: int = 576,
    title: str = "",
) -> Any:
    """Accuracy against the number of kept tokens (logarithmic), a band for each confidence interval.

    Args:
        full: accuracy without pruning, percent, drawn as a line; `chance` likewise.
        total: tokens without pruning.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        BackendUnavailableError: matplotlib is not installed.
    """
    figure, axes = _figure(title, (7.2, 4.6))
    axes.set_xscale("log", base=2)
    for i, curve in enumerate(curves):
        colour = _hex(REGIONS[(6, 5, 2, 4, 0, 1, 3)[i % 7]])
        axes.plot(curve.keep, curve.accuracy, color=colour, marker=_MARKERS[i % 10], markersize=5, label=curve.name)
        if curve.low is not None and curve.high is not None:
            axes.fill_between(curve.keep, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0)
    for level, name in ((full, f"all {total} tokens"), (chance, "chance")):
        if level is not None:
            axes.axhline(level, color=_hex(MUTED), linestyle="--", linewidth=1)
            axes.annotate(name, (0.995, level), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=9)
    ticks = sorted({k for c in curves for k in c.keep})
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.minorticks_off()
    axes.set_xlabel(f"visual tokens kept of {total} (log scale)")
    axes.set_ylabel("accuracy, %")
    axes.legend(frameon=False, fontsize=9)
    return figure


def time_plot(rows: Mapping[str, Mapping[str, float]], *, title: str = "Where the time goes") -> Any:
    """Stacked bars of milliseconds: `rows[run][part]`, every run with the same parts in the same order.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        BackendUnavailableError: matplotlib is not installed.
    """
    figure, axes = _figure(title, (7.2, 1.3 + 0.55 * len(rows)))
    names = list(rows)
    parts = list(dict.fromkeys(part for row in rows.values() for part in row))
    start = [0.0] * len(names)
    for i, part in enumerate(parts):
        length = [rows[name].get(part, 0.0) for name in names]
        colour = REGIONS[(1, 6, 5, 0, 2, 4, 3)[i % 7]]
        axes.barh(names, length, left=start, color=_hex(colour), label=part, edgecolor="white", height=0.62)
        start = [s + v for s, v in zip(start, length, strict=True)]
    for y, total in enumerate(start):
        axes.annotate(f" {total:.0f} ms", (total, y), va="center", fontsize=9)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("milliseconds")
    axes.legend(frameon=False, fontsize=9, ncols=len(parts), loc="lower left", bbox_to_anchor=(0, 1.0))
    if title:
        axes.set_title(title, loc="left", fontweight="bold", pad=26)
    return figure


def _figure(title: str, inches: tuple[float, float]) -> tuple[Any, Any]:
    try:
        from matplotlib.figure import Figure
    except ImportError as missing:
        raise BackendUnavailableError("plots need matplotlib: pip install 'vlm-pruner[viz]'") from missing
    figure = Figure(figsize=inches, dpi=130, layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=_hex(INK))
    axes.grid(axis="both", color="#e4e7eb", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set_title(title, loc="left", fontweight="bold")
    return figure, axes


def _hex(colour: RGB) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
