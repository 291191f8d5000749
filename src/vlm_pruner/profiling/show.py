"""A profile as a table and as a plot."""

from __future__ import annotations

from math import isnan
from pathlib import Path

from vlm_pruner.profiling.figures import Figures, Variant
from vlm_pruner.viz.plots import time_plot

__all__ = ["plot", "table"]


def table(result: Figures) -> str:
    """Lines of text: one column per variant, with the ratio to the unpruned run where one makes sense."""
    machine = result.machine
    where = machine.get("gpu") or f"{machine['processor']}, threads {machine['threads']}"
    repeats = len(result.unpruned.samples["prefill"])
    taken = f"medians of {repeats} interleaved runs" if repeats > 1 else "one run of each"
    head = [
        f"{result.model} · {sum(result.image_tokens)} image + {result.text_tokens} text tokens · "
        f"{result.shape.layers} layers · {result.method}",
        f"{where} · torch {machine['torch']} · {taken}",
        "",
    ]
    rows = [["", *(v.name for v in result.variants)], *_time_rows(result), *_size_rows(result)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    body = [
        row[0].ljust(widths[0]) + "".join("  " + cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))
        for row in rows
    ]
    ends = [_break_even(result, v) for v in result.variants[1:]]
    return "\n".join([*head, *(line.rstrip() for line in body), "", *ends, *result.notes])


def _time_rows(result: Figures) -> list[list[str]]:
    base, pruned = result.unpruned, result.variants[1:]

    def measured(label: str, span: str, *, ratio: bool = False) -> list[str]:
        cells = [_ms(v.ms(span)) for v in result.variants]
        if ratio:
            cells[1:] = [
                f"{cell} ({base.ms(span) / v.ms(span):.2f}x)" for cell, v in zip(cells[1:], pruned, strict=True)
            ]
        return [label, *cells]

    return [
        measured("encoder", "encoder"),
        measured("projector", "projector"),
        measured("prefill", "prefill", ratio=True),
        ["  ideal by FLOPs", "", *(_ms(result.ideal_prefill_ms(v)) for v in pruned)],
        ["  selection", "", *(_ms(v.ms("selection")) for v in pruned)],
        ["  rest", "", *(_ms(result.rest_ms(v)) for v in pruned)],
        ["    hooks", "", *(_ms(result.hooks_ms) for _ in pruned)],
        ["    short input", "", *(_ms(result.rest_ms(v) - result.hooks_ms) for v in pruned)],
        measured("first token", "first_token", ratio=True),
        ["  ideal", "", *(_ms(result.ideal_first_token_ms(v)) for v in pruned)],
        measured("decode per token", "decode"),
        measured(f"{result.new_tokens} tokens", "total", ratio=True),
    ]


def _size_rows(result: Figures) -> list[list[str]]:
    variants = result.variants
    rows = [
        ["tokens asked for", *_counts(result, 0)],
        ["left at the end", *_counts(result, 1)],
        ["per layer, mean", *_counts(result, 2)],
        ["prefill FLOPs", *(_giga(result.flops(v)) for v in variants)],
        ["KV cache", *(_mega(v.kv_bytes) for v in variants)],
        ["  predicted", *(_mega(result.kv_predicted(v)) for v in variants)],
        ["peak memory", *(_mega(v.peak_bytes) for v in variants)],
    ]
    vision = [flops for flops in map(result.vision, variants) if flops is not None]
    if vision:
        rows.insert(3, ["vision FLOPs", *map(_giga, vision)])
    return rows


def _counts(result: Figures, which: int) -> list[str]:
    """Visual tokens of every variant: asked for, left at the end, or mean over the layers."""
    full = sum(result.image_tokens)
    found = [result.counts.get(v.name, (full, full, float(full)))[which] for v in result.variants]
    return [f"{value:.1f}" if which == 2 else str(value) for value in found]


def _break_even(result: Figures, variant: Variant) -> str:
    fewest, most = result.pays_from(variant), result.pays_up_to(variant)
    total = sum(result.image_tokens)
    small = "never pays on this model" if fewest is None else f"pays for images of {fewest} tokens and more"
    large = "no budget pays" if most is None else f"any budget up to {most} pays"
    return f"{variant.name}: {small}; of {total} image tokens, {large}."


def _ms(value: float) -> str:
    return "not measured" if isnan(value) else f"{value:.2f} ms"


def _giga(flops: int) -> str:
    return f"{flops / 1e9:,.2f} G"


def _mega(size: int) -> str:
    return f"{size / 1e6:,.2f} MB"


def first_token_parts(result: Figures, variant: Variant) -> dict[str, float]:
    """Milliseconds of the time to first token by what they were spent on; they sum to the measured median."""
    vision = {span: value for span in ("encoder", "projector") if not isnan(value := variant.ms(span))}
    selection = 0.0 if isnan(variant.ms("selection")) else variant.ms("selection")
    parts = vision | {
        "prefill, ideal": result.ideal_prefill_ms(variant),
        "selection": selection,
        "prefill, rest": result.rest_ms(variant),
    }
    return parts | {"other": variant.ms("first_token") - sum(parts.values())}


def plot(result: Figures, path: str | Path) -> None:
    """Stacked bars of `first_token_parts`, one per variant, by `viz.time_plot`.

    Raises:
        BackendUnavailableError: matplotlib is not installed.
    """
    figure = time_plot(
        {variant.name: first_token_parts(result, variant) for variant in result.variants},
        title=f"{result.model}, {sum(result.image_tokens)} image tokens, {result.method}",
        xlabel="time to first token, ms",
    )
    figure.savefig(path, dpi=120)
