"""An answer in words and numbers, the same ones in the terminal, in the report and on the page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from vlm_pruner.asking.answers import Run
from vlm_pruner.budget import Keep
from vlm_pruner.methods.base import method_class
from vlm_pruner.plan import PrunePlan, Stage

__all__ = ["describe", "facts", "one_token", "timed", "title_of"]


def facts(answer: Run) -> dict[str, str]:
    """Tokens, times and costs of one answer by name and unit, as text."""
    report, times = answer.report, answer.times
    return {
        "visual tokens asked for": str(report.asked) if report.images else "-",
        "left at the end": _each([f"{image.kept}/{image.total}" for image in report.images]),
        "per layer, mean": f"{report.layer_average:.1f}" if report.images else "-",
        "first token, ms": _number(times.first_token_ms, 1),
        "prefill, ms": _number(times.prefill_ms, 1),
        "of it selection, ms": _number(times.selection_ms, 2),
        "decode, ms per token": _number(times.decode_ms_per_token, 2),
        "prefill, GFLOPs": _number(report.flops_pruned, 2, 1e9),
        "KV cache, MB": _number(report.kv_bytes_pruned, 2, 1e6),
    }


def _each(parts: Sequence[str]) -> str:
    """ "64/576 + 32/288"; more than three that are alike, as frames are, in one: "8 x 144/576"."""
    if len(parts) > 3 and len(set(parts)) == 1:
        return f"{len(parts)} x {parts[0]}"
    return " + ".join(parts) or "-"


def _number(value: float | None, digits: int, unit: float = 1.0) -> str:
    return "-" if value is None else f"{value / unit:.{digits}f}"


def one_token(budgets: Iterable[Keep], total: int) -> str:
    """What somebody should know who asked for one token and may have meant all; empty where nobody did."""
    asked = any(isinstance(keep, int) and keep == 1 for keep in budgets)
    return f"keep 1 keeps 1 token of {total}; all of them is 1.0" if asked and total > 1 else ""


def describe(answer: Run) -> tuple[str, str]:
    """Title ("VLM-Pruner, 64 tokens") and note ("arXiv:2512.02700, Alg. 1; at decoder layer 2") of an answer."""
    if answer.name == "all tokens":
        return "All tokens", ""
    plan = answer.plan
    papers = list(dict.fromkeys(s.method.source for s in plan.stages))
    places = [stage.place for stage in plan.stages]
    asked = [f"asked for {_budget([plan.asked])}"] if plan.asked is not None else []
    return title_of(plan), "; ".join([", ".join(papers), *(places if len(places) == 1 else asked)])


def timed(runs: int) -> str:
    """How often the times of answers were taken, without a full stop."""
    if runs == 1:
        return "Times are those of one run after a warm-up"
    return f"Times are medians of {runs} runs, taken in turn after a warm-up"


def title_of(plan: PrunePlan) -> str:
    """ "VLM-Pruner, 64 tokens"; a schedule with its places: "V2Drop: 96, 48, 1 tokens at layers 2, 4, 6"."""
    parts = [(title, list(stages)) for title, stages in groupby(plan.stages, key=lambda stage: stage.method.title)]
    if len(plan.stages) == 1:
        return f"{parts[0][0]}, {_budget([plan.stages[0].keep])}"
    told = " + ".join(f"{title}: {_budget([s.keep for s in stages])} {_places(stages)}" for title, stages in parts)
    maker = None if plan.made_by is None else method_class(plan.made_by).title
    return told if maker is None or maker == parts[0][0] else f"{maker} = {told}"


def _budget(keeps: Sequence[Keep]) -> str:
    """ "96, 48, 1 tokens", "50, 25 % of the tokens"; a mixture says so of each."""
    if all(isinstance(keep, int) for keep in keeps):
        return f"{', '.join(map(str, keeps))} token{'s' if keeps[-1] != 1 or len(keeps) > 1 else ''}"
    if all(isinstance(keep, float) for keep in keeps):
        return f"{', '.join(f'{100 * keep:g}' for keep in keeps)} % of the tokens"
    return ", ".join(_budget([keep]) for keep in keeps)


def _places(stages: Sequence[Stage]) -> str:
    layers = [str(stage.layer) for stage in stages if stage.site]
    inside = f"at layer{'s' if len(layers) > 1 else ''} {', '.join(layers)}" if layers else ""
    return " and ".join(filter(None, [*(stage.place for stage in stages if not stage.site), inside]))
