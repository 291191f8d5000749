"""The pages say what the results say."""

from __future__ import annotations

import json
import re

import pytest
from benchmarks import offline_tables
from benchmarks.hardening_tables import breaks
from benchmarks.table_sources import SOURCES, aims, markdown, measured, picture, selection_short
from benchmarks.tables import fill, pages, stale
from tests.support.bench import made_up_results


def test_no_page_is_stale():
    assert [str(page) for page, _ in stale()] == [], "run python -m benchmarks.tables"


def test_the_pages_have_tables():
    assert any("<!-- table: " in page.read_text(encoding="utf-8") for page in pages())


def test_what_stands_between_the_marks_is_replaced_and_nothing_else():
    text = "a\n<!-- table: x -->\nold\n\nold\n<!-- /table -->\nb\n<!-- table: y -->\n<!-- /table -->\n"
    new = fill(text, {"x": lambda: "| 1 |\n", "y": lambda: "| 2 |"})
    assert new == ("a\n<!-- table: x -->\n| 1 |\n<!-- /table -->\nb\n<!-- table: y -->\n| 2 |\n<!-- /table -->\n")
    assert fill(new, {"x": lambda: "| 1 |", "y": lambda: "| 2 |"}) == new


def test_breaks_are_counted_room_by_room(tmp_path):
    rows = [
        {"file": "engine/a.py", "found": True, "at_first": True},
        {"file": "engine/b.py", "found": True, "at_first": False},
        {"file": "budget.py", "found": False, "at_first": False, "equivalent": "the same"},
        {"file": "budget.py", "found": False, "at_first": False},
    ]  # fmt: skip
    found = {"command": "c", "machine": {"processor": "A chip", "threads": 1}, "torch": "2.13", "rows": rows}
    (tmp_path / "mutation_random.json").write_text(json.dumps(found))
    table = breaks(tmp_path).splitlines()
    assert table[2:5] == [
        "| budget | 2 | 0 | 0 | 1 | 1 |",
        "| engine | 2 | 1 | 1 | 0 | 0 |",
        "| together | 4 | 1 | 1 | 1 | 1 |",
    ]
    assert breaks(tmp_path / "none").startswith("*Not measured yet")


def test_a_table_that_nobody_makes():
    with pytest.raises(KeyError, match=r"no source for table 'modles'; known: .*models"):
        fill("<!-- table: modles -->\n<!-- /table -->", SOURCES)


def test_a_measured_table_names_machine_and_command(tmp_path):
    found = {
        "command": "python -m benchmarks.speed",
        "machine": {"gpu": None, "processor": "A chip", "threads": 1},
        "torch": "2.13",
        "rows": [{"name": "pruned", "median_ms": 3.14159}, {"name": "no time"}],
    }
    (tmp_path / "speed.json").write_text(json.dumps(found))
    text = measured("speed", {"time, ms": ("median_ms", ".1f")}, "run", tmp_path)()
    assert text == (
        "| run | time, ms |\n| --- | --: |\n| pruned | 3.1 |\n\n"
        "*A chip, 1 thread, torch 2.13: `python -m benchmarks.speed`*"
    )


def test_a_choice_in_a_sentence(tmp_path):
    assert selection_short(tmp_path) == "*Not measured yet: `python -m benchmarks.selection`.*"
    methods = ("vlm-pruner", "divprune", "cdpruner", "dart")
    rows = [
        {"name": f"n 576, {name}, {whose}", "median_ms": i + add}
        for i, name in enumerate(methods, 1)
        for whose, add in (("ours", 0.123), ("released", 500))
    ]
    found = {"command": "", "machine": {"gpu": "a GPU"}, "torch": "", "rows": rows}
    (tmp_path / "selection.json").write_text(json.dumps(found))
    text = selection_short(tmp_path)
    assert "takes `vlm-pruner` 1.12 ms; the released" in text
    assert "`vlm-pruner` 501 ms, `divprune` 502 ms (here 2.12 ms), " in text
    found["rows"].append({"name": "n 576, vlm-pruner, torch", "median_ms": 6.25})
    (tmp_path / "selection.json").write_text(json.dumps(found))
    assert "1.12 ms (6.25 ms without the extra `numba`);" in selection_short(tmp_path)


def test_columns_of_numbers_stand_to_the_right():
    rows = [["a", "-0.235", "1.2e-05", "3 of 4"], ["b", "1,024", "", "5"]]
    assert markdown(["", "x", "y", "z"], rows).splitlines()[1] == "| --- | --: | --: | --- |"


def test_what_was_not_measured_says_so(tmp_path):
    text = measured("gpu/speed", {}, folder=tmp_path)()
    assert text == "*Not measured yet: `python -m benchmarks.gpu.speed`.*"


def test_models_come_from_the_registry():
    from transformers import CONFIG_MAPPING

    from vlm_pruner.adapters import families

    assert all((f"`{name}`" in SOURCES["models"]()) == (name in CONFIG_MAPPING) for name in families())


def test_the_small_table_has_the_leaders_the_cost_and_the_intervals(tmp_path, monkeypatch):
    made_up_results().save(tmp_path / "offline.json")
    monkeypatch.setattr(offline_tables, "RESULTS", tmp_path)
    offline_tables.load.cache_clear()
    text = SOURCES["accuracy"]()
    offline_tables.load.cache_clear()
    assert "| tokens asked for, of 576: | 64 | 32 | left at the end, of 64 | per layer at 64 |" in text
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert len(rows) >= 2
    assert all(re.fullmatch(r"\| `[\w-]+` (\| [\d.]+ \[[\d.]+, [\d.]+\] ){2}(\| \d+ ){2}\|", row) for row in rows)
    assert "python -m benchmarks.offline" in text


def test_a_picture_that_was_not_drawn_says_so():
    assert picture("images/none.png", "Words", "make it")() == "*Not drawn yet: `make it`.*"
    assert picture("pictures/poster.jpg", "Words", "make it")() == "![Words](pictures/poster.jpg)"


def test_promises_are_listed_with_what_was_measured(tmp_path):
    assert aims(tmp_path) == "*Not measured yet.*"
    kept = {"aim": "small", "value": 0.12345, "most": 1.0, "met": True}
    broken = {"aim": "fast", "value": 20, "most": 15, "met": False}
    (tmp_path / "gpu").mkdir()
    (tmp_path / "gpu" / "a.json").write_text(json.dumps({"command": "python -m b.a --x 1", "aims": [kept, broken]}))
    (tmp_path / "other.json").write_text("[]")
    assert aims(tmp_path).splitlines()[2:] == [
        "| small | 0.123 | 1 | yes | `python -m b.a` |",
        "| fast | 20 | 15 | **no** | `python -m b.a` |",
    ]
