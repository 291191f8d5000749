"""What a call of `generate` may not change: the choice that greedy decoding of its prompt makes, and the report."""

from __future__ import annotations

import copy
import gc
import threading
import weakref
from typing import Any

import pytest
import torch
from tests.support.families import tiny
from tests.support.pruning import GENERATE, Scatter, forward, generate, plan
from tests.support.versions import CACHE
from torch import nn
from transformers import ContinuousBatchingConfig, GenerationConfig, StaticCache

from vlm_pruner import (
    InvalidSelectionError,
    PlanError,
    PrunedCacheError,
    PrunePlan,
    Selection,
    Session,
    Stage,
    UnsupportedModelError,
    attach,
    detach,
    prune,
)
from vlm_pruner.engine.recorder import KEPT
from vlm_pruner.methods.base import create, registry
from vlm_pruner.types import Signal

READS = {Signal.TEXT, Signal.TEXT_KEYS, Signal.WORDS, Signal.LAST_QUERY_ATTENTION, Signal.TEXT_ATTENTION}
CURIOUS = sorted(n for n, cls in registry().items() if (cls.needs | cls.wants) & READS and cls.__module__[:4] == "vlm_")


def assistant_of(model: Any) -> Any:
    assistant = copy.deepcopy(model)
    assistant.generation_config.num_assistant_tokens = 4
    return assistant


def choices(session: Session) -> list[list[list[int]]]:
    return [[choice.index.tolist() for _, _, choice in image.stages] for image in session.images]


WAYS: dict[str, Any] = {
    "prompt lookup": lambda model: {"prompt_lookup_num_tokens": 4},
    "assistant": lambda model: {"assistant_model": assistant_of(model)},
    "no cache": lambda model: {"use_cache": False},
    "beams, no cache": lambda model: {"use_cache": False, "num_beams": 2},
    "guidance": lambda model: {"guidance_scale": 1.5},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", CURIOUS)
def test_the_question_is_what_the_caller_asked(method: str, way: str) -> None:
    """Guesses stand behind the prompt; without a cache it is sent again with the answer so far behind it."""
    family, model = tiny("llava", "eager")
    prompt = family.prompt(9, 1)
    prompt.ids = torch.cat([prompt.ids, prompt.ids[-4:], prompt.ids[-2:]])  # so that a lookup finds something
    inputs = family.inputs([prompt], torch.float32)
    options = WAYS[way](model)
    place = create(method).stages(6, 5)[0][2] or 0
    stages = (Stage(create(method), 6, place),)
    with prune(model, PrunePlan(stages, min_visual_tokens=1)) as session:
        generate(model, inputs, max_new_tokens=6)
        want = choices(session)
        generate(model, inputs, max_new_tokens=6, **options)
        assert choices(session) == want
        assert session.report.kept == 6


def test_guidance_leaves_the_report_of_the_pictures() -> None:
    family, model = tiny("llava")
    inputs = family.inputs([family.prompt(9, 1)])
    with prune(model, plan((0.4, 2))) as session:
        generate(model, inputs, max_new_tokens=5)
        plain = session.report
        generate(model, inputs, max_new_tokens=5, guidance_scale=1.5)
    assert session.report.images == plain.images
    assert session.report.notes == plain.notes == ()
    assert session.report.decoded_tokens == plain.decoded_tokens == 4


def test_continuous_batches_of_text_alone_are_left_as_they_are() -> None:
    """Their paged cache has no layers, and needs none where there is no picture."""
    _, model = tiny("llava", "eager")
    config = GenerationConfig(max_new_tokens=5, do_sample=False, eos_token_id=-1, pad_token_id=0)
    few = ContinuousBatchingConfig(num_blocks=8, max_batch_tokens=32)  # else it takes most of the memory
    prompts = [[5, 6, 7], [9, 10, 11, 12]]

    def answers() -> list[list[int]]:
        out = model.generate_batch(
            prompts, generation_config=config, continuous_batching_config=few, progress_bar=False
        )
        return [out[name].generated_tokens for name in sorted(out)]

    want = answers()
    with prune(model, plan((0.4, 2))) as session:
        assert answers() == want
    assert all(len(answer) == 5 for answer in want)
    assert str(session.report) == "no image in the prompt: nothing to prune"


# A plan of which one stage alone cannot cut


def test_only_the_stage_that_cannot_cut_is_skipped() -> None:
    family, model = tiny("qwen2_vl")
    prompt = family.prompt(1, 1)
    (n,) = prompt.tokens
    for stages, left, alone in [
        (((0.5, 1), (n + 1, 3)), [-(-n // 2), -(-n // 2)], False),
        (((n + 1, 1), (4, 3)), [n, 4], False),
        (((n, 1), (4, 3)), [n, 4], False),
        (((n + 2, 1), (n + 1, 3)), [n, n], True),
    ]:
        with prune(model, plan(*stages)) as session:
            forward(model, family.inputs([prompt]))
        (image,) = session.images
        assert list(image.counts) == left, stages
        assert image.note == (f"left alone: {n} tokens are fewer than keep={n + 1}" if alone else "")


# Sessions


def test_a_session_that_was_never_entered() -> None:
    family, model = tiny("llava")
    session = prune(model, plan((0.4, 2)))
    generate(model, family.inputs([family.prompt(1, 1)]))
    for read in (lambda: session.report, lambda: session.images):
        with pytest.raises(PlanError, match=r"never active, .* ran unpruned: .* `with vp\.prune\(model, \.\.\.\) as"):
            read()
    with session:
        pass
    assert str(session.report) == "nothing was run yet"


def test_an_idle_session_can_be_copied() -> None:
    family, model = tiny("llava")
    session = prune(model, plan((0.4, 2)))
    other = copy.deepcopy(session)
    assert other.model is not model
    inputs = family.inputs([family.prompt(1, 1)])
    with other:
        forward(other.model, inputs)
    with session:
        forward(model, inputs)
        with pytest.raises(UnsupportedModelError, match=r"neither copied nor pickled"):
            copy.deepcopy(session)
    assert choices(session) == choices(other)


def test_every_call_has_a_report_and_the_session_adds_up() -> None:
    """Two talks that take turns, on threads of their own."""
    family, model = tiny("llava")
    prompts = [family.inputs([family.prompt(n, n)]) for n in (1, 2)]
    with prune(model, plan((0.4, 2))) as session:
        alone = []
        for inputs in prompts:
            generate(model, inputs, max_new_tokens=6)
            alone.append(session.report)
        threads = [
            threading.Thread(target=generate, args=(model, inputs), kwargs={"max_new_tokens": 6}) for inputs in prompts
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        reports = session.reports
    assert len(reports) == session.total.calls == 4
    assert sorted(len(r.images) for r in reports[2:]) == [1, 2]
    for report in reports:
        twin = alone[len(report.images) - 1]
        assert (report.images, report.decoded_tokens, report.kv_bytes_pruned) == (twin.images, 5, twin.kv_bytes_pruned)
    total = session.total
    assert (total.images, total.tokens, total.kept) == (6, 6 * 16, 6 * 7)
    assert total.decoded_tokens == 20
    assert total.flops_pruned == sum(r.flops_pruned or 0 for r in reports) < total.flops_full
    assert total.prefill_ms == pytest.approx(sum(r.prefill_ms or 0 for r in reports))


def test_reports_are_bounded_and_the_total_is_not() -> None:
    family, model = tiny("llava")
    inputs = family.inputs([family.prompt(1, 1)])
    with prune(model, plan((0.4, 2))) as session:
        for _ in range(KEPT + 3):
            forward(model, inputs)
    assert len(session.reports) == KEPT
    assert (session.total.calls, session.total.kept) == (KEPT + 3, 7 * (KEPT + 3))
    assert session.reports[-1] == session.report


def test_a_prompt_that_is_sent_again_is_one_call() -> None:
    family, model = tiny("llava")
    with prune(model, plan((0.4, 2))) as session:
        generate(model, family.inputs([family.prompt(1, 1)]), use_cache=False)
    assert session.total.calls == 1


def test_a_pruner_that_nobody_kept_can_be_detached() -> None:
    _, model = tiny("llava")
    attach(model, plan((0.4, 2)))
    gc.collect()
    detach(model)
    detach(model)
    assert not model.base_model.get_decoder().layers[2]._forward_pre_hooks
    with prune(model, plan((0.4, 2))):
        pass


def test_an_attached_model_can_be_collected() -> None:
    family, _ = tiny("llava")
    model = family.model()
    attach(model, plan((0.4, 2)))
    forward(model, family.inputs([family.prompt(1, 1)]))
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_removing_waits_for_the_call_of_another_thread() -> None:
    family, model = tiny("llava")
    inputs = family.inputs([family.prompt(1, 1)])
    with prune(model, plan((0.4, 2))):
        want = generate(model, inputs, max_new_tokens=8).sequences
    session, started, got = attach(model, plan((0.4, 2))), threading.Event(), []
    steps: list[None] = []
    listener = model.register_forward_hook(lambda *_: (started.set(), steps.append(None))[1])
    caller = threading.Thread(target=lambda: got.append(generate(model, inputs, max_new_tokens=8).sequences))
    caller.start()
    started.wait(timeout=60)
    session.detach()
    assert len(steps) == 8  # the call had ended by then
    caller.join()
    listener.remove()
    assert torch.equal(got[0], want)
    assert not model.base_model.get_decoder().layers[2]._forward_pre_hooks


def test_removing_from_inside_generate_is_refused() -> None:
    family, model = tiny("llava")
    session = attach(model, plan((0.4, 2)))
    listener = model.register_forward_hook(lambda *_: session.detach())
    try:
        with pytest.raises(UnsupportedModelError, match=r"cannot be removed from inside a generate call"):
            generate(model, family.inputs([family.prompt(1, 1)]))
    finally:
        listener.remove()
        session.detach()


def test_an_exchanged_layer_is_refused() -> None:
    family, model = tiny("llava")
    layers = model.base_model.get_decoder().layers
    before, inputs = layers[3], family.inputs([family.prompt(1, 1)])
    with prune(model, plan((0.4, 2))):
        layers[3] = copy.copy(before)
        try:
            with pytest.raises(UnsupportedModelError, match=r"decoder layer 3 was exchanged inside the block"):
                forward(model, inputs)
        finally:
            layers[3] = before
        forward(model, inputs)


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("by_hand", [False, True])
def test_a_static_cache_that_is_too_short_is_an_ordinary_error(layer: int, by_hand: bool, monkeypatch: Any) -> None:
    """Known on the host: an assertion on the device would end the process of a GPU."""
    family, model = tiny("llava")
    inputs = family.inputs([family.prompt(3, 1)])
    monkeypatch.setattr(torch, "_assert_async", _never)
    room = inputs["input_ids"].shape[1] + 2
    cache = StaticCache(config=model.config.get_text_config(), max_cache_len=room)
    message = rf"a static cache of {room} places is too short: pruned tokens keep theirs, and {room + 1} are needed"
    with prune(model, plan((0.4, layer))):
        if not by_hand:
            with pytest.raises(PrunedCacheError, match=message):
                generate(model, inputs, cache=cache, max_new_tokens=8)
            return
        forward(model, inputs, cache=cache, use_cache=True)
        for _ in range(2):
            forward(model, {"input_ids": torch.tensor([[7]])}, cache=cache, use_cache=True)
        with pytest.raises(PrunedCacheError, match=message):
            forward(model, {"input_ids": torch.tensor([[7]])}, cache=cache, use_cache=True)


def _never(*args: Any) -> None:
    raise AssertionError("asserted on the device")


# What is passed or returned instead


def test_a_pipeline_is_pointed_to_its_model() -> None:
    class Pipeline:
        def __init__(self, model: nn.Module) -> None:
            self.model = model

    _, model = tiny("llava")
    with pytest.raises(UnsupportedModelError, match=r"got Pipeline: pass its model, as in prune\(pipe\.model"):
        prune(Pipeline(model), "random", keep=4)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (torch.arange(6), r"test-scatter: select returns a Selection\(index=\.\.\.\) .* got a Tensor"),
        (None, r"got a NoneType"),
        ([1, 2, 3], r"got a list"),
        (Selection([0, 1, 2, 3, 4, 5]), r"index must be an int64 tensor \[k\], got a list"),  # type: ignore[arg-type]
        (Selection(torch.arange(6).float()), r"index must be int64 \[k\], got torch\.float32"),
        (Selection(torch.arange(6), features=torch.zeros(6)), r"features must have shape \(6, 32\), got \(6,\)"),
        (Selection(torch.arange(6), features=torch.zeros(5, 32)), r"features must have shape \(6, 32\), got \(5, 32\)"),
        (Selection(torch.arange(6), features=torch.zeros(6, 3)), r"features must have shape \(6, 32\), got \(6, 3\)"),
        (Selection(torch.arange(6), order=torch.arange(5)), r"order must have shape \(6,\)"),
        (Selection(torch.arange(6), source=[0] * 16), r"source must be a tensor, got a list"),  # type: ignore[arg-type]
    ],
)
def test_wrong_returns_say_what_is_expected(returned: Any, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    family, model = tiny("llava")
    monkeypatch.setattr(Scatter, "select", lambda self, tokens, keep: returned)
    inputs = family.inputs([family.prompt(1, 1)])
    with prune(model, plan((6, 2))), pytest.raises(InvalidSelectionError, match=message):
        forward(model, inputs)


def test_the_name_of_the_cache_is_known() -> None:
    """The tests speak of it by the name that this release has."""
    _, model = tiny("llava")
    assert prune(model, plan((0.4, 2)))._parts.layer_cache == CACHE
    assert GENERATE["do_sample"] is False


def test_a_prompt_that_is_sent_again_is_chosen_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a cache every step sends the whole prompt; what stays of it was decided at the first one."""
    family, model = tiny("llava")
    asked: list[int] = []
    method = create("divprune")
    select = type(method).select_batch
    monkeypatch.setattr(type(method), "select_batch", lambda *given: asked.append(1) or select(*given))
    with prune(model, PrunePlan((Stage(method, 0.5, 2),), min_visual_tokens=1)):
        generate(model, family.inputs([family.prompt(3, 1)]), use_cache=False, max_new_tokens=4)
        assert len(asked) == 1
        generate(model, family.inputs([family.prompt(3, 1)]), use_cache=False, max_new_tokens=4)
        assert len(asked) == 2
