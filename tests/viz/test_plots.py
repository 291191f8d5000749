"""The two plots: axes with names and units, a band for each interval."""

from __future__ import annotations

import sys

import pytest

from vlm_pruner.errors import BackendUnavailableError
from vlm_pruner.viz import Curve, budget_plot, dot_plot, time_plot


def test_budget_plot_names_its_axes_and_draws_bands(tmp_path):
    pytest.importorskip("matplotlib")
    curves = [Curve("A", [32, 64], [50, 60], [45, 55], [55, 65]), Curve("B", [32, 64], [10, 20])]
    figure = budget_plot(curves, others=[Curve("C", [16, 64], [5, 6])], full=80, chance=10, title="Codes")
    (axes,) = figure.axes
    assert axes.get_xlabel() == "visual tokens kept, of 576 (log scale)"
    assert axes.get_ylabel() == "accuracy, %"
    assert len(axes.collections) == 1
    assert [t.get_text() for t in axes.get_xticklabels()] == ["16", "32", "64"]
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["A", "B"]
    assert figure.get_size_inches().tolist() == [8, 5]
    figure.savefig(tmp_path / "b.png")


def test_one_budget_is_drawn_too(tmp_path):
    pytest.importorskip("matplotlib")
    curves = [Curve("A", [64], [50], [40], [60]), Curve("B", [70.25], [10], [5], [15])]
    figure = budget_plot(curves, others=[Curve("C", [64], [5])])
    (axes,) = figure.axes
    assert [path.get_linewidth()[0] for path in axes.collections] == [1, 1], "a band without width is a line"
    assert list(axes.get_xticks()) == [64, 128]
    figure.savefig(tmp_path / "one.png")


def test_a_dot_plot_names_every_method_best_first(tmp_path):
    pytest.importorskip("matplotlib")
    curves = [Curve("grid", [64], [50], [40], [60]), Curve("b", [70.4], [80]), Curve("a", [64], [80], [70], [85])]
    figure = dot_plot(curves, bold=["a"], full=90, chance=10)
    figure.savefig(tmp_path / "d.png")
    (axes,) = figure.axes
    labels = axes.get_yticklabels()
    assert [label.get_text() for label in labels] == ["a", "b", "grid"]
    assert [label.get_fontweight() for label in labels] == ["bold", "normal", "normal"]
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    assert [(dot.get_xdata()[0], dot.get_ydata()[0]) for dot in dots] == [(80, 0), (80, 1), (50, 2)]
    assert [text.get_text() for text in axes.texts] == [
        "80.0 % with 64", "80.0 % with 70", "50.0 % with 64", "all 576 tokens", "chance",
    ]  # fmt: skip
    assert axes.get_ylim()[0] > axes.get_ylim()[1], "the best stands above"
    boxes = [label.get_window_extent() for label in labels]
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])


def test_more_curves_than_colours_are_told_apart_by_their_lines(tmp_path):
    pytest.importorskip("matplotlib")
    curves = [Curve(str(i), [33 + i, 300.0], [10, 20]) for i in range(12)]
    (axes,) = budget_plot(curves).axes
    assert len({(line.get_color(), line.get_linestyle(), line.get_marker()) for line in axes.lines}) == 12
    assert list(axes.get_xticks()) == [32, 64, 128, 256, 512]


@pytest.mark.parametrize(
    ("budgets", "ticks"),
    [
        ([50, 60], [50, 60]),
        ([50, 59], [32, 64]),
        ([2**i for i in range(8)], [2**i for i in range(8)]),
        ([3 * 2**i for i in range(9)], [2**i for i in range(1, 11)]),
    ],
)
def test_budgets_are_the_ticks_where_they_are_few_and_apart(budgets, ticks):
    pytest.importorskip("matplotlib")
    (axes,) = budget_plot([Curve("A", budgets, [50] * len(budgets))]).axes
    assert list(axes.get_xticks()) == ticks


def test_time_plot_stacks_the_parts_of_every_run(tmp_path):
    pytest.importorskip("matplotlib")
    pruned = {"prefill": 30.0, "decode": 40.0, "noise": -0.5}
    figure = time_plot({"full": {"prefill": 100.0, "decode": 1050.0}, "pruned": pruned})
    (axes,) = figure.axes
    assert axes.get_xlabel() == "milliseconds"
    assert [p.get_x() + p.get_width() for p in axes.patches[2:]] == [1150.0, 70.0]
    assert axes.get_xlim()[1] > 1200, "the sums stand inside"
    assert [t.get_text().strip() for t in axes.texts] == ["1,150.0 ms", "69.5 ms"]
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["prefill", "decode"]
    figure.savefig(tmp_path / "t.png")


def test_without_matplotlib_the_way_to_get_it_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(BackendUnavailableError, match=r"pip install 'vlm-pruner\[viz\]'"):
        budget_plot([])
