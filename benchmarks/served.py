"""Does the embedded model answer through vLLM as through the library, and how long is its first token in coming?

    python -m benchmarks.served [--questions 500] [--repeats 5]            writes results/served.json

In an environment with vLLM (`make test-serving` makes one). The plan is VLM-Pruner before the language model, 64 of 576
tokens. Times to the first token are those of new pictures, one or two of them, one request at a time, with and without
pruning in turn, on a random model whose language model is large beside its tower. Beside them stand the encoder and the
selection, which are part of them, and the share of the floating point operations that are left: words and tower are not
pruned, and attention, which shrinks with the square of the tokens, is a larger part of a longer prompt.
"""

from __future__ import annotations

import copy
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "ERROR"}

import numpy as np
import torch
from benchmarks.common import Report, arguments, prepare
from PIL import Image
from safetensors.torch import load_file, save_file

from vlm_pruner.asking import open_model
from vlm_pruner.budget import keep_count
from vlm_pruner.engine import decoder_costs, prune
from vlm_pruner.evaluation.questions import ask_split
from vlm_pruner.flops import prefill_flops
from vlm_pruner.ops.dispatch import use_backend
from vlm_pruner.plan import PrunePlan
from vlm_pruner.profiling.run import vision_prediction
from vlm_pruner.profiling.timing import median

__all__ = ["main"]

KEEP, NEW = 64, 12
QUESTION = "What is the word?"


def for_vllm(loaded: Any, folder: Path) -> Path:
    """A checkpoint folder with the names that vLLM reads."""
    loaded.model.save_pretrained(folder)
    loaded.processor.save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    named = {key.replace("vision_tower.", "vision_tower.vision_model."): value for key, value in weights.items()}
    save_file(named, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def own_answers(loaded: Any, asked: Any, plan: PrunePlan) -> list[str]:
    """What the library says, one question at a time."""
    found = []
    for one in asked:
        inputs = loaded.processor(text=[one.prompt], images=list(one.images), return_tensors="pt")
        with torch.inference_mode(), prune(loaded.model, plan):
            ids = loaded.model.generate(**inputs, do_sample=False, max_new_tokens=NEW)
        found.append(loaded.processor.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip())
    return found


def wide(loaded: Any) -> Any:
    """A random model for the same processor: twelve decoder layers of width 896 behind the embedded model's tower."""
    config = copy.deepcopy(loaded.model.config)
    words = config.text_config
    words.hidden_size, words.intermediate_size, words.num_hidden_layers = 896, 4864, 12
    words.num_attention_heads, words.num_key_value_heads, words.head_dim = 14, 14, 64
    torch.manual_seed(0)
    return replace(loaded, model=type(loaded.model)(config).eval())


def timed(owner: Any, name: str, found: list[float]) -> None:
    """Have what a function takes added to the last number of a list, in milliseconds."""
    work: Callable[..., Any] = getattr(owner, name)

    def run(*args: Any, **given: Any) -> Any:
        began = time.perf_counter()
        try:
            return work(*args, **given)
        finally:
            found[-1] += (time.perf_counter() - began) * 1e3

    setattr(owner, name, run)


def operations_left(loaded: Any, question: str, pictures: int, keep: float) -> float:
    """Floating point operations to the first token at a budget, of those with all tokens; the tower's are in both."""
    images = [Image.new("RGB", (336, 336))] * pictures
    inputs = loaded.processor(text=[question], images=images, return_tensors="pt")
    visual = int((inputs["input_ids"] == loaded.model.config.image_token_id).sum())
    words = inputs["input_ids"].shape[1] - visual
    tower, costs = vision_prediction(loaded.model.config, inputs), decoder_costs(loaded.model)
    assert tower is not None
    left = pictures * keep_count(visual // pictures, keep)
    pruned, whole = (tower + prefill_flops(costs, [words + kept] * loaded.layers) for kept in (left, visual))
    return pruned / whole


def first_token(report: Report, loaded: Any, repeats: int) -> None:
    """Times to the first token of pictures that vLLM has not seen, with all tokens and with a quarter, in turn."""
    import vllm

    from vlm_pruner.serving.vllm import pruning

    timed(pruning, "_select", selection := [0.0])  # vLLM looks at a picture before it starts
    timed(pruning.Pruning, "embed_multimodal", encoder := [0.0])
    lots, model = np.random.default_rng(0), wide(loaded)
    asked = [(pictures, keep) for pictures in (1, 2) for keep in (1.0, 0.25)]
    samples: dict[tuple[int, float], list[tuple[float, float, float]]] = {one: [] for one in asked}
    with tempfile.TemporaryDirectory() as name:
        engine = vllm.LLM(
            str(for_vllm(model, Path(name))), max_model_len=2048, enforce_eager=True, dtype="float32", max_num_seqs=1,
            enable_prefix_caching=False, hf_overrides={"vlm_pruner": {"keep": 0.25}}, limit_mm_per_prompt={"image": 2},
        )  # fmt: skip
        once = vllm.SamplingParams(max_tokens=1, temperature=0)
        for _ in range(repeats + 1):  # the first round warms up
            for (pictures, keep), found in samples.items():
                drawn = lots.integers(0, 255, (pictures, 336, 336, 3), dtype=np.uint8)
                shown = {"multi_modal_data": {"image": [Image.fromarray(one) for one in drawn]}}
                own = {"mm_processor_kwargs": {"vlm_pruner": {"keep": keep}}}
                selection.append(0.0)
                encoder.append(0.0)
                began = time.perf_counter()
                engine.generate([{"prompt": "<image>" * pictures + QUESTION, **shown, **own}], once, use_tqdm=False)
                whole = (time.perf_counter() - began) * 1e3
                found.append((whole, encoder[-1] - selection[-1], selection[-1]))
    for pictures, of in ((1, ""), (2, " of two pictures")):
        medians = []
        for keep in (1.0, 0.25):
            parts = list(zip(*samples[pictures, keep][1:], strict=True))
            for what, values in zip(("first token", "its encoder", "its selection"), parts, strict=True):
                report.row(f"{what}{of}, keep {keep}", values)
            medians.append(median(parts[0]))
        left = operations_left(model, "<image>" * pictures + QUESTION, pictures, 0.25)
        report.row(f"floating point operations{of}, keep 0.25", of_unpruned=left)
        report.aim(f"time to the first token{of} at keep 0.25, of unpruned", medians[1] / medians[0], 0.25)


def main() -> None:
    """Entry point."""
    parser = arguments(__doc__, repeats=5)
    parser.add_argument("--questions", type=int, default=500)
    given = parser.parse_args()
    report = Report("served", given, prepare(given))
    import vllm

    loaded = open_model("embedded")
    plan = PrunePlan.of("vlm-pruner", KEEP, 0, num_layers=loaded.layers, positions="repacked")
    asked = ask_split(loaded.model, loaded.processor, "test", None)[: 8 if given.quick else given.questions]
    with tempfile.TemporaryDirectory() as name, use_backend("torch"):
        engine = vllm.LLM(
            str(for_vllm(loaded, Path(name))), max_model_len=2048, enforce_eager=True, dtype="float32", max_num_seqs=8,
            hf_overrides={"vlm_pruner": plan.to_dict()}, limit_mm_per_prompt={"image": 2},
        )  # fmt: skip
        sampling = vllm.SamplingParams(max_tokens=NEW, temperature=0)
        requests = [{"prompt": one.prompt, "multi_modal_data": {"image": list(one.images)}} for one in asked]
        began = time.perf_counter()
        said = [answer.outputs[0].text.strip() for answer in engine.generate(requests, sampling, use_tqdm=False)]
        seconds = time.perf_counter() - began
        own = own_answers(loaded, asked, plan)
    right = [sum(one.score(text) for one, text in zip(asked, texts, strict=True)) for texts in (said, own)]
    same = sum(a == b for a, b in zip(said, own, strict=True))
    report.row("vLLM", questions=len(asked), accuracy=right[0] / len(asked), per_second=len(asked) / seconds)
    report.row("library", questions=len(asked), accuracy=right[1] / len(asked))
    report.row("equal answers", questions=len(asked), equal=same)
    with use_backend("torch"):
        first_token(report, loaded, given.repeats)
    report.check(right[0] == right[1], f"{right[0]} answers of vLLM are right, {right[1]} of the library")
    report.finish()


if __name__ == "__main__":
    main()
