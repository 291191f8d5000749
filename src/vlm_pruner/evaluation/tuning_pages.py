"""What tuning found, in words, as a table and as a picture."""

from __future__ import annotations

from pathlib import Path

from vlm_pruner.asking import name_of
from vlm_pruner.evaluation.table import table
from vlm_pruner.evaluation.tuning import Measured, Tuned
from vlm_pruner.viz.plots import figure_class

__all__ = ["front_plot", "recommendation", "tuning_table"]


def tuning_table(tuned: Tuned) -> str:
    """Every plan on the pictures that choose, cheapest first; plans of the front have their held-out loss beside it."""
    held = {m.plan: m for m in tuned.confirmed}
    head = [
        "plan", "prefill GFLOP", "tokens per layer", "prefill ms", "KL, nats", "changed answers %", "held out %",
        "held out, text-dense %",
    ]  # fmt: skip
    lines = []
    for one in sorted(tuned.explored, key=lambda m: m.cost(tuned.cost)):
        test = held.get(one.plan)
        dense = None if test is None else tuned.dense_loss(test)
        lines.append([
            name_of(one.plan) + (" *" if one in tuned.front else ""),
            "" if one.flops is None else f"{one.flops / 1e9:.2f}",
            f"{one.layer_average:.1f}", f"{one.prefill_ms:.1f}", f"{one.kl:.4f}", f"{100 * one.loss:.1f}",
            "" if test is None else f"{100 * test.loss:.1f}", "" if dense is None else f"{100 * dense:.1f}",
        ])  # fmt: skip
    parts = [table(head, lines), "* no other plan is both cheaper and nearer to the untouched model"]
    parts += [f"not run: {item['name']}: {item['reason']}" for item in tuned.left_out]
    return "\n".join(parts)


def recommendation(tuned: Tuned) -> str:
    """One plan and what is known of it, or why there is none."""
    best = tuned.best
    if best is None:
        return (
            f"No plan was shown to change at most {tuned.max_loss:.1%} of the answers with {tuned.confidence:.0%} "
            "confidence: keep all tokens, allow a larger loss, or give more pictures."
        )
    share = _saving(best, tuned)
    told = [
        f"Recommended: {name_of(best.plan)}{share}. It changed {best.loss:.1%} of the answers about "
        f"{len(best.losses)} held-out pictures; with {tuned.confidence:.0%} confidence it changes fewer than "
        f"{tuned.bound:.1%}."
    ]
    dense = tuned.dense_loss(best)
    if dense is not None and dense > tuned.max_loss:
        milder = tuned.milder()
        instead = "no tested plan" if milder is None else name_of(milder.plan)
        told.append(
            f"On the text-dense ones it changed {dense:.1%}: prune these more mildly ({instead} stays within "
            f"{tuned.max_loss:.1%} there)."
        )
    return " ".join(told)


def _saving(best: Measured, tuned: Tuned) -> str:
    dearest = max(tuned.explored, key=lambda m: m.layer_average)
    return f", {best.layer_average:.0f} visual tokens per layer (most expensive candidate: {dearest.layer_average:.0f})"


def front_plot(tuned: Tuned, path: Path) -> None:
    """Changed answers against cost: every plan a point, the front a line, the recommended plan a ring.

    Raises:
        BackendUnavailableError: matplotlib is not installed.
    """
    unit = {"flops": "prefill GFLOP", "tokens": "visual tokens per layer", "time": "prefill ms"}
    scale = 1e-9 if tuned.cost == "flops" and all(m.flops is not None for m in tuned.explored) else 1.0
    name = unit["tokens"] if tuned.cost == "flops" and scale == 1.0 else unit[tuned.cost]
    figure = figure_class()(figsize=(8.0, 5.0), dpi=130, layout="constrained")
    axes = figure.add_subplot()

    def points(measured: list[Measured]) -> tuple[list[float], list[float]]:
        return [m.cost(tuned.cost) * scale for m in measured], [100 * m.loss for m in measured]

    axes.plot(*points(tuned.explored), "o", color="0.7", label="plans")
    axes.plot(*points(tuned.front), "o-", color="#1a6fb5", label="front")
    if chosen := [m for m in tuned.front if m.plan == tuned.plan]:
        axes.plot(*points(chosen), "o", color="#c2452d", markersize=12, fillstyle="none", label="recommended")
    axes.axhline(100 * tuned.max_loss, color="0.4", linestyle="--", linewidth=0.9)
    for one in tuned.front:
        axes.annotate(name_of(one.plan), (one.cost(tuned.cost) * scale, 100 * one.loss), fontsize=7, rotation=20)
    axes.set_xlabel(name)
    axes.set_ylabel("changed answers, %")
    axes.legend(frameon=False)
    figure.savefig(path)
