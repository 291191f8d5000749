"""Whatever way of decoding: is the choice of tokens that of greedy decoding, and are the words?

Every registered method prunes every model for every prompt. Beams, samples, prompt lookup, an assistant and no cache
each stand against greedy decoding of the same prompt: the tokens kept at every stage and their order, and the words
written where the way of decoding must not change them (beams and samples choose other words by design).
"""

from __future__ import annotations

import argparse
import copy
import time
from collections import Counter
from dataclasses import replace
from typing import Any

import torch
import transformers
from benchmarks.common import Report, arguments, prepare
from torch import Tensor, nn

from vlm_pruner.engine import prune
from vlm_pruner.errors import MissingSignalError, PlanError
from vlm_pruner.methods import registry
from vlm_pruner.profiling.shapes import ModelShape, model_shape

LAYERS, TOKENS, NEW, REPEATED = 4, 16, 6, 4

WAYS: dict[str, dict[str, Any]] = {
    "beams": {"num_beams": 2},
    "samples": {"do_sample": True, "top_k": 20},
    "prompt lookup": {"prompt_lookup_num_tokens": 3},
    "assistant": {},  # the model is made by `assistant_of`
    "no cache": {"use_cache": False},
}
SAME_WORDS = ("prompt lookup", "assistant", "no cache")

Choice = list[tuple[int, list[int], list[int] | None]]
"""(layer, kept tokens, their order of selection) of every stage of every picture."""


def small_shapes() -> list[ModelShape]:
    """One picture and one grid, tiles, and native resolution, each with four narrow decoder layers."""
    words = dict(model_shape("tiny").text)
    clip = {**model_shape("tiny").vision, "image_size": 56}
    encoder = {**model_shape("qwen2.5-vl-7b").vision, "depth": 2, "hidden_size": 32, "intermediate_size": 48}
    encoder |= {"num_heads": 2, "out_hidden_size": 64, "fullatt_block_indexes": [1]}
    turns = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}}
    points = {"image_grid_pinpoints": [[56, 112], [112, 56], [112, 112]]}
    tiny = replace(model_shape("tiny"), vision=clip, tokens=TOKENS)
    return [
        replace(tiny, name="llava"),
        replace(tiny, name="llava_next", model_type="llava_next", tokens=TOKENS + 8 * 9, extra=points),
        replace(tiny, name="qwen2_5_vl", model_type="qwen2_5_vl", text=words | turns, vision=encoder, tokens=36),
    ]


def sharpened(model: nn.Module) -> nn.Module:
    """Random weights that attend sharply, so that other questions choose other tokens."""
    generator = torch.Generator().manual_seed(1)
    for weight in model.parameters():
        if weight.dim() > 1:
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.12)
    return model


def assistant_of(model: Any) -> Any:
    """One that is often wrong."""
    assistant = copy.deepcopy(model)
    assistant.generation_config.num_assistant_tokens = 3
    for weight in assistant.base_model.get_decoder().layers[-1].parameters():
        weight.add_(0.05)
    return assistant


def prompt(spec: ModelShape, seed: int) -> dict[str, Tensor]:
    """A picture between words; the last ones say the first again, so that prompt lookup finds something to guess."""
    inputs = spec.inputs(torch.device("cpu"), torch.float32, text=24, seed=seed)
    ids = inputs["input_ids"]
    ids[:, -2 * REPEATED :] = ids[:, :REPEATED].repeat(1, 2)
    return inputs


def decode(model: Any, inputs: dict[str, Any], method: str, options: dict[str, Any]) -> tuple[Choice, list[int]]:
    """The choice of the one picture of `inputs`, and the words written behind the prompt."""
    words = {"max_new_tokens": NEW, "do_sample": False, "suppress_tokens": list(range(248, 256)), **options}
    if hasattr(model.base_model, "rope_deltas"):
        model.base_model.rope_deltas = None
    torch.manual_seed(0)
    with prune(model, method, keep=0.4) as session:
        ids = model.generate(**inputs, **words)
    choice: Choice = []
    for image in session.images:
        for layer, _, chosen in image.stages:
            order = None if chosen.order is None else chosen.order.tolist()
            choice.append((layer, chosen.index.tolist(), order))
    return choice, ids[0, inputs["input_ids"].shape[1] :].tolist()


def compare(
    report: Report, spec: ModelShape, methods: list[str], seeds: range, counts: dict[str, Counter[tuple[str, str]]]
) -> None:
    """Every method, prompt and way of decoding of one model; what differs is counted, what cannot run is said."""
    model: Any = sharpened(spec.build(torch.device("cpu"), torch.float32))
    assistant = assistant_of(model)
    for method in methods:
        for seed in seeds:
            inputs = prompt(spec, seed)
            try:
                choice, words = decode(model, inputs, method, {})
            except (MissingSignalError, PlanError) as error:
                counts["refused"][method, f"{spec.name}: {error}"] += 1
                break
            report.check(bool(choice) or method == "none", f"{method} chose nothing on {spec.name}")
            for way, options in WAYS.items():
                options = {"assistant_model": assistant} if way == "assistant" else options
                other, written = decode(model, inputs, method, options)
                counts["choices"][method, way] += 1
                counts["other choices"][method, way] += other != choice
                if way in SAME_WORDS:
                    counts["words"][method, way] += 1
                    counts["other words"][method, way] += written != words


def main(options: argparse.Namespace) -> None:
    """Compare, count, check, print."""
    device, started = prepare(options), time.perf_counter()
    report = Report("decoding", options, device)
    shapes = small_shapes()[:1] if options.quick else small_shapes()
    methods = options.methods.split(",") if options.methods else list(registry())
    counts: dict[str, Counter[tuple[str, str]]] = {
        name: Counter() for name in ("refused", "choices", "other choices", "words", "other words")
    }
    for spec in shapes:
        compare(report, spec, methods, range(1 if options.quick else options.prompts), counts)
    rows(report, counts, methods, time.perf_counter() - started, options.quick)
    report.finish()


def rows(
    report: Report, counts: dict[str, Counter[tuple[str, str]]], methods: list[str], seconds: float, quick: bool
) -> None:
    """A row for every way of decoding, for every method that differs, and for every refusal; the checks."""
    release = transformers.__version__
    for way in WAYS:
        sums = {name: sum(n for (_, w), n in counts[name].items() if w == way) for name in counts}
        differ = [m for m in methods if counts["other choices"][m, way] or counts["other words"][m, way]]
        fields = {name.replace(" ", "_"): sums[name] for name in ("choices", "other choices", "words", "other words")}
        report.row(way, transformers=release, **fields, methods=" ".join(differ))
        what = (
            f"{sums['other choices']} of {sums['choices']} choices and {sums['other words']} of {sums['words']} answers"
        )
        report.check(not differ, f"{way}: {what} differ from greedy decoding ({', '.join(differ)})")
    total = sum(counts["choices"].values()) + sum(counts["words"].values())
    differing = sum(counts["other choices"].values()) + sum(counts["other words"].values())
    report.row("all", transformers=release, comparisons=total, differing=differing, seconds=round(seconds, 1))
    for (method, reason), _ in counts["refused"].items():
        report.row(f"refused: {method}", transformers=release, reason=reason)
    chosen = sum(counts["choices"].values())
    report.check(quick or chosen >= 2000, f"{chosen} choices were compared, fewer than 2,000")


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--prompts", type=int, default=5, help="of every model and method")
    parser.add_argument("--methods", default="", help="names, separated by commas; all by default")
    main(parser.parse_args())
