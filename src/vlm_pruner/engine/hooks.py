"""The hooks that turn a stock model into a pruning one, and their complete removal.

outer model       refuses what cannot be pruned; reads what generate() has encoded
base model        opens and closes the state of a forward
get_*_features    wrapped on the instance: notes the grids, which generate() drops; so is a tower cut short
decoder           clocks prefill and decode steps
layer site - 1    keys and attention rows for the method of the stage
layers >= site    drop rows; make masks, rotary tables and cache follow
rotary_emb        repacked positions only
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, get_args

import torch
from torch import nn

from vlm_pruner.adapters.base import Modality
from vlm_pruner.engine.added import take_later, wrap_deepstack
from vlm_pruner.engine.arguments import Arguments, bind
from vlm_pruner.engine.busy import Busy
from vlm_pruner.engine.cache import counting
from vlm_pruner.engine.calls import Calls, encoded_before
from vlm_pruner.engine.checks import (
    check_call,
    check_layers,
    check_logits,
    check_pruned,
    check_room,
    refuse_compiled,
    state_for,
)
from vlm_pruner.engine.clock import mark
from vlm_pruner.engine.forward import Forward, Local, Prefill
from vlm_pruner.engine.full_length import scatter_outputs
from vlm_pruner.engine.layers import LayerHooks
from vlm_pruner.engine.prompt import read_prompt
from vlm_pruner.engine.recorder import Recorder
from vlm_pruner.engine.release import cache_in, given_cache, unseen
from vlm_pruner.engine.reuse import check_question
from vlm_pruner.engine.signals import ENTERED, FROM_LAYER_BEFORE, PROJECTED, projections, reads
from vlm_pruner.engine.stored import count_stored
from vlm_pruner.engine.support import Parts, check_backend, check_checkpointing
from vlm_pruner.engine.tap import tap
from vlm_pruner.engine.tower import BeforeTower
from vlm_pruner.errors import UnsupportedModelError
from vlm_pruner.plan import TOWER, PrunePlan, Stage
from vlm_pruner.types import Signal

__all__ = ["Hooks"]

_PIXELS = ("pixel_values", "pixel_values_videos", "pixel_values_images")


class Hooks:
    """All hooks of one plan on one model. `remove` leaves the model as it was found."""

    def __init__(self, parts: Parts, plan: PrunePlan, recorder: Recorder, full_length: bool = False) -> None:
        self.parts, self.plan, self.recorder = parts, plan, recorder
        self.full_length = full_length
        self.local = Local()
        self.inner = LayerHooks(parts, plan, self.local)
        self.read = frozenset[Signal]().union(*(reads(stage.method) for stage in plan.stages))
        self.busy = Busy()
        self.calls = Calls(parts, self.local, self.busy, self.read)
        self.owner: Any = None
        self._undo = ExitStack()

    def install(self) -> None:
        self.busy.open()
        try:
            self._install()
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        """Take all hooks off, as soon as no other thread is inside the model.

        Raises:
            UnsupportedModelError: called from inside `generate` of this model.
        """
        if self.local.generation is not None:
            raise UnsupportedModelError("a pruner cannot be removed from inside a generate call of its own model")
        self.busy.close()
        self._undo.close()
        self.local.__dict__.clear()

    def _install(self) -> None:
        parts, inner = self.parts, self.inner
        self._hook(parts.model.register_forward_pre_hook(self._outer_pre, with_kwargs=True))
        self._hook(parts.base.register_forward_pre_hook(self._base_pre, with_kwargs=True))
        self._hook(parts.text.register_forward_pre_hook(self._text_pre, with_kwargs=True))
        self._hook(parts.text.register_forward_hook(self._text_post))  # before that of the base: it may be one module
        self._hook(parts.base.register_forward_hook(self._base_post, always_call=True))
        if parts.model is not parts.base:
            self._hook(parts.model.register_forward_hook(self._outer_post))
        if self.read & ENTERED:
            self._hook(parts.layers[0].register_forward_pre_hook(inner.entered_pre, with_kwargs=True))
        for index, layer in list(enumerate(parts.layers))[min(inner.sites) :]:
            pre = functools.partial(inner.layer_pre, index, sum(site <= index for site in inner.sites))
            self._hook(layer.register_forward_pre_hook(pre, with_kwargs=True))
            for handle in count_stored(parts, index):
                self._hook(handle)
        inner.counted.install(self._hook, self._wrap)
        for stage in self.plan.stages:
            if stage.site and reads(stage.method) & FROM_LAYER_BEFORE:
                self._install_tap(stage)
        inner.mass.install(self._undo)
        if self.plan.positions == "repacked":
            inner.repacking.install(self._hook)
        for modality in get_args(Modality):
            name = f"get_{modality}_features"
            if hasattr(parts.base, name):
                self._wrap(parts.base, name, functools.partial(self.calls.features, modality))
        if self.plan.stages[0].layer == TOWER:
            before = BeforeTower(parts, self.plan, self.local)
            self._wrap(before.tower.module, "forward", before.forward)
        self._wrap(parts.base, "forward", self.calls.forward)
        if hasattr(parts.model, "generate"):
            self._wrap(parts.model, "generate", self.calls.generate)
            self._wrap(parts.model, "prepare_inputs_for_generation", self.calls.prepare)
        if hasattr(parts.text, "_deepstack_process"):
            self._wrap(parts.text, "_deepstack_process", functools.partial(wrap_deepstack, self.local))

    def _install_tap(self, stage: Stage) -> None:
        """After the layer's own pre-hook, so that masks and tables are already cut."""
        before = stage.site - 1
        pre = functools.partial(self.inner.before_pre, stage)
        self._hook(self.parts.layers[before].register_forward_pre_hook(pre, with_kwargs=True))
        attention = self.parts.attention(before) if self.parts.makes_keys(before) else None
        untap = None if attention is None else tap(attention, self.inner.attended)
        if untap is None:
            return
        self._undo.callback(untap)
        if reads(stage.method) & PROJECTED:
            for name, projection in projections(attention).items():
                post = functools.partial(self.inner.projection_post, name)
                self._hook(projection.register_forward_hook(post))

    def _hook(self, handle: Any) -> None:
        self._undo.callback(handle.remove)

    def _wrap(self, owner: nn.Module, name: str, wrapper: Callable[[Any], Any]) -> None:
        """Put a wrapper of the method on the instance; once it is gone, what was there before shows again."""
        before = vars(owner).get(name)
        wrapped = wrapper(getattr(owner, name))
        vars(wrapped).pop("__signature__", None)  # of the function, with `self`: the method's own is found without it
        object.__setattr__(owner, name, wrapped)
        if before is None:
            self._undo.callback(object.__delattr__, owner, name)
        else:
            self._undo.callback(object.__setattr__, owner, name, before)

    def _outer_pre(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        arguments = bind(module, args, kwargs)
        if arguments.get("labels") is not None:
            raise UnsupportedModelError(
                "labels: the pruned sequence is shorter than they are, so that no loss can be computed inside a pruner"
            )
        self.local.left = None
        self.local.logits_to_keep = arguments.get("logits_to_keep", 0)
        # Read here: accelerate wraps the inner `forward` and rebuilds this output without our note.
        self.local.encoded = encoded_before(arguments)

    def _base_pre(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            self._open(module, args, kwargs)
        except BaseException:
            self.calls.close()
            raise

    def _open(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        generation = self.local.generation
        if not torch.compiler.is_compiling():
            check_layers(self.parts)
            if generation is None:
                self.busy.enter()
        arguments = bind(module, args, kwargs)
        cache = given_cache(arguments, self.parts.base_cache)
        state = state_for(cache, self.inner.sites, self.plan.positions)
        first = next(counting(cache), None)
        empty = first is None or not first.is_initialized
        notes = {**encoded_before(arguments), **{k: v for k, v in (self.local.encoded or {}).items() if v is not None}}
        unused, self.local.unused = self.local.unused, None
        looked = bool(notes) or any(arguments.get(name) is not None for name in _PIXELS)
        prompt, prefill = None, None
        if looked or unused:
            if torch.compiler.is_compiling():
                refuse_compiled()
            past = 0 if first is None else first.get_seq_length()
            end = None if generation is None else generation.end(0 if empty else int(past))
            prompt = read_prompt(self.parts.adapter, self.parts.base, arguments, end)
        if not looked and (prompt is not None or (unused and arguments.get("input_ids") is None)):
            raise unseen(f"{unused}s were encoded, but this forward was not given what came of it")
        if prompt is not None:
            check_backend(self.parts)
            check_checkpointing(self.parts)
            check_call(arguments, cache, prompt.visual, 0 if self.full_length else self.local.logits_to_keep)
            prefill = Prefill(prompt, {m: note for m, note in notes.items() if note is not None}, past)
        forward = Forward(arguments, cache, state, prefill, generation, looked, state is None and empty)
        if not torch.compiler.is_compiling():
            if state is not None:
                check_question(forward)
            if generation is None and (prefill is not None or state is not None):  # else it counts on the host
                check_room(cache, None, forward.input.shape[1])
        if state is not None:
            state.open = True
        self.local.forward = forward

    def _base_post(self, module: nn.Module, args: Any, output: Any) -> Any:
        forward = self.calls.close()
        if output is None or forward is None or forward.prefill is None:
            return None
        if self.full_length and forward.kept is not None:
            self.local.left = forward.length
            return scatter_outputs(output, forward.prefill.levels, self.inner.sites, self.inner.streams)
        self.local.left = forward.rows
        return None

    def _text_pre(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments | None:
        forward = self.local.forward
        if forward is not None and not torch.compiler.is_compiling():
            forward.started = mark(forward.device)
        if forward is None or forward.prefill is None or self.parts.adapter.adds is None:
            return None
        return args, take_later(forward.prefill, kwargs, self.parts.adapter.adds, self.inner.sites[0])

    def _text_post(self, module: nn.Module, args: Any, output: Any) -> None:
        forward = self.local.forward
        if forward is not None and not torch.compiler.is_compiling():
            if forward.prefill is not None:
                check_pruned(forward, forward.prefill, self.parts, self.inner.sites, output)
            self.recorder.note(forward, mark(forward.device), cache_in(output))

    def _outer_post(self, module: nn.Module, args: Any, output: Any) -> None:
        """Behind the head: as many rows of logits as are left of a prompt with pictures, or were asked for."""
        left, self.local.left = self.local.left, None
        if left is not None:
            check_logits(output, left, self.local.logits_to_keep)
