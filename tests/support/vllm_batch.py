"""One job through vLLM, killed and resumed, and through the library with the same plan before the language model.

    python -m tests.support.vllm_batch qwen2_vl          a JSON object

In a process of its own, as `tests.support.vllm_answers`.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.support.vision import prepare

prepare()

from tests.support.jobs import mixed_rows, poisoned  # noqa: E402
from tests.support.served import served  # noqa: E402
from tests.support.vllm_answers import plan  # noqa: E402

from vlm_pruner.asking import Loaded  # noqa: E402
from vlm_pruner.asking.models import open_reader  # noqa: E402
from vlm_pruner.ops.dispatch import use_backend  # noqa: E402
from vlm_pruner.plan import PrunePlan  # noqa: E402
from vlm_pruner.serving.batch import Job, run_job  # noqa: E402
from vlm_pruner.serving.batch.on_vllm import OnVllm  # noqa: E402

KEEP = 0.3
OPTIONS: dict[str, Any] = {"enforce_eager": True, "max_num_seqs": 4}


def _made(name: str, loaded: Loaded) -> PrunePlan:
    return loaded.plan(plan(name, KEEP))


def _job(name: str, model: Path, source: Path) -> Job:
    """Windows of four rows."""
    make = functools.partial(_made, name)
    return Job(str(source), None, str(model), {"dtype": "float32"}, make, max_new_tokens=4, batch=1, workers=0)


def _as_published(folder: Path) -> None:
    """An answer ends where the tokenizer says, as vLLM has it, and no token is forbidden, which vLLM does not know."""
    file = folder / "generation_config.json"
    said = {key: value for key, value in json.loads(file.read_text()).items() if key != "suppress_tokens"}
    end = open_reader(str(folder)).processor.tokenizer.eos_token_id
    file.write_text(json.dumps(said | {"eos_token_id": end, "pad_token_id": 0}))


def _killed(compute: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """It ends after the first three records: in the middle of the second window."""

    def some(todo: Any) -> Iterator[Any]:
        for number, record in enumerate(compute(todo)):
            if number == 3:
                raise KeyboardInterrupt
            yield record

    return some


def main(name: str) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(prefix="vllm-batch-"))
    source = poisoned(mixed_rows(folder, 5))
    outputs = {what: folder / f"{what}.jsonl" for what in ("library", "whole", "resumed")}
    for model in served(name):
        _as_published(model)
    library = run_job(_job(name, served(name)[1], source), outputs["library"])
    job = _job(name, served(name)[0], source)
    compute = OnVllm(plan(name, KEEP).to_dict(), OPTIONS)(job)
    whole = run_job(job, outputs["whole"], engine=lambda _: compute)
    with contextlib.suppress(KeyboardInterrupt):
        run_job(job, outputs["resumed"], engine=lambda _: _killed(compute))
    told: dict[str, Any] = {}

    def rest(todo: Any) -> Iterator[Any]:
        told["windows"] = list(todo)
        told["known"] = [len(known) for known in todo.values()]
        for record in compute(todo):
            told["again"] = told.get("again", 0) + len(record.results)
            yield record

    run_job(job, outputs["resumed"], engine=lambda _: rest)
    assert library is not None
    assert whole is not None
    rows = {what: [json.loads(line) for line in path.read_text().splitlines()] for what, path in outputs.items()}
    return rows | {"kept": [library.kept, whole.kept], "total": [library.tokens, whole.tokens], "told": told}


if __name__ == "__main__":
    os.environ |= {
        "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "ERROR",
        "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    with use_backend("torch"):  # vLLM stumbles over compiled loops when it starts (0.32)
        print(json.dumps(main(sys.argv[1])), flush=True)
