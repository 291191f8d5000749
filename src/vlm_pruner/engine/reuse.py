"""Once per image: the prompt up to its last picture is run and pruned once, then every question goes on from there.

A causal decoder computes the same for a prefix whatever comes behind it, and a method that does not read the question
chooses the same tokens. So the answers are those of the whole prompt; what is saved is the vision tower, the selection
and the prefill of the prefix.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from vlm_pruner.engine.calls import unwatched
from vlm_pruner.engine.clock import elapsed_ms, mark
from vlm_pruner.engine.forward import Forward
from vlm_pruner.engine.support import Parts
from vlm_pruner.errors import InputError, PlanError, UnsupportedModelError
from vlm_pruner.plan import PrunePlan

__all__ = ["Prefix", "Question", "begin", "check_question", "check_reusable", "run_prefix", "take", "waiting"]


@dataclass(frozen=True)
class Prefix:
    """A prompt up to its last picture, run and pruned. Made by `Session.reuse`."""

    ids: Tensor  # [1, p]
    cache: Any
    milliseconds: float  # what it took, vision tower included
    rope_deltas: Tensor | None  # [1, 1] distance of position and place behind the pictures, of M-RoPE models
    pictures: Mapping[str, Tensor]  # pixels and what else was passed about them
    parts: Parts

    def __len__(self) -> int:
        return self.ids.shape[1]

    def inputs(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, *, copies: int = 1, **others: Any
    ) -> dict[str, Any]:
        """Arguments for `model.generate` that ask another question about the same pictures.

            prefix = session.reuse(**inputs)
            answer = model.generate(**prefix.inputs(**other_inputs))

        Args:
            input_ids: [1, s] the whole prompt, which begins like the one that was run.
            attention_mask: [1, s]; nothing may be padded.
            copies: rows that `generate` makes of the prompt: its `num_beams`, or `num_return_sequences` of samples.
            others: what else the processor gave; tensors about the pictures are compared and left out.

        Raises:
            InputError: the prompt does not begin like this prefix, ends with it, is padded, or shows other pictures.
        """
        ids = input_ids.to(self.ids.device)
        if ids.shape[0] != 1 or ids.shape[1] <= len(self) or not torch.equal(ids[:, : len(self)], self.ids):
            raise InputError(
                f"a prompt of shape {tuple(ids.shape)} does not go on from the {len(self)} tokens that were run: it "
                "must be one row that begins with the same text and the same pictures"
            )
        if attention_mask is not None and not bool(attention_mask.bool().all()):
            raise InputError("a prompt that goes on from a prefix cannot be padded: pass one row without padding")
        for name, given in others.items():
            if isinstance(given, Tensor) and not _is_row(name, given, ids.shape[1]):
                own = self.pictures.get(name)
                if own is None or own.shape != given.shape or not torch.equal(own, given.to(own.device)):
                    raise InputError(
                        f"{name} differs from that of the prompt that was run: this prefix answers about its own "
                        "pictures; run session.reuse for the others"
                    )
        cache = copy.deepcopy(self.cache)
        if copies > 1:
            cache.batch_repeat_interleave(copies)
        question: Question = getattr(self.cache, _QUESTION)
        setattr(cache, _QUESTION, replace(question, rows=copies, whole=ids.shape[1]))
        made = {"input_ids": ids, "attention_mask": torch.ones_like(ids), self.parts.base_cache: cache}
        made |= {k: v for k, v in others.items() if k.endswith("token_type_ids")}
        if self.rope_deltas is not None:
            made["position_ids"] = _positions(self.parts, made, self.rope_deltas)
        return made


@dataclass(frozen=True)
class Question:
    """What a cache that goes on from a prefix waits for: the next forward with it is the prefill of a question."""

    run: Any  # what was noted when the prefix was run
    reused: int  # its tokens
    saved_ms: float
    rows: int = 1
    whole: int = 0  # tokens of the prompt, those of the prefix included; 0 = none was asked yet

    def __deepcopy__(self, memo: dict[int, Any]) -> Question:
        return self

    def __reduce__(self) -> Any:
        # What was measured stays with the session: a cache that is read from a file waits for none.
        return type(None), ()


_QUESTION = "vlm_pruner_question"  # attribute of a cache that waits for one


def begin(prefix: Prefix, run: Any) -> None:
    """`prefix` was run just now, which is noted as `run`."""
    setattr(prefix.cache, _QUESTION, Question(run, len(prefix), prefix.milliseconds))


def waiting(cache: Any) -> Question | None:
    """The question that a cache waits for."""
    return getattr(cache, _QUESTION, None)


def take(cache: Any) -> Question | None:
    """The question that a cache waited for until now."""
    question = waiting(cache)
    if question is not None:
        delattr(cache, _QUESTION)
    return question


def check_question(fwd: Forward) -> None:
    """Raise where the question behind a prefix is sent in another way than it was prepared for.

    Raises:
        UnsupportedModelError: the whole prompt once more, or in another number of rows.
    """
    question = waiting(fwd.cache)
    if question is None or not question.whole:
        return
    rows, length = fwd.input.shape[:2]
    if rows != question.rows:
        raise UnsupportedModelError(
            f"{rows} rows go on from a prefix that was prepared for {question.rows}: for beams or several answers, "
            f"prefix.inputs(..., copies={rows})"
        )
    if length >= question.whole or fwd.arguments.get("use_cache") is False:
        raise UnsupportedModelError(
            f"prompt lookup, assisted decoding and use_cache=False send tokens again that are in the cache of the "
            f"prefix ({length} tokens came, {question.whole - question.reused} were asked): pass the whole prompt"
        )


def check_reusable(plan: PrunePlan, parts: Parts) -> None:
    """Raise where the answer could differ from that of the whole prompt.

    Raises:
        PlanError: a method that reads the question.
        UnsupportedModelError: a decoder in which pictures see the text behind them, or are numbered with it, or that
            sees a second prompt otherwise than the first.
    """
    curious = [stage.method.name for stage in plan.stages if stage.method.question_aware]
    if curious:
        raise PlanError(
            f"{', '.join(curious)} reads the question: another question may keep other tokens, so that nothing can be "
            "reused; methods that do not are listed as such by `vlm-pruner methods`"
        )
    if parts.adapter.canvas:
        raise UnsupportedModelError(
            f"{parts.name}: marks behind a picture are numbered together with it, so that a prefix does not know where "
            "its picture ends"
        )
    if parts.adapter.behind:
        raise UnsupportedModelError(
            f"{parts.name}: what stands behind the prompt that was run first is seen through a window, so that a "
            "question behind a prefix is not answered as in one prompt"
        )
    if not parts.causal(0):
        raise UnsupportedModelError(
            f"{parts.name}: pictures see the question behind them, so that nothing computed for one question holds for "
            "another"
        )


def run_prefix(parts: Parts, inputs: dict[str, Any]) -> Prefix:
    """Run `inputs` up to the last placeholder, or what closes it.

    Raises:
        InputError: several rows, padding, no picture, or nothing behind it.
    """
    ids = inputs.get("input_ids")
    if not isinstance(ids, Tensor) or ids.dim() != 2 or ids.shape[0] != 1:
        shape = tuple(ids.shape) if isinstance(ids, Tensor) else None
        raise InputError(f"reuse takes the prompt of one row as input_ids [1, s], got {shape}")
    mask = inputs.get("attention_mask")
    if mask is not None and not bool(mask.bool().all()):
        raise InputError("reuse takes a prompt without padding")
    tokens = torch.tensor(list(parts.adapter.placeholders(parts.config).values()), device=ids.device)
    places = torch.isin(ids[0], tokens).nonzero().flatten()
    if not len(places):
        raise InputError("there is no picture in this prompt: nothing to reuse")
    end, length = int(places[-1]) + 1 + parts.adapter.closing, ids.shape[1]
    cut = {k: v[:, :end] if _is_row(k, v, length) else v for k, v in inputs.items()}
    cache = DynamicCache(config=parts.config.get_text_config())
    model, base = _apart(parts)
    start = mark(ids.device)
    with torch.no_grad():
        model(**cut, **{parts.base_cache: cache}, use_cache=True)
    took = elapsed_ms(start, mark(ids.device))
    pictures = {k: v for k, v in inputs.items() if isinstance(v, Tensor) and not _is_row(k, v, length)}
    return Prefix(ids[:, :end], cache, took, getattr(base, "rope_deltas", None), pictures, parts)


def _apart(parts: Parts) -> tuple[Any, Any]:
    """The model and its base with attributes of their own: the same weights and hooks, but what M-RoPE models note on
    themselves (`rope_deltas`) is not seen by a generation that is going on in another thread."""
    model: Any = copy.copy(parts.model)
    if parts.model is parts.base:
        base = model
    else:
        base = copy.copy(parts.base)
        modules = {name: base if module is parts.base else module for name, module in model._modules.items()}
        model.__dict__["_modules"] = modules
    unwatched(base, parts.base)
    if hasattr(base, "rope_deltas"):
        base.rope_deltas = None
    return model, base


def _positions(parts: Parts, inputs: dict[str, Any], rope_deltas: Tensor) -> Tensor:
    """Positions of the whole prompt in the form that the model's `generate` goes on from, made by its own rule."""
    model, base = _apart(parts)
    base.rope_deltas = rope_deltas
    made: Tensor = model._prepare_position_ids_for_generation(inputs["input_ids"], inputs)
    return made


def _is_row(name: str, value: Any, length: int) -> bool:
    """Is this one entry per token of the prompt?"""
    words = name == "input_ids" or name == "attention_mask" or name.endswith("token_type_ids")
    return words and isinstance(value, Tensor) and value.shape[1] == length
