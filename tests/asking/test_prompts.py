"""What becomes of a question: a prompt in the words of the family, or one line that says why not."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image
from tests.support.checkpoints import CHECKPOINTS, checkpoint
from tests.support.real_pictures import QUESTIONS
from tests.support.vision import needs_torchvision

from vlm_pruner.asking import Loaded, open_model, prompt_inputs
from vlm_pruner.asking.prompts import conversation_text
from vlm_pruner.errors import InputError

PICTURE = Image.radial_gradient("L").resize((200, 160)).convert("RGB")
TORCHVISION = {"qwen2_5_vl", "llava_onevision", "mistral3"}


@cache
def loaded(name: str) -> Loaded:
    return open_model(str(checkpoint(name)))


def families(*names: str) -> list[Any]:
    return [pytest.param(name, marks=needs_torchvision if name in TORCHVISION else ()) for name in names]


@pytest.mark.parametrize("name", families("llava", "paligemma", "qwen2_5_vl"))
@pytest.mark.parametrize("question", QUESTIONS, ids=lambda text: ascii(text)[:36])
def test_a_question_is_read_or_refused_in_one_line(name: str, question: str) -> None:
    model = loaded(name)
    refused = ""
    try:
        inputs = model.inputs(question, PICTURE)
    except InputError as error:
        refused = str(error)
    if refused:
        assert "\n" not in refused
        assert any(word in refused for word in ("placeholder", "control token", "tokens; this model", "UTF-8"))
        return
    special = set(model.processor.tokenizer.all_special_ids) - {model.model.config.image_token_id}
    words = model.processor.tokenizer(question, add_special_tokens=False)["input_ids"]
    assert not set(words) & special, "what is read as words holds no control token"
    assert inputs["input_ids"].shape[1] > len(words)


@pytest.mark.parametrize(
    ("name", "question", "said"),
    [
        ("llava", "Is <image> here?", "the image placeholder '<image>'"),
        ("llava", "What is </s> this?", "the control token '</s>'"),
        ("llava", "What is <video> this?", "the control token '<video>'"),
        ("llava", "a" * 3000, "the prompt has 3034 tokens; this model reads at most 2048"),
        ("llava", "What \udcff is this?", "not valid UTF-8: '\\udcff' at character 6"),
        pytest.param("qwen2_5_vl", "<|video_pad|>?", "the video placeholder '<|video_pad|>'", marks=needs_torchvision),
        pytest.param("qwen2_5_vl", "<|vision_end|>", "the control token '<|vision_end|>'", marks=needs_torchvision),
    ],
)
def test_the_refusal_says_which(name: str, question: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        loaded(name).inputs(question, PICTURE)
    assert said in str(caught.value)


def test_an_answer_needs_room_behind_the_prompt() -> None:
    model = loaded("llava")
    length = model.inputs("a" * 2000, PICTURE)["input_ids"].shape[1]
    assert length <= 2048
    model.inputs("a" * 2000, PICTURE, 2048 - length)
    with pytest.raises(InputError, match=f"the answer of up to {2049 - length} included"):
        model.inputs("a" * 2000, PICTURE, 2049 - length)


def test_a_question_without_a_picture_is_answered_or_refused() -> None:
    assert "pixel_values" not in loaded("llava").inputs("What?", None)
    with pytest.raises(InputError, match="refuses a question without a picture"):
        loaded("paligemma").inputs("What?", None)


def test_paligemma_has_a_prompt_form_of_its_own() -> None:
    """Pictures, the start of a text, the question, a line end: no word of LLaVA's form."""
    model = loaded("paligemma")
    inputs = model.inputs("What is this?", PICTURE)
    text = model.processor.tokenizer.decode(inputs["input_ids"][0])
    assert text == "<image>" * 16 + "<s>What is this?\n"
    assert "labels" not in inputs


@needs_torchvision[0]
@needs_torchvision[1]
def test_fuyu_takes_a_question_alone() -> None:
    """Its processor writes the picture and the start of a text in front, and the start of an answer behind."""
    model = loaded("fuyu")
    ids = model.inputs("What is this?", PICTURE)["input_ids"][0].tolist()
    assert ids[: ids.index(2)] == model.inputs("x", PICTURE)["input_ids"][0].tolist()[: ids.index(2)]
    assert model.processor.tokenizer.decode(ids[ids.index(2) + 2 :]).startswith("What is this?\n")


def test_llava_without_a_template_has_the_form_it_was_trained_with() -> None:
    model = loaded("llava")
    text = model.processor.tokenizer.decode(model.inputs("What?", PICTURE)["input_ids"][0])
    assert text == "USER: " + "<image>" * 16 + "\nWhat? ASSISTANT:"


def test_a_family_without_a_known_form_is_refused() -> None:
    processor = CHECKPOINTS["gemma3"]()
    processor.chat_template = None
    with pytest.raises(InputError, match=r"no chat template.*chat_template\.jinja"):
        prompt_inputs(processor, "What?", PICTURE)


def test_a_template_that_begins_with_the_start_of_a_text_gives_one_start() -> None:
    processor = CHECKPOINTS["gemma3"]()
    processor.chat_template = "<s>" + processor.chat_template
    tokenizer = processor.tokenizer
    tokenizer.backend_tokenizer.post_processor = _starting(tokenizer)
    ids = prompt_inputs(processor, "What?", PICTURE)["input_ids"][0]
    assert int((ids == tokenizer.bos_token_id).sum()) == 1


def _starting(tokenizer: Any) -> Any:
    from tokenizers.processors import TemplateProcessing

    return TemplateProcessing("<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)])


def test_a_template_that_cannot_be_filled_in_is_one_line() -> None:
    processor = CHECKPOINTS["gemma3"]()
    processor.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(InputError, match="chat template of this model cannot be filled in: roles must alternate"):
        prompt_inputs(processor, "What?", PICTURE)


@pytest.mark.parametrize("owner", ["processor", "tokenizer"])
def test_a_template_is_filled_in_by_whoever_has_it(owner: str) -> None:
    """A processor's own template is the default; one that the tokenizer alone has is handed over."""
    given: list[dict[str, Any]] = []

    def fill(messages: Any, **options: Any) -> str:
        given.append(options)
        return "prompt"

    tokenizer = SimpleNamespace(chat_template="of the tokenizer")
    processor = SimpleNamespace(
        tokenizer=tokenizer, chat_template="own" if owner == "processor" else None, apply_chat_template=fill
    )
    assert conversation_text(processor, [{"role": "user", "content": []}], None) == "prompt"
    assert given[0].get("chat_template") == (None if owner == "processor" else "of the tokenizer")
