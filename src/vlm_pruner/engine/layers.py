"""Hooks on the decoder and its layers: stages, taps for the signals of methods, rotary tables."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable
from typing import Any, SupportsIndex

import torch
from torch import Tensor, nn

from vlm_pruner.engine.added import add_here
from vlm_pruner.engine.arguments import Arguments, as_pair, by_name, hidden_of, with_hidden
from vlm_pruner.engine.bias import LogMass
from vlm_pruner.engine.cache import CacheState, first_pruned
from vlm_pruner.engine.choose import prune_stage
from vlm_pruner.engine.clock import mark
from vlm_pruner.engine.follow import follow
from vlm_pruner.engine.forward import Forward
from vlm_pruner.engine.generation import Generation
from vlm_pruner.engine.positions import repack
from vlm_pruner.engine.prompt import Prompt
from vlm_pruner.engine.signals import LayerBefore, tokens_reader
from vlm_pruner.engine.support import Parts
from vlm_pruner.engine.tap import Attended, attention_of
from vlm_pruner.engine.wants import reads
from vlm_pruner.errors import MissingSignalError, UnsupportedModelError
from vlm_pruner.plan import TOWER, PrunePlan, Stage

__all__ = ["LayerHooks", "Local"]


class Local(threading.local):
    """What the hooks of one thread share: threads may run the same model at the same time."""

    forward: Forward | None = None
    logits_to_keep: Any = 0
    encoded: dict[Any, Any] | None = None  # notes of generate's encoding step, between outer and base pre-hook
    generation: Generation | None = None  # the call of generate that is going on
    unused: str | None = None  # modality that was encoded outside of a forward, and that no forward was given yet
    left: int | None = None  # rows of the base model's output, after a forward with pictures
    quiet: bool = False  # the engine itself calls rotary_emb
    encoding: bool = False  # inside get_image_features or get_video_features
    tower: Any = None  # what was chosen before the vision tower in there

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        raise UnsupportedModelError(
            "a pruner and the model it is active on can be neither copied nor pickled: leave its block or detach "
            "it first"
        )


class LayerHooks:
    """The hooks of one plan below the base model."""

    def __init__(self, parts: Parts, plan: PrunePlan, local: Local) -> None:
        self.parts, self.plan, self.local = parts, plan, local
        self.sites = tuple(stage.site for stage in plan.stages)
        self.stages_at = {site: [stage for stage in plan.stages if stage.site == site] for site in self.sites}
        self.mass = LogMass(parts, plan, local)
        self.names = _positional(parts.layers[0])
        self.streams = parts.adapter.streams
        place = torch.zeros(1, 1, dtype=torch.long)
        scaled = (parts.adapter.query_scale(attention_of(layer), place) is not None for layer in parts.layers)
        self.counted = {index for index, yes in enumerate(scaled) if yes}  # layers that scale queries by their places

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
        if fwd.prompt is None and fwd.state is None:
            return None  # nothing was ever pruned
        args, kwargs = by_name(module, self.names, args, kwargs)
        hidden = hidden_of(module, args, kwargs, self.streams)
        if index == self.sites[0]:
            fwd.length = hidden.shape[1]
        if fwd.prompt is not None and self.parts.sources[index] != index and hidden.shape[1] < fwd.rows:
            fwd.ends = hidden.shape[1]
        before, hidden = hidden, add_here(fwd, index, hidden)
        if fwd.prompt is not None and index in self.stages_at:
            for stage in self.stages_at[index]:
                hidden = self._prune(fwd, fwd.prompt, stage, hidden)
            if index == 0 and fwd.kept is not None and self.plan.positions == "repacked":
                self._repack(fwd, fwd.prompt, hidden)
        if fwd.kept is None and fwd.state is None:
            return None if hidden is before else with_hidden(hidden, args, kwargs, self.streams)
        given = kwargs.get("attention_mask")
        kwargs = follow(fwd, self.parts, index, level, hidden, kwargs)
        self._count(fwd, index, module, hidden, kwargs)
        if fwd.log_mass:
            self.mass.entered(fwd, index, level, kwargs.get(self.parts.layer_cache))
        cache, own = kwargs.get(self.parts.layer_cache), self.parts.sources[index]
        if fwd.kept is None and cache is not None and not self.parts.by_stored(index):
            kind = getattr(cache.layers[own], "pruned_kind", None)
            if kind is not None:
                assert fwd.state is not None
                fwd.steps.update(dict.fromkeys(fwd.state.members[kind], (given, kwargs.get("attention_mask"))))
        if fwd.shift is not None and cache is not None and cache.layers[own] is first_pruned(cache):
            cache.layers[own].pruned_shift = fwd.shift
        return with_hidden(hidden, args, kwargs, self.streams)

    def _count(self, fwd: Forward, index: int, module: Any, hidden: Tensor, kwargs: dict[str, Any]) -> None:
        """Note what the queries of a layer lack that scales them by the places it counts itself, survivors only."""
        if fwd.kept is None or index not in self.counted:
            return
        cache = kwargs.get(self.parts.layer_cache)
        seen = 0 if cache is None else cache.get_seq_length(index)
        counted = (torch.arange(hidden.shape[1], device=hidden.device) + seen).expand(len(hidden), -1)
        adapter, attention = self.parts.adapter, attention_of(module)
        true = adapter.query_scale(attention, fwd.kept.index.to(hidden.device) + fwd.past)
        made = adapter.query_scale(attention, counted)
        assert true is not None
        assert made is not None
        fwd.scales[index] = true / made

    def queries_post(self, index: int, module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        """Behind the query projection of such a layer, or the norm of its heads."""
        fwd = self.local.forward
        if fwd is None or index not in fwd.scales:
            return None
        scale = fwd.scales[index]
        return (output * scale.view(*scale.shape, *[1] * (output.dim() - 2))).to(output.dtype)

    def install_places(self, hook: Callable[[Any], None], wrap: Callable[..., None]) -> None:
        """Hooks on what attention modules make of places that they count themselves."""
        for index, layer in list(enumerate(self.parts.layers))[min(self.sites) :]:
            attention = attention_of(layer)
            if index in self.counted:
                post = functools.partial(self.queries_post, index)
                hook(getattr(attention, self.parts.adapter.scaled).register_forward_hook(post))
            if self.parts.measures(index):
                wrap(self.parts.adapter.distances(attention), "forward", functools.partial(self.measured, index))

    def measured(self, index: int, original: Any) -> Any:
        """The part of a layer that measures distances: between the places that rows had, once some are gone."""
        part = self.parts.adapter.distances(attention_of(self.parts.layers[index]))

        def wrapper(states: Tensor, query: Tensor, key: Tensor) -> Any:
            fwd = self.local.forward
            if fwd is None or index not in fwd.apart:
                return original(states, query, key)
            places = fwd.apart[index]
            bias = self.parts.adapter.distance_bias(part, states, places.query, places.key)
            scale = fwd.scales.get(index)  # of queries, which the module gives to all that is on its logits
            return bias if scale is None else (bias * scale[:, None, :, None]).to(bias.dtype)

        return wrapper

    def _prune(self, fwd: Forward, prompt: Prompt, stage: Stage, hidden: Tensor) -> Tensor:
        start = mark(hidden.device)
        self._locate(fwd, prompt)
        reader = tokens_reader(reads(stage.method), stage.site or None, fwd, hidden, fwd.before)
        try:
            fwd.kept, hidden = prune_stage(stage, prompt, fwd.kept, hidden, reader, fwd.earlier)
        except MissingSignalError as error:
            raise MissingSignalError(f"{error} of this {self.parts.name} model") from error
        fwd.before = None
        fwd.levels.append(fwd.kept)
        if fwd.kept is not None and stage.site >= self.mass.first:
            self.mass.chosen(fwd, prompt, hidden.device)
        if fwd.kept is not None and fwd.state is None:
            fwd.state = CacheState(self.sites, self.plan.positions, open=True)
        fwd.lengths.append(prompt.row_lengths())
        fwd.selecting.append((start, mark(hidden.device)))
        if stage.layer == TOWER:
            fwd.selecting += [encoded.tower.marks for encoded in fwd.encoded.values()]
        return hidden

    def _locate(self, fwd: Forward, prompt: Prompt) -> None:
        if not prompt.images:
            prompt.locate(self.parts.adapter, self.parts.config, fwd.encoded, self.plan)

    # Signals of the layer before

    def before_pre(self, stage: Stage, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """In front of the layer before a stage: what enters it, and who is to be told what it attends to."""
        fwd = self.local.forward
        if fwd is None or fwd.prompt is None:
            return
        self._locate(fwd, fwd.prompt)
        args, kwargs = by_name(module, self.names, args, kwargs)
        hidden, rotary = hidden_of(module, args, kwargs, self.streams), as_pair(kwargs.get("position_embeddings"))
        fwd.before = LayerBefore(reads(stage.method), fwd, fwd.prompt.to_cut(stage), hidden, rotary)
        layers, index = getattr(kwargs.get(self.parts.layer_cache), "layers", ()), stage.site - 1
        if index < len(layers) and hasattr(layers[index], "max_cache_len"):
            fwd.before.past = int(layers[index].get_seq_length()) - getattr(layers[index], "pruned_dropped", 0)

    def attended(self, site: int, attended: Attended) -> None:
        """The attention of the layer before the stage at `site` is about to run."""
        before = self._before(site)
        if before is not None:
            before.look(attended)

    def projection_post(self, site: int, name: str, module: nn.Module, args: Any, output: Tensor) -> None:
        """Behind its projection of queries or keys."""
        before = self._before(site)
        if before is not None:
            before.projected(name, output)

    def _before(self, site: int) -> LayerBefore | None:
        """Where what is seen of the layer before a stage goes, while it runs in a prefill."""
        fwd = self.local.forward
        return None if fwd is None or len(fwd.levels) != self.sites.index(site) else fwd.before

    def entered_pre(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """In front of layer 0, before anything is dropped: what enters the language model."""
        fwd = self.local.forward
        if fwd is not None and fwd.prompt is not None:
            fwd.entered = hidden_of(module, args, kwargs, self.streams)

    # Repacked positions

    def rotary_pre(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments | None:
        """Positions of tokens behind a repacked image: closed up by what was dropped in earlier forwards."""
        fwd = self.local.forward
        if fwd is None or self.local.quiet or fwd.state is None:
            return None
        first = first_pruned(fwd.cache)
        if first is None or first.pruned_shift is None:
            return None
        return _with_positions(args, kwargs, _positions(args, kwargs) - first.pruned_shift)

    def rotary_post(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """Note the tables of a prefill and what they were made of, to make them again after selection."""
        fwd = self.local.forward
        if fwd is not None and fwd.prompt is not None and not self.local.quiet:
            fwd.rotary.append((output, args, kwargs))

    def _repack(self, fwd: Forward, prompt: Prompt, hidden: Tensor) -> None:
        assert fwd.kept is not None
        fwd.repacked = True
        rotary: Any = self.parts.text.rotary_emb
        for output, args, kwargs in fwd.rotary:
            positions, shift = repack(_positions(args, kwargs), fwd.kept.mask, prompt)
            args, kwargs = _with_positions(args, kwargs, positions)
            self.local.quiet = True
            try:
                first = output[0] if isinstance(output, tuple) else output
                fwd.remember(first, "repacked", rotary(*args, **kwargs))
            finally:
                self.local.quiet = False
            before = getattr(first_pruned(fwd.cache), "pruned_shift", None)
            fwd.shift = shift if before is None else shift + before


def _positional(layer: nn.Module) -> tuple[str, ...]:
    """Names of what `layer` takes by position."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return tuple(n for n, p in inspect.signature(layer.forward).parameters.items() if p.kind in kinds)


def _positions(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    positions: Tensor = kwargs["position_ids"] if "position_ids" in kwargs else args[1]
    return positions


def _with_positions(args: tuple[Any, ...], kwargs: dict[str, Any], positions: Tensor) -> Arguments:
    if "position_ids" in kwargs:
        return args, {**kwargs, "position_ids": positions}
    return (args[0], positions, *args[2:]), kwargs
