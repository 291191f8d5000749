"""Errors and Ctrl-C in the middle of a call leave nothing behind: not for the next call, not in a bare decoder."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from tests.support.families import tiny
from tests.support.pruning import forward, generate, plan
from torch import nn

from vlm_pruner import Session, attach

NAMES = ["llava", "qwen2_vl"]  # without and with M-RoPE, which notes things on the model
PLAN = plan((0.4, 0), (0.2, 2))


class Stop(Exception):
    """An error like any other."""


@contextmanager
def stopping(module: nn.Module, error: type[BaseException]) -> Iterator[None]:
    """Within the block, `error` comes when the module is called."""

    def stop(*_: Any) -> None:
        raise error

    handle = module.register_forward_pre_hook(stop)
    try:
        yield
    finally:
        handle.remove()


def bare(model: Any) -> torch.Tensor:
    """What the decoder makes of a text without the model around it."""
    ids = torch.arange(5, 17)[None]
    decoder = model.base_model.get_decoder()
    with torch.no_grad():
        hidden = decoder(inputs_embeds=decoder.get_input_embeddings()(ids), use_cache=False).last_hidden_state
    return hidden.clone()


def run_reuse(session: Session, model: Any, inputs: dict[str, Any]) -> Any:
    return session.reuse(**inputs)


WAYS: dict[str, Callable[[Session, Any, dict[str, Any]], Any]] = {
    "generate": lambda session, model, inputs: generate(model, inputs),
    "forward": lambda session, model, inputs: forward(model, inputs),
    "base": lambda session, model, inputs: model.base_model(**inputs),
    "reuse": run_reuse,
}


def places(model: Any) -> dict[str, nn.Module]:
    """Where a call is ended: in the tower, in front of the pruned layers, behind them, in the head."""
    layers = model.base_model.get_decoder().layers
    tower = model.base_model.vision_tower if hasattr(model.base_model, "vision_tower") else model.base_model.visual
    return {"tower": tower, "layer 0": layers[0], "layer 3": layers[3], "norm": model.base_model.get_decoder().norm}


@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", NAMES)
def test_what_is_ended_in_the_middle_leaves_nothing_behind(name: str, way: str, error: type[BaseException]) -> None:
    family, model = tiny(name)
    inputs = family.inputs([family.prompt(1, 1)], model.dtype)
    unpruned, decoder = forward(model, inputs).logits, bare(model)
    session = attach(model, PLAN)
    try:
        answer, logits = generate(model, inputs).sequences, forward(model, inputs).logits
        for module in places(model).values():
            with stopping(module, error), pytest.raises(error):
                WAYS[way](session, model, inputs)
            assert torch.equal(bare(model), decoder)
            assert torch.equal(forward(model, inputs).logits, logits)
            assert torch.equal(generate(model, inputs).sequences, answer)
        with stopping(places(model)["layer 3"], error), pytest.raises(error):
            WAYS[way](session, model, inputs)
    finally:
        remover = threading.Thread(target=session.detach, daemon=True)  # from elsewhere, as a server would
        remover.start()
        remover.join(timeout=30)
    assert not remover.is_alive()
    assert torch.equal(forward(model, inputs).logits, unpruned)
    assert "forward" not in vars(model.base_model)


@pytest.mark.parametrize("name", NAMES)
def test_an_interrupted_question_about_a_prefix_can_be_asked_again(name: str) -> None:
    family, model = tiny(name)
    inputs = family.inputs([family.prompt(1, 1, tail=5)], model.dtype)
    session = attach(model, PLAN)
    try:
        want = generate(model, inputs).sequences
        prefix = session.reuse(**inputs)
        with stopping(places(model)["layer 3"], KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
            generate(model, prefix.inputs(**inputs))
        assert torch.equal(generate(model, prefix.inputs(**inputs)).sequences, want)
    finally:
        session.detach()


def test_text_after_an_interrupt_between_tower_and_prefill() -> None:
    family, model = tiny("llava")
    inputs = family.inputs([family.prompt(1, 1)], model.dtype)
    session = attach(model, PLAN)
    try:
        embeds = model.get_input_embeddings()(torch.arange(5, 17)[None])
        want = forward(model, {"inputs_embeds": embeds}).logits
        with stopping(model.base_model.get_decoder(), KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
            generate(model, inputs)
        assert torch.equal(forward(model, {"inputs_embeds": embeds}).logits, want)
    finally:
        session.detach()
