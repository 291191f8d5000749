"""What each table of the pages is made of. A source is a function without arguments that returns Markdown.

A measured table ends with a line that names the machine and the command; one whose result file is not there says so.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from benchmarks.choosing_tables import SOURCES as CHOOSING
from benchmarks.common import RESULTS
from benchmarks.fast_tables import SOURCES as FAST
from benchmarks.hardening_tables import SOURCES as HARDENING
from benchmarks.measured import cell, markdown, measured, provenance, result
from benchmarks.offline_tables import PRESET as OWN
from benchmarks.offline_tables import SOURCES as OFFLINE
from benchmarks.offline_tables import load, where_run
from benchmarks.page_tables import SOURCES as PAGES
from benchmarks.preset_tables import SOURCES as PRESET
from benchmarks.serving_tables import SOURCES as SERVING
from benchmarks.training import stages_table
from benchmarks.video_tables import SOURCES as VIDEO

__all__ = ["SOURCES", "markdown", "measured", "models", "refused", "result"]


def prefill(folder: Path = RESULTS) -> str:
    """Prefill under several plans, and one more row: tower and prefill with a stage before the tower."""
    columns = {
        "prefill, ms": ("median_ms", ".0f"),
        "of unpruned": ("ratio", ".2f"),
        "ideal": ("linear_ideal", ".2f"),
        "selection, ms": ("selection_ms", ".2f"),
    }
    made, found = measured("prefill", columns, folder=folder)(), result("tower", folder)
    row = (
        next((r for r in found["rows"] if r["name"].startswith("CLIP") and r["name"].endswith(" 25%")), None)
        if found
        else None
    )
    if row is None or "\n\n" not in made:
        return made
    rows, where = made.split("\n\n")
    name = "with CLIP-L/336 in front, 25 % before the tower (`benchmarks.tower`)"
    return f"{rows}\n| {name} | {row['median_ms']:.0f} | {1 / row['first_token_times']:.2f} |  |  |\n\n{where}"


def selection_short(folder: Path = RESULTS) -> str:
    """What a choice costs beside the released algorithms, in a sentence for each."""
    found = result("selection", folder)
    if found is None:
        return "*Not measured yet: `python -m benchmarks.selection`.*"
    rows = {row["name"].removeprefix("n 576, "): row for row in found["rows"]}

    def ms(name: str) -> str:
        return f"{rows[name]['median_ms']:.3g} ms"

    own = f"Choosing 64 of 576 tokens of width 4096 takes `vlm-pruner` {ms('vlm-pruner, ours')}"
    plain = f" ({ms('vlm-pruner, torch')} without the extra `numba`)" if "vlm-pruner, torch" in rows else ""
    others = ", ".join(
        f"`{name}` {ms(f'{name}, released')} (here {ms(f'{name}, ours')})" for name in ("divprune", "cdpruner", "dart")
    )
    return (
        f"{own}{plain}; the released algorithms, step by step: `vlm-pruner` {ms('vlm-pruner, released')}, {others}.\n\n"
        f"{provenance(found)}"
    )


def models() -> str:
    """Every supported `model_type`, families that share an adapter in one row."""
    return _families(True, "visual tokens")


def refused() -> str:
    """Every other image-text-to-text family of transformers, and what stands in the way."""
    return _families(False, "why")


def _families(works: bool, head: str) -> str:
    from vlm_pruner.adapters.table import support_table
    from vlm_pruner.cli.console import quiet

    quiet()  # configurations of families that nobody asked about say things
    kinds: dict[str, list[str]] = {}
    for row in support_table():
        if row.works == works:
            kinds.setdefault(row.why, []).append(f"`{row.model_type}`")
    return markdown(["`model_type`", head], [[", ".join(names), why] for why, names in kinds.items()])


def accuracy() -> str:
    """What the leading methods and the yardsticks keep of the unpruned model's accuracy, with the cost at 64 tokens."""
    from vlm_pruner.evaluation.plots import leaders
    from vlm_pruner.evaluation.table import percent

    results, bootstrap = load("offline")
    full, rows = results.row("none").correct, {(row.label, row.budget): row for row in results.rows()}
    budgets = sorted({budget for label, budget in rows if label not in ("none", "blind")}, reverse=True)
    lines = []
    names = leaders(results, bootstrap, 5)
    own = [OWN] if OWN not in names and (OWN, budgets[0]) in rows else []
    for name in [*own, *names]:
        shares = {b: bootstrap.retention(rows[name, b].correct, full) for b in budgets if (name, b) in rows}
        cells = [percent(shares[b]) if b in shares else "" for b in budgets]
        left, cost = (rows[name, 64].mean(n) if (name, 64) in rows else None for n in ("kept", "layer_average"))
        lines.append([f"`{name}`", *cells, cell(left, ".0f"), cell(cost, ".0f")])
    share = bootstrap.accuracy(full)
    head = ["tokens asked for, of 576:", *map(str, budgets), "left at the end, of 64", "per layer at 64"]
    return (
        f"Per cent of the unpruned model's accuracy, which is {percent(share)} %; brackets are 95 % intervals.\n\n"
        f"{markdown(head, lines)}\n\n*{len(results.types):,} questions: `python -m benchmarks.offline`*"
    )


def picture(path: str, words: str, command: str) -> Callable[[], str]:
    """Source of a picture of the docs, by its path there and what it shows to those who cannot see it."""

    def make() -> str:
        there = (RESULTS.parents[1] / "docs" / path).exists()
        return f"![{words}]({path})" if there else f"*Not drawn yet: `{command}`.*"

    return make


def aims(folder: Path = RESULTS) -> str:
    """Everything that the benchmarks promise, and what the last run of each measured."""
    rows = []
    for path in sorted(folder.rglob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        command = f"`{found['command'].split(' --')[0]}`" if isinstance(found, dict) and found.get("aims") else ""
        for aim in found["aims"] if command else ():
            value, most = (f"{aim[key]:.3g}" for key in ("value", "most"))
            rows.append([aim["aim"], value, most, "yes" if aim["met"] else "**no**", command])
    head = ["promise", "measured", "at most", "kept", "by"]
    return markdown(head, rows) if rows else "*Not measured yet.*"


SOURCES: dict[str, Callable[[], str]] = {
    "accuracy": where_run(accuracy, "python -m benchmarks.offline"),
    **PAGES,
    **CHOOSING,
    **HARDENING,
    "models": models,
    "refused": refused,
    "offline-curves": picture(
        "images/offline.png", "Accuracy against visual tokens per layer", "python -m benchmarks.offline_tables"
    ),
    **OFFLINE,
    **PRESET,
    **FAST,
    **VIDEO,
    **SERVING,
    "embedded": measured(
        "embedded",
        {
            "chance": ("chance", ".1f"),
            "unpruned": ("unpruned", ".1f"),
            "random 64": ("random_64", ".1f"),
            "masked from 0": ("masked_0", ".1f"),
            "from 2": ("masked_2", ".1f"),
            "from 3": ("masked_3", ".1f"),
            "from 4": ("masked_4", ".1f"),
            "from 5": ("masked_5", ".1f"),
            "from 6": ("masked_6", ".1f"),
        },
        "right answers, %",
    ),
    "embedded-training": stages_table,
    "prefill": prefill,
    "tower": measured(
        "tower",
        {
            "tokens kept": ("kept", "d"),
            "tower, ms": ("tower_ms", ".0f"),
            "times as fast": ("tower_times", ".2f"),
            "first token, ms": ("median_ms", ".0f"),
            "times as fast ": ("first_token_times", ".2f"),
        },
    ),
    "decode": measured(
        "decode",
        {"decode, ms per token": ("median_ms", ".1f"), "of unpruned": ("ratio", ".2f"), "KV bytes": ("kv_bytes", ",d")},
    ),
    "selection": measured(
        "selection",
        {
            "tokens kept": ("keep", "d"),
            "ms": ("median_ms", ".1f"),
            "times ours": ("times_ours", ".1f"),
            "": ("note", ""),
        },
    ),
    "selection-short": selection_short,
    "video-selection": measured(
        "video_selection",
        {
            "tokens kept": ("keep", "d"),
            "ms": ("median_ms", ".0f"),
            "times one reading": ("times_reading", ".1f"),
            "": ("note", ""),
        },
    ),
    "v-cast-parts": measured("v_cast_parts", {"share": ("share", ".2f"), "questions": ("questions", "d")}),
    "rounding": measured("rounding", {f"{keep} kept": (f"right_{keep}", ".1f") for keep in (192, 128, 64)}, "backend"),
    "rounding-settings": measured(
        "rounding",
        {
            "same kept set, %": ("same", ".1f"),
            "images": ("images", ",d"),
            "settings": ("settings", "d"),
            "backends": ("backends", "d"),
        },
        "method",
    ),
    "scale": measured(
        "scale",
        {
            "tokens kept": ("keep", "d"),
            "ms": ("median_ms", ".0f"),
            "allocated beside, MiB": ("extra_MiB", ".1f"),
            "bytes per token": ("extra_bytes_per_token", ".0f"),
        },
    ),
    "memory": measured(
        "memory",
        {
            "inputs, MiB": ("inputs_MiB", ".0f"),
            "allocated beside, MiB": ("allocated_MiB", ".2f"),
            "process grew by, MiB": ("resident_MiB", ".1f"),
            "cache, MiB": ("held_MiB", ".2f"),
        },
    ),
    "aims": aims,
    "overhead": measured(
        "overhead", {"decode step, ms": ("median_ms", ".2f"), "µs per hooked layer": ("us_per_hooked_layer", ".1f")}
    ),
    "kernels": measured(
        "gpu/kernels",
        {
            "kept": ("keep", "d"),
            "ms": ("median_ms", ".3f"),
            "share of the definition's tokens": ("same_as_naive", ".3f"),
        },
    ),
    "first-token": measured(
        "gpu/first_token",
        {
            "first token, ms": ("median_ms", ".1f"),
            "speed-up": ("speedup", ".2f"),
            "of ideal": ("of_ideal", ".2f"),
            "encoder": ("encoder_ms", ".1f"),
            "selection": ("selection_ms", ".2f"),
            "prefill": ("prefill_ms", ".1f"),
            "decode per token": ("decode_ms", ".1f"),
            "KV, MB": ("kv_MB", ".0f"),
        },
    ),
    "upstream": measured(
        "upstream_tests",
        {
            "tests": ("tests", "d"),
            "pass with and without": ("passed", "d"),
            "skipped by transformers": ("skipped_by_transformers", "d"),
            "fail without a pruner, too": ("fail_without_pruner", "d"),
            "do not apply": ("not_applicable", "d"),
        },
    ),
}
"""Name of a table -> its source."""
