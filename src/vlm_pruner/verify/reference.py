"""The independent yardstick: the full-length model, with the dropped tokens hidden from a layer on.

Nothing is shared with the engine. A registered attention function computes softmax attention explicitly and hides, in
every decoder layer, the columns of the tokens that are dropped by then.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from vlm_pruner.verify.shortened import BESIDE, CHOOSING, STATES, layers_of, shortened, types_of

__all__ = ["NAME", "masked", "nudged"]

NAME = "vlm_pruner_reference"


class _Hidden:
    """What the attention function hides at the moment."""

    def __init__(self) -> None:
        self.dropped: dict[int, Tensor] = {}  # layer -> [b, s] bool, s = places decided so far
        self.modules: dict[int, int] = {}  # attention of a layer -> the layer whose keys it reads
        self.total = 0
        self.prompt = 0  # columns of the prompt, which a window over what is generated leaves out


_hidden = _Hidden()


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = (query @ key.transpose(-1, -2)).double() * (scaling or query.shape[-1] ** -0.5)
    if kwargs.get("softcap"):
        scores = torch.tanh(scores / kwargs["softcap"]) * kwargs["softcap"]
    if attention_mask is not None:
        scores = scores + attention_mask.double()
    if id(module) in _hidden.modules:
        dropped = _hidden.dropped[_hidden.modules[id(module)]].to(scores.device)
        whole = torch.zeros(len(dropped), _hidden.total, dtype=torch.bool, device=scores.device)
        known = min(_hidden.total, dropped.shape[1])
        whole[:, :known] = dropped[:, :known]
        away = _hidden.total - key.shape[2]  # sliding layers hand over the last columns only, some behind the prompt
        whole = torch.cat([whole[:, : _hidden.prompt], whole[:, _hidden.prompt + away :]], 1)
        whole = whole.repeat_interleave(len(scores) // len(whole), 0)  # beams
        scores = scores.masked_fill(whole[:, None, None], torch.finfo(torch.float64).min)
    weights = scores.softmax(-1).to(value.dtype)
    return (weights @ value).transpose(1, 2).contiguous(), weights


def _keys_of(layers: Any, index: int) -> int:
    """The layer that makes the keys of layer `index`: the last one of its kind that does, where they are shared."""
    own: Any = layers[index].self_attn
    if not getattr(own, "is_kv_shared_layer", False):
        return index
    alike = (i for i, layer in enumerate(layers) if layer.self_attn.layer_type == own.layer_type)
    return max(i for i in alike if not layers[i].self_attn.is_kv_shared_layer)


@contextlib.contextmanager
def masked(model: Any, dropped: dict[int, Tensor]) -> Iterator[None]:
    """Hide `dropped[layer]` ([b, s] bool over the sequence so far) in every decoder layer; later tokens never are.

    Where a layer sees or chooses among all that is there, nothing can be hidden: there the
    rows are left out (`shortened`).

    Args:
        model: a stock transformers model, without a pruner on it.
    """
    if {*BESIDE, *STATES, *CHOOSING} & set(types_of(model)):
        with shortened(model, dropped):
            yield
        return
    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, eager_mask)
    text = model.base_model.get_decoder()
    backend = text.config._attn_implementation

    def count(module: Any, args: Any, kwargs: Any) -> None:
        hidden = args[0] if args else kwargs["hidden_states"]
        hidden = hidden[0] if hidden.dim() == 4 else hidden  # of several residual streams
        cache = kwargs.get("cache", kwargs.get("past_key_values"))  # since transformers 5.24, and before
        _hidden.total = hidden.shape[1] + (int(cache.get_seq_length()) if cache is not None else 0)

        _hidden.prompt = (
            getattr(cache.layers[0], "prefill_length", None) or 0 if cache is not None and cache.layers else 0
        )

    layers = layers_of(model)
    handle = layers[0].register_forward_pre_hook(count, with_kwargs=True)
    _hidden.dropped, _hidden.modules = (
        dropped,
        {id(layer.self_attn): _keys_of(layers, i) for i, layer in enumerate(layers)},
    )
    text.config._attn_implementation = NAME
    try:
        yield
    finally:
        handle.remove()
        _hidden.modules = {}
        text.config._attn_implementation = backend


@contextlib.contextmanager
def nudged(model: Any) -> Iterator[None]:
    """Change what enters the decoder by one unit of the last place, up or down by chance: what rounding alone does."""

    def nudge(module: Any, args: Any, kwargs: Any) -> Any:
        hidden = args[0] if args else kwargs["hidden_states"]
        chance = torch.Generator().manual_seed(0)
        signs = (torch.randint(0, 2, hidden.shape, generator=chance) * 2 - 1).to(hidden)
        hidden = hidden * (1 + signs * torch.finfo(hidden.dtype).eps)
        return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})

    handle = layers_of(model)[0].register_forward_pre_hook(nudge, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
