"""PruneSID: groups of tokens along principal directions, and the least redundant of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from vlm_pruner.budget import Budget, share_budget
from vlm_pruner.errors import PlanError
from vlm_pruner.methods._float64 import mean_of_heads, unit_rows
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.ops.basic import ranking
from vlm_pruner.ops.sync import declared_sync
from vlm_pruner.types import Selection, Signal, VisualTokens

__all__ = ["PruneSID", "dynamic_count", "prunesid", "redundancy"]


def prunesid(rows: Tensor, score: Tensor | None, keep: int) -> Tensor:
    """[keep] tokens, group by group, the best of a group first.

    Args:
        rows: [n, c] of the vision tower without [CLS], or of the language model where it has none.
        score: [n] attention of [CLS]; None takes the loading of a token on its group, as for towers without it.
    """
    n, total = len(rows), keep + (score is not None)  # the code counts the [CLS] row
    count = min(n, max(total // 4, 1 if score is not None else 4))
    group, loading = _groups(rows, count)
    unit = unit_rows(rows)
    cosine = unit @ unit.T
    if score is not None:
        limit = total / 32 * _mean_of_pairs(cosine)
    else:  # the code of its authors divides by all places of the matrix
        limit = max(18 * total / n, 1) * cosine.triu().sum() / n**2
    score = loading if score is None else score.double()
    best_first = ranking(score)
    alike = (group[:, None] == group[None]) & (cosine > limit) & (score > 0)[:, None]
    gone = _suppressed(alike.index_select(0, best_first).index_select(1, best_first))
    survives = ~gone & (score > 0).index_select(0, best_first)
    group = group.index_select(0, best_first)
    member = (group[:, None] == torch.arange(count, device=rows.device)[None]).long()  # [n, groups]
    size = member.sum(0)
    quota = _quotas(size, (member * survives[:, None]).sum(0), n, total, keep)
    line = (2 * group + (~survives).long()).argsort(stable=True)  # group by group, survivors first
    owner = group.index_select(0, line)
    rank = torch.arange(n, device=rows.device) - (size.cumsum(0) - size).index_select(0, owner)
    left_out = (rank >= quota.index_select(0, owner)).int()
    return best_first.index_select(0, line.index_select(0, left_out.argsort(stable=True)[:keep]))


def redundancy(rows: Tensor) -> Tensor:
    """[] float64 mean cosine of all pairs of `rows` [n, c]."""
    unit = unit_rows(rows)
    return _mean_of_pairs(unit @ unit.T)


def dynamic_count(rows: Tensor, keep: int, reference: float) -> Tensor:
    """[] int64 tokens of an image whose budget grows with its variety 1 - redundancy (eq. 7): `keep` at `reference`."""
    return (keep * (1 - redundancy(rows)) / reference).round().clamp(1, len(rows)).long()


def _mean_of_pairs(cosine: Tensor) -> Tensor:
    n = len(cosine)
    return (cosine.sum() - cosine.diagonal().sum()) / max(1, n * (n - 1))


def _groups(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """[n] the principal direction on which a token loads most, and [n] how much, of `count` directions.

    Directions are the leading right singular vectors of the sigmoid of `rows`, centred over the channels. Those without
    any strength are undefined and take no token.
    """
    x = rows.double().sigmoid()
    x = x - x.mean(1, keepdim=True)
    with declared_sync():  # torch looks on the host whether it converged
        strength, direction = torch.linalg.eigh(x @ x.T)  # ascending
    loading = direction[:, -count:].abs().masked_fill(strength[-count:] <= 1e-12 * strength[-1], -1).flip(1)
    most, group = loading.max(1)
    return group, most.clamp_min(0)


def _suppressed(alike: Tensor) -> Tensor:
    """[n] bool: the tokens, best first, that a better one takes out which is not taken out itself.

    `alike` [n, n] says whom a token takes out; only what stands behind it counts.
    """
    gone = torch.zeros_like(alike[0])
    for i, row in enumerate(alike.unbind()):
        gone[i + 1 :] |= row[i + 1 :] & ~gone[i]
    return gone


def _quotas(size: Tensor, survivors: Tensor, tokens: int, total: int, keep: int) -> Tensor:
    """[groups] how many of its `size` tokens each group keeps, `keep` of all `tokens` together.

    In proportion to `survivors`, at least one each, up to a common bound; the rest goes to those of most survivors.
    """
    low = size.clamp_max(1)
    high = torch.minimum(size, survivors).clamp_max(5 * -(-total // 64))
    raised = high.new_full((), -1)  # the most by which all bounds can grow and still hold too few tokens
    for bit in reversed(range(tokens.bit_length())):
        trial = raised + 2**bit
        short = torch.minimum(high + trial, size).sum() < min(total, tokens)
        raised = torch.where(short, trial, raised)
    high = torch.minimum(high + raised + 1, size)
    rest = (keep - low.sum()).clamp_min(0)
    reached = _rounded(survivors.cumsum(0) * rest, survivors.sum().clamp_min(1))
    quota = torch.minimum(reached.diff(prepend=reached.new_zeros(1)) + low, high)
    by_survivors = ranking(survivors)
    room = (high - quota).index_select(0, by_survivors)
    more = torch.minimum((keep - quota.sum() - (room.cumsum(0) - room)).clamp_min(0), room)
    return quota.index_add(0, by_survivors, more)


def _rounded(part: Tensor, whole: Tensor) -> Tensor:
    """`part` / `whole` of integers, rounded exactly, halves to the even number."""
    nearest = (2 * part + whole).div(2 * whole, rounding_mode="floor")
    half = (2 * part + whole) % (2 * whole) == 0
    return nearest - (half & (nearest % 2 == 1)).long()


@final
@dataclass(frozen=True)
class PruneSID(PruningMethod):
    """Groups tokens by principal direction, and keeps from each group the most attended tokens that differ.

    Args:
        shared: the images of a call share their budgets in proportion to their variety, 1 - redundancy; `keep` is the
            mean.
        reference: the mean variety of a data set. An image keeps round(keep variety / reference), for which `keep` is a
            ceiling; the paper's mean over a data set is that without a ceiling, `dynamic_count`.

    Source: "PruneSID", arXiv:2603.09480, ICLR 2026; ZhengyaoFang/PruneSID.
    Deviates: exact principal directions, where the code draws a random projection without a seed, so that 14 to 22 % of
    its choice differ from run to run and from this; proportions are rounded exactly. The [CLS] row is no token here.
    Tokens stay in their order and places. Towers without [CLS] are pruned as in the authors' port for such models, by
    the rows and loadings at hand. Directions of equal strength
    depend on the processor. A GPU is waited for once, in the decomposition, so that no graph can record it.
    Cost: O(n^2 (n + c)), [n, n] matrices in float64.
    """

    name: ClassVar[str] = "prunesid"
    title: ClassVar[str] = "PruneSID"
    source: ClassVar[str] = "arXiv:2603.09480"
    wants: ClassVar[frozenset[Signal]] = frozenset({Signal.VISION_FEATURES, Signal.CLS_ATTENTION})

    shared: bool = False
    reference: float | None = None

    def __post_init__(self) -> None:
        if self.shared and self.reference is not None:
            raise PlanError(
                "prunesid: shared=True shares a budget among pictures, reference= limits each: give only one"
            )
        if self.reference is not None and not self.reference > 0:
            raise PlanError(f"reference={self.reference} must be above 0")

    @property
    def budget(self) -> Budget:
        return "mean" if self.shared else "fixed" if self.reference is None else "ceiling"

    def select_batch(self, tokens: Sequence[VisualTokens], keep: Sequence[int]) -> list[Selection]:
        if self.shared:
            with declared_sync():  # how many stay is seen in the images alone
                variety = [max(0.0, 1 - float(redundancy(t.features))) for t in tokens]
            keep = share_budget(variety, [len(t) for t in tokens], sum(keep))
        elif self.reference is not None:
            with declared_sync():
                own = [int(dynamic_count(t.features, k, self.reference)) for t, k in zip(tokens, keep, strict=True)]
            keep = [min(pair) for pair in zip(own, keep, strict=True)]
        return [self._chosen(t, k) for t, k in zip(tokens, keep, strict=True)]

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        return self.select_batch([tokens], [keep])[0]

    def _chosen(self, tokens: VisualTokens, keep: int) -> Selection:
        rows, score = tokens.features, None
        vision = tokens.vision
        if vision is not None and vision.features is not None and vision.cls_attention is not None:
            rows, score = vision.features, mean_of_heads(vision.cls_attention)
        order = prunesid(rows, score, keep)
        return Selection(index=order.sort().values, order=order)
