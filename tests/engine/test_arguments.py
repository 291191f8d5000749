"""Arguments of decoder layers that follow the sequence."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
from tests.support.families import tiny
from tests.support.pruning import forward, plan
from torch import nn

from vlm_pruner import prune
from vlm_pruner.verify.shortened import layers_of


def test_tables_that_accelerate_hands_each_layer_anew_are_cut_once(monkeypatch: pytest.MonkeyPatch) -> None:
    family, model = tiny("llava")
    module, cuts = import_module("vlm_pruner.engine.arguments"), []
    whole = module._cut_rotary
    monkeypatch.setattr(module, "_cut_rotary", lambda *given: cuts.append(1) or whole(*given))

    def rebuilt(layer: nn.Module, args: Any, kwargs: Any) -> Any:
        return args, kwargs | {"position_embeddings": (*kwargs["position_embeddings"],)}

    hooks = [layer.register_forward_pre_hook(rebuilt, with_kwargs=True) for layer in layers_of(model)]
    with prune(model, plan((0.4, 1))):
        forward(model, family.inputs([family.prompt(3, 1)]))
    for hook in hooks:
        hook.remove()
    assert len(cuts) == 1
