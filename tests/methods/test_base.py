"""How a method is asked for."""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import Any

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


INF = float("inf")
FREE: dict[str, Any] = {"steep": None}  # which `target` and `after` are for
GROWTH: dict[str, tuple[list[float], list[float]]] = {
    "pivots": ([1], [0]),
    "channels": ([1], [0]),
    "spatial_weight": ([0.0], [-0.001, INF]),
    "threshold": ([-1.0], [-1.001, INF]),
    "threshold_step": ([0.001], [0.0009, INF]),
    "token_batch": ([1], [0]),
    "self_weight": ([0.0, 1.0], [-0.001, 1.001]),
    "temporal_scale": ([0.0], [-0.001]),
}
RANGES: dict[str, dict[str, tuple[list[float], list[float]]]] = {
    "autoprune": {"steep": ([0.0, 0.4], [-0.001, 0.401])},
    "autoprune, by the picture": {"target": ([0.001, 576.0], [0.0, 576.1]), "after": ([1, 31], [0, 32])},
    "cover": {"radius": ([0.0, 2.0], [-0.001, 2.001]), "most": ([1.0], [0.999])},
    "erase": {"ratio": ([0.0, 1.0], [-0.001, 1.001])},
    "fast": {"times": ([1.0], [0.999, INF])},
    "ivc-prune": {"places": ([0.0, 0.5], [-0.001, 0.501])},
    "mmr": {"balance": ([0.0, 1.0], [-0.001, 1.001])},
    "pixelprune": {"threshold": ([0.0, 0.999], [-0.001, 1.0])},
    "prunesid": {"reference": ([0.001], [0.0])},
    "vlm-pruner": GROWTH,
    "vlm-pruner-plus": {"emphasis": ([0.0], [-0.001, INF]), "self_weight": ([0.0, 1.0], [-0.001, 1.001])},
    "vlm-pruner-video": {"buffer": ([0], [-1]), **GROWTH},
    "vscan": {"side": ([1], [0]), "shallow_depth": ([0.0, 1.0], [-0.001, 1.001])},
}
"""Of every parameter with a range: its ends, which are taken, and what lies just beyond, which is refused."""


@pytest.mark.parametrize(("name", "field"), [(name, field) for name, fields in RANGES.items() for field in fields])
def test_the_ends_of_a_range_are_taken_and_what_lies_beyond_is_refused(name, field):
    method, _, by_the_picture = name.partition(", ")
    given = FREE if by_the_picture else {}
    taken, refused = RANGES[name][field]
    for value in taken:
        assert create(method, **given, **{field: value}).params()[field] == value
    for value in [*refused, float("nan")] if isinstance(refused[0], float) else refused:
        with pytest.raises(PlanError, match=f"{field}={value}"):
            create(method, **given, **{field: value})


def test_every_range_is_among_these():
    known = {(name.partition(",")[0], field) for name, fields in RANGES.items() for field in fields}
    checks = {
        name: inspect.getsource(cls.__post_init__) for name, cls in registry().items() if "__post_init__" in vars(cls)
    }
    ranges = {
        (name, field)
        for name, text in checks.items()
        for field in re.findall(r"[\w.)] <=? self\.(\w+)|self\.(\w+) [<>]", text)
    }
    assert {(name, one or other) for name, (one, other) in ranges} <= known


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
