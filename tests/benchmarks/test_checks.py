"""The table of checks says what holds today, and takes whatever `vlm-pruner check --json` has said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks.checks import FILE, checked
from benchmarks.fits import tried
from benchmarks.page_tables import checks
from tests.support.commands import run
from tests.support.slowly import the_rest_slowly
from tests.support.tiny import checkpoint

FOUND = json.loads(FILE.read_text(encoding="utf-8"))
ROWS = {row["name"]: row for row in FOUND["rows"]}


def test_every_family_was_checked_and_kept_its_promises() -> None:
    assert list(ROWS) == list(tried()), "run `python -m benchmarks.checks`"
    assert all(row["kept"] is True for row in ROWS.values())
    assert all(row["checks"][i]["kept"] for row in ROWS.values() for i in (0, 1, 2, 4))


@pytest.mark.parametrize("name", the_rest_slowly(["llava", "qwen3_vl", "molmo2"], ["llava"]))
def test_what_was_found_is_found_again(name: str) -> None:
    again = checked(name)
    assert [check["kept"] for check in again["checks"]] == [check["kept"] for check in ROWS[name]["checks"]]
    assert (again["family"], again["layers"]) == (ROWS[name]["family"], ROWS[name]["layers"])


def test_a_file_of_the_command_joins_the_table(tmp_path: Path) -> None:
    assert checks(tmp_path) == "*Not checked yet: `python -m benchmarks.checks`.*"
    (tmp_path / "checks").mkdir()
    (tmp_path / "checks" / "random.json").write_text(FILE.read_text(encoding="utf-8"))
    result = run("check", checkpoint(), "--new-tokens", 2, "--json")
    assert result.exit_code == 0, result.output
    (tmp_path / "checks" / "own.json").write_text(result.stdout)
    text = checks(tmp_path)
    (row,) = [line for line in text.splitlines() if checkpoint().name in line]
    assert row.startswith(f"| `llava` | `{checkpoint().name}` | 5.")
    assert row.endswith("| yes |")
    assert "the stock model's own rows differ" in text
    assert "Not checked under their own name: `glmga`" in text
