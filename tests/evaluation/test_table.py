from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.support.bench import made_up_results

from vlm_pruner.evaluation.plots import plot_curves
from vlm_pruner.evaluation.table import markdown, method_table, type_table
from vlm_pruner.viz import plots
from vlm_pruner.viz.plots import Curve

RESULTS = made_up_results()


def rows(text: str) -> list[list[str]]:
    return [[c.strip() for c in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def test_best_method_first_between_the_unpruned_and_the_blind_model() -> None:
    table = rows(method_table(RESULTS, 64, RESULTS.bootstrap(), {}))
    names = [row[0] for row in table[2:]]
    assert names == ["none", "vlm-pruner", "bad", "random (2 seeds)", "blind"]
    retention = [float(row[5].split()[0]) for row in table[2:]]
    assert retention == sorted(retention, reverse=True)
    assert retention[0] == 100.0


def test_every_number_has_its_unit_and_its_digits() -> None:
    """By the percent but for tokens, GFLOP and redundancy."""
    table = {row[0]: row for row in rows(method_table(RESULTS, 64, RESULTS.bootstrap(), {}))}
    assert table["none"][1:6] == ["576", "608.0", "1.00", "85.8 [81.3, 89.6]", "100.0 [100.0, 100.0]"]
    assert table["none"][6:] == ["**+5.8 [+2.9, +9.4]**", "", "", "40.0", "0.300"]
    assert table["vlm-pruner"][1:6] == ["64", "96.0", "1.00", "80.8 [76.4, 85.1]", "94.2 [90.6, 97.1]"]
    assert table["vlm-pruner"][6:] == ["", "50.0", "25.0", "40.0", "0.300"]
    types = rows(type_table(RESULTS, RESULTS.bootstrap(), 64))
    assert types[2] == ["chance", "", "12.5", "0.1", "5.0", "5.9"]
    assert types[4] == ["vlm-pruner", "64", "82.5", "81.2", "78.8", "80.8"]
    assert [row[:2] for row in types[3:]] == [
        ["none", "576"], ["vlm-pruner", "64"], ["bad", "64"], ["random", "64"], ["blind", "576"],
    ]  # fmt: skip


def test_every_difference_has_an_interval_and_only_a_clear_one_is_bold() -> None:
    table = {row[0]: row for row in rows(method_table(RESULTS, 64, RESULTS.bootstrap(), {}))}
    assert table["vlm-pruner"][6] == ""
    assert table["bad"][6].startswith("**-")
    low, high = (float(x) for x in table["bad"][6].strip("*").split("[")[1].strip("]").split(","))
    assert low < high < 0


def test_timing_is_shown_where_it_was_measured() -> None:
    timing = {"vlm-pruner@64": {"select_ms": 1.234, "prefill_ms": 12.34}}
    table = {row[0]: row for row in rows(method_table(RESULTS, 64, RESULTS.bootstrap(), timing))}
    assert table["vlm-pruner"][-2:] == ["1.23", "12.3"]
    assert table["bad"][-2:] == ["", ""]


def test_the_report_has_every_budget_every_type_and_what_could_not_run() -> None:
    text = markdown(RESULTS)
    assert "## 64 visual tokens asked for" in text
    assert "## 32 visual tokens asked for" in text
    assert "## 576" not in text
    assert "- **needs-clip** at 64, 32: no CLIP space" in text
    types = rows(text.split("per question type")[1])
    assert types[0] == ["method", "budget", "color", "number", "word", "mean"]
    assert types[2][:3] == ["chance", "", "12.5"]
    assert "made up" in text.splitlines()[0]


def test_the_same_results_give_the_same_report() -> None:
    assert markdown(RESULTS) == markdown(made_up_results())


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_curves_are_drawn_and_reproducible(tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("matplotlib")
    first, second = (plot_curves(RESULTS, tmp_path / f"{i}.{suffix}").read_bytes() for i in "ab")
    assert first == second
    if suffix == "svg":
        text = first.decode()
        assert all(f"<!-- {name} -->" in text for name in ("vlm-pruner", "bad", "random"))
        assert "<!-- blind -->" not in text


def test_one_budget_is_a_plot_of_dots_with_names(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    one = replace(RESULTS, cells=[cell for cell in RESULTS.cells if cell.budget != 32])
    text = plot_curves(one, tmp_path / "a.svg").read_text()
    assert all(f"<!-- {name} -->" in text for name in ("vlm-pruner", "bad", "random", "all 576 tokens"))
    accuracy = 100 * one.bootstrap().accuracy(one.row("bad", 64).correct).value
    assert f"<!-- {accuracy:.1f} % with {one.row('bad', 64).mean('layer_average'):.0f} -->" in text


def test_a_curve_runs_over_its_costs_through_the_accuracies_of_the_table(tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("matplotlib")
    drawn: dict[str, Any] = {}

    def budget_plot(curves: list[Curve], **options: Any) -> Any:
        drawn.update(options, curves=curves)
        return plots.budget_plot(curves, **options)

    monkeypatch.setattr("vlm_pruner.evaluation.plots.budget_plot", budget_plot)
    plot_curves(RESULTS, tmp_path / "a.svg", ["bad"])
    (bad,) = drawn["curves"]
    rows = sorted((RESULTS.row("bad", budget) for budget in (64, 32)), key=lambda row: row.mean("layer_average"))
    accuracy = [RESULTS.bootstrap().accuracy(row.correct) for row in rows]
    assert list(bad.keep) == [row.mean("layer_average") for row in rows]
    assert bad.accuracy == [100 * a.value for a in accuracy]
    assert (bad.low, bad.high) == ([100 * a.low for a in accuracy], [100 * a.high for a in accuracy])
    assert {curve.name for curve in drawn["others"]} == {"vlm-pruner", "random"}
    assert drawn["total"] == RESULTS.model["tokens"]
