"""Columns that stand in a table of an evaluation only where there is something to put into them."""

from __future__ import annotations

from dataclasses import replace

from tests.support.lmms import evaluated

from vlm_pruner.evaluation.lmms.retention import report
from vlm_pruner.evaluation.lmms.suites import tasks_of


def column(text: str, name: str) -> list[tuple[str, str]]:
    """(method, what stands under `name`) of every row of every block."""
    rows = [[cell.strip() for cell in line.split("|")] for line in text.splitlines() if line.startswith("|")]
    place = rows[0].index(name)
    return [(row[1], row[place]) for row in rows if row[1] != "method" and set(row[1]) != {"-"}]


def test_hard_samples_have_a_column_where_they_are_asked_for() -> None:
    """What the down-sampled pictures of the same budget get wrong; nothing stands where there are none."""
    full = evaluated("none", 576, [1, 1, 1, 0])
    cells = [full, evaluated("x", 64, [0, 1, 1, 0]), evaluated("downsample", 64, [1, 0, 0, 0])]
    text = report("m", [*cells, evaluated("x", 32, [0, 0, 1, 0])], ["gqa", "mme"], [], hard=True)
    first = [("none", "66.7 (n=3)"), ("x", "66.7 (n=3)"), ("downsample", "0.0 (n=3)")]
    assert column(text, "hard samples %") == [*first, ("none", ""), ("x", "")]
    assert "hard samples" not in report("m", cells, ["gqa", "mme"], [])


def test_what_was_published_has_a_column_for_the_tasks_of_the_papers() -> None:
    tasks = tasks_of("paper")
    some = {"scores": dict.fromkeys(tasks, 0.5), "metrics": dict.fromkeys(tasks, "exact_match")}
    names = [("none", 576), ("vlm-pruner", 64), ("grid", 64)]
    cells = [replace(evaluated(label, budget, [1]), **some) for label, budget in names]
    text = report("llava-hf/llava-1.5-7b-hf", cells, tasks, [])
    assert column(text, "published %") == [("none", ""), ("vlm-pruner", "95.61"), ("grid", "")]
    assert column(text, "retention %") == [("none", "100.00"), ("vlm-pruner", "100.00"), ("grid", "100.00")]
    assert "published" not in report("llava-hf/llava-1.5-7b-hf", cells, tasks[1:], [])
