"""Tables of docs/hardening.md."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS
from benchmarks.measured import markdown, measured, provenance, result

__all__ = ["SOURCES", "breaks"]

_BREAKS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "drawn": lambda row: True,
    "found at once": lambda row: row["at_first"],
    "found by tests written for them": lambda row: row["found"] and not row["at_first"],
    "change nothing that anybody could see": lambda row: "equivalent" in row,
    "not found": lambda row: not row["found"] and "equivalent" not in row,
}


def breaks(folder: Path = RESULTS) -> str:
    """What became of the breaks that were drawn by chance, room by room."""
    found = result("mutation_random", folder)
    if found is None:
        return "*Not measured yet: `python -m benchmarks.mutation --random 300`.*"
    rooms: dict[str, list[dict[str, Any]]] = {}
    for row in found["rows"]:
        rooms.setdefault(row["file"].partition("/")[0].removesuffix(".py"), []).append(row)
    cells = [[room, *(sum(map(test, rooms[room])) for test in _BREAKS.values())] for room in sorted(rooms)]
    total = [sum(map(test, found["rows"])) for test in _BREAKS.values()]
    rows = [[str(value) for value in row] for row in (*cells, ["together", *total])]
    return f"{markdown(['', *_BREAKS], rows)}\n\n{provenance(found)}"


_TRIED = {"tried": ("tried", ",d"), "made": ("made", ",d"), "refused": ("refused", ",d")}

SOURCES = {
    "hardening-choices": measured("fuzz_choices", {**_TRIED, "unexpected errors": ("unexpected", "d")}),
    "hardening-fuzz": measured(
        "fuzz",
        {"inputs": ("inputs", ",d"), "minutes of a processor": ("cpu_minutes", ".1f"), "crashes": ("crashes", "d")},
    ),
    "hardening-breaks": breaks,
    "hardening-server": measured(
        "fuzz_server",
        {
            "requests": ("requests", ",d"),
            "forms among these": ("forms", ",d"),
            "answered (200)": ("status_200", ",d"),
            "refused (400)": ("status_400", ",d"),
            "failures": ("failures", "d"),
        },
    ),
    "hardening-attached": measured(
        "attached",
        {
            "calls": ("calls", ",d"),
            "answers that changed": ("changed_answers", "d"),
            "hooks left": ("hooks_left", "d"),
            "growth of memory": ("growth", ".2%"),
        },
    ),
}
