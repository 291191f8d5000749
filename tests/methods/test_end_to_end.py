"""Every registered method inside real models: sdpa, a ragged batch of two rows with two pictures each."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from tests.support.families import LAYERS, Family, Prompt, tiny
from tests.support.pruning import forward, generate
from tests.support.sync import no_undeclared_reads
from torch import nn

from vlm_pruner import MissingSignalError, PrunePlan, Session, keep_count, prune
from vlm_pruner.engine.signals import VISION, reads
from vlm_pruner.methods import PruningMethod, create, registry

NAMES = sorted(registry())
SHARE = 0.4
BEFORE = [name for name in NAMES if create(name).stages(SHARE, LAYERS)[0][2] is None and name != "none"]


def plan_of(name: str, positions: Any = "kept") -> PrunePlan:
    """What `prune(model, name, keep=SHARE)` does, on images however small."""
    plan = PrunePlan.of(name, SHARE, num_layers=LAYERS, positions=positions)
    return dataclasses.replace(plan, min_visual_tokens=1)


def batch(family: Family) -> tuple[list[Prompt], dict[str, Any]]:
    prompts = [family.prompt(1, 2), family.prompt(2, 2, tail=3)]
    return prompts, family.inputs(prompts)


def lacks(family: str, plan: PrunePlan) -> str:
    """Must a method be refused ("yes"), may it be ("maybe": the signal could have a substitute), or not ("no")?"""
    if family == "llava":
        return "no"
    stages = [stage.method for stage in plan.stages]
    if any(method.needs & VISION for method in stages):
        return "yes"
    return "maybe" if any(reads(method) & VISION for method in stages) else "no"


@contextmanager
def watched(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No attention module may return a map, and no method may read a value off the device while it selects."""

    def no_map(module: nn.Module, args: Any, output: Any) -> None:
        assert not isinstance(output, tuple) or output[1] is None, f"{type(module).__name__} returned its attention"

    def quiet(original: Any) -> Any:
        def select_batch(self: PruningMethod, *args: Any) -> Any:
            with no_undeclared_reads():
                return original(self, *args)

        return select_batch

    attention = [module for name, module in model.named_modules() if name.endswith("attn")]
    assert attention
    hooks = [module.register_forward_hook(no_map) for module in attention]
    with monkeypatch.context() as patch:
        for cls in {PruningMethod, *registry().values()}:
            if "select_batch" in vars(cls):
                patch.setattr(cls, "select_batch", quiet(cls.select_batch))
        yield
    for hook in hooks:
        hook.remove()


def check(session: Session, plan: PrunePlan, prompts: list[Prompt]) -> None:
    """Every image was pruned at every stage to what was asked for."""
    assert len(session.images) == 4
    for image in session.images:
        assert image.total == prompts[image.row].tokens[image.index]
    budgets = {stage.method.budget for stage in plan.stages}
    for image in session.images:
        asked = [keep_count(image.total, stage.keep) for stage in plan.stages]
        assert len(image.counts) == len(asked)
        if budgets == {"fixed"}:
            assert list(image.counts) == asked
        elif budgets == {"ceiling"}:
            assert all(1 <= count <= most for count, most in zip(image.counts, asked, strict=True))
    if budgets == {"mean"}:
        assert session.report.kept == session.report.asked


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
@pytest.mark.parametrize("name", NAMES)
def test_prefill_and_decoding(name: str, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made, model = tiny(family)
    prompts, inputs = batch(made)
    plan = plan_of(name)
    refusal, error = lacks(family, plan), None
    with watched(model, monkeypatch), prune(model, plan) as session:
        try:
            out = generate(model, inputs, max_new_tokens=3)
        except MissingSignalError as raised:
            error = str(raised)
    if error is not None:
        assert refusal != "no"
        assert any(stage.method.name in error for stage in plan.stages)
        return
    assert refusal != "yes"
    assert out.sequences.shape == (2, inputs["input_ids"].shape[1] + 3)
    assert all(step.isfinite().all() for step in out.logits)
    check(session, plan, prompts)


@pytest.mark.parametrize("name", [name for name in NAMES if create(name).budget != "mean"])
def test_a_row_alone_is_the_row_in_the_batch(name: str) -> None:
    """Through `generate`, which counts positions from the first token that is no padding: keys depend on them."""
    made, model = tiny("llava")
    prompts, inputs = batch(made)
    with prune(model, plan_of(name)):
        together = list(generate(model, inputs, max_new_tokens=1).logits[0])
        alone = [generate(model, made.inputs([prompt]), max_new_tokens=1).logits[0][0] for prompt in prompts]
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
@pytest.mark.parametrize("name", BEFORE)
def test_repacked_positions(name: str, family: str) -> None:
    """The papers that prune before the language model renumber what is left: the same survivors, another answer."""
    made, model = tiny(family)
    _, inputs = batch(made)
    logits, survivors = {}, {}
    for positions in ("kept", "repacked"):
        plan = plan_of(name, positions)
        try:
            with prune(model, plan) as session:
                logits[positions] = forward(model, inputs).logits[:, -1]
        except MissingSignalError:
            assert lacks(family, plan) != "no"
            return
        survivors[positions] = [image.stages[0][2].index.tolist() for image in session.images]
    assert survivors["kept"] == survivors["repacked"]
    assert logits["repacked"].isfinite().all()
    if family == "llava":  # Qwen gives a picture as many positions as its grid has rows and columns: all may stay
        assert not torch.allclose(logits["kept"], logits["repacked"], atol=1e-4)
