"""An answer in words and numbers, the same ones in the terminal, in the report and on the page."""

from __future__ import annotations

from vlm_pruner.asking.answers import Run
from vlm_pruner.budget import Keep

__all__ = ["describe", "facts"]


def facts(answer: Run) -> dict[str, str]:
    """Tokens, times and costs of one answer by name and unit, as text."""
    report, times = answer.report, answer.times
    return {
        "visual tokens": " + ".join(f"{i.kept}/{i.total}" for i in report.images) or "-",
        "first token, ms": _number(times.first_token_ms, 1),
        "prefill, ms": _number(times.prefill_ms, 1),
        "of it selection, ms": _number(times.selection_ms, 2),
        "decode, ms per token": _number(times.decode_ms_per_token, 2),
        "prefill, GFLOPs": _number(report.flops_pruned, 2, 1e9),
        "KV cache, MB": _number(report.kv_bytes_pruned, 2, 1e6),
    }


def _number(value: float | None, digits: int, unit: float = 1.0) -> str:
    return "-" if value is None else f"{value / unit:.{digits}f}"


def describe(answer: Run) -> tuple[str, str]:
    """Title ("VLM-Pruner, 64 tokens") and note ("arXiv:2512.02700, Alg. 1; at decoder layer 2") of an answer."""
    if answer.name == "all tokens":
        return "All tokens", ""
    names = [f"{s.method.title}, {_budget(s.keep)}" for s in answer.plan.stages]
    sites = [f"at decoder layer {s.layer}" if s.layer else "before the language model" for s in answer.plan.stages]
    papers = list(dict.fromkeys(s.method.source for s in answer.plan.stages))
    return " + ".join(dict.fromkeys(names)), f"{', '.join(papers)}; {', '.join(sites)}"


def _budget(keep: Keep) -> str:
    return f"{keep} tokens" if isinstance(keep, int) else f"{100 * keep:g} % of the tokens"
