"""The pages say what the results say."""

from __future__ import annotations

import json

import pytest
from benchmarks.table_sources import SOURCES, measured
from benchmarks.tables import fill, pages, stale


def test_no_page_is_stale():
    assert [str(page) for page, _ in stale()] == [], "run python -m benchmarks.tables"


def test_the_pages_have_tables():
    assert any("<!-- table: " in page.read_text(encoding="utf-8") for page in pages())


def test_what_stands_between_the_marks_is_replaced_and_nothing_else():
    text = "a\n<!-- table: x -->\nold\n\nold\n<!-- /table -->\nb\n<!-- table: y -->\n<!-- /table -->\n"
    new = fill(text, {"x": lambda: "| 1 |\n", "y": lambda: "| 2 |"})
    assert new == ("a\n<!-- table: x -->\n| 1 |\n<!-- /table -->\nb\n<!-- table: y -->\n| 2 |\n<!-- /table -->\n")
    assert fill(new, {"x": lambda: "| 1 |", "y": lambda: "| 2 |"}) == new


def test_a_table_that_nobody_makes():
    with pytest.raises(KeyError, match="no source for table 'modles'; known: commands"):
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


def test_what_was_not_measured_says_so(tmp_path):
    text = measured("gpu/speed", {}, folder=tmp_path)()
    assert text == "*Not measured yet: `python -m benchmarks.gpu.speed`.*"


def test_models_come_from_the_registry():
    from vlm_pruner.adapters import families

    assert all(f"`{name}`" in SOURCES["models"]() for name in families())
