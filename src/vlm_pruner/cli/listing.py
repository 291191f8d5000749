"""`vlm-pruner methods` and `vlm-pruner models`: lists made from the registries."""

from __future__ import annotations

import inspect
from typing import Any

from rich.table import Table

from vlm_pruner.cli.console import console, print_json, quiet
from vlm_pruner.cli.options import Json

__all__ = ["first_sentence", "methods", "models"]


def methods(json: Json = False) -> None:
    """List the pruning methods: names, papers, where they prune and what they need."""
    from vlm_pruner.methods import registry

    known = list(registry().values())
    if json:
        print_json(
            [
                {
                    "name": cls.name,
                    "title": cls.title,
                    "source": cls.source,
                    "layer": cls.default_layer,
                    "question_aware": cls.question_aware,
                    "needs": sorted(signal.value for signal in cls.needs),
                    "summary": first_sentence(cls),
                }
                for cls in known
            ]
        )
        return
    table = _table("name", "prunes\nbefore", "reads the\nquestion", "needs", "method and source")
    table.columns[3].min_width = 16  # the longest signal in one piece, also on 80 columns
    for cls in known:
        layer = "LLM" if cls.default_layer is None else f"layer {cls.default_layer}"
        needs = ", ".join(sorted(signal.value for signal in cls.needs)) or "-"
        about = f"{cls.title}: {cls.source}"
        table.add_row(cls.name, layer, "yes" if cls.question_aware else "no", needs, about)
    console().print(table)


def models(json: Json = False) -> None:
    """List the models: the embedded one, the families that can be pruned, and why the others cannot."""
    from vlm_pruner.asking import EMBEDDED
    from vlm_pruner.engine.families import support_table

    quiet()
    inside = "Inside the package: small, trained from scratch, nothing to download"
    rows = [(EMBEDDED, True, inside), *((row.model_type, row.works, row.why) for row in support_table())]
    if json:
        print_json([{"name": name, "works": works, "why": why} for name, works, why in rows])
        return
    table = _table("model, or model_type of a checkpoint", "works", "where its tokens lie, or what stands in the way")
    for name, works, why in rows:
        table.add_row(name, "yes" if works else "no", why)
    console().print(table)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for number, column in enumerate(columns):
        table.add_column(column, no_wrap=number == 0, overflow="fold")
    return table


def first_sentence(thing: Any) -> str:
    """The first sentence of a docstring, on one line."""
    text = " ".join((inspect.getdoc(thing) or "").split())
    return text.split(". ")[0].rstrip(".") + "." if text else ""
