"""The released algorithms step by step, matrices and gathers included: oracles of tests, rivals of benchmarks.

Written from the published descriptions. They do what the released codes do and what makes those slow: all pairwise
cosines by broadcasting, gathers of every block against everything kept, a host read per block. Arithmetic is float32
where the released code has the dtype of the model; sorts are stable. Only for one image.
"""

from __future__ import annotations

import torch
from torch import Tensor


def vlm_pruner(
    hidden: Tensor,
    keys: Tensor,
    grid: tuple[int, int],
    keep: int,
    fill: bool = True,
    pivots: int = 4,
    channels: int = 256,
    threshold: float = 0.8,
    batch: int = 16,
    merge: bool = True,
) -> tuple[list[int], Tensor]:
    """(kept tokens in order of selection, their rows [k, d] in ascending order) of VLM-Pruner, arXiv:2512.02700.

    Args:
        hidden: [n, d]; keys: [heads, n, head_dim]; grid: (rows, columns), tokens in raster order.
    """
    flat = keys.transpose(0, 1).reshape(hidden.shape[0], -1)  # [n, heads * head_dim]
    kept = [int(flat.abs().sum(1).argmax())]
    while len(kept) < pivots:
        kept.append(int(torch.cdist(flat, flat[kept]).amin(1).argmax()))
    widest = hidden.var(dim=0).topk(min(channels, hidden.shape[1])).indices
    screened = hidden[:, widest]
    cosine = torch.cosine_similarity(screened[:, None], screened[None], dim=-1)  # [n, n] through [n, n, q]
    apart, scale = _distances(grid, hidden.device)
    kept = _grow(cosine, apart, 0.5 * scale, kept, keep, threshold, batch, fill)
    return kept, _aggregate(hidden, cosine, kept) if merge else hidden[sorted(kept)]


def _distances(grid: tuple[int, int], device: torch.device) -> tuple[Tensor, float]:
    rows, columns = grid
    place = torch.arange(rows * columns, device=device)
    xy = torch.stack([place % columns, place // columns], 1).float()
    return torch.cdist(xy, xy), float((rows**2 + columns**2) ** -0.5)


def _grow(
    cosine: Tensor, apart: Tensor, slope: float, kept: list[int], keep: int, threshold: float, batch: int, fill: bool
) -> list[int]:
    def redundancy(tokens: Tensor) -> Tensor:
        chosen = torch.tensor(kept, device=tokens.device)
        similar = cosine[tokens][:, chosen]
        factor = 1 + slope * apart[tokens][:, chosen].amin(1)
        return (similar * factor[:, None]).amax(1)

    kept, last, tau = list(kept), 0, threshold - 0.1
    while len(kept) < keep:
        if len(kept) == last and not fill:
            break
        last, tau = len(kept), tau + 0.1
        taken = set(kept)
        outside = torch.tensor([i for i in range(len(cosine)) if i not in taken], device=cosine.device)
        ordered = outside[(1 - redundancy(outside)).argsort(descending=True, stable=True)]
        for number, block in enumerate(ordered.split(batch)):
            if number == 1 and len(kept) == last:
                break
            score = redundancy(block)
            fits = score < tau
            room = keep - len(kept)
            if int(fits.sum()) > room:
                kept += block[(1 - score).topk(room).indices].tolist()
            else:
                kept += block[fits].tolist()
            if len(kept) >= keep:
                break
    return kept


def _aggregate(hidden: Tensor, cosine: Tensor, kept: list[int]) -> Tensor:
    chosen = torch.tensor(kept, device=hidden.device)
    dropped = torch.ones(len(hidden), dtype=torch.bool, device=hidden.device)
    dropped[chosen] = False
    rest = dropped.nonzero().flatten()
    weight, owner = cosine[rest][:, chosen].max(1)
    share = torch.zeros(len(kept), len(rest), device=hidden.device)  # [k, n - k]
    share[owner, torch.arange(len(rest), device=hidden.device)] = weight
    share = share / share.sum(1, keepdim=True).clamp(min=1e-8)
    received = share.sum(1) > 0
    rows = hidden[chosen]
    rows[received] = 0.3 * rows[received] + 0.7 * (share @ hidden[rest])[received]
    return rows[chosen.argsort()]


def divprune(features: Tensor, keep: int) -> list[int]:
    """Tokens in order of selection of DivPrune, arXiv:2503.02175."""
    unit = features / features.norm(dim=1, keepdim=True)
    distance = 1 - unit @ unit.T
    kept = [int(distance.topk(2, dim=0, largest=False).values[1].argmax())]
    while len(kept) < keep:
        kept.append(int(distance[torch.tensor(kept, device=features.device)].amin(0).argmax()))
    return kept


def cdpruner(features: Tensor, image: Tensor, text: Tensor, keep: int) -> list[int]:
    """Tokens in order of selection of CDPruner, arXiv:2506.10967; `image` [n, c] and `text` [m, c] in one space."""
    unit = features / features.norm(dim=-1, keepdim=True)
    asked = (image / image.norm(dim=-1, keepdim=True)) @ (text / text.norm(dim=-1, keepdim=True)).T
    relevance = -asked.mean(1)
    relevance = (relevance - relevance.min() + 1e-6) / (relevance.max() - relevance.min())
    kernel = relevance[:, None] * (unit @ unit.T) * relevance
    factors = torch.zeros(keep, len(features), device=features.device)
    residual, kept = kernel.diagonal().clone(), []
    for t in range(keep):
        best = int(residual.argmax())
        kept.append(best)
        factor = (kernel[best] - factors[:t, best] @ factors[:t]) / residual[best].sqrt()
        factors[t] = factor
        residual = residual - factor.square()
        residual[best] = -torch.inf
    return kept


def dart(features: Tensor, keys: Tensor, text: Tensor, text_keys: Tensor, keep: int) -> list[int]:
    """Image tokens of DART, arXiv:2502.11494: 4 + 8 * int(keep / 8) of them, pivots in a fixed order."""
    n = len(features)
    image_norm = keys.transpose(0, 1).flatten(1).abs().sum(1)
    text_norm = text_keys.transpose(0, 1).flatten(1).abs().sum(1)
    kept, anchors = image_norm.topk(4).indices.tolist(), text_norm.topk(4).indices.tolist()
    rows = [features[i] for i in kept] + [text[i] for i in anchors]
    pool = [i for i in range(n) if i not in kept]
    for row in rows:
        cosine = torch.cosine_similarity(features[torch.tensor(pool)], row[None], dim=-1)
        least = cosine.topk(keep // 8, largest=False).indices.tolist()
        gone = {pool[j] for j in least}
        kept += sorted(gone)
        pool = [i for i in pool if i not in gone]
    return kept
