"""The starting points of the embedded model's training do what they are written for."""

from __future__ import annotations

import torch

from vlm_pruner.models.embedded.config import GRID, VISION_HEADS, VISION_WIDTH, build_model
from vlm_pruner.models.embedded.train.start import SHIFTS, neighbour_attention, sincos_positions


def test_every_head_looks_at_its_own_neighbour() -> None:
    model = build_model()
    sincos_positions(model)
    neighbour_attention(model, gain=30.0)
    tower = model.model.vision_tower
    code, size = tower.embeddings.position_embedding.weight[1:], VISION_WIDTH // VISION_HEADS
    place, found = GRID // 2 * GRID + GRID // 2, []
    for layer in tower.encoder.layers[:-1]:
        query = torch.nn.functional.linear(code[place], layer.self_attn.q_proj.weight).view(-1, size)
        keys = torch.nn.functional.linear(code, layer.self_attn.k_proj.weight).view(len(code), -1, size)
        best = torch.einsum("hd,nhd->hn", query, keys).argmax(1)
        found += [(int(n) // GRID - GRID // 2, int(n) % GRID - GRID // 2) for n in best]
    assert found == [SHIFTS[n % len(SHIFTS)] for n in range(len(found))]
    assert set(found) == set(SHIFTS)
