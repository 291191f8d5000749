"""How a result file becomes a table of Markdown, and the line that says where it was measured."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS

__all__ = ["cell", "markdown", "measured", "provenance", "result"]

NUMBER = re.compile(r"-?[\d.,]*(e[+-]?\d+)?")


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, columns of numbers to the right."""
    lines = [list(row) for row in rows]
    rule = ["--:" if all(NUMBER.fullmatch(row[i]) for row in lines) else "---" for i in range(len(head))]
    return "\n".join("| " + " | ".join(row) + " |" for row in [list(head), rule, *lines])


def result(name: str, folder: Path = RESULTS) -> dict[str, Any] | None:
    """The result file of a benchmark, None if it was not run."""
    path = folder / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def measured(
    name: str, columns: Mapping[str, tuple[str, str]], first: str = "", folder: Path = RESULTS
) -> Callable[[], str]:
    """Source of a table of the rows of one result file.

    Args:
        name: of the result file and of the benchmark's module.
        columns: heading -> (key of a row, format such as ".1f"); rows without any of these keys are left out.
        first: heading of the column of row names.
    """

    def make() -> str:
        found = result(name, folder)
        if found is None:
            return f"*Not measured yet: `python -m benchmarks.{name.replace('/', '.')}`.*"
        keys = [key for key, _ in columns.values()]
        rows = [row for row in found["rows"] if any(row.get(key) is not None for key in keys)]
        cells = [[row["name"], *(cell(row.get(key), form) for key, form in columns.values())] for row in rows]
        return f"{markdown([first, *columns], cells)}\n\n{provenance(found)}"

    return make


def provenance(found: Mapping[str, Any]) -> str:
    """Where and how a result was measured, as one line of Markdown."""
    machine = found["machine"]
    device = machine.get("gpu") or f"{machine['processor']}, {_count(machine['threads'], 'thread')}"
    return f"*{device}, torch {found['torch']}: `{found['command']}`*"


def _count(n: int, thing: str) -> str:
    return f"{n} {thing}{'' if n == 1 else 's'}"


def cell(value: Any, form: str) -> str:
    """A value in its format; nothing for None."""
    return "" if value is None else format(value, form)
