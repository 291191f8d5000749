"""One question about an image or a video, with and without pruning: answers, probabilities, times of real passes."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList
from transformers.generation.streamers import BaseStreamer

from vlm_pruner.asking.models import Loaded
from vlm_pruner.asking.videos import Shown
from vlm_pruner.engine import ImageRecord, prune
from vlm_pruner.errors import VlmPrunerError, first_line
from vlm_pruner.plan import PrunePlan
from vlm_pruner.report import PruneReport

__all__ = ["Answer", "Refused", "Run", "Times", "ask", "compare", "name_of"]


@dataclass(frozen=True)
class Times:
    """Medians over the timed runs, milliseconds."""

    first_token_ms: float  # vision tower, prefill and first token
    prefill_ms: float  # of the language model, selection included
    selection_ms: float | None
    decode_ms_per_token: float | None  # None where the answer has one token only
    runs: int


@dataclass(frozen=True)
class Run:
    """What the model said under one plan, and how long it took."""

    plan: PrunePlan
    text: str
    tokens: int  # of the answer, its end mark included
    times: Times
    report: PruneReport  # of the last timed run, its times replaced by `times`
    images: Sequence[ImageRecord] = field(default=(), repr=False)  # of the same run, for pictures

    @property
    def name(self) -> str:
        """ "all tokens", or methods and budgets: "v2drop 64", "divprune 192 + vlm-pruner 64"."""
        return name_of(self.plan)


@dataclass(frozen=True, kw_only=True)
class Answer(Run):
    """A run, and how sure the model was."""

    probability: float  # that this run gives to its own answer
    full_probability: float  # that this run gives to the answer with all tokens


@dataclass(frozen=True)
class Refused:
    """A method that this model, picture or place cannot run, and why: it stands beside the answers of the others."""

    name: str  # "fastv 64"
    error: Exception
    plan: PrunePlan | None = None  # None where not even that could be made

    @property
    def reason(self) -> str:
        """Why, in one line."""
        if isinstance(self.error, VlmPrunerError):
            return " ".join(str(self.error).split())
        return f"the model could not answer: {first_line(self.error)}"


def name_of(plan: PrunePlan) -> str:
    """Methods and budgets of a plan, "all tokens" where nothing is pruned."""
    stages = plan.stages
    if all(stage.method.name == "none" for stage in stages):
        return "all tokens"
    if plan.made_by is not None:
        return f"{plan.made_by} {plan.asked}"
    return " + ".join(f"{stage.method.name} {stage.keep}" for stage in stages)


def ask(
    loaded: Loaded,
    shown: Shown | None,
    question: str,
    plans: Sequence[PrunePlan],
    *,
    max_new_tokens: int = 32,
    runs: int = 3,
    progress: Callable[[str, float], None] = lambda *_: None,
) -> list[Answer]:
    """The answer with all tokens, then one for each plan; `compare` for those who can go on without one of them.

    After one warm-up round, the runs of all plans are timed in turn, `runs` times (once where a round takes over five
    seconds), so that a busy machine hurts all alike. Decoding is greedy.

    Args:
        plans: finished plans, see `PrunePlan.of`.
        progress: told what is going on and which share of the work is done.

    Raises:
        InputError: a question or a picture that the model cannot read.
        PlanError: a plan that does not fit the model or the image.
        MissingSignalError: a method needs what this model does not give.
        UnsupportedModelError: a model that cannot be pruned.
    """
    every = [PrunePlan.of("none", num_layers=loaded.layers), *plans]
    inputs = loaded.inputs(question, shown, max_new_tokens)
    found = _answers(loaded, inputs, every, max_new_tokens, runs, progress, patient=False)
    return [answer for answer in found if isinstance(answer, Answer)]


def compare(
    loaded: Loaded,
    shown: Shown | None,
    question: str,
    tries: Sequence[PrunePlan | Refused],
    *,
    max_new_tokens: int = 32,
    runs: int = 3,
    progress: Callable[[str, float], None] = lambda *_: None,
) -> list[Answer | Refused]:
    """As `ask`, but a plan that cannot be carried out is there with its reason, and the others go on.

    Args:
        tries: plans, and what could not even become one.

    Raises:
        InputError: a question or a picture that the model cannot read.
        UnsupportedModelError: a model that cannot be pruned.
    """
    every = [PrunePlan.of("none", num_layers=loaded.layers), *tries]
    inputs = loaded.inputs(question, shown, max_new_tokens)
    return _answers(loaded, inputs, every, max_new_tokens, runs, progress, patient=True)


def _answers(
    loaded: Loaded,
    inputs: dict[str, Any],
    every: Sequence[PrunePlan | Refused],
    max_new_tokens: int,
    runs: int,
    progress: Callable[[str, float], None],
    patient: bool,
) -> list[Answer | Refused]:
    """Warm-up, timed rounds, forced run. The first of `every` is the untouched model."""
    plans: dict[int, PrunePlan] = {}
    found: dict[int, Answer | Refused] = {}
    spent = 0.0
    for number, plan in enumerate(every):
        progress(f"warming up, {number + 1} of {len(every)}", 0.3 * number / len(every))
        if isinstance(plan, Refused):
            found[number] = plan
            continue
        try:
            spent += sum(_run(loaded, inputs, plan, max_new_tokens).milliseconds)
        except Exception as error:
            if not patient or not number:
                raise
            found[number] = Refused(name_of(plan), error, plan)
            continue
        plans[number] = plan
    timed: dict[int, list[_Trial]] = {number: [] for number in plans}
    rounds = 1 if spent > 5000 else runs
    steps = [number for _ in range(rounds) for number in plans]
    for step, number in enumerate(steps):
        progress(f"timing, {step + 1} of {len(steps)}", 0.3 + 0.5 * step / len(steps))
        timed[number].append(_run(loaded, inputs, plans[number], max_new_tokens))
    reference = timed[0][-1].ids
    for step, (number, plan) in enumerate(plans.items()):
        progress(f"probabilities, {step + 1} of {len(plans)}", 0.8 + 0.2 * step / len(plans))
        forced = _run(loaded, inputs, plan, len(reference), force=reference)
        found[number] = _answer(loaded, plan, timed[number], forced.probability)
    return [found[number] for number in range(len(every))]


@dataclass(frozen=True)
class _Trial:
    ids: Tensor  # [t] the answer
    probability: float
    milliseconds: list[float]  # to the first token, then from token to token
    report: PruneReport
    images: Sequence[ImageRecord]


class _Clock(BaseStreamer):  # type: ignore[misc]
    """Notes when every token arrives; `put` is first called with the prompt."""

    def __init__(self) -> None:
        self.marks = [time.perf_counter()]

    def put(self, value: Tensor) -> None:
        self.marks.append(time.perf_counter())

    def end(self) -> None:
        """Nothing is buffered."""

    def gaps(self) -> list[float]:
        arrivals = [self.marks[0], *self.marks[2:]]
        return [(b - a) * 1e3 for a, b in pairwise(arrivals)]


class _Watch(LogitsProcessor):  # type: ignore[misc]
    """Adds up the log-probability of the chosen tokens; with `force` it also does the choosing."""

    def __init__(self, force: Tensor | None) -> None:
        self.force = force
        self.step = 0
        self.total = 0.0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        logs = scores[0].float().log_softmax(-1)
        token = int(logs.argmax()) if self.force is None else int(self.force[self.step])
        self.total += float(logs[token])
        self.step += 1
        if self.force is None:
            return scores
        forced = torch.full_like(scores, float("-inf"))
        forced[:, token] = 0.0
        return forced


def _run(
    loaded: Loaded, inputs: dict[str, Any], plan: PrunePlan, max_new_tokens: int, force: Tensor | None = None
) -> _Trial:
    """One greedy generation."""
    clock, watch = _Clock(), _Watch(force)
    length = inputs["input_ids"].shape[1]
    with torch.inference_mode(), prune(loaded.model, plan) as session:
        clock.marks = [time.perf_counter()]
        ids = loaded.model.generate(
            **inputs,
            do_sample=False,
            max_new_tokens=max_new_tokens,
            streamer=clock,
            logits_processor=LogitsProcessorList([watch]),
        )
    answer = ids[0, length:].cpu()
    return _Trial(answer, math.exp(watch.total), clock.gaps(), session.report, tuple(session.images))


def _answer(loaded: Loaded, plan: PrunePlan, trials: list[_Trial], full_probability: float) -> Answer:
    last, reports = trials[-1], [trial.report for trial in trials]
    times = Times(
        first_token_ms=statistics.median(trial.milliseconds[0] for trial in trials),
        prefill_ms=_median(r.prefill_ms for r in reports) or 0.0,
        selection_ms=_median(r.selection_ms for r in reports),
        decode_ms_per_token=_median(r.decode_ms_per_token for r in reports),
        runs=len(trials),
    )
    text = loaded.processor.decode(last.ids, skip_special_tokens=True).strip()
    return Answer(
        plan=plan,
        text=text,
        tokens=len(last.ids),
        times=times,
        report=replace(
            last.report,
            prefill_ms=times.prefill_ms,
            selection_ms=times.selection_ms,
            decode_ms_per_token=times.decode_ms_per_token,
        ),
        images=last.images,
        probability=last.probability,
        full_probability=full_probability,
    )


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
