"""Visual tokens with every signal there is, from a seed."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from vlm_pruner.types import VisionSignals, VisualTokens


def visual_tokens(
    grid: tuple[int, int, int] = (1, 6, 7),
    d: int = 48,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    scale: float = 1.0,
    flat: bool = False,
    layer: int | None = 2,
) -> VisualTokens:
    """Random tokens of one image or video with all signals filled.

    Args:
        scale: largest magnitude of the features, keys and embeddings.
        flat: every token has the same features, keys, attention and embeddings.
        layer: where the tokens are read; vision signals are filled everywhere.
    """
    generator = torch.Generator().manual_seed(seed)
    n, text, heads, head_dim, width = grid[0] * grid[1] * grid[2], 5, 4, 8, 24

    def rows(*shape: int, along: int | None = 0) -> Tensor:
        x = torch.randn(*shape, generator=generator)
        if flat and along is not None:
            x = x.narrow(along, 0, 1).expand(shape).clone()
        return (x * (scale / x.abs().max())).to(dtype) if scale != 1.0 else x.to(dtype)

    def attention(*shape: int) -> Tensor:
        x = torch.randn(*shape, generator=generator)
        return (torch.zeros_like(x) if flat else x * 2).softmax(-1).to(dtype)

    def rotary() -> Tensor:
        angle = torch.arange(3, 3 + n)[:, None] * 100.0 ** -torch.linspace(0, 1, head_dim // 2)
        angle = torch.zeros_like(angle) if flat else angle
        return torch.stack([angle.cos(), angle.sin()]).repeat(1, 1, 2).to(dtype)

    made = VisualTokens(
        features=rows(n, d),
        keys=rows(2, n, head_dim, along=1),
        grid=grid,
        text=rows(text, d, along=None),
        text_keys=rows(2, text, head_dim, along=None),
        words=rows(text, d, along=None),
        attention=attention(heads, n),
        text_attention=attention(heads, text, n),
        previous=rows(n, d),
        embeddings=rows(n, d),
        vision=VisionSignals(
            features=rows(n, width),
            cls=rows(width, along=None),
            keys=rows(heads, n, head_dim, along=1),
            cls_keys=rows(heads, head_dim, along=None),
            cls_attention=attention(heads, n),
            attention=attention(9, n),
        ),
        pixels=torch.rand(n, 12, 3, generator=generator),
        image_embeds=rows(n, 16),
        text_embeds=rows(2, 16, along=None),
        word_embeds=rows(2, text, 16, along=None),
        layer=layer,
    )
    assert made.vision is not None
    return replace(
        made,
        raw_keys=rows(2, n, head_dim, along=1),
        text_queries=rows(heads, text, head_dim, along=None),
        values=rows(2, n, head_dim, along=1),
        text_values=rows(2, text, head_dim, along=None),
        rotary=rotary(),
        vision=replace(made.vision, cls_attentions=attention(9, n)),
    )
