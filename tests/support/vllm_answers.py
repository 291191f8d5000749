"""What vLLM says of a tiny family under several settings, and what the library says with the same plan.

    python -m tests.support.vllm_answers qwen2_vl float32          a JSON line for every prompt of every setting

In a process of its own: vLLM looks through all modules of its process, and stumbles over those of test runners.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from typing import Any

from tests.support.vision import prepare

prepare()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from tests.support.served import TAGS, picture, served  # noqa: E402

from vlm_pruner.asking import open_model  # noqa: E402
from vlm_pruner.engine import prune  # noqa: E402
from vlm_pruner.ops.dispatch import use_backend  # noqa: E402
from vlm_pruner.plan import PrunePlan, Stage  # noqa: E402

__all__ = ["SETTINGS", "VIDEOS", "plan"]

NEW = 6
LONG = "describe this, please. "
REPEATS = {"qwen3_5": 64}  # longer than a block of its cache: 1152 tokens, as large as a recurrent state
CHUNKS = {"llava_onevision": 96}  # of its largest picture, which vLLM thinks has 70 tokens
SETTINGS: dict[str, dict[str, Any]] = {
    "chunks": {"max_num_batched_tokens": 64, "keep": 0.25},
    "no prefix cache": {"enable_prefix_caching": False, "keep": 0.1},
    "prefix cache": {"keep": 0.5},
}


def plan(name: str, keep: float) -> PrunePlan:
    """VLM-Pruner's form before the language model, with the positions that vLLM can give this family."""
    positions: Any = "kept" if "qwen" in name else "repacked"
    return PrunePlan((Stage("vlm-pruner", keep, 0),), min_visual_tokens=1, positions=positions)  # type: ignore[arg-type]


_VIDEO = "<|vision_start|><|video_pad|><|vision_end|>"
VIDEOS = {"llava_onevision": "<video>"} | dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5"), _VIDEO)
WITH_TIMES = ("qwen2_5_vl", "qwen3_vl", "qwen3_5")  # whose frames have their times, as places or in words
TIMES = {"fps": 4.0, "duration": 1.0, "total_num_frames": 4, "frames_indices": [0, 1, 2, 3]}
EVERY_THIRD = {"fps": 9.0, "duration": 2.0, "total_num_frames": 18, "frames_indices": [0, 3, 6, 9, 12, 15]}
"""Short: behind a long video of Qwen2.5-VL vLLM goes on where its time ends, transformers where its picture does."""


def _video(name: str, seed: int, width: int, times: dict[str, Any]) -> Any:
    frames = [np.asarray(picture(seed + number, width, 32)) for number in range(len(times["frames_indices"]))]
    return (np.stack(frames), {**times, "video_backend": "none"}) if name in WITH_TIMES else np.stack(frames)


def prompts(name: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """One picture, a portrait, two pictures, a long text, no picture, and three with a video where these are pruned."""
    tag = TAGS[name]
    made: dict[str, tuple[str, dict[str, Any]]] = {
        "one": (f"{tag}what is it?", {"image": [picture(1, 64, 48)]}),
        "portrait": (f"{tag}ab", {"image": [picture(2, 24, 96)]}),
        "two": (f"first {tag} second {tag} compare", {"image": [picture(3, 60, 40), picture(4, 40, 60)]}),
        "long": (f"{tag}{LONG * REPEATS.get(name, 8)}", {"image": [picture(5, 56, 56)]}),
        "text": ("hello there", {}),
    }
    if name in VIDEOS:
        film = VIDEOS[name]
        made["video"] = (f"{film}what happens?", {"video": [_video(name, 6, 40, TIMES)]})
        made["every third frame"] = (f"look: {film}and then?", {"video": [_video(name, 10, 48, EVERY_THIRD)]})
        both = {"image": [picture(16, 40, 60)], "video": [_video(name, 17, 48, EVERY_THIRD)]}
        made["both"] = (f"{tag} or {film}which?", both)
    return made


def reference(loaded: Any, name: str, keep: float) -> dict[str, dict[str, Any]]:
    """Prompt length, tokens and log-probabilities of the library's own path."""
    found = {}
    for case, (text, shown) in prompts(name).items():
        given: dict[str, Any] = {f"{kind}s": held for kind, held in shown.items()}
        if "video" in shown:
            given["do_sample_frames"] = False
        if "video" in shown and name in WITH_TIMES:
            times = [{key: said for key, said in held[1].items() if key in TIMES} for held in shown["video"]]
            given |= {"videos": [held[0] for held in shown["video"]], "video_metadata": times}
        made = loaded.processor(text=[text], return_tensors="pt", **given)
        with torch.inference_mode(), prune(loaded.model, plan(name, keep)) as session:
            out = loaded.model.generate(
                **made, do_sample=False, max_new_tokens=NEW, min_new_tokens=NEW, output_logits=True,
                return_dict_in_generate=True, suppress_tokens=None,
            )  # fmt: skip
        length = made["input_ids"].shape[1]
        tokens = out.sequences[0, length:].tolist()
        logs = [row[0].float().log_softmax(-1) for row in out.logits]
        dropped = session.report.total - session.report.kept if shown else 0
        logs = [float(log[token]) for log, token in zip(logs, tokens, strict=True)]
        found[case] = {"length": length - dropped, "tokens": tokens, "logs": logs, "dropped": dropped}
    return found


def compare(name: str, dtype: str) -> Iterator[dict[str, Any]]:
    """One object for every prompt, setting, budget and round."""
    import vllm

    loaded = open_model(str(served(name)[1]), dtype=dtype)
    sampling = vllm.SamplingParams(max_tokens=NEW, temperature=0, logprobs=1, ignore_eos=True)
    cases = prompts(name)
    plain = [{"prompt": text, **({"multi_modal_data": held} if held else {})} for text, held in cases.values()]
    for setting, given in SETTINGS.items():
        options = {key: value for key, value in given.items() if key != "keep"}
        if name in CHUNKS and "max_num_batched_tokens" in options:
            options["max_num_batched_tokens"] = CHUNKS[name]
        engine = vllm.LLM(
            str(served(name)[0]), max_model_len=2048, enforce_eager=True, dtype=dtype, max_num_seqs=4,
            hf_overrides={"vlm_pruner": plan(name, given["keep"]).to_dict()}, **options,
        )  # fmt: skip
        for keep in (given["keep"], 1.0):
            own = {"mm_processor_kwargs": {"vlm_pruner": plan(name, keep).to_dict()}}
            requests = [one | (own if keep == 1.0 and "multi_modal_data" in one else {}) for one in plain]
            expected = reference(loaded, name, keep)
            for again in range(2):
                answers = engine.generate(requests, sampling, use_tqdm=False)
                for case, answer in zip(cases, answers, strict=True):
                    said = answer.outputs[0]
                    tokens = list(said.token_ids)
                    logs = [row[token].logprob for row, token in zip(said.logprobs, tokens, strict=True)]
                    ours = {"length": len(answer.prompt_token_ids), "tokens": tokens, "logs": logs}
                    about = {"setting": setting, "keep": keep, "round": again, "case": case}
                    yield about | {"cached": answer.num_cached_tokens, "vllm": ours, "library": expected[case]}
        del engine


if __name__ == "__main__":
    os.environ |= {
        "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "ERROR",
        "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    if sys.argv[1:] == ["qwen3_5", "float32"]:
        from tests.support.gated_delta import use_any_dtype

        use_any_dtype()
    with use_backend("torch"):  # a second engine in one process stumbles over compiled loops (vLLM 0.32)
        for line in compare(*sys.argv[1:]):
            print(json.dumps(line), flush=True)
