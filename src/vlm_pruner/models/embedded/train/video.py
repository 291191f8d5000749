"""Stage "video": the decoder of the picture model learns to answer about time, from the frozen tower's frames.

`python -m vlm_pruner.models.embedded.train.video --out FOLDER` starts from the shipped picture model. In the first part
the text sees the video of another sample in the layers below PRUNE_LAYER, so that these go on leaving videos alone;
in the second part they are frozen and every token is there, as at inference.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import VideoLlavaForConditionalGeneration

from vlm_pruner.models.embedded.config import PRUNE_LAYER
from vlm_pruner.models.embedded.loading import load_embedded
from vlm_pruner.models.embedded.tokenizer import ASSISTANT, EOS, build_tokenizer, pieces
from vlm_pruner.models.embedded.video import FRAME_GRID, FRAME_TOKENS, from_pictures
from vlm_pruner.scenes.motion import FRAMES, Motion, sample_motion
from vlm_pruner.scenes.motion_questions import MOTION, MOTION_TYPES
from vlm_pruner.scenes.questions import Draft
from vlm_pruner.scenes.render import backgrounds, render

from .data import LENGTH, STEPS, Pool
from .decoder import DULL, answer, exact, looking_loss
from .dense import pixels
from .loop import Batch, Stage, run_stage

QUESTIONS = 16  # per video
TOTAL = FRAMES * FRAME_TOKENS
FREQUENCY = {"after": 3, "order": 2, "number": 4, "word": 3, "place": 2, "direction": 2, "color": 2, "counting": 2}
NUMBERS: dict[str, float] = {
    "batch": 6, "tokens": 144, "sighted": 0.65, "rate": 7e-4, "flat": 0.6, "pool": 2400, "reuse": 4.0, "looking": 0.3,
    "every": 90.0, "checked": 32,
}  # fmt: skip
"""sighted: share of the budget after which all tokens come in and the first layers are frozen. Others: see `stages`."""


def frames_of(motion: Motion) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """uint8 [FRAMES, 112, 112, 3]; of every visual token the item that it shows (-1: none) and whether it shows any."""
    images, item, ground, start = [], [], [], 0
    for scene in motion.scenes:
        drawn = render(scene, FRAME_GRID)
        images.append(np.asarray(drawn.image))
        cover = np.concatenate([drawn.things, *drawn.characters])  # [items of the frame, grid, grid]
        mine = np.full(FRAME_TOKENS, -1, np.int8)
        shows = np.zeros(FRAME_TOKENS, np.int8)
        shows[0] = 1  # CLS
        if len(cover):
            owner, most = cover.argmax(0).flatten(), cover.max(0).flatten()
            mine[1:][most >= 0.1] = start + owner[most >= 0.1]
            shows[1:] = most >= 0.02
        item.append(mine)
        ground.append(shows)
        start += len(cover)
    return np.stack(images), np.concatenate(item), np.concatenate(ground)


def draw_drafts(rng: np.random.Generator, motion: Motion, count: int) -> list[Draft]:
    """Questions about one video, rarer types more often."""
    names = [name for name, ask in MOTION.items() if any(ask(rng, motion) for _ in range(3))]
    weights = np.array([FREQUENCY.get(name, 1) for name in names], float)
    drafts: list[Draft] = []
    while len(drafts) < count:
        name = str(rng.choice(names, p=weights / weights.sum()))
        draft = MOTION[name](rng, motion)
        if draft and not (draft.type == "counting" and draft.answer == "one" and rng.random() < 0.6):
            drafts.append(draft)
    return drafts


def pack(drafts: Sequence[Draft]) -> dict[str, np.ndarray]:
    """As `data.pack`: the questions of one video as tensors."""
    encode, end = build_tokenizer(True), pieces(True).index(EOS)
    out: dict[str, np.ndarray] = {
        "tokens": np.zeros((len(drafts), LENGTH), np.int16),
        "target": np.full((len(drafts), STEPS + 1), -1, np.int16),
        "start": np.zeros(len(drafts), np.int8),
        "evidence": np.zeros((len(drafts), STEPS + 1), np.int64),
        "type": np.array([MOTION_TYPES.index(draft.type) for draft in drafts], np.int8),
    }
    for row, draft in enumerate(drafts):
        asked = [*encode(draft.text, add_special_tokens=False)["input_ids"], pieces(True).index(ASSISTANT)]
        target = [*encode(draft.answer, add_special_tokens=False)["input_ids"], end]
        tokens = asked + target[:-1]
        out["tokens"][row, : len(tokens)] = tokens
        out["target"][row, : len(target)] = target
        out["start"][row] = len(asked) - 1
        out["evidence"][row, : len(target) - 1] = _bits(draft, len(target) - 1)
    return out


def _bits(draft: Draft, steps: int) -> list[int]:
    """Per answer token the items that it is read from; of writing, the character itself in every frame."""
    if draft.type not in ("word", "number"):
        return [sum(1 << i for i in draft.items)] * steps
    letters = len(draft.answer)
    each = [sum(1 << i for i in draft.items[letter::letters]) for letter in range(letters)]
    return [each[0], *each]  # the space piece comes first


def draw_sample(rng: np.random.Generator, split: str = "train") -> dict[str, np.ndarray]:
    motion = sample_motion(rng, split, len(backgrounds(split)))
    images, item, ground = frames_of(motion)
    return {"images": images, "item": item, "ground": ground} | pack(draw_drafts(rng, motion, QUESTIONS))


def tower_frames(model: VideoLlavaForConditionalGeneration, batch: Batch) -> Batch:
    """Replaces frames by the tower's last states [b, TOTAL, vision], CLS first in every frame."""
    images = batch.pop("images")  # [b, FRAMES, side, side, 3]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        states = model.model.video_tower(pixels(images.flatten(0, 1)), output_hidden_states=True).hidden_states[-1]
    return batch | {"features": states.reshape(len(images), TOTAL, -1).bfloat16()}


class VideoPool(Pool):
    """A replay pool whose videos are drawn between steps, eight at a time."""

    def _next(self, wait: bool) -> dict[str, np.ndarray]:
        samples = [draw_sample(self.rng) for _ in range(8)]
        return {k: np.stack([s[k] for s in samples]) for k in samples[0]}


def video_loss(
    model: VideoLlavaForConditionalGeneration, batch: Batch, tokens: int, *, looking: float, sighted: bool
) -> tuple[Tensor, dict[str, float]]:
    """Cross entropy of the answers and the pull of half of the heads of two layers to the evidence."""
    packed, rows = answer(
        model, batch, tokens, foreign=0 if sighted else PRUNE_LAYER, watch=(PRUNE_LAYER, PRUNE_LAYER + 1), total=TOTAL
    )
    weight = torch.ones(model.config.text_config.vocab_size)
    for piece, value in DULL.items():
        weight[pieces().index(piece)] = value
    weight = weight[rows["target"]]
    loss = (F.cross_entropy(rows["logits"], rows["target"], reduction="none") * weight).sum() / weight.sum()
    look = looking_loss(packed, rows, 1, QUESTIONS, LENGTH)
    info = exact(rows, batch, MOTION_TYPES) | {"answers": loss.item(), "looking": look.item()}
    return loss + looking * look, info


def _check(model: VideoLlavaForConditionalGeneration, parts: Sequence[Batch]) -> dict[str, float]:
    """Share of right answers per type on held-out videos, all tokens in; their mean."""
    right: dict[str, list[float]] = {}
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for part in parts:
            for name, share in exact(answer(model, part, TOTAL, total=TOTAL)[1], part, MOTION_TYPES).items():
                right.setdefault(name, []).append(share)
    figures = {name: sum(shares) / len(shares) for name, shares in right.items()}
    return figures | {"mean": sum(figures.values()) / len(figures)}


def train(out: Path, minutes: float, seed: int, n: dict[str, float]) -> None:
    """Train for a time, or go on with what was interrupted."""
    torch.manual_seed(seed)
    model = from_pictures(load_embedded()[0], seed).train()
    language = model.model.language_model
    for module in (model.model.video_tower, model.model.image_tower):
        module.requires_grad_(False)
    early = [model.model.multi_modal_projector, language.embed_tokens, *language.layers[:PRUNE_LAYER]]
    rng = np.random.default_rng([7, 1, seed])
    held = [draw_sample(rng, "validation") for _ in range(int(n["checked"]))]
    whole = tower_frames(model, {k: torch.from_numpy(np.stack([s[k] for s in held])) for k in held[0]})
    parts = [{k: a[i : i + 8] for k, a in whole.items()} for i in range(0, len(held), 8)]

    def loss(batch: Batch, progress: float) -> tuple[Tensor, dict[str, float]]:
        sighted = progress >= n["sighted"]
        for module in early:
            module.requires_grad_(not sighted)
        return video_loss(model, batch, TOTAL if sighted else int(n["tokens"]), looking=n["looking"], sighted=sighted)

    about: dict[str, Any] = {**n, "seed": seed, "minutes": minutes, "device": "cpu", "threads": 1}
    stage = Stage(
        "video", about | {"torch": torch.__version__}, 0, minutes, int(n["batch"]), n["rate"], loss,
        list(model.parameters()), lambda: _check(model, parts), flat=n["flat"], fresh=n["batch"] / 8 / n["reuse"],
        warm_up=40, every=n["every"],
    )  # fmt: skip
    pool = VideoPool(int(n["pool"]), (7, seed), True, 0, lambda batch: tower_frames(model, batch))
    run_stage(stage, model, pool, out, torch.device("cpu"))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m vlm_pruner.models.embedded.train.video", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="checkpoints and log.jsonl; run again to go on")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="override a number")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    given = dict(option.split("=", 1) for option in options.option)
    if unknown := set(given) - set(NUMBERS):
        raise SystemExit(f"unknown options {sorted(unknown)}; known: {', '.join(NUMBERS)}")
    train(options.out, options.minutes, options.seed, NUMBERS | {k: float(v) for k, v in given.items()})


if __name__ == "__main__":
    main()
