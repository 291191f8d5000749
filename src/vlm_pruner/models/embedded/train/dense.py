"""Stage V, the dense warm-up: every projected visual token is pulled to the words for what it shows.

The tower sees only some patches of each image (all that show something, and some background), as in FLIP.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration

from vlm_pruner.models.embedded.config import PATCH
from vlm_pruner.models.embedded.tokenizer import pieces
from vlm_pruner.scenes.vocabulary import CATEGORIES

from .labels import FAMILIES, IGNORE, INDEX, NONE, OFFSETS

MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(1, 3, 1, 1)
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(1, 3, 1, 1)
WEIGHT = {
    "category": 1.5,
    "color": 1.0,
    "place": 0.5,
    "size": 0.5,
    "role": 1.2,
    "partner": 2.5,
    "count": 1.4,
    "character": 2.0,
    "slot": 1.2,
    "kind": 0.4,
    "tint": 0.3,
    "ground": 0.4,
}


class DenseHeads(nn.Module):
    """Used in the warm-up only: a "none" vector per family, vectors of wordless families, scales, regressions."""

    def __init__(self, model: LlavaForConditionalGeneration):
        super().__init__()
        width, vision = model.config.text_config.hidden_size, model.config.vision_config.hidden_size
        self.none = nn.Parameter(torch.randn(len(FAMILIES), width) * 0.06)
        self.scale = nn.Parameter(torch.full((len(FAMILIES),), 2.5))
        own = {name: words for name, words in FAMILIES.items() if isinstance(words, int)}
        self.own = nn.ParameterDict(
            {name: nn.Parameter(torch.randn(count, width) * 0.06) for name, count in own.items()}
        )
        self.offsets = nn.Linear(vision, OFFSETS)
        self.shown = nn.Linear(vision, len(CATEGORIES))
        index = {piece: i for i, piece in enumerate(pieces())}
        self.words = {
            n: torch.tensor([index[w] for w in words]) for n, words in FAMILIES.items() if not isinstance(words, int)
        }

    def table(self, family: str, embedding: Tensor) -> Tensor:
        """Unit vectors of a family's labels, the "none" vector last: [labels + 1, width]."""
        rows = self.own[family] if family in self.own else embedding[self.words[family].to(embedding.device)]
        return F.normalize(torch.cat([rows, self.none[INDEX[family] : INDEX[family] + 1]]), dim=-1)


def pixels(image: Tensor) -> Tensor:
    """uint8 [b, h, w, 3] to normalised [b, 3, h, w], as the processor does."""
    return (image.permute(0, 3, 1, 2).float() / 255 - MEAN.to(image.device)) / STD.to(image.device)


def patch_rows(image: Tensor) -> Tensor:
    """uint8 [b, h, w, 3] to flat normalised patches [b, tokens, 3 * PATCH * PATCH]."""
    return F.unfold(pixels(image), PATCH, stride=PATCH).transpose(1, 2)


def tower_states(model: LlavaForConditionalGeneration, patches: Tensor, keep: Tensor | None = None) -> Tensor:
    """Last hidden states [b, 1 + n, vision], CLS first, on all patches [b, 576, 588] or on those in `keep` [b, n]."""
    tower = model.model.vision_tower
    position = tower.embeddings.position_embedding.weight
    if keep is None:
        places = position[1:].expand(len(patches), -1, -1)
    else:
        patches = patches.gather(1, keep[..., None].expand(-1, -1, patches.shape[-1]))
        places = position[1:][keep]
    rows = F.linear(patches, tower.embeddings.patch_embedding.weight.flatten(1)) + places
    cls = (tower.embeddings.class_embedding + position[0]).expand(len(rows), 1, -1)
    states: Tensor = tower.encoder(
        inputs_embeds=tower.pre_layrnorm(torch.cat([cls.to(rows.dtype), rows], 1))
    ).last_hidden_state
    return states


def choose_patches(ground: Tensor, count: int) -> Tensor:
    """Indices [b, count]: tokens that show something (`ground` [b, 576] is not 0), then random background."""
    return ((ground != 0).float() + torch.rand(ground.shape, device=ground.device)).topk(count, 1).indices


def _family_loss(logits: Tensor, label: Tensor, busy: Tensor) -> tuple[Tensor, float]:
    """Cross entropy, with "none" at 30 % on things and plates and at 3 % on background; and accuracy."""
    none = logits.shape[-1] - 1
    target = torch.where(label == NONE, none, label.clamp(min=0))
    weight = torch.where(label >= 0, 1.0, torch.where(busy, 0.3, 0.03)) * (label != IGNORE)
    loss = F.cross_entropy(logits.float(), target, reduction="none")
    named = label >= 0
    right = (logits.argmax(-1) == target) & named
    return (loss * weight).sum() / weight.sum().clamp(min=1), (right.sum() / named.sum().clamp(min=1)).item()


def dense_loss(
    model: LlavaForConditionalGeneration, heads: DenseHeads, batch: dict[str, Tensor], count: int
) -> tuple[Tensor, dict[str, float]]:
    labels = batch["labels"].long()  # [b, families, 576]
    patches = patch_rows(batch["image"])
    keep = choose_patches(labels[:, INDEX["ground"]], count) if count < labels.shape[-1] else None
    states = tower_states(model, patches, keep)
    features = states[:, 1:]
    item, offsets = batch["item"], batch["offsets"].float()
    if keep is not None:
        labels = labels.gather(2, keep[:, None].expand(-1, len(FAMILIES), -1))
        item = item.gather(1, keep)
        offsets = offsets.gather(1, keep[..., None].expand(-1, -1, OFFSETS))
    tokens = F.normalize(model.model.multi_modal_projector(features).float(), dim=-1).flatten(0, 1)  # [b * n, width]
    embedding = model.model.language_model.embed_tokens.weight
    tables = [heads.table(family, embedding) * heads.scale[INDEX[family]].exp() for family in FAMILIES]
    logits = torch.split(tokens @ torch.cat(tables).T, [len(t) for t in tables], -1)
    busy = (labels[:, INDEX["ground"]] != 0).flatten()
    total, info = torch.zeros((), device=tokens.device), {}
    for family, index in INDEX.items():
        loss, info[family] = _family_loss(logits[index], labels[:, index].flatten(), busy)
        total = total + WEIGHT[family] * loss
    thing, glyph = labels[:, INDEX["ground"]] == 1, labels[:, INDEX["slot"]] >= 0
    error = (heads.offsets(features).float() - offsets).abs()
    near = (error[..., :3].sum(-1) * thing).sum() / thing.sum() + 1.5 * (
        error[..., 3:].sum(-1) * glyph
    ).sum() / glyph.sum().clamp(min=1)
    seen = F.binary_cross_entropy_with_logits(
        heads.shown(states[:, 0]).float(), batch["shown"][:, : len(CATEGORIES)].float()
    )
    return total + near + 0.5 * seen, info | {"offsets": near.item(), "shown": seen.item()}
