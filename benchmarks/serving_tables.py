"""The tables of the page on serving."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.measured import measured

__all__ = ["SOURCES"]

_SOAK = {
    "requests": ("requests", "d"),
    "median, s": ("p50_s", ".2f"),
    "95th percentile, s": ("p95_s", ".2f"),
    "growth of memory": ("growth", ".2%"),
}

SOURCES: dict[str, Callable[[], str]] = {
    "served": measured(
        "served",
        {
            "questions": ("questions", "d"),
            "answered rightly": ("accuracy", ".1%"),
            "the same answer": ("equal", "d"),
            "first token, ms": ("median_ms", ".0f"),
        },
    ),
    "soak": measured("soak", _SOAK, "what clients sent"),
    "soak-vllm": measured("soak_vllm", _SOAK, "what clients sent"),
    "batch": measured(
        "batch",
        {
            "seconds": ("seconds", ".0f"),
            "pictures a second": ("per_second", ".2f"),
            "error rows": ("errors", "d"),
            "kills": ("kills", "d"),
        },
        "how",
    ),
    "openvino": measured(
        "cdpruner_openvino",
        {
            "removed, %": ("removed", "d"),
            "kept": ("kept", "d"),
            "first token, ms": ("median_ms", ".0f"),
            "of its own unpruned": ("of_its_unpruned", ".2f"),
        },
    ),
}
"""Name of a table -> its source."""
