"""Which methods a model can run, and why not the others: found out by running them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch

from vlm_pruner.asking.answers import Refused
from vlm_pruner.engine import plan_for, prune
from vlm_pruner.methods.base import PruningMethod, create, registry
from vlm_pruner.plan import PrunePlan

__all__ = ["fits"]

HALF = 0.5  # of the tokens are kept: a budget that every picture has


def fits(
    model: Any,
    inputs: Mapping[str, Any],
    methods: Mapping[str, PruningMethod | PrunePlan] | None = None,
    *,
    min_visual_tokens: int = 1,
    progress: Callable[[str, float], None] = lambda *_: None,
) -> dict[str, str]:
    """Every method by name with the reason why it cannot run on `model`, empty where it can: one prefill each.

    Each method is put where it prunes when asked for by its name alone.

    Args:
        inputs: what the model reads, with a picture in it.
        methods: what is tried, by name, finished plans among them; None is the registry.
        progress: told which method is being tried, and the share done.
    """
    found = {}
    known = {name: create(name) for name in registry()} if methods is None else methods
    for number, (name, method) in enumerate(known.items()):
        progress(f"trying {name}", number / len(known))
        found[name] = ""
        try:
            plan = plan_for(model, method, None if isinstance(method, PrunePlan) else HALF)
            plan = replace(plan, min_visual_tokens=min_visual_tokens)
            with torch.inference_mode(), prune(model, plan) as session:
                model.generate(**inputs, do_sample=False, max_new_tokens=1)
        except Exception as error:  # whatever a method stumbles over on this model is the answer
            found[name] = Refused(name, error).reason
            continue
        alone = [image.note for image in session.report.images if image.note]
        if name != "none" and (alone or not session.report.images):
            found[name] = f"not tried: {(alone or session.report.notes)[0]}"
    return found
