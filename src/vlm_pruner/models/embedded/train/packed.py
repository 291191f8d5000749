"""Many questions behind one image prefix in one pass: the decoder's exact mathematics, the image only once.

A block of tokens (question, ASSISTANT:, answer) sees the prefix `<s> USER: <image tokens>` and itself; its positions go
on after the image's last position. `tests/models/test_packed.py` holds this to the plain forward pass of transformers.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LlavaForConditionalGeneration

from vlm_pruner.models.embedded.config import GRID
from vlm_pruner.models.embedded.tokenizer import BOS, USER, pieces

HEAD = 2  # prefix tokens before the image: <s> USER:
TOKENS = GRID * GRID


@dataclass
class Packed:
    states: Tensor  # [b, q, l, width] after the final norm
    attention: dict[int, Tensor]  # layer -> attention of the blocks to the prefix [b, heads, q * l, prefix]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin


def prefix_positions(keep: Tensor | None, images: int, batch: int, device: torch.device, total: int = TOKENS) -> Tensor:
    """Original positions [b, HEAD + n] of a prefix whose images show tokens `keep` [b, n] of `total`, or all."""
    head = torch.arange(HEAD, device=device).expand(batch, -1)
    if keep is None:
        return torch.arange(HEAD + images * total, device=device).expand(batch, -1)
    per_image = keep.shape[1] // images
    shift = torch.arange(images, device=device).repeat_interleave(per_image) * total
    return torch.cat([head, HEAD + keep + shift], 1)


def run_packed(
    model: LlavaForConditionalGeneration,
    image: Tensor,
    tokens: Tensor,
    *,
    keep: Tensor | None = None,
    images: int = 1,
    foreign: int = 0,
    blind: int = 0,
    watch: Collection[int] = (),
    until: Tensor | None = None,
    total: int = TOKENS,
) -> Packed:
    """Decode blocks [b, q, l] behind projected image tokens [b, images * n, width].

    foreign: in layers below it, blocks look at the image tokens of another sample, and so learn to ignore them.
    blind: in layers from `foreign` to below `blind`, blocks see no image token.
    watch: layers whose attention is returned.
    until: [q] block i sees image tokens in the layers below until[i] only; None: in all.
    total: visual tokens of a whole image, or of a whole video.
    """
    language = model.model.language_model
    batch, count, length = tokens.shape
    index = pieces().index
    head = language.embed_tokens(torch.tensor([index(BOS), index(USER)], device=tokens.device)).expand(batch, -1, -1)
    prefix = torch.cat([head, image.to(head.dtype)], 1)
    text = language.embed_tokens(tokens.reshape(batch, count * length))
    places = prefix_positions(keep, images, batch, tokens.device, total)
    after = HEAD + images * total + torch.arange(length, device=tokens.device)
    angles_p = tuple(a.unsqueeze(1).float() for a in language.rotary_emb(prefix, places))  # [b, 1, p, head_dim]
    angles_t = tuple(a.unsqueeze(1).float().repeat(1, 1, count, 1) for a in language.rotary_emb(text, after[None]))
    seen: dict[int, Tensor] = {}
    for number, layer in enumerate(language.layers):
        sight = "foreign" if number < foreign else "none" if number < blind else "own"
        masked = None if until is None else until <= number
        last = number == len(language.layers) - 1
        prefix, text, weights = _layer(layer, prefix, text, angles_p, angles_t, count, sight, masked, last)
        if number in watch:
            seen[number] = weights
    return Packed(language.norm(text).view(batch, count, length, -1), seen)


def _layer(
    layer: Any,
    prefix: Tensor,
    text: Tensor,
    angles_p: tuple[Tensor, ...],
    angles_t: tuple[Tensor, ...],
    count: int,
    sight: str,
    masked: Tensor | None,
    last: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """One decoder layer: prefix [b, p, width], text [b, q * l, width] and the attention of the text to the prefix."""
    attention = layer.self_attn
    split, size = prefix.shape[1], attention.head_dim
    rows = torch.cat([prefix, text], 1)
    normal = layer.input_layernorm(rows)
    query, key, value = (
        linear(normal).view(*rows.shape[:2], -1, size).transpose(1, 2)
        for linear in (attention.q_proj, attention.k_proj, attention.v_proj)
    )  # [b, heads, p + q * l, size]
    query = torch.cat([rotate(query[:, :, :split], *angles_p), rotate(query[:, :, split:], *angles_t)], 2).to(
        value.dtype
    )
    key = torch.cat([rotate(key[:, :, :split], *angles_p), rotate(key[:, :, split:], *angles_t)], 2).to(value.dtype)
    key_p, value_p = key_own, value_own = key[:, :, :split], value[:, :, :split]
    if sight == "foreign":
        key_p = torch.cat([key_p[:, :, :HEAD], key_p[:, :, HEAD:].roll(1, 0)], 2)
        value_p = torch.cat([value_p[:, :, :HEAD], value_p[:, :, HEAD:].roll(1, 0)], 2)
    elif sight == "none":
        key_p, value_p = key_p[:, :, :HEAD], value_p[:, :, :HEAD]
    mixed, weights = _block_attention(
        query[:, :, split:], key_p, value_p, key[:, :, split:], value[:, :, split:], count, masked
    )
    if last:  # nobody reads the prefix after the last layer
        split, rows = 0, rows[:, split:]
    else:
        own = F.scaled_dot_product_attention(
            query[:, :, :split], key_own, value_own, is_causal=True, enable_gqa=True
        )  # [b, heads, p, size]
        mixed = torch.cat([own, mixed], 2)
    rows = rows + attention.o_proj(mixed.transpose(1, 2).flatten(2))
    rows = rows + layer.mlp(layer.post_attention_layernorm(rows))
    return rows[:, :split], rows[:, split:], weights


def _block_attention(
    query: Tensor, key_p: Tensor, value_p: Tensor, key_t: Tensor, value_t: Tensor, count: int, masked: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Softmax over the prefix and the block's own earlier tokens. query [b, heads, q * l, size].

    masked: [q] blocks that see no image token.
    """
    batch, heads, rows, size = query.shape
    groups, length, prefix = heads // key_p.shape[1], rows // count, key_p.shape[2]
    grouped = query.reshape(batch, heads // groups, groups * rows, size) * size**-0.5
    far = (grouped @ key_p.transpose(2, 3)).view(batch, heads, count, length, prefix)
    block = (batch, heads // groups, 1, count, length, size)
    if masked is not None:
        image = torch.arange(prefix, device=query.device) >= HEAD
        far = far.masked_fill(masked[:, None, None] & image, float("-inf"))
    near = grouped.view(batch, heads // groups, groups, count, length, size) @ key_t.reshape(block).transpose(4, 5)
    near = near.reshape(batch, heads, count, length, length)
    later = torch.ones(length, length, dtype=torch.bool, device=query.device).triu(1)
    scores = torch.cat([far, near.masked_fill(later, float("-inf"))], -1)
    weights = scores.float().softmax(-1)
    used = weights.to(value_p.dtype)
    out = used[..., :prefix].reshape(batch, heads // groups, groups * rows, prefix) @ value_p
    local = used[..., prefix:].reshape(batch, heads // groups, groups, count, length, length) @ value_t.reshape(block)
    return out.view(batch, heads, rows, size) + local.reshape(batch, heads, rows, size), weights[..., :prefix].reshape(
        batch, heads, rows, prefix
    )
