"""Tables of docs/preset.md, from the result file of `benchmarks.preset`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.common import RESULTS

__all__ = ["SOURCES"]

Row = dict[str, Any]
NAMES = {"emphasis 0.5": "**emphasis 0.5 = `vlm-pruner-plus`**", "published": "`vlm-pruner` as published"}


def _rows() -> list[Row]:
    found: list[Row] = json.loads((RESULTS / "preset.json").read_text(encoding="utf-8"))["rows"]
    return found


def _change(value: float, interval: Sequence[float], digits: int) -> str:
    """A difference with its interval, bold where that excludes zero."""
    text = f"{value:+.{digits}f} [{interval[0]:+.{digits}f}, {interval[1]:+.{digits}f}]"
    return f"**{text}**" if interval[0] > 0 or interval[1] < 0 else text


def _by_budget(kinds: Sequence[str]) -> str:
    """Accuracy, its change and that of the loss against the published method, for every budget of the rows."""
    rows = [row for row in _rows() if row["kind"] in kinds]
    budgets = sorted({row["keep"] for row in rows}, reverse=True)
    cells = {(row["name"], row["keep"]): row for row in rows}
    head = ["", *(f"{what} at {b}" for b in budgets for what in ("accuracy", "change", "loss"))]
    lines = []
    for name in dict.fromkeys(row["name"] for row in rows):
        line = [NAMES.get(name, name)]
        for budget in budgets:
            row = cells.get((name, budget))
            line += ["", "", ""] if row is None else [f"{row['accuracy']:.1f}", _gain(row), f"{row['loss']:.3f}"]
        lines.append(line)
    return _markdown(head, lines)


def _gain(row: Row) -> str:
    return "" if row["name"] == "published" else _change(row["gain"], row["gain_interval"], 1)


def _markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["--:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, rule, *lines])


def steps() -> str:
    """The ladder from the published method to the preset, and what was asked."""
    rows = _rows()
    full = rows[0]
    asked = (
        f"{full['questions']} questions about {full['pictures']} validation scenes. Unpruned: accuracy "
        f"{full['accuracy']:.1f} %, loss {full['loss']:.3f}."
    )
    return f"{asked}\n\n{_by_budget(['step', 'ends'])}"


def candidates() -> str:
    """Everything else that was tried."""
    return _by_budget(["candidate"])


def rivals() -> str:
    """The preset against the strongest other methods on the same scenes."""
    lines = [
        [
            f"`{row['name']}`" if " " not in row["name"] else row["name"],
            str(row["keep"]),
            f"{row['layer_average']:.0f}",
            f"{row['accuracy']:.1f}",
            f"{row['loss']:.3f}",
            _change(row["preset_less_this"], row["preset_interval"], 1),
        ]
        for row in _rows()
        if row["kind"] == "rival"
    ]
    return _markdown(["", "tokens", "tokens per layer", "accuracy", "loss", "lead of VLM-Pruner+"], lines)


def _measured(make: Callable[[], str]) -> Callable[[], str]:
    return lambda: (
        make() if (RESULTS / "preset.json").exists() else "*Not measured yet: `python -m benchmarks.preset`.*"
    )


SOURCES: dict[str, Callable[[], str]] = {
    "preset-steps": _measured(steps),
    "preset-candidates": _measured(candidates),
    "preset-rivals": _measured(rivals),
}
"""Name of a table -> its source."""
