"""Several questions about one picture: the same answers as from whole prompts, and what was saved."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from tests.support.families import FAMILIES, Prompt, of_each_kind, tiny
from tests.support.pruning import GENERATE, close, forward, generate, plan, rounding
from tests.support.versions import CACHE, OLD

from vlm_pruner import InputError, PlanError, PrunePlan, Stage, UnsupportedModelError, prune
from vlm_pruner.engine.reuse import waiting
from vlm_pruner.methods.base import create

CAUSAL = [n for n in FAMILIES if not n.startswith(("paligemma", "minicpmv4_7", "unlimited_ocr"))]


def questions(family: Any, count: int = 3) -> list[Prompt]:
    """The same pictures with other text behind them."""
    first = family.prompt(3, 2)
    words = [torch.randint(5, 85, (n,), generator=torch.Generator().manual_seed(n)) for n in range(4, 4 + count)]
    return [Prompt(torch.cat([first.ids, w]), first.tokens, first.payload) for w in words]


def go_on(model: Any, inputs: dict[str, Any]) -> Any:
    """`generate` as a user calls it: what the model keeps of the prefix on itself stays."""
    with rounding(model):
        return model.generate(**inputs, **GENERATE)


@pytest.mark.parametrize("stages", [((0.4, 2),), ((0.6, 0), (0.3, 3))], ids=["2", "0-3"])
@pytest.mark.parametrize("name", of_each_kind(CAUSAL))
def test_answers_are_those_of_whole_prompts(name: str, stages: tuple[tuple[float, int], ...]) -> None:
    family, model = tiny(name)
    if OLD and name == "ernie4_5_vl_moe":
        pytest.skip("transformers before 5.23: it takes the kinds of a whole prompt for those of what is new in it")
    asked = [family.inputs([p], model.dtype) for p in questions(family)]
    stages = tuple((keep, layer) for keep, layer in stages if layer in family.sites)
    with prune(model, plan(*stages)) as session:
        whole = [generate(model, inputs) for inputs in asked]
        chosen = [image.selection.index.tolist() for image in session.images]
        with rounding(model):
            prefix = session.reuse(**asked[0])
        for want, inputs in zip(whole, asked, strict=True):
            forward(model, family.inputs([family.prompt(8, 1)], model.dtype))  # something else in between
            got = go_on(model, prefix.inputs(**inputs))
            assert torch.equal(got.sequences, want.sequences)
            close(got.logits, want.logits, model)
            assert [image.selection.index.tolist() for image in session.images] == chosen
            assert session.report.reused_tokens == len(prefix)
            assert session.report.decoded_tokens == 3


def test_another_session_of_the_same_plan_goes_on() -> None:
    family, model = tiny("llava")
    one, other = (family.inputs([p], model.dtype) for p in questions(family, 2))
    with prune(model, plan((0.4, 2))) as ran:
        want = generate(model, other)
        prefix = ran.reuse(**one)
        first = ran.report
    with prune(model, plan((0.4, 2))) as asks:
        got = model.generate(**prefix.inputs(**other), **GENERATE)
    assert torch.equal(got.sequences, want.sequences)
    assert asks.report.reused_tokens == len(prefix)
    assert asks.report.kept == first.kept
    assert ran.report.reused_tokens == ran.report.decoded_tokens == 0


@pytest.mark.parametrize(
    "way", [{"num_beams": 3}, {"do_sample": True, "num_return_sequences": 3}], ids=["beams", "several"]
)
@pytest.mark.parametrize("name", ["llava", "qwen2_vl", "gemma3"])
def test_several_rows_of_a_question(name: str, way: dict[str, Any]) -> None:
    family, model = tiny(name)
    one, other = (family.inputs([p], model.dtype) for p in questions(family, 2))
    with prune(model, plan((0.4, 2))) as session:
        torch.manual_seed(5)
        want = generate(model, other, **way)
        full = session.report
        prefix = session.reuse(**one)
        torch.manual_seed(5)
        got = model.generate(**prefix.inputs(**other, copies=3), **{**GENERATE, **way})
        report = session.report
    assert torch.equal(got.sequences, want.sequences)
    close(got.logits, want.logits, model)
    assert [(i.row, i.index) for i in report.images] == [(0, 0), (0, 1)]
    assert (report.kv_bytes_full, report.kv_bytes_pruned) == (full.kv_bytes_full, full.kv_bytes_pruned)


def test_questions_that_are_sent_otherwise() -> None:
    """Transformers gives wrong answers to them, pruned or not."""
    family, model = tiny("llava")
    asked = family.inputs([questions(family, 1)[0]])
    with prune(model, plan((0.4, 2))) as session:
        prefix = session.reuse(**asked)
        with pytest.raises(UnsupportedModelError, match=r"3 rows go on from a prefix .* for 1: .* copies=3\)"):
            model.generate(**prefix.inputs(**asked), **GENERATE, num_beams=3)
        again = r"send tokens again that are in the cache of the prefix \(\d+ tokens came, \d+ were asked\): pass the"
        for way in ({"prompt_lookup_num_tokens": 3}, {"use_cache": False}):
            with pytest.raises(UnsupportedModelError, match=again):
                model.generate(**prefix.inputs(**asked), **GENERATE, **way)


def test_the_report_says_what_was_saved() -> None:
    family, model = tiny("llava")
    asked = [family.inputs([p]) for p in questions(family, 2)]
    calls: list[int] = []
    tower = model.base_model.vision_tower.register_forward_hook(lambda *_: calls.append(1))
    with prune(model, plan((0.4, 2))) as session:
        generate(model, asked[1])
        whole = session.report
        prefix = session.reuse(**asked[0])
        seen = len(calls)
        times = []
        for _ in range(5):  # the shortest of some: one short time alone says how busy the machine is
            go_on(model, prefix.inputs(**asked[1]))
            again = session.report
            times.append(again.prefill_ms)
        generate(model, asked[1])
        fresh = session.report
    tower.remove()
    assert seen == 2
    assert len(calls) == 3  # the vision tower did not run for the question that went on from the prefix
    assert again.saved_ms == prefix.milliseconds > 0
    assert f"{len(prefix)} tokens reused, {prefix.milliseconds:.0f} ms saved" in str(again)
    assert again.to_dict()["reused_tokens"] == len(prefix)
    assert again.selection_ms == 0
    assert 0 < min(times) < prefix.milliseconds
    assert (again.kv_bytes_full, again.kv_bytes_pruned) == (whole.kv_bytes_full, whole.kv_bytes_pruned)
    assert (fresh.reused_tokens, fresh.saved_ms) == (0, None)
    assert "reused" not in str(fresh)


def test_merged_rows_are_reused_too() -> None:
    family, model = tiny("llava")
    asked = [family.inputs([p]) for p in questions(family, 2)]
    with prune(model, plan((0.4, 2), merge=True)) as session:
        want = generate(model, asked[1])
        got = go_on(model, session.reuse(**asked[0]).inputs(**asked[1]))
    close(got.logits, want.logits, model)


def test_repacked_positions_are_reused_too() -> None:
    family, model = tiny("qwen2_vl")
    asked = [family.inputs([p]) for p in questions(family, 2)]
    with prune(model, plan((0.4, 0), positions="repacked")) as session:
        want = generate(model, asked[1])
        got = go_on(model, session.reuse(**asked[0]).inputs(**asked[1]))
    close(got.logits, want.logits, model)


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "glm4v", "llava"])
def test_two_prefixes_prepared_before_either_is_answered(name: str) -> None:
    """Pictures of other sizes move what follows by other distances, which stand in the inputs and not on the model."""
    family, model = tiny(name)
    prompts = [family.prompt(3, 1), family.prompt(4, 2)]
    asked = [family.inputs([p], model.dtype) for p in prompts]
    with prune(model, plan((0.4, 2))) as session:
        whole = [generate(model, inputs) for inputs in asked]
        prefixes = [session.reuse(**inputs) for inputs in asked]
        noted = getattr(model.base_model, "rope_deltas", None)
        prepared = [prefix.inputs(**inputs) for prefix, inputs in zip(prefixes, asked, strict=True)]
        assert getattr(model.base_model, "rope_deltas", None) is noted
        for want, inputs in zip(whole, prepared, strict=True):
            got = go_on(model, inputs)
            assert torch.equal(got.sequences, want.sequences)
            close(got.logits, want.logits, model)


def test_a_generation_that_is_going_on_keeps_its_positions() -> None:
    """Another thread runs a prefix between two steps of it."""
    family, model = tiny("qwen2_5_vl")
    first, second = (family.inputs([family.prompt(n, n - 2)], model.dtype) for n in (3, 4))
    with prune(model, plan((0.4, 2))) as session:
        forward(model, first)
        noted = model.base_model.rope_deltas
        assert noted is not None
        session.reuse(**second)
        assert model.base_model.rope_deltas is noted


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl"])
def test_another_picture_is_refused(name: str) -> None:
    family, model = tiny(name)
    inputs = family.inputs([family.prompt(3, 1)])
    other = {k: v + 1 if k == "pixel_values" else v for k, v in inputs.items()}
    with prune(model, plan((0.4, 2))) as session:
        prefix = session.reuse(**inputs)
        prefix.inputs(**inputs)
        prefix.inputs(inputs["input_ids"])  # not said again: the same
        with pytest.raises(InputError, match=r"pixel_values differs from that of the prompt that was run: this prefix"):
            prefix.inputs(**other)


def test_a_prefix_leaves_nothing_behind() -> None:
    family, model = tiny("llava")
    inputs = family.inputs([family.prompt(3, 1)])
    with prune(model, plan((0.4, 2))) as session:
        prefix = session.reuse(**inputs)
        asked = prefix.inputs(**inputs)
        copied = copy.deepcopy(asked[CACHE])
        read = pickle.loads(pickle.dumps(asked[CACHE]))
        assert waiting(asked[CACHE]) is not None
        assert waiting(copied) is waiting(asked[CACHE])  # its first forward answers the same question
        assert waiting(read) is None
        go_on(model, asked)
        assert waiting(asked[CACHE]) is None


def test_a_method_that_reads_the_question() -> None:
    family, model = tiny("llava")
    with (
        prune(model, PrunePlan((Stage(create("fastv"), 4, 2),))) as session,
        pytest.raises(PlanError, match=r"fastv reads the question: another question may keep other tokens"),
    ):
        session.reuse(**family.inputs([family.prompt(1, 1)]))


def test_a_model_whose_pictures_see_the_question() -> None:
    family, model = tiny("paligemma")
    with (
        prune(model, plan((0.4, 2))) as session,
        pytest.raises(UnsupportedModelError, match=r"paligemma: pictures see the question behind them"),
    ):
        session.reuse(**family.inputs([family.prompt(1, 1)]))


def test_prompts_that_cannot_be_reused() -> None:
    family, model = tiny("llava")
    one, two = family.prompt(1, 1), family.prompt(2, 2)
    session = prune(model, plan((0.4, 2)))
    with pytest.raises(PlanError, match=r"this session is not active"):
        session.reuse(**family.inputs([one]))
    with session:
        with pytest.raises(
            InputError, match=r"reuse takes the prompt of one row as input_ids \[1, s\], got \(2, \d+\)"
        ):
            session.reuse(**family.inputs([one, two]))
        with pytest.raises(InputError, match=r"reuse takes the prompt of one row as input_ids \[1, s\], got None"):
            session.reuse(inputs_embeds=torch.zeros(1, 3, 32))
        with pytest.raises(InputError, match=r"no picture in this prompt: nothing to reuse"):
            session.reuse(**family.inputs([family.prompt(1, 0)]))
        padded = family.inputs([one])
        padded["attention_mask"][0, 0] = 0
        with pytest.raises(InputError, match=r"reuse takes a prompt without padding"):
            session.reuse(**padded)
        prefix = session.reuse(**family.inputs([one]))
        with pytest.raises(InputError, match=r"does not go on from the \d+ tokens that were run"):
            prefix.inputs(**family.inputs([two]))
        with pytest.raises(InputError, match=r"does not go on from"):
            prefix.inputs(prefix.ids)
        with pytest.raises(InputError, match=r"cannot be padded"):
            prefix.inputs(**padded)
