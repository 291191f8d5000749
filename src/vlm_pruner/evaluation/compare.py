"""One method against all others, in pairs: the same questions, the same resamples."""

from __future__ import annotations

from collections.abc import Sequence

from vlm_pruner.budget import Keep
from vlm_pruner.evaluation.results import BenchResults, Row
from vlm_pruner.evaluation.statistics import Bootstrap, Interval
from vlm_pruner.evaluation.table import is_frame, percent, table

__all__ = ["best_row", "difference_table", "discrimination", "frame", "retention_table"]


def best_row(results: BenchResults, budget: int, bootstrap: Bootstrap) -> Row:
    """The method of highest retention at a budget."""
    full = results.row("none").correct
    rows = [r for r in results.rows() if r.budget == budget and not is_frame(r)]
    return max(rows, key=lambda r: bootstrap.retention(r.correct, full).value)


def difference_table(
    results: BenchResults, reference: str, budgets: Sequence[int], bootstrap: Bootstrap | None = None
) -> str:
    """Retention of `reference` less that of every other method, in points, one column a budget.

    Bold where the 95 % interval excludes zero: above zero `reference` is ahead, below it the other method wins.
    """
    bootstrap = bootstrap or results.bootstrap()
    rows = {(r.label, r.budget): r for r in results.rows() if not is_frame(r)}
    others = [label for label in dict.fromkeys(label for label, _ in rows) if label != reference]
    lines = []
    for label in others:
        cells = [label]
        for budget in budgets:
            mine, other = rows.get((reference, budget)), rows.get((label, budget))
            pair = results.difference(mine, other, bootstrap) if mine and other else None
            cells.append(percent(pair, sign=True, bold=True))
        lines.append(cells)
    return table([f"lead of {reference} over", *(f"at {budget}" for budget in budgets)], lines)


def discrimination(results: BenchResults, budget: int, bootstrap: Bootstrap | None = None) -> str:
    """Whether the benchmark tells methods apart at a budget, in one sentence: the best against chance choice."""
    bootstrap = bootstrap or results.bootstrap()
    best, lots = best_row(results, budget, bootstrap), results.row("random", budget)
    full = bootstrap.accuracy(results.row("none").correct)
    difference = bootstrap.accuracy_difference(best.correct, lots.correct)
    right, by_lot = (percent(bootstrap.accuracy(row.correct)) for row in (best, lots))
    return (
        f"At {budget} tokens {best.label} answers {right} % of the questions right, random tokens {by_lot} %, "
        f"the unpruned model {percent(full)} %. The best method is {percent(difference, sign=True)} points ahead of "
        "random tokens, paired."
    )


def frame(results: BenchResults, bootstrap: Bootstrap | None = None) -> str:
    """Both ends of the scale, in one sentence: the unpruned model, its worst type, the blinded model, chance."""
    bootstrap = bootstrap or results.bootstrap()
    full, blind = results.row("none"), results.row("blind")
    types = bootstrap.type_accuracy(full.correct)
    worst = min(types, key=lambda name: types[name].value)
    chance = sum(results.chance.values()) / len(results.chance)
    return (
        f"Unpruned, the model answers {percent(bootstrap.accuracy(full.correct))} % right, mean of {len(types)} types, "
        f"and {percent(types[worst])} % of the worst type, {worst}. With every image token hidden from layer 2 on it "
        f"answers {percent(bootstrap.accuracy(blind.correct))} %; chance is {100 * chance:.1f} %."
    )


def retention_table(
    results: BenchResults,
    budgets: Sequence[int],
    bootstrap: Bootstrap | None = None,
    labels: Sequence[str] | None = None,
) -> str:
    """Retention in per cent with half of its interval, one row a method, one column a budget, best mean first.

    `labels` chooses the methods; None = all.
    """
    bootstrap = bootstrap or results.bootstrap()
    full = results.row("none").correct
    found: dict[str, dict[Keep, Interval]] = {}
    for row in results.rows():
        if not is_frame(row) and row.budget in budgets and (labels is None or row.label in labels):
            found.setdefault(row.label, {})[row.budget] = bootstrap.retention(row.correct, full)
    ranked = sorted(found, key=lambda name: -sum(i.value for i in found[name].values()) / len(found[name]))
    lines = [[name, *(_with_half(found[name].get(budget)) for budget in budgets)] for name in ranked]
    return table(["method", *(f"{budget} tokens" for budget in budgets)], lines)


def _with_half(interval: Interval | None) -> str:
    return f"{100 * interval.value:.1f} ± {100 * interval.half:.1f}" if interval else ""
