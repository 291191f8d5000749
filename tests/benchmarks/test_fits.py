"""The table of methods by family says what the methods do today."""

from __future__ import annotations

import json

import pytest
from benchmarks.common import RESULTS
from benchmarks.fits import reasons, tried
from benchmarks.page_tables import fits
from tests.support.slowly import the_rest_slowly

from vlm_pruner.methods import registry

FOUND = json.loads((RESULTS / "fits.json").read_text(encoding="utf-8"))
ROWS = {row["name"]: row["left_out"] for row in FOUND["rows"]}


def test_every_family_and_every_method_was_tried() -> None:
    assert list(ROWS) == list(tried()), "run `python -m benchmarks.fits`"
    assert all(set(left_out) <= set(registry()) for left_out in ROWS.values())
    assert all(row["runs"] + len(row["left_out"]) == len(registry()) for row in FOUND["rows"]), "a new method: run it"


@pytest.mark.parametrize("name", the_rest_slowly(["llava", "qwen2_5_vl", "kimi_k25"], ["llava"]))
def test_what_was_found_is_found_again(name: str) -> None:
    found = {method: why for method, why in reasons(name).items() if why}
    assert found == ROWS[name]


def test_the_table_has_a_reason_for_every_number() -> None:
    text = fits()
    head, _, *rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) < len(ROWS), "families that are alike share a row"
    assert all(row.count("|") == head.count("|") for row in rows)
    numbers = {cell.strip() for row in rows for cell in row.split("|")[2:-1]} - {"✓"}
    assert {f"{n}." for n in numbers} == {line.split()[0] for line in text.splitlines() if line[:1].isdigit()}
    assert "python -m benchmarks.fits" in text
