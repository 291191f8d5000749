"""What a server or a request asks for, and whether it can be had in vLLM: plans of one stage before the language model.

Without vLLM, so that it can be asked about anywhere.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any

from vlm_pruner.engine.signals import FROM_LAYER_BEFORE
from vlm_pruner.errors import PlanError, unknown_name
from vlm_pruner.methods.base import PruningMethod, create
from vlm_pruner.plan import Positions, PrunePlan
from vlm_pruner.types import Signal

__all__ = ["KEY", "kept_of", "plan_of", "read", "rotary_of", "written"]

KEY = "vlm_pruner"
"""Name of the plan in `--hf-overrides` and in `mm_processor_kwargs`."""

_SHORT = {"method", "keep", "params", "min_visual_tokens"}
_TEXT = {
    Signal.TEXT, Signal.TEXT_KEYS, Signal.TEXT_QUERIES, Signal.TEXT_VALUES, Signal.WORDS, Signal.TEXT_ATTENTION,
    Signal.LAST_QUERY_ATTENTION, Signal.SHARED_SPACE,
}  # fmt: skip


def plan_of(asked: object, *, rotary: bool) -> PrunePlan | None:
    """The plan of a request or a server; None where nothing is to be pruned.

    Args:
        asked: a plan as `PrunePlan.to_dict` gives it, or its short form: `keep`, and perhaps `method` ("vlm-pruner"),
            `params` and `min_visual_tokens`. None asks for nothing.
        rotary: does the model place tokens in time, height and width (M-RoPE)? Then survivors keep their places.
            Else vLLM numbers the tokens of a prompt one after the other, and positions are "repacked".

    Raises:
        PlanError: it cannot be carried out in vLLM; the message says why.
    """
    if asked is None:
        return None
    if not isinstance(asked, Mapping):
        raise PlanError(f"{KEY} is an object such as {{'keep': 0.25}}, not {asked!r}")
    positions: Positions = "kept" if rotary else "repacked"
    plan = PrunePlan.from_dict(asked) if "stages" in asked else _short(asked, positions)
    (stage, *more) = plan.stages
    method = stage.method
    if more or stage.layer is not None:
        raise PlanError(
            f"stages {', '.join(stage.place for stage in plan.stages)}: vLLM keeps one length for all layers of a "
            "prompt, so a plan for it has one stage, before the language model (layer 0)"
        )
    if plan.positions != positions:
        why = "the model places tokens in the picture" if rotary else "vLLM numbers the tokens of this model itself"
        raise PlanError(f"positions {plan.positions!r}: {why}, so only {positions!r} can be had")
    if plan.older:
        raise PlanError("older: vLLM caches a picture's tokens under the picture alone, whatever its age is later")
    if stage.bias is not None:
        raise PlanError(f"bias={stage.bias!r}: vLLM's attention takes no number of its own for every key")
    if plan.per != "image":
        raise PlanError("per='frame': vLLM is told one count for a whole video")
    _check_signals(method)
    if method.budget != "fixed":
        raise PlanError(f"{method.name} as configured may keep fewer tokens than announced, which ends the server")
    return None if method.name == "none" else plan


def rotary_of(config: Any) -> bool:
    """Does a model with this configuration place tokens in time, height and width (M-RoPE)?"""
    return "mrope_section" in (getattr(config.get_text_config(), "rope_parameters", None) or {})


def _short(asked: Mapping[str, Any], positions: Positions) -> PrunePlan:
    for key in asked:
        if key not in _SHORT:
            raise PlanError(unknown_name(f"key of {KEY}", key, _SHORT))
    method = create(asked.get("method", "vlm-pruner"), **asked.get("params", {}))
    _check_signals(method)
    plan = PrunePlan.of(method, asked.get("keep"), 0, num_layers=1, positions=positions)
    rest = {key: value for key, value in asked.items() if key == "min_visual_tokens"}
    return PrunePlan.from_dict(plan.to_dict() | rest)


def _check_signals(method: PruningMethod) -> None:
    """Raise for a method that would choose otherwise than in the library: it reads what is not there."""
    reads = method.needs_at(0) | (method.wants - FROM_LAYER_BEFORE)
    if text := sorted(reads & _TEXT):
        raise PlanError(
            f"{method.name} reads the question ({', '.join(text)}): vLLM caches what it made of a picture under the "
            "picture alone, and would answer the next question with the tokens chosen for this one"
        )
    if reads:
        raise PlanError(f"{method.name} reads {', '.join(sorted(reads))}, which vLLM does not hand out")


def kept_of(plan: PrunePlan | None, total: int) -> int:
    """Tokens that are left of a picture of `total`: what is announced, and what is made."""
    if plan is None or total < plan.min_visual_tokens:
        return total
    keep = plan.stages[0].keep
    return total if isinstance(keep, int) and keep >= total else plan.lengths(total, 1)[0]


def written(asked: object) -> bytes:
    """What travels with a picture to the worker that encodes it."""
    return json.dumps(asked, sort_keys=True).encode()


@functools.lru_cache(maxsize=256)
def read(data: bytes, rotary: bool) -> PrunePlan | None:
    """The plan that `written` wrote."""
    return plan_of(json.loads(data), rotary=rotary)
