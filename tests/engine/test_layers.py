"""What happens in front of a decoder layer."""

from __future__ import annotations

from importlib import import_module

import pytest
from tests.support.families import tiny
from tests.support.pruning import generate, plan

from vlm_pruner import prune


def test_a_mask_of_a_decode_step_is_fitted_once_for_all_layers_that_hold_the_same_places(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    family, model = tiny("llava")
    module, asked = import_module("vlm_pruner.engine.layers"), []
    whole = module.follow
    monkeypatch.setattr(module, "follow", lambda fwd, *given: asked.append(fwd.kept is None) or whole(fwd, *given))
    with prune(model, plan((0.4, 2))):
        generate(model, family.inputs([family.prompt(3, 1), family.prompt(6, 1)]), max_new_tokens=4)
    assert sum(asked) == 3  # one for each decode step
