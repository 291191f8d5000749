"""The same prompts on one worker and on two (tensor parallel): a JSON line for each with tokens and log-probabilities.

python -m tests.support.vllm_parallel qwen2_vl 2
"""

from __future__ import annotations

import json
import os
import sys

from tests.support.vision import prepare

prepare()

from tests.support.served import served  # noqa: E402
from tests.support.vllm_answers import NEW, plan, prompts  # noqa: E402

if __name__ == "__main__":
    os.environ |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR", "HF_HUB_OFFLINE": "1"}
    import vllm

    name, workers = sys.argv[1], int(sys.argv[2])
    if workers > 1:
        os.environ["VLLM_CPU_OMP_THREADS_BIND"] = "0|1"
    engine = vllm.LLM(
        str(served(name)[0]), max_model_len=1024, enforce_eager=True, dtype="float32", max_num_seqs=4,
        tensor_parallel_size=workers, hf_overrides={"vlm_pruner": plan(name, 0.25).to_dict()},
    )  # fmt: skip
    sampling = vllm.SamplingParams(max_tokens=NEW, temperature=0, logprobs=1, ignore_eos=True)
    for text, pictures in prompts(name).values():
        request = {"prompt": text, **({"multi_modal_data": pictures} if pictures else {})}
        answer = engine.generate([request], sampling, use_tqdm=False)[0]
        tokens = list(answer.outputs[0].token_ids)
        logs = [row[token].logprob for row, token in zip(answer.outputs[0].logprobs, tokens, strict=True)]
        print(json.dumps({"length": len(answer.prompt_token_ids), "tokens": tokens, "logs": logs}), flush=True)
