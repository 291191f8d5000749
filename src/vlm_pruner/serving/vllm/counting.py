"""The side that announces: how many placeholders stand in the prompt for each picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from vllm.multimodal.inputs import MultiModalFieldConfig
from vllm.multimodal.processing import PromptUpdateDetails

from vlm_pruner.serving.vllm.wanted import KEY, kept_of, plan_of, read, written

__all__ = ["Counting", "counting", "field"]


def field(modality: str) -> str:
    """Name of the tensor that carries the plan beside each picture or video: bytes of JSON, on the host."""
    return f"{KEY}_{modality}"


class Counting:
    """Mixed into a model's own processor: fewer placeholders, and the plan beside every picture.

    vLLM hashes the options of a request together with the picture, so that caches never mix up two plans.
    """

    modalities: tuple[str, ...] = ("image",)  # that are pruned
    framed: bool = False  # frames of a video stand between words

    def _rotary(self) -> bool:
        return bool(self.info.ctx.model_config.uses_mrope)  # type: ignore[attr-defined]

    def _asked(self, options: Mapping[str, object]) -> object:
        """What the request asks for, else the server.

        Raises:
            PlanError: it cannot be had; vLLM answers the request with the message.
        """
        asked = options.get(KEY, getattr(self.info.get_hf_config(), KEY, None))  # type: ignore[attr-defined]
        plan_of(asked, rotary=self._rotary())
        return asked

    def get_dummy_inputs(self, *args: Any, **kwargs: Any) -> Any:
        """What vLLM measures its memory with: whole pictures, which the encoder sees and a request may keep."""
        made = super().get_dummy_inputs(*args, **kwargs)  # type: ignore[misc]
        made.hf_processor_mm_kwargs = {**made.hf_processor_mm_kwargs, KEY: None}
        return made

    def _apply_hf_processor_main(self, mm_items: Any, hf_kwargs: Mapping[str, object]) -> Any:
        made = super()._apply_hf_processor_main(mm_items, _plain(hf_kwargs))  # type: ignore[misc]
        data = torch.frombuffer(bytearray(written(self._asked(hf_kwargs))), dtype=torch.uint8)
        for modality, count in mm_items.get_all_counts().items():
            if modality in self.modalities and count:
                made[field(modality)] = data.expand(count, -1).contiguous()
        return made

    def _get_mm_fields_config(self, hf_inputs: Any, hf_processor_mm_kwargs: Mapping[str, object]) -> Any:
        known = dict(super()._get_mm_fields_config(hf_inputs, _plain(hf_processor_mm_kwargs)))  # type: ignore[misc]
        for modality in self.modalities:
            if field(modality) in hf_inputs:
                known[field(modality)] = MultiModalFieldConfig.batched(modality, keep_on_cpu=True)
        return known

    def _get_prompt_updates(
        self, mm_items: Any, hf_processor_mm_kwargs: Mapping[str, object], out_mm_kwargs: Any
    ) -> Sequence[Any]:
        updates = super()._get_prompt_updates(  # type: ignore[misc]
            mm_items, _plain(hf_processor_mm_kwargs), out_mm_kwargs
        )
        return [self._shortened(update, out_mm_kwargs) for update in updates]

    def _shortened(self, update: Any, out_mm_kwargs: Any) -> Any:
        """The update with as many embedded placeholders as are kept; marks around them stay."""
        modality = update.modality
        if modality not in self.modalities:
            return update

        def content(index: int) -> Any:
            whole = update.content(index) if callable(update.content) else update.content
            details = whole if isinstance(whole, PromptUpdateDetails) else PromptUpdateDetails(full=whole)
            held = out_mm_kwargs[modality][index]
            plan = read(bytes(held[field(modality)].data.tolist()), self._rotary()) if field(modality) in held else None
            full = _cut(details, plan)
            if self.framed and modality == "video" and len(full) < len(details.full):
                return PromptUpdateDetails.from_seq([self.info.get_hf_config().video_token_id] * len(full))  # type: ignore[attr-defined]
            return dataclasses.replace(details, full=full)

        return dataclasses.replace(update, replacement=content)


def _cut(details: Any, plan: Any) -> list[int]:
    """The tokens of one picture without the last of its placeholders."""
    full: list[int] = list(details.full)
    embedded = [True] * len(full) if details.is_embed is None else details.is_embed(full).tolist()
    over = sum(embedded) - kept_of(plan, sum(embedded)) if any(embedded) else 0
    drop = set([place for place, one in enumerate(embedded) if one][len(full) and sum(embedded) - over :])
    return [token for place, token in enumerate(full) if place not in drop]


def _plain(options: Mapping[str, object]) -> dict[str, object]:
    """The options that the model's own processor knows."""
    return {key: value for key, value in options.items() if key != KEY}


def counting(factory: Any, modalities: tuple[str, ...], *, framed: bool) -> Any:
    """What builds a model's processor, mixed with `Counting`.

    Args:
        factory: what vLLM builds it with.
        framed: do frames of a video stand between words?
    """

    def build(info: Any, dummy_inputs: Any) -> Any:
        known = type(factory(info, dummy_inputs))
        kind: Any = type(f"Pruned{known.__name__}", (Counting, known), {"modalities": modalities, "framed": framed})
        made = kind(info, dummy_inputs)
        made._asked({})  # a server whose plan cannot be had does not start
        return made

    return build
