"""How good the embedded model is, type by type, and where in it the image is read.

    python -m benchmarks.embedded              writes results/embedded.json

Accuracy is that of `generate` on the test split, also with 64 tokens kept at random. The probe masks all image tokens
from a layer on: as long as that leaves chance, nothing has been read before that layer, and a choice of tokens made
there is a choice of what the model gets to know.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from contextlib import nullcontext

import numpy as np
import torch
from benchmarks.common import Report, arguments, prepare
from transformers import LlavaForConditionalGeneration, LlavaProcessor

import vlm_pruner as vp
from vlm_pruner.models.embedded.probe import answers_right
from vlm_pruner.scenes import TYPES, VERSION, Question, fingerprint, load_split, score

MASKED = (0, 2, 3, 4, 5, 6)  # first masked layers; 0 is a model without eyes
RANDOM = 64


def generated(model: LlavaForConditionalGeneration, processor: LlavaProcessor, question: Question) -> str:
    """What `generate` answers to a question in the model's chat template."""
    content = [*({"type": "image"} for _ in question.images), {"type": "text", "text": question.text}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = processor(text=prompt, images=list(question.images), return_tensors="pt").to(model.device)
    output = model.generate(**inputs)[0, inputs["input_ids"].shape[1] :]
    return str(processor.decode(output, skip_special_tokens=True))


def by_type(questions: Iterable[Question], right: Iterable[float]) -> dict[str, float]:
    """Per cent of right answers of each type, and under "mean" the mean over types."""
    rows: dict[str, list[float]] = {name: [] for name in TYPES}
    for question, value in zip(questions, right, strict=True):
        rows[question.type].append(value)
    figures = {name: 100 * float(np.mean(values)) for name, values in rows.items()}
    return figures | {"mean": float(np.mean(list(figures.values())))}


def measure(report: Report, questions: list[Question], device: torch.device) -> None:
    """One row per type and one for the mean over types."""
    model, processor = vp.load_embedded(device)
    layers = model.config.text_config.num_hidden_layers

    def asked(pruning: Callable[[int], object]) -> list[bool]:
        said = []
        for seed, question in enumerate(questions):
            with pruning(seed):  # type: ignore[attr-defined]
                said.append(score(question, generated(model, processor, question)))
        return said

    full = asked(lambda seed: nullcontext())
    random = asked(lambda seed: vp.prune(model, vp.RandomPrune(seed=seed), keep=RANDOM))
    probes = np.array([answers_right(model, question, [layers, *MASKED]) for question in questions])  # [q, probes]
    differ = [q.id for q, a, b in zip(questions, full, probes[:, 0], strict=True) if a != b]
    report.check(not differ, f"generate and one pass behind the right answer judge differently: {differ}")
    columns = {
        "chance": by_type(questions, [q.chance for q in questions]),
        "unpruned": by_type(questions, full),
        f"random_{RANDOM}": by_type(questions, random),
    } | {f"masked_{layer}": by_type(questions, probes[:, 1 + i]) for i, layer in enumerate(MASKED)}
    for name in (*TYPES, "mean"):
        count = len(questions) if name == "mean" else len(questions) // len(TYPES)
        report.row(name, questions=count, **{column: round(values[name], 2) for column, values in columns.items()})
    lowest = min(columns["unpruned"].values())
    report.aim("wrong answers unpruned, mean over types, %", 100 - columns["unpruned"]["mean"], 15)
    report.aim("wrong answers unpruned, worst type, %", 100 - lowest, 40)
    over = columns["masked_2"]["mean"] - columns["chance"]["mean"]
    report.aim("points over chance with all image tokens masked from layer 2 on", over, 5)


def main(options: argparse.Namespace) -> None:
    """Measure and write the result."""
    device = prepare(options)
    questions = load_split("test", limit=1 if options.quick else options.limit)
    report = Report("embedded", options, device)
    report.row("split", version=VERSION, fingerprint=fingerprint(questions))
    measure(report, questions, device)
    report.finish()


if __name__ == "__main__":
    parser = arguments((__doc__ or "").splitlines()[0])
    parser.add_argument("--limit", type=int, default=None, help="the first so many questions a type; all by default")
    main(parser.parse_args())
