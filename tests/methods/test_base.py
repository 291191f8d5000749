"""How a method is asked for."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tests.support.ops import numba, running
from tests.support.tokens import visual_tokens

from vlm_pruner.errors import NotFiniteError, PlanError
from vlm_pruner.methods import create, registry
from vlm_pruner.methods.base import method_class
from vlm_pruner.methods.vlm_pruner import VLMPruner


def test_a_method_is_a_name_or_an_instance():
    with pytest.raises(PlanError, match="got the class VLMPruner"):
        create(method_class("vlm-pruner"))
    with pytest.raises(PlanError, match=r"vlm-pruner cannot be made with \{'pivots': '4'\}"):
        create("vlm-pruner", pivots="4")
    with pytest.raises(PlanError, match="did you mean 'pivots'"):
        create("vlm-pruner", pivot=4)


@pytest.mark.parametrize("backend", ["naive", "torch", numba])  # on a device the engine looks
@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, -torch.inf], ids=str)
def test_a_method_that_looks_itself_finds_what_is_not_finite_anywhere(backend, wrong):
    """VLM-Pruner looks only where the traces of such a value are: one among 40 channels, of which 8 stay."""
    for place in range(0, 42 * 40, 97):
        for what in ("features", "keys"):
            tokens = visual_tokens(d=40)
            value = getattr(tokens, what).clone()
            value.view(-1)[place % value.numel()] = wrong
            bad = dataclasses.replace(tokens, **{what: value})
            for fill in (True, False):
                with running(backend), pytest.raises(NotFiniteError, match=what):
                    create("vlm-pruner", channels=8, fill=fill).select(bad, 9)


def test_rows_of_zeros_are_finite():
    tokens = visual_tokens()
    tokens.features[5] = 0
    assert len(create("vlm-pruner").select(tokens, 9)) == 9


def test_a_batch_on_a_cpu_goes_image_by_image(monkeypatch):
    """So that it never costs more than its images one by one: each op would find every image gone from the caches."""
    sizes = []
    choose = VLMPruner._select_equal
    monkeypatch.setattr(
        VLMPruner, "_select_equal", lambda self, tokens, keep: sizes.append(len(tokens)) or choose(self, tokens, keep)
    )
    images = [visual_tokens(seed=seed) for seed in range(5)]
    create("vlm-pruner").select_batch(images, [9] * 5)
    assert sizes == [1] * 5


@pytest.mark.parametrize("name", [name for name, cls in registry().items() if cls.slow_from])
def test_what_takes_minutes_is_warned_about_and_says_so(name, monkeypatch):
    cls = method_class(name)
    assert f"warned about from {cls.slow_from:,} tokens on" in " ".join(cls.__doc__.split())
    monkeypatch.setattr(cls, "slow_from", 42)
    with pytest.warns(UserWarning, match=f"{name} chooses from 42 tokens: from 42 on that takes minutes"):
        create(name).select(visual_tokens(), 5)


def test_the_methods_that_are_quadratic_or_slower_are_warned_about():
    assert {name for name, cls in registry().items() if cls.slow_from} >= {
        "tops",
        "vispruner",
        "star-pro",
        "pivoted-qr",
    }
