"""Tables of docs/hardening.md."""

from __future__ import annotations

from benchmarks.measured import measured

__all__ = ["SOURCES"]

_TRIED = {"tried": ("tried", ",d"), "made": ("made", ",d"), "refused": ("refused", ",d")}

SOURCES = {
    "hardening-choices": measured("fuzz_choices", {**_TRIED, "unexpected errors": ("unexpected", "d")}),
    "hardening-fuzz": measured(
        "fuzz",
        {"inputs": ("inputs", ",d"), "minutes of a processor": ("cpu_minutes", ".1f"), "crashes": ("crashes", "d")},
    ),
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
