"""Greedy answers to a batch of questions about a few pictures.

The pictures stand before the question in the prompt, so everything up to their last token is the same for all
questions about them: it is encoded, pruned and prefilled once, and the cache is repeated for the questions. That is
exact for methods that do not look at the question (causal attention: no earlier row can depend on a later one). For
the others every question gets its own prefill, and the pictures are still encoded once.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vlm_pruner.asking.models import moved
from vlm_pruner.asking.prompts import Kind, read_prompt
from vlm_pruner.engine.release import cache_in, cache_name
from vlm_pruner.errors import UnsupportedModelError

__all__ = ["Prompts", "decode_each", "decode_shared", "encode_pictures", "prepare_prompts"]


@dataclass(frozen=True)
class Prompts:
    """s scenes with q questions each, tokenised; all scenes have equally many pictures."""

    ids: tuple[Tensor, ...]  # s * q of [length], scene by scene, each with the placeholders of its pictures
    shared: int  # ids up to the last placeholder: within a scene the same in all its questions
    scenes: int
    pixels: Mapping[str, Any]  # what else the processor made of the pictures, scene by scene
    kind: Kind = "image"

    @property
    def per_scene(self) -> int:
        return len(self.ids) // self.scenes


def prepare_prompts(
    processor: Any,
    scenes: Sequence[tuple[Sequence[Any], Sequence[str]]],
    placeholder: int,
    device: torch.device | str = "cpu",
    kind: Kind = "image",
) -> Prompts:
    """Tokenise the texts of every scene with its images, or with its videos.

    Args:
        scenes: (images, texts); a text is a whole prompt, image placeholders included.
        placeholder: id of the token that stands for a visual token.
        device: where everything goes.

    Raises:
        UnsupportedModelError: the prompts of a scene differ before the end of its pictures, or the pictures of two
            scenes do not end at the same place, so that nothing could be shared.
    """
    rows = [[_read(processor, text, i, kind) for text in texts] for i, texts in scenes]
    ids = [[row["input_ids"][0] for row in group] for group in rows]
    ends = {int((i == placeholder).nonzero()[-1]) + 1 for group in ids for i in group}
    end = min(ends)
    if len(ends) != 1 or any(not torch.equal(i[:end], group[0][:end]) for group in ids for i in group):
        raise UnsupportedModelError("the prompts of one scene must be the same up to the end of its pictures")
    names = [k for k in rows[0][0] if k not in ("input_ids", "attention_mask")]
    pixels = {k: torch.cat([group[0][k] for group in rows]).to(device) for k in names}
    return Prompts(tuple(i.to(device) for group in ids for i in group), end, len(scenes), pixels, kind)


def _read(processor: Any, text: str, shown: Sequence[Any], kind: Kind) -> Mapping[str, Any]:
    if kind == "video":
        return read_prompt(processor, text, shown)
    made: Mapping[str, Any] = processor(images=list(shown), text=text, return_tensors="pt")
    return made


@torch.inference_mode()
def encode_pictures(model: Any, pixels: Mapping[str, Any], kind: Kind = "image") -> Any:
    """Vision tower and projector: what the model accepts as `mm_encoder_outputs[kind]`."""
    encode = model.base_model.get_video_features if kind == "video" else model.base_model.get_image_features
    known = inspect.signature(encode).parameters
    return encode(**{k: v for k, v in moved(model, pixels).items() if k in known}, return_dict=True)


def _for_each_question(encoded: Any, prompts: Prompts) -> Any:
    """The pictures of every scene, once for each of its questions. What the engine noted on the object stays."""
    if prompts.per_scene == 1:
        return encoded
    features = list(encoded.pooler_output)
    width = len(features) // prompts.scenes
    groups = [features[i : i + width] * prompts.per_scene for i in range(0, len(features), width)]
    many = copy.copy(encoded)
    repeated = [f for group in groups for f in group]
    many.pooler_output = torch.stack(repeated) if isinstance(encoded.pooler_output, Tensor) else repeated
    return many


def decode_shared(
    model: Any,
    prompts: Prompts,
    encoded: Any,
    max_new_tokens: int,
    during_questions: AbstractContextManager[None] | None = None,
) -> list[list[int]]:
    """Answer tokens of each question; pictures are prefilled once a scene, the questions inside `during_questions`."""
    first = torch.stack([i[: prompts.shared] for i in prompts.ids[:: prompts.per_scene]])  # [scenes, shared]
    with torch.inference_mode():
        out = model(
            input_ids=first, attention_mask=torch.ones_like(first), mm_encoder_outputs={prompts.kind: encoded},
            use_cache=True, logits_to_keep=1,
        )  # fmt: skip
        cache = cache_in(out)
        if prompts.per_scene > 1:
            cache.batch_repeat_interleave(prompts.per_scene)
        rest, real = _left_pad([i[prompts.shared :] for i in prompts.ids])
        mask = torch.cat([real.new_ones(len(real), prompts.shared), real], 1)
        place = (mask.cumsum(1) - 1)[:, prompts.shared :]
        with during_questions or nullcontext():
            out = model(
                input_ids=rest, attention_mask=mask, position_ids=place, **{cache_name(model): cache},
                use_cache=True, logits_to_keep=1,
            )  # fmt: skip
            return _greedy(model, out, mask, max_new_tokens)


def decode_each(model: Any, prompts: Prompts, encoded: Any, max_new_tokens: int) -> list[list[int]]:
    """Answer tokens of each question; every question is prefilled with its own copy of the pictures."""
    with torch.inference_mode():
        ids, mask = _left_pad(prompts.ids)
        out = model(
            input_ids=ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            mm_encoder_outputs={prompts.kind: _for_each_question(encoded, prompts)}, use_cache=True, logits_to_keep=1,
        )  # fmt: skip
        return _greedy(model, out, mask, max_new_tokens)


def _left_pad(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """[q, longest] ids, and the mask of those that are real. The padding id 0 is never looked at."""
    width = max(len(r) for r in rows)
    ids = torch.stack([torch.cat([r.new_zeros(width - len(r)), r]) for r in rows])
    mask = torch.stack([torch.cat([r.new_zeros(width - len(r)), torch.ones_like(r)]) for r in rows])
    return ids, mask


def _greedy(model: Any, out: Any, mask: Tensor, max_new_tokens: int) -> list[list[int]]:
    """Go on from a prefill until every row has ended; the end token is not part of an answer."""
    stop = model.generation_config.eos_token_id
    stops = set(stop if isinstance(stop, list) else [stop])
    answers: list[list[int]] = [[] for _ in range(mask.shape[0])]
    running = set(range(mask.shape[0]))
    place = mask.sum(1, keepdim=True)  # [q, 1] the place of the next token
    for step in range(max_new_tokens):
        token = out.logits[:, -1].argmax(-1)
        for row, choice in enumerate(token.tolist()):
            if row in running:
                running.discard(row) if choice in stops else answers[row].append(choice)
        if not running or step == max_new_tokens - 1:
            break
        mask = torch.cat([mask, mask.new_ones(mask.shape[0], 1)], 1)
        out = model(
            input_ids=token[:, None], attention_mask=mask, position_ids=place, **{cache_name(model): cache_in(out)},
            use_cache=True,
        )  # fmt: skip
        place = place + 1
    return answers
