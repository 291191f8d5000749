"""The stages of the recipe, in order."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor
from transformers import LlavaForConditionalGeneration

from vlm_pruner.models.embedded.config import PRUNE_LAYER, build_model

from . import start
from .data import Pool, fixed_batch
from .decoder import answer, balance, decoder_loss, exact, tower_features
from .dense import DenseHeads, dense_loss, patch_rows
from .labels import INDEX
from .loop import Batch, Stage, run_stage
from .packed import TOKENS

_DECODER: dict[str, float] = {"batch": 4, "pairs": 0.2, "every": 60.0, "checked": 16}
NUMBERS: dict[str, dict[str, float]] = {
    "vision": {
        "steps": 10200, "tokens": 112, "batch": 8, "rate": 1e-3, "flat": 0.57, "pool": 1200, "full_share": 0.016,
        "every": 20.0, "checked": 24,
    },
    "few": _DECODER | {
        "steps": 3500, "tokens": 112, "tokens_end": 320, "grow": 0.7, "rate": 1e-3, "flat": 0.7, "pool": 1500,
        "reuse": 6.0, "looking": 0.3,
    },
    "all": _DECODER | {
        "steps": 1180, "tokens": TOKENS, "tokens_end": TOKENS, "grow": 0.5, "rate": 5e-4, "flat": 0.4, "pool": 1500,
        "reuse": 6.0, "looking": 0.1,
    },
    "fresh": _DECODER | {
        "steps": 3870, "tokens": 256, "tokens_end": TOKENS, "grow": 0.46, "rate": 5e-4, "flat": 0.46, "pool": 3000,
        "reuse": 1.5, "looking": 0.1,
    },
}  # fmt: skip
"""Stage -> its numbers; steps and shares of them are those that the shipped weights were trained with.

tokens, tokens_end, grow: image tokens at first and at the end, and the share of the budget after which they grow.
rate, flat: learning rate, and the share of the budget before it falls. pool, reuse: images kept in memory, and how
often each is used. full_share: last share of the budget with all tokens. looking: weight of the loss on where heads
look. pairs: share of steps with two images. every: seconds between log lines. checked: images of the validation.
"""


def run(name: str, options: argparse.Namespace) -> None:
    """Run one stage with the options of the command line.

    Raises:
        SystemExit: an option names a number that the stage does not have, or the stage before has left no checkpoint.
    """
    numbers = _numbers(name, options.option)
    vision(options, numbers) if name == "vision" else decoder(options, name, numbers)


def _numbers(stage: str, overrides: list[str]) -> dict[str, float]:
    numbers = dict(NUMBERS[stage])
    for item in overrides:
        name, _, value = item.partition("=")
        if name not in numbers:
            raise SystemExit(f"unknown option {name!r} of stage {stage!r}; known: {', '.join(numbers)}")
        numbers[name] = type(numbers[name])(float(value))
    return numbers


def _about(options: argparse.Namespace, numbers: dict[str, float]) -> dict[str, object]:
    chosen = {"seed": options.seed, "minutes": options.minutes, "device": options.device, "threads": options.threads}
    return numbers | chosen | {"torch": torch.__version__}


def _pool(
    options: argparse.Namespace, name: str, numbers: dict[str, float], model: LlavaForConditionalGeneration | None
) -> Pool:
    seed = (options.seed, list(NUMBERS).index(name))
    transform = tower_features(model, torch.device(options.device)) if model else None
    return Pool(int(numbers["pool"]), seed, model is not None, options.workers, transform)


def _tower_start(options: argparse.Namespace) -> tuple[LlavaForConditionalGeneration, DenseHeads]:
    """A model whose tower starts with sin-cos positions, neighbour attention and whitened patches; or a checkpoint."""
    model = build_model(options.seed)
    start.sincos_positions(model)
    start.neighbour_attention(model)
    sample = fixed_batch(32, False, "train")
    shown = (sample["labels"][:, INDEX["ground"]] != 0).flatten()
    start.whitened_patches(model, patch_rows(sample["image"]).flatten(0, 1), shown)
    heads = DenseHeads(model)
    if options.init:
        content = torch.load(options.init, weights_only=True)
        model.load_state_dict(content["model"])
        heads.load_state_dict(content["extra_heads"])
    return model, heads


def vision(options: argparse.Namespace, n: dict[str, float]) -> None:
    """Tower, projector and word embeddings on dense labels, few patches at first, all of them at the end."""
    device = torch.device(options.device)
    model, heads = _tower_start(options)
    model.to(device)
    heads.to(device)
    held_out = {k: a.to(device) for k, a in fixed_batch(int(n["checked"]), False).items()}

    def validate() -> dict[str, float]:
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
            return dense_loss(model, heads, held_out, int(n["tokens"]))[1]

    def loss(batch: Batch, progress: float) -> tuple[Tensor, dict[str, float]]:
        return dense_loss(model, heads, batch, int(n["tokens"]) if progress < 1 - n["full_share"] else TOKENS)

    trained = [
        *model.model.vision_tower.parameters(),
        *model.model.multi_modal_projector.parameters(),
        model.model.language_model.embed_tokens.weight,
        *heads.parameters(),
    ]
    stage = Stage(
        "vision", _about(options, n), int(n["steps"]), options.minutes, int(n["batch"]), n["rate"], loss, trained,
        validate, flat=n["flat"], every=n["every"], extra={"heads": heads},
    )  # fmt: skip
    pool = _pool(options, "vision", n, None)
    run_stage(stage, model, pool, options.out, device)
    pool.close()


def _average(figures: list[dict[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for f in figures for name in f)
    return {name: sum(f[name] for f in figures if name in f) / sum(name in f for f in figures) for name in names}


def _check(model: LlavaForConditionalGeneration, parts: list[Batch], device: torch.device) -> dict[str, float]:
    """Share of right answers per type on held-out images, all tokens in; their mean; and with two images."""
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
        figures = _average([exact(answer(model, b, TOKENS)[1], b) for b in parts])
        two = _average([exact(answer(model, b, TOKENS, images=2)[1], b) for b in parts[:2]])
    mean = sum(figures.values()) / len(figures)
    return figures | {"mean": mean, "two_images": (two["color"] + two["position"]) / 2}


def _decoder_start(path: Path, seed: int) -> LlavaForConditionalGeneration:
    if not path.exists():
        raise SystemExit(f"no checkpoint {path}: run the stage before, or name one with --init")
    model = build_model(seed)
    model.load_state_dict(torch.load(path, weights_only=True, map_location="cpu")["model"])
    return model


def decoder(options: argparse.Namespace, name: str, n: dict[str, float]) -> None:
    """The decoder learns to answer; `few`: from few tokens, the text sees its image only from PRUNE_LAYER on.

    `all` and `fresh`: no masks, as at inference; everything below PRUNE_LAYER has learned not to read the image there,
    and is frozen.
    """
    device = torch.device(options.device)
    before = list(NUMBERS)[list(NUMBERS).index(name) - 1]
    model = _decoder_start(options.init or options.out / f"{before}.pt", options.seed).to(device)
    held_out = tower_features(model, device)(fixed_batch(int(n["checked"]), True))
    parts = [{k: a[i : i + 4].to(device) for k, a in held_out.items()} for i in range(0, int(n["checked"]), 4)]
    language, sighted = model.model.language_model, name != "few"
    fixed = [model.model.vision_tower]
    if sighted:
        fixed += [model.model.multi_modal_projector, language.embed_tokens, *language.layers[:PRUNE_LAYER]]
    else:
        balance(model, held_out["features"].to(device))
        start.content_attention(model, PRUNE_LAYER)
    for module in fixed:
        module.requires_grad_(False)

    def loss(batch: Batch, progress: float) -> tuple[Tensor, dict[str, float]]:
        grown = max(0.0, (progress - n["grow"]) / (1 - n["grow"]))
        tokens = int(n["tokens"] + (n["tokens_end"] - n["tokens"]) * grown)
        return decoder_loss(model, batch, tokens, looking=n["looking"], sighted=sighted, pairs=n["pairs"])

    stage = Stage(
        name, _about(options, n), int(n["steps"]), options.minutes, int(n["batch"]), n["rate"], loss,
        list(model.parameters()), lambda: _check(model, parts, device), flat=n["flat"],
        fresh=n["batch"] / 8 / n["reuse"], every=n["every"],
    )  # fmt: skip
    pool = _pool(options, name, n, model)
    run_stage(stage, model, pool, options.out, device)
    pool.close()
