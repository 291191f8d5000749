"""The training code's packed pass against the plain forward pass of transformers, on the shipped weights."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import LlavaForConditionalGeneration

from vlm_pruner.models import load_embedded
from vlm_pruner.models.embedded.config import PRUNE_LAYER
from vlm_pruner.models.embedded.tokenizer import ASSISTANT, BOS, IMAGE, USER, build_tokenizer, pieces
from vlm_pruner.models.embedded.train.dense import patch_rows, tower_states
from vlm_pruner.models.embedded.train.packed import HEAD, TOKENS, run_packed

QUESTIONS = ("What is the code?", "Where is the cup?")


@pytest.fixture(scope="module")
def model() -> LlavaForConditionalGeneration:
    return load_embedded()[0]


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    """uint8 [2, 336, 336, 3]"""
    return torch.randint(0, 256, (2, 336, 336, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.fixture(scope="module")
def image(model: LlavaForConditionalGeneration, pictures: Tensor) -> Tensor:
    """[2, 576, width] visual tokens as training computes them."""
    with torch.no_grad():
        tokens: Tensor = model.model.multi_modal_projector(tower_states(model, patch_rows(pictures))[:, 1:])
    return tokens


@pytest.fixture(scope="module")
def blocks() -> Tensor:
    """[questions, length], of one length"""
    encode, index = build_tokenizer(), pieces().index
    rows = [[*encode(q, add_special_tokens=False)["input_ids"], index(ASSISTANT)] for q in QUESTIONS]
    assert len({len(row) for row in rows}) == 1
    return torch.tensor(rows)


def plain(model: LlavaForConditionalGeneration, pictures: Tensor, block: Tensor, **options: Tensor) -> Tensor:
    """[length, vocabulary] logits of the stock forward pass over the whole prompt."""
    index = pieces().index
    head = [index(BOS), index(USER), *[index(IMAGE)] * (TOKENS * len(pictures))]
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
    pixels = (pictures.permute(0, 3, 1, 2) / 255 - mean) / std
    ids = torch.cat([torch.tensor(head), block])[None]
    with torch.no_grad():
        logits: Tensor = model(input_ids=ids, pixel_values=pixels, **options).logits[0, len(head) :]
    return logits


def packed(model: LlavaForConditionalGeneration, image: Tensor, blocks: Tensor, **options: object) -> Tensor:
    """[b, q, l, vocabulary]"""
    with torch.no_grad():
        logits: Tensor = model.lm_head(run_packed(model, image, blocks, **options).states)  # type: ignore[arg-type]
    return logits


def test_questions_behind_one_image_are_answered_as_alone(
    model: LlavaForConditionalGeneration, pictures: Tensor, image: Tensor, blocks: Tensor
) -> None:
    found = packed(model, image[:1], blocks[None])[0]
    for row, block in zip(found, blocks, strict=True):
        torch.testing.assert_close(row, plain(model, pictures[:1], block), atol=2e-4, rtol=0)


def test_two_images(model: LlavaForConditionalGeneration, pictures: Tensor, image: Tensor, blocks: Tensor) -> None:
    found = packed(model, image.flatten(0, 1)[None], blocks[None, :1], images=2)[0, 0]
    torch.testing.assert_close(found, plain(model, pictures, blocks[0]), atol=2e-4, rtol=0)


def _masks_from(model: LlavaForConditionalGeneration, first: int, length: int) -> list[Callable[[], None]]:
    """Hooks that hide image tokens from the text in the layers from `first` on."""
    total = HEAD + TOKENS + length
    allowed = torch.ones(total, total, dtype=torch.bool).tril()
    hidden = allowed.clone()
    hidden[HEAD + TOKENS :, HEAD : HEAD + TOKENS] = False

    def hook(mask: Tensor) -> Callable[..., object]:
        return lambda module, args, kwargs: (args, kwargs | {"attention_mask": mask[None, None]})

    return [
        layer.register_forward_pre_hook(hook(hidden if number >= first else allowed), with_kwargs=True).remove
        for number, layer in enumerate(model.model.language_model.layers)
    ]


@pytest.mark.parametrize("first", [0, PRUNE_LAYER, 5])
def test_masking_from_a_layer_on(
    model: LlavaForConditionalGeneration, pictures: Tensor, image: Tensor, blocks: Tensor, first: int
) -> None:
    removers = _masks_from(model, first, blocks.shape[1])
    try:
        expected = plain(model, pictures[:1], blocks[0])
    finally:
        for remove in removers:
            remove()
    both = packed(model, image[:1], blocks[:1].expand(1, 2, -1), until=torch.tensor([first, 8]))[0]
    torch.testing.assert_close(both[0], expected, atol=2e-4, rtol=0)
    assert (both[0] - both[1]).abs().max() > 0.1


def test_blocks_of_blind_layers_see_no_image(
    model: LlavaForConditionalGeneration, image: Tensor, blocks: Tensor
) -> None:
    blind = packed(model, image[:1], blocks[None], blind=3)
    late = packed(model, image[1:], blocks[None], blind=8)
    never = packed(model, image[:1], blocks[None], until=torch.tensor([0, 0]))
    torch.testing.assert_close(late, never, atol=1e-4, rtol=0)
    assert (blind - never).abs().max() > 0.1


def test_foreign_layers_show_the_other_sample(
    model: LlavaForConditionalGeneration, image: Tensor, blocks: Tensor
) -> None:
    swapped = packed(model, image.flip(0), blocks[:, None])
    foreign = packed(model, image, blocks[:, None], foreign=8)
    torch.testing.assert_close(foreign, swapped, atol=1e-4, rtol=0)


def test_few_tokens_keep_their_positions(model: LlavaForConditionalGeneration, image: Tensor, blocks: Tensor) -> None:
    """All tokens in the order they have are the same as no choice; the same tokens elsewhere are not."""
    everything = packed(model, image[:1], blocks[None])
    listed = packed(model, image[:1], blocks[None], keep=torch.arange(TOKENS)[None])
    torch.testing.assert_close(listed, everything, atol=1e-4, rtol=0)
    keep = torch.arange(0, TOKENS, 4)[None]
    some = packed(model, image[:1, keep[0]], blocks[None], keep=keep)
    close = packed(model, image[:1, keep[0]], blocks[None], keep=torch.arange(len(keep[0]))[None])
    assert (some - close).abs().max() > 0.1


def test_attention_is_returned_for_watched_layers(
    model: LlavaForConditionalGeneration, image: Tensor, blocks: Tensor
) -> None:
    seen = run_packed(model, image[:1], blocks[None], watch=(2, 3)).attention
    assert list(seen) == [2, 3]
    assert seen[2].shape == (1, 4, blocks.numel(), HEAD + TOKENS)
    assert (seen[2].sum(-1) <= 1 + 1e-5).all()
