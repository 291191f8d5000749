"""`prune`, `attach` and `plan_for`: from what a user says to a plan that a model can carry out."""

from __future__ import annotations

from typing import Any

from torch import nn

from vlm_pruner.budget import Keep
from vlm_pruner.engine.bias import LogMass
from vlm_pruner.engine.session import Session
from vlm_pruner.engine.support import Parts, check_backend, check_stages, settle, take_apart
from vlm_pruner.engine.tower import tower_of
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.plan import TOWER, Bias, Layer, Per, Positions, PrunePlan

__all__ = ["attach", "plan_for", "prune"]


def prune(
    model: nn.Module,
    method: PrunePlan | PruningMethod | str,
    *,
    keep: Keep | None = None,
    layer: Layer = None,
    positions: Positions = "kept",
    per: Per = "image",
    bias: Bias | None = None,
    full_length: bool = False,
    **params: Any,
) -> Session:
    """Prune visual tokens inside a `with` block.

        with vp.prune(model, "vlm-pruner", keep=64) as session:
            out = model.generate(**inputs)
        print(session.report)

    Args:
        model: a vision-language model of transformers, with or without its head.
        method: a name, a method with its parameters, or a whole plan.
        keep: tokens per image (64) or a share of them (0.111).
        layer: decoder layer at whose input to prune; 0 = before the language model; "tower" = before the vision tower;
            None = as the method prefers.
        positions: `kept` or, before the language model, `repacked`.
        per: whether the budget is that of a whole video (`image`) or of each of its frames (`frame`).
        bias: `log-mass` makes a token into which others were merged count in attention for all of them.
        full_length: put logits and hidden states back at their positions in the unpruned prompt, NaN at dropped ones.
        params: hyper-parameters of a method given by name.

    Raises:
        PlanError: an unknown method or parameter, or a budget or layer that this model cannot meet.
        UnsupportedModelError: a model whose visual tokens cannot be pruned.
    """
    parts = take_apart(model)
    plan = _planned(parts, method, keep, layer, positions=positions, per=per, bias=bias, **params)
    check_stages(plan, parts)
    check_backend(parts)
    if plan.stages[0].layer == TOWER:
        tower_of(parts)
    LogMass(parts, plan, None).check()
    return Session(model, plan, parts, full_length)


def attach(
    model: nn.Module,
    method: PrunePlan | PruningMethod | str,
    *,
    keep: Keep | None = None,
    layer: Layer = None,
    positions: Positions = "kept",
    per: Per = "image",
    bias: Bias | None = None,
    full_length: bool = False,
    **params: Any,
) -> Session:
    """Prune until the session is detached: for servers and notebooks. Arguments and errors as of `prune`."""
    options: dict[str, Any] = {"positions": positions, "per": per, "bias": bias, "full_length": full_length, **params}
    session = prune(model, method, keep=keep, layer=layer, **options)
    session.start()
    return session


def plan_for(
    model: nn.Module,
    method: PrunePlan | PruningMethod | str,
    keep: Keep | None = None,
    layer: Layer = None,
    *,
    positions: Positions = "kept",
    per: Per = "image",
    bias: Bias | None = None,
    **params: Any,
) -> PrunePlan:
    """The plan that `prune` carries out on `model` when it is given the same, to be read, written or compared.

    Raises:
        PlanError: an unknown method or parameter, no budget, or a layer that the model does not have.
        UnsupportedModelError: a model whose visual tokens cannot be pruned.
    """
    return _planned(take_apart(model), method, keep, layer, positions=positions, per=per, bias=bias, **params)


def _planned(
    parts: Parts, method: PrunePlan | PruningMethod | str, keep: Keep | None, layer: Layer, **rest: Any
) -> PrunePlan:
    plan = PrunePlan.of(method, keep, layer, num_layers=len(parts.layers), **rest)
    return settle(plan, parts) if layer is None and not isinstance(method, PrunePlan) else plan
