"""Hooks on the decoder layers: the stages of a plan, what the layers behind them are called with, and what methods read
of the layer before."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn

from vlm_pruner.engine.added import add_here
from vlm_pruner.engine.arguments import Arguments, as_pair, by_name, hidden_of, with_hidden
from vlm_pruner.engine.bias import LogMass
from vlm_pruner.engine.cache import CacheState
from vlm_pruner.engine.choose import prune_stage
from vlm_pruner.engine.clock import mark
from vlm_pruner.engine.counted import Counted
from vlm_pruner.engine.follow import follow
from vlm_pruner.engine.forward import Forward, Local, Prefill
from vlm_pruner.engine.positions import Repacking
from vlm_pruner.engine.prompt import to_cut
from vlm_pruner.engine.signals import LayerBefore, reads, tokens_reader
from vlm_pruner.engine.support import Parts
from vlm_pruner.engine.tap import Attended
from vlm_pruner.errors import MissingSignalError
from vlm_pruner.plan import TOWER, PrunePlan, Stage

__all__ = ["LayerHooks"]


class LayerHooks:
    """The hooks of one plan below the base model."""

    def __init__(self, parts: Parts, plan: PrunePlan, local: Local) -> None:
        self.parts, self.plan, self.local = parts, plan, local
        self.sites = tuple(stage.site for stage in plan.stages)
        self.stages_at = {site: [stage for stage in plan.stages if stage.site == site] for site in self.sites}
        self.mass = LogMass(parts, plan, local)
        self.names = _positional(parts.layers[0])
        self.streams = parts.adapter.streams
        self.counted = Counted(parts, min(self.sites), local)
        self.repacking = Repacking(parts, local)

    def layer_pre(
        self, index: int, level: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Arguments | None:
        """In front of decoder layer `index`, at or behind `level` stages."""
        fwd = self.local.forward
        if fwd is None:
            return None
        if index in fwd.steps:
            before, after = fwd.steps[index]
            if before is kwargs.get("attention_mask"):
                return None if after is before else (args, {**kwargs, "attention_mask": after})
        prefill = fwd.prefill
        if prefill is None and fwd.state is None:
            return None  # nothing was ever pruned
        args, kwargs = by_name(module, self.names, args, kwargs)
        hidden = hidden_of(module, args, kwargs, self.streams)
        if index == self.sites[0]:
            fwd.length = hidden.shape[1]
        before = hidden
        if prefill is not None:
            if self.parts.sources[index] != index and hidden.shape[1] < fwd.rows:
                prefill.ends = hidden.shape[1]
            hidden = add_here(prefill, index, hidden)
            for stage in self.stages_at.get(index, ()):
                hidden = self._prune(fwd, prefill, stage, hidden)
            if index == 0 and prefill.kept is not None and self.plan.positions == "repacked":
                self.repacking.again(fwd, prefill, prefill.kept)
        if fwd.kept is None and fwd.state is None:
            return None if hidden is before else with_hidden(hidden, args, kwargs, self.streams)
        given, cache = kwargs.get("attention_mask"), kwargs.get(self.parts.layer_cache)
        kwargs = follow(fwd, self.parts, index, level, hidden, kwargs)
        if prefill is not None:
            self.counted.count(prefill, index, hidden, kwargs)
            self.mass.entered(prefill, index, level, cache)
            self.repacking.entered(prefill, index, cache)
        if fwd.kept is None and cache is not None and not self.parts.by_stored(index):
            self._note_step(fwd, cache.layers[self.parts.sources[index]], (given, kwargs.get("attention_mask")))
        return with_hidden(hidden, args, kwargs, self.streams)

    @staticmethod
    def _note_step(fwd: Forward, layer: Any, masks: tuple[Any, Any]) -> None:
        """All layers whose caches hold the same places are given the same mask: the first one fits it for all."""
        kind = getattr(layer, "pruned_kind", None)
        if kind is not None:
            assert fwd.state is not None
            fwd.steps.update(dict.fromkeys(fwd.state.members[kind], masks))

    def _prune(self, fwd: Forward, prefill: Prefill, stage: Stage, hidden: Tensor) -> Tensor:
        start, prompt = mark(hidden.device), prefill.prompt
        prompt.locate(self.parts.adapter, self.parts.config, prefill.encoded, self.plan)
        reader = tokens_reader(reads(stage.method), stage.site or None, prefill, hidden)
        try:
            kept, hidden = prune_stage(stage, prefill, hidden, reader, fwd.earlier)
        except MissingSignalError as error:
            raise MissingSignalError(f"{error} of this {self.parts.name} model") from error
        prefill.before = None
        prefill.levels.append(kept)
        if kept is not None and stage.site >= self.mass.first:
            self.mass.chosen(prefill, kept)
        if kept is not None and fwd.state is None:
            fwd.state = CacheState(self.sites, self.plan.positions, open=True)
        prefill.selecting.append((start, mark(hidden.device)))
        if stage.layer == TOWER:
            prefill.selecting += [encoded.tower.marks for encoded in prefill.encoded.values()]
        return hidden

    # Signals of the layer before

    def before_pre(self, stage: Stage, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """In front of the layer before a stage: what enters it, and who is to be told what it attends to."""
        prefill = self.local.prefill
        if prefill is None:
            return
        prefill.prompt.locate(self.parts.adapter, self.parts.config, prefill.encoded, self.plan)
        args, kwargs = by_name(module, self.names, args, kwargs)
        hidden, rotary = hidden_of(module, args, kwargs, self.streams), as_pair(kwargs.get("position_embeddings"))
        images = to_cut(prefill.prompt.images, stage)
        prefill.before = before = LayerBefore(reads(stage.method), prefill, images, hidden, rotary)
        layers, index = getattr(kwargs.get(self.parts.layer_cache), "layers", ()), stage.site - 1
        if index < len(layers) and hasattr(layers[index], "max_cache_len"):
            before.past = int(layers[index].get_seq_length()) - getattr(layers[index], "pruned_dropped", 0)

    def attended(self, attended: Attended) -> None:
        """The attention of the layer before a stage is about to run."""
        prefill = self.local.prefill
        if prefill is not None and prefill.before is not None:
            prefill.before.look(attended)

    def projection_post(self, name: str, module: nn.Module, args: Any, output: Tensor) -> None:
        """Behind its projection of queries or keys."""
        prefill = self.local.prefill
        if prefill is not None and prefill.before is not None:
            prefill.before.projected(name, output)

    def entered_pre(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """In front of layer 0, before anything is dropped: what enters the language model."""
        if self.local.prefill is not None:
            self.local.prefill.entered = hidden_of(module, args, kwargs, self.streams)


def _positional(layer: nn.Module) -> tuple[str, ...]:
    """Names of what `layer` takes by position."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return tuple(n for n, p in inspect.signature(layer.forward).parameters.items() if p.kind in kinds)
