"""The shipped model: a plain checkpoint that answers, batches, and reads the image from PRUNE_LAYER on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from vlm_pruner import scenes
from vlm_pruner.errors import InputError
from vlm_pruner.models import load_embedded
from vlm_pruner.models.embedded import WEIGHTS, loading
from vlm_pruner.models.embedded.config import PRUNE_LAYER
from vlm_pruner.models.embedded.export import build_processor, disagreements, plain_answers
from vlm_pruner.models.embedded.probe import answers_right

Loaded = tuple[LlavaForConditionalGeneration, LlavaProcessor]


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return load_embedded()


@pytest.fixture(scope="module")
def probes(loaded: Loaded) -> tuple[list[scenes.Question], np.ndarray]:
    """Questions, and [questions, 3] whether they are answered with all layers seeing, none, and those below 2."""
    questions = scenes.load_split("test", limit=4)
    return questions, np.array([answers_right(loaded[0], q, [8, 0, PRUNE_LAYER]) for q in questions])


def test_architecture(loaded: Loaded) -> None:
    config = loaded[0].config
    assert type(loaded[0]) is LlavaForConditionalGeneration
    assert config.image_seq_length == 24 * 24
    assert config.text_config.num_hidden_layers >= 8
    assert config.text_config.hidden_size >= 256  # VLM-Pruner screens 256 channels
    assert {p.dtype for p in loaded[0].parameters()} == {torch.float32}
    assert not loaded[0].training


def test_size_on_disk() -> None:
    assert 5e6 < sum(path.stat().st_size for path in WEIGHTS.iterdir()) < 40e6


def test_dtype_is_free() -> None:
    assert {p.dtype for p in load_embedded(dtype=torch.bfloat16)[0].parameters()} == {torch.bfloat16}


def test_missing_weights_say_how_to_make_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(loading, "WEIGHTS", tmp_path)
    with pytest.raises(InputError, match=r"no weights at .*: train them with"):
        load_embedded()


def test_prompt_is_llavas(loaded: Loaded) -> None:
    content = [{"type": "image"}, {"type": "text", "text": "What is the code?"}]
    messages = [{"role": "user", "content": content}]
    prompt = loaded[1].apply_chat_template(messages, add_generation_prompt=True)
    assert prompt == "USER: <image>\nWhat is the code? ASSISTANT:"
    messages.append({"role": "assistant", "content": [{"type": "text", "text": "A1"}]})
    assert loaded[1].apply_chat_template(messages).strip() == "USER: <image>\nWhat is the code? ASSISTANT: A1"


def test_shipped_processor_is_what_the_recipe_builds(loaded: Loaded) -> None:
    (question,) = scenes.load_split("test", limit=1, types=["relation"])
    arguments = {"text": f"USER: <image>\n{question.text} ASSISTANT:", "images": question.images[0]}
    shipped, built = (p(**arguments, return_tensors="pt") for p in (loaded[1], build_processor()))
    assert torch.equal(shipped["input_ids"], built["input_ids"])
    assert torch.equal(shipped["pixel_values"], built["pixel_values"])
    assert int((shipped["input_ids"] == loaded[0].config.image_token_id).sum()) == 576


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Where is the cup?", ["▁where", "▁is", "▁the", "▁cup", "?"]),
        ("top-left", ["▁top-left"]),
        ("MARCH", ["▁", *"MARCH"]),
        ("A1C2", ["▁", *"A1C2"]),
    ],
)
def test_known_words_are_one_token_and_codes_one_a_character(loaded: Loaded, text: str, tokens: list[str]) -> None:
    assert loaded[1].tokenizer.tokenize(text, add_special_tokens=False) == tokens


def test_every_question_and_answer_survives_the_tokenizer(loaded: Loaded) -> None:
    tokenizer = loaded[1].tokenizer
    for q in scenes.load_split("test"):
        for text in (q.text, q.answer):
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            assert tokenizer.unk_token_id not in ids
            assert tokenizer.decode(ids).lower() == text.lower()


def test_left_padded_batch_answers_as_one_by_one(loaded: Loaded) -> None:
    model, processor = loaded
    questions = scenes.load_split("test", limit=1, types=["word", "two_images", "relation"])
    prompts = [f"USER: {'<image>' * len(q.images)}{q.text} ASSISTANT:" for q in questions]
    images = [list(q.images) for q in questions]
    together = processor(text=prompts, images=images, padding=True, return_tensors="pt")
    assert together["attention_mask"][:, 0].tolist() == [0, 1, 0]
    with torch.no_grad():
        said = processor.batch_decode(model.generate(**together)[:, together["input_ids"].shape[1] :], True)
    assert [text.strip() for text in said] == [
        plain_answers(model, processor, pictures, [q.text])[0] for q, pictures in zip(questions, images, strict=True)
    ]


def test_generate_agrees_with_the_training_code(loaded: Loaded) -> None:
    assert disagreements(*loaded, scenes=1) == []


@pytest.mark.slow
def test_generate_agrees_with_the_probe(loaded: Loaded, probes: tuple[list[scenes.Question], np.ndarray]) -> None:
    questions, right = probes
    for q, expected in list(zip(questions, right[:, 0], strict=True))[:14]:
        assert scenes.score(q, plain_answers(*loaded, list(q.images), [q.text])[0]) == expected, q.id


def test_demo_questions_are_answered(loaded: Loaded) -> None:
    from PIL import Image

    with Image.open(scenes.DEMO) as picture:
        said = plain_answers(*loaded, [picture.convert("RGB")], [text for text, _ in scenes.DEMO_QUESTIONS[:3]])
    assert said == [answer for _, answer in scenes.DEMO_QUESTIONS[:3]]


def test_accuracy_on_a_sample(probes: tuple[list[scenes.Question], np.ndarray]) -> None:
    assert probes[1][:, 0].mean() > 0.85


def test_image_is_unread_before_the_pruning_layer(probes: tuple[list[scenes.Question], np.ndarray]) -> None:
    """The engineered property without which pruning at layer 2 would cost nothing (docs/embedded_model.md)."""
    questions, right = probes
    chance = np.mean([q.chance for q in questions])
    unseen, below = right[:, 1].mean(), right[:, 2].mean()
    assert unseen < chance + 0.1
    assert below < chance + 0.1
