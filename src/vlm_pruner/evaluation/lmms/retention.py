"""The table of an evaluation in the form of the papers: scores, and what is left of the unpruned model's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vlm_pruner.evaluation.cells import DOWNSAMPLE
from vlm_pruner.evaluation.lmms.run import Evaluated
from vlm_pruner.evaluation.lmms.suites import SUITES, published_row
from vlm_pruner.evaluation.statistics import Interval
from vlm_pruner.evaluation.table import left_out_lines, percent, table

__all__ = ["hard_score", "report", "retention"]

DRAWS = 2000


def retention(one: Evaluated, full: Evaluated) -> Interval:
    """Mean over the tasks of score / unpruned score, with its 95 % interval.

    Samples of each task are drawn again together for both, so that the comparison is paired. Without single samples of
    every task the interval is not known, and its ends are nan.
    """
    ratios = [one.scores[task] / full.scores[task] for task in full.scores if full.scores[task]]
    value = sum(ratios) / len(ratios) if ratios else float("nan")
    if not ratios or any(len(one.samples.get(t, [])) != len(full.samples.get(t, [0])) for t in full.scores):
        return Interval(value, float("nan"), float("nan"))
    rng = np.random.default_rng(0)
    draws = []
    for task in full.scores:
        both = np.array([one.samples[task], full.samples[task]])  # [2, n]
        picks = rng.integers(both.shape[1], size=(DRAWS, both.shape[1]))
        means = both[:, picks].mean(-1)  # [2, draws]
        draws.append(np.divide(means[0], means[1], out=np.full(DRAWS, np.nan), where=means[1] > 0))
    drawn = np.array(draws)  # [tasks, draws]
    whole = drawn[:, ~np.isnan(drawn).any(0)].mean(0)  # draws in which the unpruned model is right somewhere
    if not len(whole):
        return Interval(value, float("nan"), float("nan"))
    low, high = np.quantile(whole, [0.025, 0.975])
    return Interval(value, float(low), float(high))


def hard_score(one: Evaluated, small: Evaluated) -> tuple[float, int] | None:
    """Mean score on the samples that the down-sampled pictures get wrong, and how many these are; None if not known.

    Source: arXiv:2510.07143 (VTC-Bench): what down-sampling answers too says nothing for a method.
    """
    pairs = [
        (mine, theirs)
        for task in small.samples
        for mine, theirs in zip(one.samples.get(task, []), small.samples[task], strict=False)
    ]
    hard = [mine for mine, theirs in pairs if theirs < 0.5]
    return (sum(hard) / len(hard), len(hard)) if hard else None


def report(
    model: str, cells: Sequence[Evaluated], tasks: Sequence[str], left_out: Sequence[dict[str, Any]], hard: bool = False
) -> str:
    """The whole table as Markdown, one block a budget, the unpruned model on top of each."""
    full = next(cell for cell in cells if cell.label == "none")
    paper = set(tasks) == set(SUITES["paper"])
    head = ["method", *tasks, "retention %"] + ["published %"] * paper + ["hard samples %"] * hard
    head += ["visual tokens", "left", "per layer", "KV MiB", "prefill ms", "select ms"]
    parts = [f"Model {model}. " + "; ".join(f"{task}: {full.metrics[task]}" for task in tasks) + "."]
    for budget in dict.fromkeys(cell.budget for cell in cells if cell is not full):
        rows = [full, *(cell for cell in cells if cell.budget == budget and cell is not full)]
        small = next((cell for cell in rows if cell.label == DOWNSAMPLE), None)
        lines = []
        for cell in rows:
            line = [cell.label, *(_score(cell.scores[task]) for task in tasks), _percent(retention(cell, full))]
            if paper:
                value = published_row(model, cell.label, budget)
                line.append("" if value is None else f"{value:.2f}")
            if hard:
                found = None if small is None else hard_score(cell, small)
                line.append("" if found is None else f"{100 * found[0]:.1f} (n={found[1]})")
            names = ("visual_tokens_before", "visual_tokens_after", "visual_tokens_per_layer")
            line += [f"{cell.means[name]:.1f}" for name in names]
            line += [f"{cell.means[name]:.2f}" for name in ("kv_mib_after", "prefill_ms", "select_ms")]
            lines.append(line)
        parts.append(f"## keep {budget}\n\n{table(head, lines)}")
    if left_out:
        parts.append("## Not run\n\n" + "\n".join(left_out_lines(left_out)))
    return "\n\n".join(parts) + "\n"


def _score(value: float) -> str:
    return f"{value:.2f}" if abs(value) >= 1.5 else f"{100 * value:.2f}"


def _percent(value: Interval) -> str:
    return f"{100 * value.value:.2f}" if np.isnan(value.low) else percent(value)
