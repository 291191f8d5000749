"""The rows of a job through vLLM, which batches by itself, pruned by the plugin."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from vlm_pruner.adapters import adapter_for
from vlm_pruner.asking.colours import as_shown
from vlm_pruner.asking.loading import Loading
from vlm_pruner.asking.models import EMBEDDED, open_reader, source_of
from vlm_pruner.asking.prompts import kinds_of, prompt_text, tokenizing
from vlm_pruner.asking.reader import Reader
from vlm_pruner.asking.videos import Shown
from vlm_pruner.errors import InputError, UnsupportedModelError, first_line, missing_package
from vlm_pruner.serving.batch.answer import Result
from vlm_pruner.serving.batch.job import Job, read_ahead, unread
from vlm_pruner.serving.batch.prepare import Window
from vlm_pruner.serving.batch.store import Record
from vlm_pruner.serving.vllm.doctor import examine
from vlm_pruner.serving.vllm.wanted import KEY, kept_of, plan_of, rotary_of
from vlm_pruner.video import Clip

__all__ = ["OnVllm"]

_OWN = ("device", "attention", "device_map", "quantize")  # of `Loading`: vLLM decides them itself


@dataclass(frozen=True)
class OnVllm:
    """An `Engine` of `job.run_job`: one engine of vLLM, which is given a window of rows at a time.

    Args:
        asked: the plan as the plugin takes it: `PrunePlan.to_dict`, or `method`, `keep` and `params`.
        options: of `vllm.LLM`, beside the model and how it is loaded.
    """

    asked: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, job: Job) -> Callable[[Mapping[int, Collection[int]]], Iterator[Record]]:
        """What computes windows, with the engine started.

        Raises:
            BackendUnavailableError: vLLM is not installed.
            InputError: an option of the model that vLLM decides itself.
            PlanError: the plan cannot be had in vLLM.
            UnsupportedModelError: vLLM would not prune this model here.
        """
        return read_ahead(job, _Answering(job, dict(self.asked), self.options), _prompt)


class _Answering:
    """vLLM with the model of a job, and what it makes of windows."""

    def __init__(self, job: Job, asked: dict[str, Any], options: Mapping[str, Any]) -> None:
        try:
            import vllm
        except ImportError as error:
            raise missing_package("--engine vllm", error) or error from None
        if job.model == EMBEDDED:
            raise InputError("--engine vllm: vLLM does not read the embedded model; name a checkpoint with --model")
        folder, loading = source_of(job.model, Loading(**job.opening))
        if own := [name for name in _OWN if getattr(loading, name) != getattr(Loading(), name)]:
            raise InputError(f"--engine vllm: vLLM decides {' and '.join(own)} itself")
        reader = open_reader(job.model, **job.opening)
        self.plan = plan_of(asked, rotary=rotary_of(reader.config))
        for finding in examine(folder, **loading.source):
            if not finding.good:
                raise UnsupportedModelError(f"--engine vllm: {finding.text}")
        self.decode = reader.processor.decode
        self.visual = _visual(reader)
        given = {"max_model_len": -1, "dtype": loading.dtype, **loading.source, **options}  # -1: what memory holds
        try:
            self.engine = vllm.LLM(folder, hf_overrides={KEY: asked}, **given)
        except Exception as error:  # whatever it lacks, or does not know
            raise UnsupportedModelError(f"vLLM does not start with {job.model}: {first_line(error)}") from error
        self.sampling = self.engine.get_default_sampling_params()  # what the checkpoint says: penalties
        self.sampling.temperature, self.sampling.max_tokens = 0.0, job.max_new_tokens

    def __call__(self, window: Window, known: Collection[int]) -> Iterator[Record]:
        """A record for the rows that could not be read, and one for all others that are not known."""
        if not window.unread.keys() <= set(known):
            yield unread(window)
        rows = {number: row for number, row in window.ready.items() if number not in known}
        if rows:
            began = time.perf_counter()
            found = self.answer(list(rows.values()))
            yield Record(dict(zip(rows, found, strict=True)), (time.perf_counter() - began) * 1e3)

    def answer(self, rows: Sequence[Mapping[str, Any]]) -> list[Result]:
        """Greedy answers. A row that vLLM refuses has its reason, and leaves the others alone.

        Raises:
            UnsupportedModelError: vLLM has died, or prunes otherwise than the plan says.
        """
        from vllm.v1.engine.exceptions import EngineDeadError

        asked = [{"prompt_token_ids": row["ids"], **_shown(row["pictures"])} for row in rows]
        try:
            answers = self.engine.generate(asked, self.sampling, use_tqdm=False)
        except EngineDeadError as error:  # no row would do better
            raise UnsupportedModelError(f"vLLM has stopped: {first_line(error)}") from error
        except Exception as error:  # whatever a row makes vLLM stumble over
            if len(rows) == 1:
                return [Result(error=f"no answer: {first_line(error)}")]
            return [self.answer([row])[0] for row in rows]
        return [self._result(row, answer) for row, answer in zip(rows, answers, strict=True)]

    def _result(self, row: Mapping[str, Any], answer: Any) -> Result:
        """The answer, and the counts that the plugin announced: the placeholders that stand in vLLM's prompt."""
        words = [token for token in answer.prompt_token_ids if token not in self.visual]
        kept, total = len(answer.prompt_token_ids) - len(words), row["total"]
        if words != row["words"]:
            return Result(error="no answer: vLLM reads another prompt than the library")
        if len(row["pictures"]) == 1 and kept != (expected := kept_of(self.plan, total)):
            raise UnsupportedModelError(
                f"vLLM announced {kept} of {total} visual tokens, and the plan keeps {expected}"
            )
        text = self.decode(list(answer.outputs[0].token_ids), skip_special_tokens=True)
        return Result(text.strip(), kept, total)


def _prompt(reader: Reader, question: str, shown: list[Shown], answer: int) -> Mapping[str, Any]:
    """What vLLM reads of one row; refused is what the library refuses.

    Returns:
        `ids` of the prompt with one placeholder for each of `pictures`; the `total` of visual tokens, and the `words`
        beside them, that the library would read.

    Raises:
        InputError: as of `Reader.inputs`, or a video.
    """
    pieces = reader.spread(shown)
    if any(isinstance(one, Clip) for one in pieces):
        raise InputError("videos are not asked about through vLLM here: --engine local reads them")
    whole = reader.inputs(question, pieces, answer)["input_ids"][0]
    among = torch.isin(whole, torch.tensor(sorted(_visual(reader))))
    form = adapter_for(reader.config.model_type).prompt
    text = prompt_text(reader.processor, question, kinds_of(pieces), form)
    return {
        "ids": reader.processor.tokenizer(text, **tokenizing(reader.processor, text))["input_ids"],
        "pictures": [as_shown(one) for one in pieces if not isinstance(one, Clip)],
        "total": int(among.sum()),
        "words": whole[~among].tolist(),
    }


def _shown(pictures: list[Any]) -> dict[str, Any]:
    return {"multi_modal_data": {"image": pictures}} if pictures else {}


def _visual(reader: Reader) -> set[int]:
    """The tokens that stand for parts of pictures."""
    return set(adapter_for(reader.config.model_type).placeholders(reader.config).values())
