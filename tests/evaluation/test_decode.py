from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tests.support.bench import WordProcessor, picture, tiny_model

from vlm_pruner.errors import PlanError, UnsupportedModelError
from vlm_pruner.evaluation.blind import blinded
from vlm_pruner.evaluation.decode import decode_each, decode_shared, encode_pictures, prepare_prompts

MODEL = tiny_model(seed=10)
PROCESSOR = WordProcessor()
TEXTS = [
    "USER: <image> what color is the cup ? ASSISTANT:",
    "USER: <image> where ? ASSISTANT:",
    "USER: <image> which is larger , the sun or the moon or the star ? ASSISTANT:",
    "USER: <image> is there a cup ? ASSISTANT:",
]
TWO = [text.replace("<image>", "<image> <image>") for text in TEXTS]
NEW = 8


def generated(images: list, text: str) -> list[int]:
    """What `generate` answers to one prompt alone."""
    inputs = PROCESSOR(images=images, text=text, return_tensors="pt")
    out = MODEL.generate(**inputs, max_new_tokens=NEW, do_sample=False)[0, inputs["input_ids"].shape[1] :].tolist()
    stops = MODEL.generation_config.eos_token_id
    return out[: next((i for i, token in enumerate(out) if token in stops), len(out))]


@pytest.mark.parametrize("decode", [decode_shared, decode_each])
@pytest.mark.parametrize(
    "scenes",
    [
        [([picture(1)], TEXTS)],
        [([picture(2), picture(3)], TWO[:2]), ([picture(4), picture(5)], TWO[2:])],
        [([picture(i)], [text]) for i, text in enumerate(TEXTS)],
    ],
    ids=["one-scene", "two-scenes-of-two-pictures", "one-question-each"],
)
def test_answers_equal_those_of_generate_one_by_one(decode: Callable, scenes: list) -> None:
    prompts = prepare_prompts(PROCESSOR, scenes, PROCESSOR.placeholder)
    answers = decode(MODEL, prompts, encode_pictures(MODEL, prompts.pixels), NEW)
    assert answers == [generated(images, text) for images, texts in scenes for text in texts]
    assert len({len(a) for a in answers}) > 1, "answers that all have one length would not test the end of a row"


def test_the_shared_part_ends_with_the_last_picture() -> None:
    prompts = prepare_prompts(PROCESSOR, [([picture(), picture()], TWO)], PROCESSOR.placeholder)
    assert prompts.shared == 2 + 2 * PROCESSOR.tokens
    assert set(prompts.pixels) == {"pixel_values"}


@pytest.mark.parametrize("other", ["SYSTEM: <image> where ?", "now USER: <image> where ?"])
def test_prompts_that_differ_before_the_picture_are_refused(other: str) -> None:
    texts = ["USER: <image> where ?", other]
    with pytest.raises(UnsupportedModelError, match="the same up to the end of its pictures"):
        prepare_prompts(PROCESSOR, [([picture()], texts)], PROCESSOR.placeholder)


def test_the_pictures_are_prefilled_once_for_all_questions() -> None:
    prompts = prepare_prompts(PROCESSOR, [([picture()], TEXTS)], PROCESSOR.placeholder)
    chunks: list[tuple[int, ...]] = []
    handle = MODEL.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: chunks.append(tuple(kwargs["inputs_embeds"].shape[:2])), with_kwargs=True
    )
    decode_shared(MODEL, prompts, encode_pictures(MODEL, prompts.pixels), NEW)
    handle.remove()
    longest = max(len(i) for i in prompts.ids) - prompts.shared
    assert chunks[:3] == [(1, prompts.shared), (len(TEXTS), longest), (len(TEXTS), 1)]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_blinded_model_does_not_see_the_picture(attention: str) -> None:
    """Blinded from layer 0 on, the answer is the same for any picture; blinded from the last layer on, it is not."""
    model = tiny_model(seed=8)
    model.set_attn_implementation(attention)

    def answers(seed: int, layer: int | None) -> list[list[int]]:
        prompts = prepare_prompts(PROCESSOR, [([picture(seed)], TEXTS)], PROCESSOR.placeholder)
        encoded = encode_pictures(model, prompts.pixels)
        if layer is None:
            return decode_shared(model, prompts, encoded, NEW)
        visual = prompts.ids[0][: prompts.shared] == PROCESSOR.placeholder
        return decode_shared(model, prompts, encoded, NEW, during_questions=blinded(model, layer, visual))

    assert answers(1, None) != answers(2, None)
    assert answers(1, 0) == answers(2, 0)
    assert answers(1, 3) != answers(2, 3)
    assert answers(1, None) == answers(1, None), "no hook is left behind"


def test_blinding_needs_a_mask_for_several_queries() -> None:
    model, ids = tiny_model(), torch.tensor([[1, 5, 6]])
    with blinded(model, 1, torch.tensor([False, True])), pytest.raises(PlanError, match="blind 3 queries"):
        model(input_ids=ids, use_cache=True)
