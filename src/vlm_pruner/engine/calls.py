"""Methods of the model that are wrapped on the instance: encoding notes the grids that `generate` drops afterwards, and
`generate` says where the prompt ends and how much a cache must hold."""

from __future__ import annotations

import functools
import inspect
from typing import Any, get_args

import torch
from torch import Tensor, nn

from vlm_pruner.adapters.base import Encoded, Modality
from vlm_pruner.engine.busy import Busy
from vlm_pruner.engine.checks import check_room
from vlm_pruner.engine.forward import Forward, Generation, Local
from vlm_pruner.engine.release import given_cache, unseen
from vlm_pruner.engine.support import Parts
from vlm_pruner.engine.vision import VisionTap
from vlm_pruner.types import Signal

__all__ = ["Calls", "encoded_before", "unwatched"]

_WATCHED = "_vlm_pruner_watched"  # marks our wrapper of a forward
_NOTE = "_vlm_pruner_encoded"  # rides on the output that generate() hands from encoding to prefill


class Calls:
    """Makes the wrappers of one plan on one model. Each keeps the signature, which `generate` reads."""

    def __init__(self, parts: Parts, local: Local, busy: Busy, read: frozenset[Signal]) -> None:
        self.parts, self.local, self.busy, self.read = parts, local, busy, read

    def features(self, modality: Modality, original: Any) -> Any:
        """`get_*_features` with a note on its output: its arguments, how long each picture is, signals of the tower."""
        signature = inspect.signature(original)

        @functools.wraps(original)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            if self.local.encoding:  # videos that are encoded by the method for images: the outer call is noted
                return original(*args, **kwargs)
            bound = signature.bind(*args, **kwargs).arguments
            given = {**bound, **bound.pop("kwargs", {})}
            self.local.encoding, self.local.tower = True, None
            try:
                with VisionTap(self.parts, self.read, given.get("vision_feature_layer"), modality) as vision:
                    output = original(*args, **kwargs)
            finally:
                self.local.encoding = False
            tower, self.local.tower = self.local.tower, None
            pixels = next((v for k, v in given.items() if k.startswith("pixel_values") and v is not None), None)
            shape = tuple(pixels.shape) if isinstance(pixels, Tensor) else ()
            rest = {k: v for k, v in given.items() if not k.startswith("pixel_values")}
            if isinstance(pixels, Tensor):
                rest |= self.parts.adapter.told(pixels)
            features = getattr(output, "pooler_output", output)
            self._hand_on(modality, output, Encoded(rest, shape, _lengths(features), vision.signals(tower), tower))
            return output

        return wrapper

    def _hand_on(self, modality: Modality, output: Any, note: Encoded) -> None:
        if hasattr(output, "pooler_output"):
            object.__setattr__(output, _NOTE, note)
        forward = self.local.forward
        if forward is None:
            self.local.unused = modality
        elif not forward.looked:
            raise unseen(f"{modality}s were encoded inside a forward among whose arguments none were found")
        elif forward.prefill is not None:
            forward.prefill.encoded[modality] = note

    def generate(self, original: Any) -> Any:
        """`generate`, which knows where the prompt ends."""

        @functools.wraps(original)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            outside, self.local.generation = self.local.generation, Generation.of(args, kwargs)
            self.busy.enter()
            try:
                return original(*args, **kwargs)
            finally:
                self.local.generation = outside
                if outside is None:
                    self.local.unused = None  # encoded for a prefill that never came
                    self.close()

        return wrapper

    def forward(self, original: Any) -> Any:
        """`forward` of the base model: torch calls no hook at all where Ctrl-C ends it."""

        @functools.wraps(original)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            if torch.compiler.is_compiling():
                return original(*args, **kwargs)
            try:
                return original(*args, **kwargs)
            except BaseException:
                self.close()
                raise

        setattr(wrapper, _WATCHED, True)
        return wrapper

    def close(self) -> Forward | None:
        """The end of a forward, however it came about: nothing of it is seen by the next one. Harmless if done twice.

        Returns:
            what it was.
        """
        forward, self.local.forward = self.local.forward, None
        self.local.encoded = self.local.left = None
        if forward is not None and forward.state is not None:
            forward.state.open = False
        if not torch.compiler.is_compiling() and self.local.generation is None:
            self.busy.leave()
        return forward

    def prepare(self, original: Any) -> Any:
        """What `generate` asks for in front of every step, compiled or not: the host knows how long the sequence is."""

        @functools.wraps(original)
        def wrapper(input_ids: Tensor, *args: Any, **kwargs: Any) -> Any:
            cache = given_cache(kwargs, self.parts.base_cache)
            mask = kwargs.get("attention_mask")
            whole = mask.shape[1] if isinstance(mask, Tensor) and mask.dim() == 2 else 0
            check_room(cache, 0, max(whole, input_ids.shape[1]))
            return original(input_ids, *args, **kwargs)

        return wrapper


def unwatched(copied: nn.Module, module: nn.Module) -> None:
    """Let a copy of a module run its own `forward`, not that of the module, to which our wrapper is bound."""
    own: Any = vars(copied).get("forward")
    if getattr(own, _WATCHED, False):
        inner = own.__wrapped__
        if getattr(inner, "__func__", None) is type(module).forward:
            del copied.__dict__["forward"]
        else:  # another library's wrapper, which was there before
            copied.__dict__["forward"] = inner


def encoded_before(arguments: dict[str, Any]) -> dict[Modality, Encoded | None]:
    """The note on everything that was encoded before a forward with these arguments; None where there is none."""
    outputs = arguments.get("mm_encoder_outputs") or {}
    return {m: getattr(outputs[m], _NOTE, None) for m in get_args(Modality) if outputs.get(m) is not None}


def _lengths(features: Any) -> list[int] | None:
    """Tokens of each picture, where features come one by one or in a block [pictures, tokens, d]."""
    if isinstance(features, list | tuple):
        return [f.numel() // f.shape[-1] for f in features]
    if isinstance(features, Tensor):
        return [features.shape[-2]] * (features.shape[0] if features.dim() == 3 else 1)
    return None
