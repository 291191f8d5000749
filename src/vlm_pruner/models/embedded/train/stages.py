"""The stages of the recipe, in order."""

from __future__ import annotations

import argparse
from collections.abc import Callable

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

Transform = Callable[[Batch], Batch]


def _numbers(options: argparse.Namespace, **defaults: float) -> dict[str, float]:
    """The stage's numbers with `--option name=value` applied."""
    for item in options.option:
        name, _, value = item.partition("=")
        if name not in defaults:
            raise SystemExit(f"unknown option {name!r} of this stage; known: {', '.join(defaults)}")
        defaults[name] = type(defaults[name])(float(value))
    return defaults


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


def vision(options: argparse.Namespace) -> None:
    """Stage V: tower, projector and word embeddings on dense labels, few patches at first, all of them at the end."""
    n = _numbers(options, tokens=112, batch=8, rate=1e-3, flat=0.55, pool=1200, full_share=0.08)
    device = torch.device(options.device)
    model, heads = _tower_start(options)
    model.to(device)
    heads.to(device)
    held_out = {k: a.to(device) for k, a in fixed_batch(24, False).items()}

    def validate() -> dict[str, float]:
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
            return dense_loss(model, heads, held_out, int(n["tokens"]))[1]

    trained = [
        *model.model.vision_tower.parameters(),
        *model.model.multi_modal_projector.parameters(),
        model.model.language_model.embed_tokens.weight,
        *heads.parameters(),
    ]
    stage = Stage(
        "vision",
        options.minutes or 30.0,
        int(n["batch"]),
        n["rate"],
        lambda batch, progress: dense_loss(
            model, heads, batch, int(n["tokens"]) if progress < 1 - n["full_share"] else 576
        ),
        trained,
        validate,
        flat=n["flat"],
        extra={"heads": heads},
    )
    pool = Pool(int(n["pool"]), options.seed, False, options.workers, options.worker_cores)
    run_stage(stage, model, pool, options.out, device)
    pool.close()


def _average(figures: list[dict[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for f in figures for name in f)
    return {name: sum(f[name] for f in figures if name in f) / sum(name in f for f in figures) for name in names}


def _decoder_start(
    options: argparse.Namespace, before: str, sighted: bool, device: torch.device
) -> tuple[LlavaForConditionalGeneration, Transform, Batch]:
    """The model as the stage `before` left it, what turns images into features, and a held-out batch of features."""
    model = build_model(options.seed)
    done = torch.load(options.init or options.out / f"{before}.pt", weights_only=True, map_location="cpu")
    model.load_state_dict(done["model"])
    model.to(device)
    transform = tower_features(model, device)
    held_out = {k: a.to(device) for k, a in transform(fixed_batch(16, True)).items()}
    if before == "vision":
        balance(model, held_out["features"])
        start.content_attention(model, PRUNE_LAYER)
    language = model.model.language_model
    fixed = [model.model.vision_tower]
    if sighted:  # what lies below PRUNE_LAYER has learned not to read the image; it stays so
        fixed += [model.model.multi_modal_projector, language.embed_tokens, *language.layers[:PRUNE_LAYER]]
    for module in fixed:
        module.requires_grad_(False)
    return model, transform, held_out


def _exact_answers(model: LlavaForConditionalGeneration, held_out: Batch, device: torch.device) -> dict[str, float]:
    """Share of exact answers on the held-out batch, by type, their mean, and that about two images at once."""
    parts = [{k: a[i : i + 4] for k, a in held_out.items()} for i in range(0, 16, 4)]
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
        figures = _average([exact(answer(model, b, TOKENS)[1], b) for b in parts])
        two = _average([exact(answer(model, b, TOKENS, images=2)[1], b) for b in parts[:2]])
    return figures | {
        "mean": sum(figures.values()) / len(figures),
        "two_images": (two["color"] + two["position"]) / 2,
    }


def _decoder(options: argparse.Namespace, name: str, before: str, n: dict[str, float], sighted: bool) -> None:
    device = torch.device(options.device)
    model, transform, held_out = _decoder_start(options, before, sighted, device)

    def loss(batch: Batch, progress: float) -> tuple[Tensor, dict[str, float]]:
        tokens = int(n["tokens"] + (n["tokens_end"] - n["tokens"]) * max(0.0, (progress - n["grow"]) / (1 - n["grow"])))
        return decoder_loss(model, batch, tokens, looking=n["looking"], sighted=sighted, pairs=n["pairs"])

    stage = Stage(
        name,
        options.minutes or n["minutes"],
        int(n["batch"]),
        n["rate"],
        loss,
        list(model.parameters()),
        lambda: _exact_answers(model, held_out, device),
        flat=n["flat"],
        fresh=n["batch"] / 8 / n["reuse"],
        every=n["every"],
    )
    pool = Pool(
        int(n["pool"]), options.seed + 100 * int(n["seed"]), True, options.workers, options.worker_cores, transform
    )
    run_stage(stage, model, pool, options.out, device)
    pool.close()


def few(options: argparse.Namespace) -> None:
    """Stage A: few image tokens; text sees its image only from layer PRUNE_LAYER on."""
    n = _numbers(
        options,
        minutes=35.0,
        tokens=112,
        tokens_end=320,
        grow=0.6,
        batch=4,
        rate=1e-3,
        flat=0.6,
        pool=1500,
        reuse=6.0,
        looking=0.3,
        pairs=0.2,
        every=60.0,
        seed=1,
    )
    _decoder(options, "few", "vision", n, sighted=False)


def all_tokens(options: argparse.Namespace) -> None:
    """Stage B: all image tokens, no masks, as at inference; the layers below PRUNE_LAYER are frozen."""
    n = _numbers(
        options,
        minutes=25.0,
        tokens=TOKENS,
        tokens_end=TOKENS,
        grow=0.5,
        batch=4,
        rate=5e-4,
        flat=0.4,
        pool=1500,
        reuse=6.0,
        looking=0.1,
        pairs=0.2,
        every=60.0,
        seed=2,
    )
    _decoder(options, "all", "few", n, sighted=True)


STAGES: dict[str, Callable[[argparse.Namespace], None]] = {"vision": vision, "few": few, "all": all_tokens}
