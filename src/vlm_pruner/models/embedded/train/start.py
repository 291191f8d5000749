"""Starting points that save a small model hours: only initial values, the architecture stays plain CLIP and Llama."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration

from vlm_pruner.models.embedded.config import GRID

DECAY = 4.8  # log range of the position frequencies
SHIFTS = (
    (0, 0),
    (0, 1),
    (1, 0),
    (-1, -1),
    (0, -1),
    (-1, 0),
    (1, -1),
    (1, 1),
    (0, 2),
    (-1, 1),
    (2, 0),
    (0, -2),
    (0, 0),
    (0, 3),
    (0, -3),
    (-2, 0),
    (3, 0),
    (-3, 0),
)


def sincos_positions(model: LlavaForConditionalGeneration) -> None:
    """2-D sine-cosine position embedding: neighbours are found much sooner than from noise."""
    weight = model.model.vision_tower.embeddings.position_embedding.weight  # [577, d]
    quarter = weight.shape[1] // 4
    wave = torch.arange(float(GRID))[:, None] * torch.exp(torch.arange(quarter) * -(DECAY / quarter))
    code = torch.cat([wave.sin(), wave.cos()], 1)
    both = torch.cat([code[:, None].expand(-1, GRID, -1), code[None].expand(GRID, -1, -1)], -1)
    with torch.no_grad():
        weight[1:] = 0.35 * both.reshape(GRID * GRID, -1)


def neighbour_attention(model: LlavaForConditionalGeneration, gain: float = 3.0) -> None:
    """Each head of all but the last layer first looks at a fixed neighbour: a shift of the code is a rotation."""
    tower = model.model.vision_tower
    width, heads = tower.config.hidden_size, tower.config.num_attention_heads
    size, quarter = width // heads, width // 4
    frequency = torch.exp(torch.arange(quarter) * -(DECAY / quarter))
    used = torch.linspace(0, quarter * 0.55, size // 4).long().tolist()
    for number, layer in enumerate(tower.encoder.layers[:-1]):
        for head in range(heads):
            shift = SHIFTS[(number * heads + head) % len(SHIFTS)]
            query, key = torch.zeros(size, width), torch.zeros(size, width)
            row = 0
            for axis in (0, 1):
                for j in used:
                    sin, cos = axis * 2 * quarter + j, axis * 2 * quarter + quarter + j
                    angle = float(frequency[j] * shift[axis])
                    key[row, sin], key[row + 1, cos] = 1, 1
                    query[row, sin], query[row, cos] = math.cos(angle), math.sin(angle)
                    query[row + 1, cos], query[row + 1, sin] = math.cos(angle), -math.sin(angle)
                    row += 2
            rows = slice(head * size, (head + 1) * size)
            with torch.no_grad():
                layer.self_attn.q_proj.weight[rows] = gain * query + 0.02 * torch.randn(size, width)
                layer.self_attn.k_proj.weight[rows] = gain * key + 0.02 * torch.randn(size, width)


def whitened_patches(
    model: LlavaForConditionalGeneration, patches: Tensor, shown: Tensor, amplitude: float = 0.5
) -> None:
    """Patch filters = mixed, whitened principal components of real patches [n, 588]; noise sees little but colour."""
    weight = model.model.vision_tower.embeddings.patch_embedding.weight
    rest = patches[~shown]
    rows = torch.cat([patches[shown], rest[torch.randperm(len(rest))[: int(shown.sum()) // 3]]])
    rows = rows - rows.mean(0)
    values, vectors = torch.linalg.eigh(rows.T @ rows / len(rows))
    values, vectors = values.flip(0)[: weight.shape[0]], vectors.flip(1)[:, : weight.shape[0]]
    filters = (vectors / (values + 1e-2 * values[0]).sqrt()).T
    mix = torch.linalg.qr(torch.randn(weight.shape[0], weight.shape[0]))[0]
    with torch.no_grad():
        weight.copy_((amplitude * (mix @ filters)).view_as(weight))


def content_attention(model: LlavaForConditionalGeneration, blind: int, gain: float = 0.5) -> None:
    """Decoder start: keys share the query projection (like attends to like) and the output copies what is attended to.

    Layers below `blind` start from noise instead, so that they do not match text with image tokens.
    """
    with torch.no_grad():
        for number, layer in enumerate(model.model.language_model.layers):
            attention = layer.self_attn
            size = attention.head_dim
            groups = attention.q_proj.weight.shape[0] // attention.k_proj.weight.shape[0]
            if number < blind:
                for linear in (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj):
                    nn.init.normal_(linear.weight, std=0.06)
                continue
            key = nn.init.orthogonal_(torch.empty_like(attention.k_proj.weight))
            attention.k_proj.weight.copy_(key)
            attention.q_proj.weight.copy_(
                key.view(-1, size, key.shape[1]).repeat_interleave(groups, 0).reshape(-1, key.shape[1])
            )
            value = nn.init.orthogonal_(torch.empty_like(attention.v_proj.weight))
            attention.v_proj.weight.copy_(value)
            copy = value.view(-1, size, value.shape[1]).repeat_interleave(groups, 0).reshape(-1, value.shape[1])
            attention.o_proj.weight.copy_(gain / groups * copy.T)
