from __future__ import annotations

from tests.support.bench import made_up_results

from vlm_pruner.evaluation.compare import best_row, difference_table, discrimination, frame, retention_table
from vlm_pruner.evaluation.plots import leaders

RESULTS = made_up_results()
BOOTSTRAP = RESULTS.bootstrap()


def test_the_best_is_a_method_and_not_the_unpruned_model() -> None:
    assert best_row(RESULTS, 64, BOOTSTRAP).label == "vlm-pruner"


def test_a_win_is_positive_and_bold_and_a_tie_is_not() -> None:
    lines = difference_table(RESULTS, "bad", [64, 32], BOOTSTRAP).splitlines()
    rows = {cells[1].strip(): [c.strip() for c in cells[2:-1]] for cells in (line.split("|") for line in lines[2:])}
    assert set(rows) == {"vlm-pruner", "random"}
    assert all(cell.startswith("**-") for cell in rows["vlm-pruner"])
    assert all(cell.startswith("**+") for cell in rows["random"])
    same = difference_table(RESULTS, "vlm-pruner", [64], BOOTSTRAP)
    mirrored = [float(x) for x in rows["vlm-pruner"][0].strip("*]").replace("[", ",").split(",")]
    other = next(line for line in same.splitlines() if "| bad |" in line).split("|")[2].strip(" *]")
    assert [-float(x) for x in other.replace("[", ",").split(",")] == [mirrored[0], mirrored[2], mirrored[1]]


def test_a_budget_at_which_nothing_ran_is_empty() -> None:
    assert difference_table(RESULTS, "bad", [192], BOOTSTRAP).splitlines()[-1] == "| random |  |"


def test_the_sentence_has_both_ends_and_an_interval_above_zero() -> None:
    text = discrimination(RESULTS, 64, BOOTSTRAP)
    assert text.startswith("At 64 tokens vlm-pruner answers ")
    low = float(text.rpartition("[")[2].split(",")[0])
    assert low > 0


def test_the_frame_has_worst_type_blind_and_chance() -> None:
    text = frame(RESULTS, BOOTSTRAP)
    types = BOOTSTRAP.type_accuracy(RESULTS.row("none").correct)
    assert f"{100 * min(t.value for t in types.values()):.1f} [" in text
    assert "mean of 3 types" in text
    assert text.endswith(f"chance is {100 * (0.125 + 0.001 + 0.05) / 3:.1f} %.")


def test_retention_is_ranked_and_holes_stay_empty() -> None:
    lines = retention_table(RESULTS, [128, 64], BOOTSTRAP).splitlines()
    assert lines[0] == "| method | 128 tokens | 64 tokens |"
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["vlm-pruner", "bad", "random"]
    interval = BOOTSTRAP.retention(RESULTS.row("bad", 64).correct, RESULTS.row("none").correct)
    assert lines[3] == f"| bad |  | {100 * interval.value:.1f} ± {100 * interval.half:.1f} |"
    assert len(retention_table(RESULTS, [64], BOOTSTRAP, ["bad"]).splitlines()) == 3


def test_leaders_come_first_and_yardsticks_always() -> None:
    assert leaders(RESULTS, BOOTSTRAP, count=1) == ["vlm-pruner", "random"]
    assert leaders(RESULTS, BOOTSTRAP)[:3] == ["vlm-pruner", "bad", "random"]
