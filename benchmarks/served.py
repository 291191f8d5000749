"""Does the embedded model answer through vLLM as through the library, and how long is its first token in coming?

    python -m benchmarks.served [--questions 500] [--repeats 5]            writes results/served.json

In an environment with vLLM (`make test-serving` makes one). The plan is VLM-Pruner before the language model, 64 of 576
tokens. Times to the first token are those of new pictures, one request at a time, with and without pruning in turn, on
a random model whose language model is large beside its tower.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "ERROR"}

import torch
from benchmarks.common import Report, arguments, prepare
from safetensors.torch import load_file, save_file

from vlm_pruner.asking import open_model
from vlm_pruner.engine import prune
from vlm_pruner.evaluation.questions import ask_split
from vlm_pruner.ops.dispatch import use_backend
from vlm_pruner.plan import PrunePlan

__all__ = ["main"]

KEEP, NEW = 64, 12


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
    report.check(right[0] == right[1], f"{right[0]} answers of vLLM are right, {right[1]} of the library")
    report.finish()


if __name__ == "__main__":
    main()
