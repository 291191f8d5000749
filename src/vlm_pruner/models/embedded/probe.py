"""Where the model reads the image: answers when image tokens are out of the text's sight from some layer on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import LlavaForConditionalGeneration

from vlm_pruner.scenes import Question

from .tokenizer import ASSISTANT, EOS, build_tokenizer, pieces
from .train.dense import patch_rows, tower_states
from .train.packed import run_packed

__all__ = ["answers_right"]


def _visual_tokens(model: LlavaForConditionalGeneration, question: Question) -> Tensor:
    """[1, images * 576, width] projected tokens of the question's images, which must be of the model's size."""
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in question.images])).to(model.device)
    features = tower_states(model, patch_rows(pixels))[:, 1:]
    tokens: Tensor = model.model.multi_modal_projector(features)
    return tokens.flatten(0, 1)[None]


@torch.no_grad()
def answers_right(model: LlavaForConditionalGeneration, question: Question, layers: Sequence[int]) -> list[bool]:
    """Whether greedy decoding gives exactly the right answer, if image tokens are masked from a layer on.

    One pass for all `layers`: the image tokens never look at the text, and the answer's tokens are predicted behind
    the right ones, which greedy decoding reaches if and only if all of them are predicted.

    Args:
        layers: first layers in which the text does not see image tokens; the number of layers means that it always
            does, 0 that it never does.
    """
    tokenizer, index = build_tokenizer(), pieces().index
    asked = [*tokenizer(question.text, add_special_tokens=False)["input_ids"], index(ASSISTANT)]
    target = [*tokenizer(question.answer, add_special_tokens=False)["input_ids"], index(EOS)]
    block = torch.tensor(asked + target[:-1], device=model.device)
    until = torch.tensor(layers, device=model.device)
    packed = run_packed(
        model,
        _visual_tokens(model, question),
        block.expand(1, len(layers), -1),
        images=len(question.images),
        until=until,
    )
    said = model.lm_head(packed.states[0, :, len(asked) - 1 :]).argmax(-1)  # [layers, answer tokens]
    right: list[bool] = (said == torch.tensor(target, device=model.device)).all(1).tolist()
    return right
