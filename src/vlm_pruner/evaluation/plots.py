"""Accuracy against cost, with the confidence band of every method. Needs matplotlib (`pip install vlm-pruner[viz]`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vlm_pruner.errors import BackendUnavailableError
from vlm_pruner.evaluation.results import BenchResults

__all__ = ["plot_curves"]


def plot_curves(results: BenchResults, path: str | Path, labels: Sequence[str] | None = None) -> Path:
    """Retention against visual tokens per layer, one curve per method, its 95 % band shaded.

    Args:
        path: of the picture; its suffix chooses the format (`.svg`, `.png`, `.pdf`).
        labels: methods to draw, in this order; None = all.

    Raises:
        BackendUnavailableError: matplotlib is not installed.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise BackendUnavailableError("curves need matplotlib: pip install 'vlm-pruner[viz]'") from error
    bootstrap = results.bootstrap()
    full = results.row("none").correct
    rows = results.rows()
    names = [n for n in labels or dict.fromkeys(r.label for r in rows) if n not in ("none", "blind")]
    figure = Figure(figsize=(8.0, 5.2), layout="constrained")
    axes = figure.subplots()
    for number, name in enumerate(names):
        points = []
        for row in rows:
            if row.label == name:
                value = bootstrap.retention(row.correct, full)
                points.append((row.mean("layer_average") or 0.0, value.value, value.low, value.high))
        if not points:
            continue
        x, middle, low, high = zip(*sorted(points), strict=True)
        dashes = ("-", "--", "-.", ":")[number // 10 % 4]
        (line,) = axes.plot(x, [100 * v for v in middle], dashes, marker="o", markersize=3.5, linewidth=1.4, label=name)
        axes.fill_between(x, [100 * v for v in low], [100 * v for v in high], color=line.get_color(), alpha=0.12, lw=0)
    axes.axhline(100, color="0.5", linewidth=0.8)
    axes.set_xlabel("visual tokens per decoder layer (mean)")
    axes.set_ylabel("accuracy retained, % of the unpruned model")
    axes.grid(alpha=0.25, linewidth=0.6)
    figure.legend(loc="outside right upper", fontsize=7, frameon=False)
    undated = {"Date": None} if Path(path).suffix == ".svg" else None
    with rc_context({"svg.hashsalt": "vlm_pruner"}):  # with this and without a date, equal results give equal files
        figure.savefig(path, dpi=120, metadata=undated)
    return Path(path)
