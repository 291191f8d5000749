"""Which models can be pruned, and where their parts are. What cannot be is refused here, before anything runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from vlm_pruner.adapters import Adapter, adapter_for
from vlm_pruner.adapters.modules import attention_of
from vlm_pruner.adapters.obstacles import STATES, obstacle
from vlm_pruner.engine.release import cache_name, check_release, warn_if_newer
from vlm_pruner.engine.signals import FROM_LAYER_BEFORE, reads
from vlm_pruner.engine.tap import can_be_tapped
from vlm_pruner.errors import PlanError, UnsupportedModelError
from vlm_pruner.plan import TOWER, PrunePlan, Stage
from vlm_pruner.types import Signal

__all__ = ["Parts", "check_backend", "check_checkpointing", "check_stages", "settle", "take_apart"]


@dataclass(frozen=True)
class Parts:
    """The modules of a vision-language model that the engine works on."""

    model: nn.Module  # with its head
    base: nn.Module  # the model without its head
    text: nn.Module  # the decoder
    layers: nn.ModuleList
    adapter: Adapter
    layer_cache: str  # the argument by which a decoder layer takes the cache
    base_cache: str  # the same of the model without its head
    hooked: tuple[nn.Module, ...]  # the layers as they were found
    sources: tuple[int, ...]  # for every layer that whose keys it reads: itself, or an earlier one

    @property
    def config(self) -> Any:
        return self.base.config

    @property
    def text_config(self) -> Any:
        return self.text.config

    def attention(self, index: int) -> Any:
        """The attention module of decoder layer `index`; None where it attends to nothing."""
        return attention_of(self.layers[index])

    def causal(self, index: int) -> bool:
        """Does a query of decoder layer `index` see what stands in front of it alone, where there is no mask?"""
        return bool(getattr(self.attention(index), "is_causal", True))

    def kind(self, index: int) -> str | None:
        """What the configuration calls decoder layer `index`; None where it does not tell layers apart."""
        kinds = getattr(self.text_config, "layer_types", None) or ()
        return kinds[index] if index < len(kinds) else None

    def follows(self, index: int) -> bool:
        """Is decoder layer `index` one that sees a shorter sequence and nothing else: a recurrence, a convolution, a
        network of its own? Its cache holds states, not entries."""
        return self.kind(index) in STATES

    def counts_blocks(self, index: int) -> bool:
        """Does decoder layer `index` attend to blocks of keys that it counts by position ids?"""
        return self.kind(index) in self.adapter.blocks

    def measures(self, index: int) -> bool:
        """Does decoder layer `index` bias its logits by how far a query stands behind a key?"""
        return not self.follows(index) and self.adapter.distances(self.attention(index)) is not None

    def by_stored(self, index: int) -> bool:
        """Is more than its mask fitted to what is stored, in every decode step?"""
        return self.adapter.whole_tables or self.counts_blocks(index) or self.measures(index)

    def makes_keys(self, index: int) -> bool:
        """Does decoder layer `index` attend to keys of its own?"""
        return not self.follows(index) and self.sources[index] == index

    @property
    def dtype(self) -> torch.dtype:
        return next(self.text.parameters()).dtype

    @property
    def backend(self) -> str:
        return getattr(self.text_config, "_attn_implementation", None) or "eager"

    @property
    def name(self) -> str:
        return str(self.config.model_type)


def take_apart(model: nn.Module) -> Parts:
    """The parts of `model`.

    Raises:
        UnsupportedModelError: visual tokens do not stand in the decoder's sequence, no adapter, or attention whose
            cache cannot hold a shorter sequence.
    """
    warn_if_newer()
    config = getattr(model, "config", None)
    if not isinstance(model, nn.Module) or config is None or not hasattr(model, "base_model"):
        held = getattr(model, "model", None)
        hint = ": pass its model, as in prune(pipe.model, ...)" if isinstance(held, nn.Module) else ""
        raise UnsupportedModelError(f"expected a transformers model, got {type(model).__name__}{hint}")
    inner: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]  # PEFT
    config, base = inner.config, inner.base_model
    found = obstacle(config)
    if found is not None:
        raise UnsupportedModelError(found)
    kind = config.model_type
    adapter = adapter_for(kind)
    if not adapter.placeholders(config):
        raise UnsupportedModelError(f"{kind}: this configuration names no token that stands for visual tokens")
    text = base.get_decoder()
    if not hasattr(text, "layers"):  # a language model with a head of its own
        text = getattr(text, "model", text)
    if not isinstance(getattr(text, "layers", None), nn.ModuleList):
        raise UnsupportedModelError(f"{kind}: the decoder {type(text).__name__} has no list of layers")
    check_release(inner, base, text, text.layers, adapter.placeholders(config))
    return Parts(
        inner, base, text, text.layers, adapter, cache_name(text.layers[0]), cache_name(base), tuple(text.layers),
        tuple(adapter.source(text.config, index) for index in range(len(text.layers))),
    )  # fmt: skip


def check_backend(parts: Parts) -> None:
    """Raise where an attention backend counts compact places although the window means original ones.

    Raises:
        UnsupportedModelError: flash attention with sliding windows.
    """
    types = getattr(parts.text_config, "layer_types", None)
    windows = {"sliding_attention", "chunked_attention"}
    sliding = bool(windows & set(types)) if types else bool(getattr(parts.text_config, "sliding_window", None))
    if types is None and getattr(parts.text_config, "use_sliding_window", True) is False:
        sliding = False
    if sliding and "flash" in parts.backend:
        raise UnsupportedModelError(
            f"{parts.name}: {parts.backend} counts a sliding window in what is left of the sequence, not in its "
            'original places; load the model with attn_implementation="sdpa" or "eager"'
        )


def check_checkpointing(parts: Parts) -> None:
    """Raise where the backward pass would run hooks a second time, when nothing is known of the forward any more.

    Raises:
        UnsupportedModelError: gradient checkpointing that recomputes whole calls of layers, as older transformers do.
    """
    layer = parts.layers[0]
    whole = type(layer).__call__ is not nn.Module.__call__
    if whole and layer.training and getattr(layer, "gradient_checkpointing", False):
        raise UnsupportedModelError(
            f"{parts.name}: gradient checkpointing of this release of transformers runs the hooks of a pruner again in "
            "the backward pass: switch it off, or use transformers 5.23"
        )


def settle(plan: PrunePlan, parts: Parts) -> PrunePlan:
    """A plan of one stage whose layer its method chose, moved behind a layer that has what the method reads.

    In a hybrid decoder most layers have no keys: the next layer behind one that has them is taken, else, by a method
    that can do without, the place before the language model.
    """
    stage = plan.stages[-1]
    if (
        len(plan.stages) != 1
        or not stage.site
        or not reads(stage.method) & FROM_LAYER_BEFORE - {Signal.PREVIOUS_FEATURES}
    ):
        return plan
    place = next((i for i in range(stage.site, len(parts.layers)) if _serves(parts, i)), None)
    if place is None and stage.method.needs_at(0) & FROM_LAYER_BEFORE:
        return plan
    return replace(plan, stages=(replace(stage, layer=place),))


def _check_place(stage: Stage) -> None:
    """Raise where a method reads pixels that are gone, or what the vision tower is only to make.

    Raises:
        PlanError: names what it needs.
    """
    name, needs = stage.method.name, stage.method.needs_at(0)
    if stage.layer != TOWER and Signal.PIXELS in stage.method.needs:
        raise PlanError(
            f"{name} reads pixels, which it is shown before the vision tower alone: give it layer={TOWER!r}"
        )
    if stage.layer == TOWER and needs - {Signal.PIXELS}:
        names = ", ".join(sorted(needs - {Signal.PIXELS}))
        raise PlanError(f"{name} cannot prune before the vision tower: it needs {names}, which come behind it")


def _serves(parts: Parts, place: int) -> bool:
    """Can be pruned at decoder layer `place`, and does the layer before it show what it attends to?"""
    attention = parts.attention(place - 1)
    follows = not parts.adapter.ends or parts.sources[place] == place
    seen = attention is not None and parts.makes_keys(place - 1) and can_be_tapped(attention)
    return seen and follows and parts.adapter.allows(parts.text_config, place)


def check_stages(plan: PrunePlan, parts: Parts) -> None:
    """Raise where the model cannot give a stage what it asks for, as far as that is known beforehand.

    Raises:
        PlanError: an int `keep` above the number of tokens that every image has, or a method that reads the layer
            before it, before the language model or behind a layer without attention.
    """
    total = parts.adapter.fixed_tokens(parts.config)
    for stage in plan.stages:
        _check_place(stage)
        missing = stage.method.needs_at(stage.site) & FROM_LAYER_BEFORE
        if missing and not stage.site:
            names = ", ".join(sorted(missing))
            raise PlanError(
                f"{stage.method.name} cannot prune before the language model: it needs {names} of the "
                "decoder layer before; give it a layer of 1 or more"
            )
        keys = ", ".join(sorted(missing - {Signal.PREVIOUS_FEATURES}))
        if stage.site and keys and not parts.makes_keys(stage.site - 1):
            good = [str(i + 1) for i in range(len(parts.layers) - 1) if parts.makes_keys(i)]
            why = "attends to nothing" if parts.follows(stage.site - 1) else "reads the keys of an earlier one"
            raise PlanError(
                f"{stage.method.name} cannot prune at layer {stage.site} of this {parts.name} model: it needs {keys} "
                f"of the decoder layer before, which {why}; layers with keys stand before {', '.join(good)}"
            )
        if not parts.adapter.allows(parts.text_config, stage.site):
            good = [str(i) for i in range(len(parts.layers)) if parts.adapter.allows(parts.text_config, i)]
            raise PlanError(
                f"layer {stage.site} of this {parts.name} model cannot be pruned: it or a later layer uses keys that "
                f"an earlier layer chose; prune at one of the layers {', '.join(good)}"
            )
        if parts.adapter.ends and parts.sources[stage.site] != stage.site:
            last = next(i for i, source in enumerate(parts.sources) if source != i) - 1
            raise PlanError(
                f"layer {stage.site} of this {parts.name} model reads the keys of layer {parts.sources[stage.site]}, "
                f"and may see the last token alone: it can be pruned up to layer {last}"
            )
        if total is not None and isinstance(stage.keep, int) and stage.keep > total:
            raise PlanError(
                f"keep={stage.keep} asks for more tokens than an image has: {total} in this {parts.name} model"
            )
