"""Many questions about one picture in one pass of the embedded model, under any pruning plan.

A question block sees `<s> USER: <image tokens>` and itself, as in `vlm_pruner.models.embedded.train.packed`. As long as
a choice does not depend on the question, all questions of a picture share it; from the first stage that does, every
question has a prefix of its own. Answers are teacher-forced: all tokens right is what greedy decoding gives an exact
match for. `python -m benchmarks.preset --check` holds this to `generate` under `vlm_pruner.prune`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vlm_pruner.budget import keep_count
from vlm_pruner.engine import prune
from vlm_pruner.engine.calls import encoded_before
from vlm_pruner.engine.signals import VISION
from vlm_pruner.engine.support import take_apart
from vlm_pruner.engine.vision import VisionTap
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.models.embedded.config import GRID
from vlm_pruner.models.embedded.tokenizer import BOS, USER, pieces
from vlm_pruner.models.embedded.train.data import pack
from vlm_pruner.models.embedded.train.packed import rotate
from vlm_pruner.plan import TOWER, PrunePlan, Stage
from vlm_pruner.scenes.layout import Scene, sample_scene
from vlm_pruner.scenes.questions import ONE_IMAGE, Draft, item_boxes
from vlm_pruner.scenes.render import backgrounds, render
from vlm_pruner.scenes.scoring import box_tokens
from vlm_pruner.types import Selection, Signal, VisionSignals, VisualTokens

__all__ = ["Outcome", "Picture", "State", "answer", "draw_picture", "encode"]

HEAD, TOKENS = 2, GRID * GRID  # `<s> USER:` stands before the image
_PER_QUESTION = frozenset(
    {Signal.TEXT, Signal.TEXT_KEYS, Signal.TEXT_QUERIES, Signal.TEXT_VALUES, Signal.WORDS, Signal.TEXT_ATTENTION}
    | {Signal.LAST_QUERY_ATTENTION}
)


@dataclass(frozen=True)
class Picture:
    """A scene with its questions, and what no pruning changes about it."""

    scene: Scene
    drafts: list[Draft]
    block: Tensor  # [q, l] question, ASSISTANT:, answer without its last token
    target: Tensor  # [q, steps] answer tokens, -1 behind the end
    start: Tensor  # [q] place of ASSISTANT: in the block
    evidence: Tensor  # [q, n] bool, tokens that show what is asked about
    pixels: Tensor  # [1, 3, h, w]
    embeds: Tensor  # [n, d] projected tokens
    vision: VisionSignals | None  # None where the tower ran on some patches alone
    kept: Tensor  # [k] tokens whose patches entered the tower, ascending


@dataclass(frozen=True)
class Outcome:
    """What came of the questions of one picture under one plan."""

    right: Tensor  # [q] bool, the whole answer
    loss: Tensor  # [q] mean cross entropy of the answer's tokens
    coverage: Tensor  # [q] share of the evidence that was kept to the end, nan without evidence
    layer_average: float  # image tokens that enter a layer, mean over layers


def draw_picture(split: str, number: int, per_type: int = 2) -> tuple[Scene, list[Draft]]:
    """Scene `number` on the photographs of `split` and up to `per_type` different questions of every type about it.

    Drawn from the split and the number alone, with a generator that neither training nor the fixed splits use.
    """
    rng = np.random.default_rng([7, len(split), number])
    scene = sample_scene(rng, split, len(backgrounds(split)))
    drafts: list[Draft] = []
    for ask in ONE_IMAGE.values():
        asked = [draft for _ in range(per_type) if (draft := ask(rng, scene))]
        drafts += {draft.text: draft for draft in asked}.values()
    return scene, drafts


@torch.no_grad()
def encode(model: Any, processor: Any, scene: Scene, drafts: list[Draft]) -> Picture:
    """Run the vision tower once, listening for every signal of it."""
    pixels = processor.image_processor(render(scene).image, return_tensors="pt")["pixel_values"]
    with VisionTap(take_apart(model), VISION) as tap:
        embeds = model.model.get_image_features(pixel_values=pixels).pooler_output[0]
    heard = tap.signals()
    assert heard is not None
    vision = VisionSignals(
        features=None if heard.features is None else heard.features[0],
        cls=None if heard.cls is None else heard.cls[0],
        keys=None if heard.keys is None else heard.keys[0],
        cls_keys=None if heard.cls_keys is None else heard.cls_keys[0],
        cls_attention=None if heard.cls_attention is None else heard.cls_attention[0],
        attention=torch.stack([layer[0] for layer in heard.received]),
    )
    packed = {k: torch.from_numpy(v).long() for k, v in pack(drafts).items()}
    evidence = torch.zeros(len(drafts), TOKENS, dtype=torch.bool)
    boxes = item_boxes(scene)
    for row, draft in zip(evidence, drafts, strict=True):
        for item in draft.items:
            row[box_tokens(boxes[item], scene.size, (GRID, GRID))] = True
    return Picture(
        scene, drafts, packed["tokens"], packed["target"], packed["start"], evidence, pixels,
        embeds.float(), vision, torch.arange(TOKENS),
    )  # fmt: skip


@dataclass
class State:
    """The rows on their way through the decoder, in g groups: one for all questions, or one for each."""

    prefix: Tensor  # [g, HEAD + k, d]
    text: Tensor  # [g, q / g * l, d]
    kept: Tensor  # [g, k] image tokens that are left, ascending
    keys: Tensor | None = None  # [g, kv_heads, HEAD + k + q / g * l, head_dim] of the layer before
    seen: Tensor | None = None  # [g, heads, q / g * l, HEAD + k] attention of the text in the layer before
    before: Tensor | None = None  # [g, HEAD + k, d] rows that entered the layer before


@torch.no_grad()
def answer(model: Any, picture: Picture, plan: PrunePlan, memo: dict[Any, Any] | None = None) -> Outcome:
    """All questions of `picture` under `plan`; `memo` holds what the tower and the layers before the first stage made
    of it."""
    language = model.model.language_model
    count, length = picture.block.shape
    index = pieces().index
    head = language.embed_tokens(torch.tensor([[index(BOS), index(USER)]]))
    words = language.embed_tokens(picture.block)  # [q, l, d]
    stages = {stage.site: stage for stage in plan.stages if stage.layer != TOWER}
    memo = {} if memo is None else memo
    first, before = min(stages, default=0), plan.stages[0] if plan.stages[0].layer == TOWER else None
    if before is not None:
        if before not in memo:
            memo[before] = _before_tower(model, picture, before)
        picture = memo[before]
    entered = (first, before)
    if entered not in memo:
        image = torch.cat([head, picture.embeds[None, picture.kept]], 1)
        memo[entered] = State(image, words.view(1, count * length, -1), picture.kept[None])
        for layer in language.layers[:first]:
            _run(language, layer, memo[entered], count, length)
    state, tokens = replace(memo[entered]), first * len(picture.kept)
    for number in range(first, len(language.layers)):
        if number in stages:
            state = _prune(state, picture, words, stages[number])
        tokens += state.kept.shape[1]
        _run(language, language.layers[number], state, count, length)
    states = language.norm(state.text).view(count, length, -1)
    steps = picture.start[:, None] + torch.arange(picture.target.shape[1])  # [q, steps]
    rows = states.gather(1, steps.clamp(max=length - 1)[..., None].expand(-1, -1, states.shape[-1]))
    logits, asked = model.lm_head(rows).float(), picture.target >= 0
    loss = F.cross_entropy(logits.flatten(0, 1), picture.target.flatten(), ignore_index=-1, reduction="none")
    held = torch.zeros(count, TOKENS, dtype=torch.bool).scatter_(1, state.kept.expand(count, -1), True)
    return Outcome(
        ((logits.argmax(-1) == picture.target) | ~asked).all(1),
        loss.view_as(asked).sum(1) / asked.sum(1),
        (held & picture.evidence).sum(1) / picture.evidence.sum(1),
        tokens / len(language.layers),
    )


def _before_tower(model: Any, picture: Picture, stage: Stage) -> Picture:
    """The picture as it is after a tower that saw the patches of some tokens alone."""
    with prune(model, PrunePlan((stage,))):
        encoded = model.model.get_image_features(pixel_values=picture.pixels)
    before = encoded_before({"mm_encoder_outputs": {"image": encoded}})["image"]
    assert before is not None
    (kept,) = before.tower.kept
    return replace(picture, embeds=encoded.pooler_output[0].float(), vision=None, kept=kept)


def _angles(language: Any, state: State, length: int) -> tuple[Tensor, Tensor]:
    """cos and sin [g, 1, HEAD + k + q / g * l, head_dim]: survivors keep their places, blocks follow the image."""
    groups, blocks = len(state.text), state.text.shape[1] // length
    first = torch.arange(HEAD).expand(groups, -1)
    after = (HEAD + TOKENS + torch.arange(length)).repeat(blocks).expand(groups, -1)
    cos, sin = language.rotary_emb(state.text, torch.cat([first, HEAD + state.kept, after], 1))
    return cos[:, None], sin[:, None]


def _run(language: Any, layer: Any, state: State, count: int, length: int) -> None:
    """One decoder layer over prefix and blocks, in place."""
    attn, rows = layer.self_attn, torch.cat([state.prefix, state.text], 1)
    groups, split, size = len(rows), state.prefix.shape[1], attn.head_dim
    blocks = count // groups
    normal = layer.input_layernorm(rows)
    query, key, value = (
        linear(normal).view(groups, rows.shape[1], -1, size).transpose(1, 2)
        for linear in (attn.q_proj, attn.k_proj, attn.v_proj)
    )
    angles = _angles(language, state, length)
    query, key = rotate(query, *angles), rotate(key, *angles)
    own = F.scaled_dot_product_attention(
        query[:, :, :split], key[:, :, :split], value[:, :, :split], is_causal=True, enable_gqa=True
    )
    repeat = query.shape[1] // key.shape[1]
    keys, values = key.repeat_interleave(repeat, 1), value.repeat_interleave(repeat, 1)
    block = (groups, -1, blocks, length, size)
    asking, near_keys, near_values = (t[:, :, split:].reshape(block) for t in (query, keys, values))
    far = asking.flatten(2, 3) @ keys[:, :, :split].transpose(2, 3)  # [g, heads, blocks * l, split]
    near = (asking @ near_keys.transpose(3, 4)).masked_fill(torch.ones(length, length).triu(1).bool(), -torch.inf)
    weights = (torch.cat([far.unflatten(2, (blocks, length)), near], -1) * size**-0.5).softmax(-1)
    mixed = (weights[..., split:] @ near_values).flatten(2, 3) + weights[..., :split].flatten(2, 3) @ values[
        :, :, :split
    ]
    out = rows + attn.o_proj(torch.cat([own, mixed], 2).transpose(1, 2).flatten(2))
    out = out + layer.mlp(layer.post_attention_layernorm(out))
    state.before, state.keys, state.seen = state.prefix, key, weights[..., :split].flatten(2, 3)
    state.prefix, state.text = out[:, :split], out[:, split:]


def _prune(state: State, picture: Picture, words: Tensor, stage: Stage) -> State:
    """The state after a stage; groups split up where the choice depends on the question."""
    total = state.kept.shape[1]
    keep = min(keep_count(TOKENS, stage.keep), total)
    if keep == total:
        return state
    method = stage.method
    if len(state.kept) == 1 and (method.question_aware or (method.needs | method.wants) & _PER_QUESTION):
        state = _one_group_each(state, len(words))
    tokens = [_tokens(state, g, picture, words, stage) for g in range(len(state.kept))]
    chosen = _select(method, tokens, keep)
    index = torch.stack([s.index for s in chosen])
    image = torch.stack(
        [t.features[s.index] if s.features is None else s.features for t, s in zip(tokens, chosen, strict=True)]
    )
    prefix = torch.cat([state.prefix[:, :HEAD], image], 1)
    return State(prefix, state.text, state.kept.gather(1, index))


def _select(method: PruningMethod, tokens: list[VisualTokens], keep: int) -> list[Selection]:
    return [
        s.validate(len(t), keep) for s, t in zip(method.select_batch(tokens, [keep] * len(tokens)), tokens, strict=True)
    ]


def _one_group_each(state: State, count: int) -> State:
    length = state.text.shape[1] // count
    keys, seen, split = state.keys, state.seen, state.prefix.shape[1]
    if keys is not None and seen is not None:
        texts = keys[0, :, split:].unflatten(1, (count, length)).transpose(0, 1)  # [q, kv_heads, l, head_dim]
        keys = torch.cat([keys[:, :, :split].expand(count, -1, -1, -1), texts], 2)
        seen = seen[0].unflatten(1, (count, length)).transpose(0, 1)
    before = None if state.before is None else state.before.expand(count, -1, -1)
    prefix, text = state.prefix.expand(count, -1, -1), state.text.view(count, length, -1)
    return State(prefix, text, state.kept.expand(count, -1), keys, seen, before)


def _tokens(state: State, group: int, picture: Picture, words: Tensor, stage: Stage) -> VisualTokens:
    """What a method may read, as the engine gives it."""
    kept, split = state.kept[group], state.prefix.shape[1]
    whole = len(kept) == TOKENS
    place = torch.stack([torch.zeros_like(kept), kept // GRID, kept % GRID], 1).float()
    tokens = VisualTokens(
        state.prefix[group, HEAD:],
        grid=(1, GRID, GRID) if whole else None,
        position=None if whole else place,
        embeddings=picture.embeds[kept],
        vision=_vision(picture.vision, kept),
        layer=stage.layer,
    )
    if state.keys is not None and state.before is not None:
        tokens = replace(tokens, keys=state.keys[group, :, HEAD:split], previous=state.before[group, HEAD:])
    if len(state.kept) == 1:
        return tokens
    last = int(picture.start[group]) + 1  # question and ASSISTANT:
    tokens = replace(tokens, text=state.text[group, :last], words=words[group, :last])
    if state.keys is None or state.seen is None:
        return tokens
    seen = state.seen[group, :, :last, HEAD:]
    return replace(
        tokens, text_keys=state.keys[group, :, split : split + last], text_attention=seen, attention=seen[:, -1]
    )


def _vision(vision: VisionSignals | None, kept: Tensor) -> VisionSignals | None:
    """The tower's signals of the tokens that are left; the token axis is the last but for features and keys."""
    if vision is None:
        return None

    def rows(value: Tensor | None, axis: int) -> Tensor | None:
        return None if value is None else value.index_select(axis, kept)

    return replace(
        vision,
        features=rows(vision.features, 0),
        keys=rows(vision.keys, 1),
        cls_attention=rows(vision.cls_attention, 1),
        attention=rows(vision.attention, 1),
    )
