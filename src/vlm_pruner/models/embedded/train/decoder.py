"""Stages "few" and "all": the decoder learns to answer from the frozen tower's tokens.

Beside the answers' cross entropy, half of the heads of the first sighted layers are drawn to the evidence tokens of
each answer step; without this a small decoder spends most of its time on finding out where to look.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LlavaForConditionalGeneration

from vlm_pruner.models.embedded.config import PRUNE_LAYER
from vlm_pruner.models.embedded.tokenizer import EOS, SPACE, pieces
from vlm_pruner.scenes.questions import TYPES

from .data import SINK
from .dense import choose_patches, patch_rows, tower_states
from .packed import HEAD, Packed, run_packed

Batch = dict[str, Tensor]
BLIND = (2, 2, 2, 3, 4)  # first layer whose text sees its own image, drawn per batch
ASKED = 24  # questions per image and step
DULL = {SPACE: 0.1, EOS: 0.1}  # weight of answer tokens that carry no answer


def tower_features(model: LlavaForConditionalGeneration, device: torch.device) -> Callable[[Batch], Batch]:
    """Replaces images by tower features before they enter the pool."""

    def transform(batch: Batch) -> Batch:
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
            features = tower_states(model, patch_rows(batch["image"].to(device)))[:, 1:]
        ground = batch["labels"][:, -1]  # the last family says what is background
        rest = {k: a for k, a in batch.items() if k not in ("image", "labels", "offsets")}
        return rest | {"features": features.to("cpu", torch.bfloat16), "ground": ground}

    return transform


def balance(model: LlavaForConditionalGeneration, features: Tensor) -> None:
    """Unit variance for word embeddings and projected tokens; the output layer starts as the transposed embedding."""
    projector, embedding = model.model.multi_modal_projector, model.model.language_model.embed_tokens.weight
    with torch.no_grad():
        embedding.div_(embedding.std(1, keepdim=True).clamp(min=1e-3))
        spread = projector(features.float()).std()
        projector.linear_2.weight.div_(spread)
        projector.linear_2.bias.div_(spread)
        model.lm_head.weight.copy_(embedding * 0.1)


def select_questions(batch: Batch, count: int) -> Batch:
    """`count` random questions of each image."""
    pick = torch.rand(batch["type"].shape, device=batch["type"].device).topk(count, 1).indices
    out = dict(batch)
    for key in ("tokens", "target", "start", "evidence", "type", "subject"):
        index = pick.view(*pick.shape, *(1,) * (batch[key].dim() - 2)).expand(-1, -1, *batch[key].shape[2:])
        out[key] = batch[key].gather(1, index)
    return out


def _pair(batch: Batch) -> Tensor:
    """[b, q] questions that stay well-posed when images 2i and 2i+1 are shown together."""
    other = batch["shown"].view(-1, 2, batch["shown"].shape[1]).flip(1).flatten(0, 1)  # [b, names]
    subject = batch["subject"].long()
    return (subject >= 0) & ~other.gather(1, subject.clamp(min=0))


def answer(
    model: LlavaForConditionalGeneration, batch: Batch, tokens: int, images: int = 1, **options: Any
) -> tuple[Packed, dict[str, Tensor]]:
    """Run the questions of a batch; also returns, per predicted token r: logits, target, place, evidence [r, n]."""
    count = len(batch["features"])
    keep = choose_patches(batch["ground"], tokens).sort(1).values if tokens < batch["ground"].shape[1] else None
    features, item = batch["features"].to(model.lm_head.weight.dtype), batch["item"].long()
    if keep is not None:
        features = features.gather(1, keep[..., None].expand(-1, -1, features.shape[-1]))
        item = item.gather(1, keep)
    image = model.model.multi_modal_projector(features)
    groups = count // images
    blocks = batch["tokens"].long()
    packed = run_packed(
        model,
        image.reshape(groups, -1, image.shape[-1]),
        blocks.reshape(groups, -1, blocks.shape[2]),
        keep=None if keep is None else keep.reshape(groups, -1),
        images=images,
        **options,
    )
    target = batch["target"].long()
    valid = target >= 0
    if images == 2:
        valid = valid & _pair(batch)[..., None]
    b, q, s = valid.nonzero(as_tuple=True)
    place = batch["start"].long()[b, q] + s
    states = packed.states.reshape(count, *blocks.shape[1:], -1)[b, q, place]
    bits = batch["evidence"][b, q, s]
    shown = item[b]
    evidence = (shown >= 0) & ((bits[:, None] >> shown.clamp(min=0)) & 1).bool()  # [r, n]
    rows = {
        "logits": model.lm_head(states).float(),
        "target": target[b, q, s],
        "b": b,
        "q": q,
        "s": s,
        "place": place,
        "evidence": evidence,
        "sink": (bits >> SINK) & 1 == 1,
        "type": batch["type"].long()[b, q],
    }
    return packed, rows


def looking_loss(packed: Packed, rows: dict[str, Tensor], images: int, asked: int, length: int) -> Tensor:
    """-log of the attention that the first half of the heads give to the evidence, or to the first token."""
    group, side = rows["b"] // images, rows["b"] % images
    width = rows["evidence"].shape[1]
    row = (side * asked + rows["q"]) * length + rows["place"]
    some = rows["evidence"].any(1)
    total = []
    for weights in packed.attention.values():  # [g, heads, rows, prefix]
        mine = weights[group, : weights.shape[1] // 2, row]  # [r, heads / 2, prefix]
        spans = mine[..., HEAD:].view(*mine.shape[:2], images, width)[
            torch.arange(len(side)), :, side
        ]  # [r, heads / 2, n]
        mass = (spans * rows["evidence"][:, None]).sum(-1).mean(1)
        mass = torch.where(rows["sink"], mine[..., 0].mean(1), mass)
        use = some | rows["sink"]
        total.append(-(mass[use] + 1e-3).log().mean())
    return torch.stack(total).mean()


def decoder_loss(
    model: LlavaForConditionalGeneration, batch: Batch, tokens: int, *, looking: float, sighted: bool, pairs: float
) -> tuple[Tensor, dict[str, float]]:
    """`sighted`: text sees its image in all layers, as at inference; else layers below PRUNE_LAYER see another."""
    images = 2 if float(torch.rand(())) < pairs else 1
    batch = select_questions(batch, ASKED)
    first = PRUNE_LAYER if sighted else BLIND[int(torch.randint(len(BLIND), ()))]
    packed, rows = answer(
        model,
        batch,
        tokens,
        images,
        foreign=0 if sighted else PRUNE_LAYER,
        blind=0 if sighted else first,
        watch=(first, first + 1) if looking else (),
    )
    weight = torch.ones(len(pieces()) + 1, device=rows["target"].device)
    for piece, value in DULL.items():
        weight[pieces().index(piece)] = value
    weight = weight[rows["target"]]
    loss = F.cross_entropy(rows["logits"], rows["target"], reduction="none")
    total = (loss * weight).sum() / weight.sum()
    info = {("pair_" if images == 2 else "") + k: x for k, x in exact(rows, batch).items()}
    if looking:
        look = looking_loss(packed, rows, images, ASKED, batch["tokens"].shape[2])
        total = total + looking * look
        info["looking"] = look.item()
    return total, info | {"answers": (loss * weight).sum().item() / weight.sum().item()}


def exact(rows: dict[str, Tensor], batch: Batch, types: Sequence[str] = TYPES) -> dict[str, float]:
    """Share of questions of each of the types whose tokens are all right."""
    wrong = torch.zeros(batch["type"].shape, device=batch["type"].device)
    asked = torch.zeros_like(wrong, dtype=torch.bool)
    wrong.index_put_((rows["b"], rows["q"]), (rows["logits"].argmax(-1) != rows["target"]).float(), accumulate=True)
    asked[rows["b"], rows["q"]] = True
    out = {}
    for index, name in enumerate(types):
        mine = asked & (batch["type"] == index)
        if mine.any():
            out[name] = (wrong[mine] == 0).float().mean().item()
    return out
