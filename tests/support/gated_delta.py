"""Recurrent layers of Qwen3.5 in vLLM on a CPU in any dtype: transformers' own loop in the place of vLLM's kernels.

Those know bfloat16 alone, in which a comparison sees little: what is said later goes by what was rounded before.
Everything else of vLLM stays: its scheduler, its states and which slot each prompt has, attention, and the plugin.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv1d, silu, softplus
from transformers.models.qwen3_5.modeling_qwen3_5 import torch_recurrent_gated_delta_rule
from vllm.utils.torch_utils import LayerNameType

__all__ = ["use_any_dtype"]

_KERNELS: Any = importlib.import_module("vllm.model_executor.layers.mamba.ops.cpu.gdn_attention")


def use_any_dtype() -> None:
    """Before vLLM registers its kernels, in a process of its own."""
    _KERNELS.cpu_gdn_attention_core = _core


def _core(mixed_qkv: Tensor, b: Tensor, a: Tensor, core_attn_out: Tensor, layer_name: LayerNameType) -> None:
    """vLLM's `cpu_gdn_attention_core`, one prompt after the other."""
    context = _KERNELS.get_forward_context()
    layer = context.no_compile_layers[_KERNELS._resolve_layer_name(layer_name)]
    if context.attn_metadata is None:  # vLLM measures its memory
        return
    batch = context.attn_metadata[layer.prefix]
    assert batch.spec_sequence_masks is None
    shifts, states = _KERNELS._conv_buffer_view(layer), _KERNELS._ssm_state_view(layer)
    ends = batch.non_spec_query_start_loc.tolist()
    for number, slot in enumerate(batch.non_spec_state_indices_tensor[: len(ends) - 1].tolist()):
        here = slice(ends[number], ends[number + 1])
        if number >= batch.num_decodes and not batch.has_initial_state[number]:
            shifts[slot], states[slot] = 0, 0
        weight = _KERNELS._unpacked_conv_weight(layer)
        past = torch.cat([shifts[slot], mixed_qkv[here].T], 1)  # [channels, width - 1 + n]
        shifts[slot] = past[:, -shifts.shape[2] :]
        mixed = silu(conv1d(past[None], weight[:, None], layer.conv1d.bias, groups=len(weight)))[0].T
        query, key, value = layer.rearrange_mixed_qkv(mixed.contiguous())  # [1, n, heads, d]
        repeats = value.shape[2] // query.shape[2]
        gate = -layer.A_log.float().exp() * softplus(a[here].float() + layer.dt_bias)
        rows, state = torch_recurrent_gated_delta_rule(
            query.repeat_interleave(repeats, 2), key.repeat_interleave(repeats, 2), value, g=gate[None],
            beta=b[here].sigmoid()[None], initial_state=states[slot][None].float(), output_final_state=True,
            use_qk_l2norm_in_kernel=True,
        )  # fmt: skip
        core_attn_out[here] = rows[0]
        states[slot] = state[0].to(states.dtype)
