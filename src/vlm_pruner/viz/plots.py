"""Curves from benchmark results: accuracy against budget with confidence bands, and where the time goes.

The only module of this room that needs matplotlib (extra `viz`); figures are made without pyplot's global state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, floor, log2
from typing import Any

from vlm_pruner.errors import BackendUnavailableError
from vlm_pruner.viz.palette import INK, MUTED, REGIONS, RGB

__all__ = ["Curve", "budget_plot", "dot_plot", "figure_class", "time_plot"]

_MARKERS = "osD^vPX*<>"
_CURVES = (6, 5, 2, 4, 0, 1, 3)  # colours of REGIONS, those that are hard to see on white last
_PARTS = (1, 6, 5, 0, 2, 4, 3)


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
    others: Sequence[Curve] = (),
    full: float | None = None,
    chance: float | None = None,
    total: int = 576,
    title: str = "",
    xlabel: str = "visual tokens kept",
    ylabel: str = "accuracy, %",
) -> Any:
    """Accuracy against the number of tokens (logarithmic), a band for each confidence interval.

    Args:
        others: drawn behind `curves`, thin, grey and without names.
        full: accuracy without pruning, percent, drawn as a line; `chance` likewise.
        total: tokens without pruning.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        BackendUnavailableError: matplotlib is not installed.
    """
    figure, axes = _figure(title, (8.0, 5.0))
    axes.set_xscale("log", base=2)
    for curve in others:
        axes.plot(curve.keep, curve.accuracy, color="0.8", marker=".", markersize=3, linewidth=0.8, zorder=1)
    for i, curve in enumerate(curves):
        colour, dashes = _hex(REGIONS[_CURVES[i % 7]]), ("-", "--", ":")[i // 7 % 3]
        style = {"color": colour, "marker": _MARKERS[i % 10], "markersize": 4.5, "linewidth": 1.5}
        axes.plot(curve.keep, curve.accuracy, dashes, label=curve.name, **style)
        if curve.low is not None and curve.high is not None:
            alpha, edge = (0.5, 1.0) if len(curve.keep) == 1 else (0.12, 0.0)  # a band without width is a line
            axes.fill_between(curve.keep, curve.low, curve.high, color=colour, alpha=alpha, linewidth=edge)
    for level, name in _levels(full, chance, total):
        axes.axhline(level, color=_hex(MUTED), linestyle="--", linewidth=0.9)
        axes.annotate(name, (0.99, level), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8)
    ticks = _ticks({k for curve in (*curves, *others) for k in curve.keep})
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.minorticks_off()
    axes.set_xlabel(f"{xlabel}, of {total} (log scale)")
    axes.set_ylabel(ylabel)
    if curves:
        figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    return figure


def dot_plot(
    curves: Sequence[Curve],
    *,
    bold: Sequence[str] = (),
    full: float | None = None,
    chance: float | None = None,
    total: int = 576,
    title: str = "",
    xlabel: str = "accuracy, %",
) -> Any:
    """Accuracy at one budget: a row for every method by name, best first, with its confidence interval and its tokens.

    Args:
        curves: of one budget each.
        bold: names of methods that stand out.
        full: accuracy without pruning, percent, drawn as a line; `chance` likewise.
        total: tokens without pruning.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        BackendUnavailableError: matplotlib is not installed.
    """
    rows = sorted(curves, key=lambda curve: (-curve.accuracy[0], curve.name))
    figure, axes = _figure(title, (7.5, 1.3 + 0.23 * len(rows)))
    for y, curve in enumerate(rows):
        colour = _hex(REGIONS[6] if curve.name in bold else MUTED)
        if curve.low is not None and curve.high is not None:
            axes.plot((curve.low[0], curve.high[0]), (y, y), color=colour, linewidth=1.6, alpha=0.45)
        axes.plot(curve.accuracy[0], y, "o", color=colour, markersize=5)
        axes.annotate(
            f"{curve.accuracy[0]:.1f} % with {curve.keep[0]:.0f}", (1.01, y), xycoords=("axes fraction", "data"),
            va="center", fontsize=8, color=colour, annotation_clip=False,
        )  # fmt: skip
    for level, name in _levels(full, chance, total):
        axes.axvline(level, color=_hex(MUTED), linestyle="--", linewidth=0.9, zorder=1)
        axes.annotate(name, (level, 1.0), xycoords=("data", "axes fraction"), ha="center", va="bottom", fontsize=8)
    axes.set_yticks(range(len(rows)), [curve.name for curve in rows], fontsize=8)
    for label, curve in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_fontweight("bold" if curve.name in bold else "normal")
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(xlabel)
    return figure


def _levels(full: float | None, chance: float | None, total: int) -> list[tuple[float, str]]:
    """What other accuracies are read against, by name, as far as it is known."""
    named = ((full, f"all {total} tokens"), (chance, "chance"))
    return [(level, name) for level, name in named if level is not None]


def time_plot(
    rows: Mapping[str, Mapping[str, float]], *, title: str = "Where the time goes", xlabel: str = "milliseconds"
) -> Any:
    """Stacked bars of milliseconds: `rows[run][part]`, the parts in the order in which they first appear.

    A part below zero, which the noise in a difference of two measurements makes, is not drawn; the sum that is written
    behind the bar counts it.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        BackendUnavailableError: matplotlib is not installed.
    """
    figure, axes = _figure("", (8.0, 1.6 + 0.5 * len(rows)))
    names = list(rows)
    ends = [0.0] * len(names)
    for i, part in enumerate(dict.fromkeys(part for row in rows.values() for part in row)):
        lengths = [max(0.0, row.get(part, 0.0)) for row in rows.values()]
        if any(lengths):
            colour = _hex(REGIONS[_PARTS[i % 7]])
            axes.barh(names, lengths, left=ends, color=colour, label=part, edgecolor="white", height=0.62)
        ends = [end + length for end, length in zip(ends, lengths, strict=True)]
    for y, (end, row) in enumerate(zip(ends, rows.values(), strict=True)):
        axes.annotate(f" {sum(row.values()):,.1f} ms", (end, y), va="center", fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.12 * max(ends, default=1))
    axes.set_xlabel(xlabel)
    if rows:
        figure.legend(loc="outside lower center", frameon=False, fontsize=8, ncols=6)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    return figure


def _ticks(values: set[float]) -> list[float]:
    """The values themselves, or the powers of two around them where they are too many or too close to be read."""
    ticks = sorted(values)
    if len(ticks) <= 8 and all(b >= 1.2 * a for a, b in pairwise(ticks)):
        return ticks
    return [2.0**i for i in range(floor(log2(ticks[0])), ceil(log2(ticks[-1])) + 1)]


def figure_class() -> Any:
    """`matplotlib.figure.Figure`; call it before long work whose result is to be drawn.

    Raises:
        BackendUnavailableError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as missing:
        raise BackendUnavailableError("plots need matplotlib: pip install 'vlm-pruner[viz]'") from missing
    return Figure


def _figure(title: str, inches: tuple[float, float]) -> tuple[Any, Any]:
    figure = figure_class()(figsize=inches, dpi=130, layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=_hex(INK))
    axes.grid(axis="both", color="#e4e7eb", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set_title(title, loc="left", fontweight="bold")
    return figure, axes


def _hex(colour: RGB) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
