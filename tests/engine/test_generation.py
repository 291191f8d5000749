"""Every way of generating gives what the full-length model with the dropped tokens hidden gives."""

from __future__ import annotations

import copy
import threading
from typing import Any

import pytest
import torch
import transformers
from tests.support import tiny as embedded
from tests.support.families import FAMILIES, FOUNDATION, LAYERS, Prompt, of_each_kind, tiny
from tests.support.pruning import close, dropped, forward, generate, plan
from tests.support.versions import OLD, RELEASE
from transformers import StaticCache

from vlm_pruner import PrunedCacheError, attach, prune
from vlm_pruner.flops import DecoderShape, kv_bytes
from vlm_pruner.verify.reference import masked

each_family = pytest.mark.parametrize("name", of_each_kind(FAMILIES))
few_families = pytest.mark.parametrize("name", [*FOUNDATION, "qwen3_vl", "internvl", "gemma3"])

WAYS: dict[str, dict[str, Any]] = {
    "beams": {"num_beams": 3, "num_return_sequences": 2, "output_scores": True},
    "several": {"do_sample": True, "num_return_sequences": 3, "top_k": 20},
    "no cache": {"use_cache": False},
}


def both(name: str, layer: int, **changes: Any) -> tuple[Any, Any, Any]:
    """Answers of the pruned model and of the reference for two padded rows, and the model."""
    family, model = tiny(name)
    mixed = name.startswith(
        ("glm", "nemotron", "granite4")
    )  # copies of rows mix up several pictures of a row, pruned or not
    pictures = 1 if mixed else 2
    prompts = family.together(family.prompt(3, pictures), family.prompt(4, 1, tail=9))
    inputs = family.inputs(prompts, model.dtype)
    torch.manual_seed(5)
    with prune(model, plan((0.4, layer))) as session:
        answer = generate(model, inputs, **changes)
    torch.manual_seed(5)
    with masked(model, dropped(session, prompts)):  # beams and samples repeat its rows
        reference = generate(model, inputs, **changes)
    return answer, reference, model


NO_COPIES = {  # families whose rows transformers before 5.23 cannot repeat
    "glm5_next": "it repeats pictures before they are encoded, so that every copy is a picture of its own",
    "inkling_mm_model": "it repeats patches one by one and answers otherwise itself; the pruner refuses",
    "llava_next_video": "it fails on repeated rows without a pruner, too",
    "exaone4_5": "it repeats rows in a way that the pruner cannot follow, and refuses",
    "qwen3_5": "it repeats rows in a way that the pruner cannot follow, and refuses",
    "qwen3_5_moe": "it repeats rows in a way that the pruner cannot follow, and refuses",
    "paddleocr_vl": "it repeats rows in a way that the pruner cannot follow, and refuses",
    "muse_glimmer": "it repeats rows in a way that the pruner cannot follow, and refuses",
    "step3p7": "it repeats rows in a way that the pruner cannot follow, and refuses",
    "hunyuan_vl": "it numbers the pictures of repeated rows on, so that copies of a row are not alike",
}


@pytest.mark.parametrize("way", WAYS)
@each_family
def test_beams_samples_and_no_cache(name: str, way: str) -> None:
    if OLD and way in ("beams", "several") and name in NO_COPIES:
        pytest.skip(f"transformers before 5.23: {NO_COPIES[name]}")
    if name in ("fuyu", "llama4") and way in ("beams", "several"):
        pytest.skip("transformers does not repeat its pictures with the rows, pruned or not")
    if (name, way) == ("ernie4_5_vl_moe", "no cache"):
        pytest.skip("transformers forgets the kinds of new tokens there, pruned or not")
    answer, reference, model = both(name, 2, **WAYS[way])
    assert torch.equal(answer.sequences, reference.sequences)
    close(answer.logits, reference.logits, model)
    if way == "beams":
        close([answer.sequences_scores], [reference.sequences_scores], model)


@pytest.mark.parametrize("way", ["beams", "several"])
@pytest.mark.parametrize("name", ["llava", "qwen2_vl"])
def test_the_report_names_every_image_of_the_prompt_once(name: str, way: str) -> None:
    """The third row has no picture; every row is run three times."""
    family, model = tiny(name)
    prompts = [family.prompt(3, 2), family.prompt(4, 1, tail=9), family.prompt(5, 0)]
    with prune(model, plan((0.4, 2))) as session:
        generate(model, family.inputs(prompts, model.dtype), **WAYS[way])
    assert [(i.row, i.index) for i in session.images] == [(0, 0), (0, 1), (1, 0)]
    assert [i.total for i in session.images] == [n for prompt in prompts for n in prompt.tokens]
    report = session.report
    assert report.total == sum(n for prompt in prompts for n in prompt.tokens)
    assert report.notes == ("rows without an image, left alone: 2",)
    shape = DecoderShape.from_config(model.config.text_config)
    once = sum(kv_bytes(shape, [len(p.ids)] * LAYERS, model.dtype.itemsize) for p in prompts)
    assert report.kv_bytes_full == 3 * once  # what runs is every row


def test_two_questions_about_what_was_encoded_once_are_two_rows_of_the_report() -> None:
    family, model = tiny("llava")
    first = family.prompt(3, 1)
    other = Prompt(torch.cat([first.ids[:-6], torch.arange(40, 46)]), first.tokens, first.payload)
    inputs = family.inputs([first, other])
    with prune(model, plan((0.4, 2))) as session:
        encoded = model.base_model.get_image_features(inputs.pop("pixel_values")[:1], return_dict=True)
        encoded.pooler_output = list(encoded.pooler_output) * 2
        forward(model, inputs, mm_encoder_outputs={"image": encoded})
    assert [(i.row, i.index) for i in session.images] == [(0, 0), (1, 0)]


@pytest.mark.parametrize("way", WAYS)
@few_families
def test_the_same_before_the_language_model(name: str, way: str) -> None:
    answer, reference, model = both(name, 0, **WAYS[way])
    assert torch.equal(answer.sequences, reference.sequences)
    close(answer.logits, reference.logits, model)


@few_families
def test_text_alone_is_left_alone_and_said_so(name: str) -> None:
    family, model = tiny(name)
    prompts = [family.prompt(1, 0), family.prompt(2, 0, tail=9)]
    inputs = family.inputs(prompts, model.dtype)
    want = generate(model, inputs)
    with prune(model, plan((0.4, 2))) as session:
        got = generate(model, inputs)
    assert torch.equal(got.sequences, want.sequences)
    assert all(torch.equal(a, b) for a, b in zip(got.logits, want.logits, strict=True))
    assert session.images == []
    assert str(session.report) == "no image in the prompt: nothing to prune"


@few_families
def test_prompt_lookup_crops_and_goes_on(name: str) -> None:
    """The first forward already carries guesses behind the prompt, later ones several tokens; wrong ones go again."""
    family, model = tiny(name)
    prompt = family.prompt(9, 2)
    prompt.ids[-6:] = prompt.ids[:3].repeat(2)
    inputs = family.inputs([prompt], model.dtype)
    with prune(model, plan((0.4, 2))):
        plain = generate(model, inputs, max_new_tokens=12)
        guessed = generate(model, inputs, max_new_tokens=12, prompt_lookup_num_tokens=3)
    assert torch.equal(plain.sequences, guessed.sequences)


def assistant_of(model: Any) -> Any:
    """One that is often wrong."""
    assistant = copy.deepcopy(model)
    assistant.generation_config.num_assistant_tokens = 3
    with torch.no_grad():
        for weight in assistant.base_model.get_decoder().layers[4].parameters():
            weight.add_(0.05)
    return assistant


@pytest.mark.parametrize("layer", [0, 2])
def test_assisted_decoding(layer: int) -> None:
    family, model = tiny("llava")
    inputs = family.inputs([family.prompt(9, 2)])
    assistant = assistant_of(model)
    with prune(model, plan((0.4, layer))):
        plain = generate(model, inputs, max_new_tokens=12)
        assisted = generate(model, inputs, max_new_tokens=12, assistant_model=assistant)
        with prune(assistant, plan((0.3, 1))):
            both_pruned = generate(model, inputs, max_new_tokens=12, assistant_model=assistant)
    assert torch.equal(plain.sequences, assisted.sequences)
    assert torch.equal(plain.sequences, both_pruned.sequences)


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl"])
def test_assisted_decoding_on_a_static_cache(name: str, layer: int) -> None:
    """Since 5.24, with room for the last guesses; releases before refuse it themselves."""
    family, model = tiny(name)
    inputs = family.inputs([family.prompt(9, 1)])
    ways: list[dict[str, Any]] = [{"prompt_lookup_num_tokens": 3}, {"assistant_model": assistant_of(model)}]
    for way in ways:
        with prune(model, plan((0.4, layer))):
            if RELEASE < (5, 24):
                with pytest.raises(ValueError, match=r"[Ss]tatic|assisted"):
                    generate(model, inputs, cache_implementation="static", **way)
                continue
            plain = generate(model, inputs, max_new_tokens=12)
            room = StaticCache(config=model.config.get_text_config(), max_cache_len=inputs["input_ids"].shape[1] + 16)
            static = generate(model, inputs, max_new_tokens=12, cache=room, **way)
            assert torch.equal(plain.sequences, static.sequences)
            close(static.logits, plain.logits, model)


@pytest.mark.skipif(RELEASE < (5, 24), reason="static layers cannot be cropped before 5.24")
@pytest.mark.parametrize("layer", [0, 2])
def test_cropping_a_static_cache_to_the_text_behind_the_picture_and_no_further(layer: int) -> None:
    family, model = tiny("llava")
    prompt = family.prompt(3, 1, tail=6)
    cache = StaticCache(config=model.config.get_text_config(), max_cache_len=len(prompt.ids) + 4)
    with prune(model, plan((0.4, layer))):
        forward(model, family.inputs([prompt]), cache=cache, use_cache=True)
        cache.crop(-6)
        with pytest.raises(PrunedCacheError, match=r"cannot crop a pruned cache to \d+ tokens: up to token"):
            cache.crop(-6)


@few_families
def test_embeddings_in_place_of_ids(name: str) -> None:
    family, model = tiny(name)
    prompt = family.prompt(3, 2)
    inputs = family.inputs([prompt], model.dtype)
    with prune(model, plan((0.4, 2))):
        want = forward(model, inputs).logits
        ids = inputs.pop("input_ids")
        if name.startswith(("qwen", "gemma3")):
            pytest.skip("this family finds its pictures by ids")
        got = forward(model, {**inputs, "inputs_embeds": model.get_input_embeddings()(ids)}).logits
    close([got], [want], model)


@few_families
def test_without_an_attention_mask(name: str) -> None:
    family, model = tiny(name)
    prompt = family.prompt(3, 2)
    with prune(model, plan((0.4, 2))) as session:
        pruned = forward(model, family.inputs([prompt], model.dtype, mask=False)).logits
    gone = dropped(session, [prompt])
    with masked(model, gone):
        full = forward(model, family.inputs([prompt], model.dtype)).logits
    close([pruned[0]], [full[0, ~gone[4][0]]], model)


def test_the_fast_path_without_a_mask_survives() -> None:
    """sdpa at batch 1 gets no mask at all, at prefill and at every decode step; pruning does not make it one."""
    family, model = tiny("llava")
    seen = []

    def see(module: Any, args: Any, kwargs: Any) -> None:
        seen.append(kwargs["attention_mask"])

    handle = model.base_model.get_decoder().layers[3].register_forward_pre_hook(see, with_kwargs=True)
    try:
        with prune(model, plan((0.4, 0), (0.2, 3))):
            generate(model, family.inputs([family.prompt(3, 2)]))
    finally:
        handle.remove()
    assert seen == [None] * 4


@pytest.mark.parametrize("name", ["llava", "llava_next", "qwen2_vl"])
def test_threads_share_a_pruned_model(name: str) -> None:
    family, model = tiny(name)
    questions = [family.inputs([family.prompt(seed, 1)]) for seed in range(4)]
    with prune(model, plan((0.4, 2))):
        want = [generate(model, q).sequences for q in questions]
        got: list[Any] = [None] * len(questions)

        def work(i: int) -> None:
            with torch.no_grad():
                got[i] = model(**questions[i], use_cache=False).logits[:, -1].argmax(-1)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(len(questions))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for one, other, question in zip(want, got, questions, strict=True):
        first = one[0, question["input_ids"].shape[1]]
        assert int(other) == int(first) or name == "qwen2_vl"  # whose model keeps rope_deltas on itself


# With a processor


@pytest.fixture(scope="module")
def small() -> tuple[Any, Any]:
    folder = embedded.checkpoint()
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder).eval()
    return model, transformers.AutoProcessor.from_pretrained(folder, use_fast=False)


@pytest.fixture(scope="module")
def picture() -> Any:
    from PIL import Image

    return Image.effect_noise((336, 336), 80).convert("RGB")


def test_streaming(small: tuple[Any, Any], picture: Any) -> None:
    model, processor = small
    inputs = processor(images=picture, text="USER : <image> what is this ? ASSISTANT :", return_tensors="pt")
    options = {"max_new_tokens": 6, "do_sample": False, "suppress_tokens": [0, 1, 2, 3, 4]}
    with prune(model, "random", keep=64, layer=2) as session:
        want = processor.batch_decode(model.generate(**inputs, **options)[:, inputs["input_ids"].shape[1] :])[0]
        streamer = transformers.TextIteratorStreamer(processor.tokenizer, skip_prompt=True)
        thread = threading.Thread(target=model.generate, kwargs={**inputs, **options, "streamer": streamer})
        thread.start()
        got = "".join(streamer)
        thread.join()
    assert got.split() == want.split()
    assert session.report.kept == 64
    assert session.report.decoded_tokens == 5


def test_pipeline_with_a_chat_template(small: tuple[Any, Any], picture: Any) -> None:
    model, processor = small
    template = (
        "{% for m in messages %}{{ m['role'] | upper }} : {% for c in m['content'] %}"
        "{% if c['type'] == 'image' %}<image> {% else %}{{ c['text'] }} {% endif %}{% endfor %}{% endfor %}ASSISTANT :"
    )
    pipe = transformers.pipeline("image-text-to-text", model=model, processor=processor)
    talk = [
        {"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": "what is this"}]}
    ]
    options = {"max_new_tokens": 4, "do_sample": False, "suppress_tokens": [0, 1, 2, 3, 4]}
    processor.chat_template = template
    session = attach(model, "random", keep=64, layer=2)
    try:
        answer = pipe(text=talk, generate_kwargs=options)
    finally:
        session.detach()
        processor.chat_template = None
    assert answer[0]["generated_text"][-1]["role"] == "assistant"
    assert session.report.kept == 64
    assert session.report.total == 576
