"""One generation in a thread of its own, its words handed over as they come."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList, TextIteratorStreamer

from vlm_pruner.asking import Loaded, Run, Times
from vlm_pruner.engine import prune
from vlm_pruner.plan import PrunePlan
from vlm_pruner.web.turns import StoppedError

__all__ = ["Generation"]


class _Words(TextIteratorStreamer):  # type: ignore[misc]
    """Text pieces for the reader, and the time at which every token came."""

    def __init__(self, tokenizer: Any) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.marks: list[float] = []

    def put(self, value: Tensor) -> None:
        self.marks.append(time.perf_counter())  # the first is the prompt
        super().put(value)


class _Stop(StoppingCriteria):  # type: ignore[misc]
    def __init__(self, flag: threading.Event) -> None:
        self.flag = flag

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Tensor:
        return torch.full((len(input_ids),), self.flag.is_set(), device=input_ids.device)


@contextmanager
def _stoppable(model: torch.nn.Module, flag: threading.Event) -> Iterator[None]:
    """Within the block the model stops at its next layer: a prefill of a minute ends as soon as a token does."""

    def look(module: torch.nn.Module, inputs: Any) -> None:
        if flag.is_set():
            raise StoppedError

    stacks = (module for module in model.modules() if isinstance(module, torch.nn.ModuleList))
    hooks = [layer.register_forward_pre_hook(look) for stack in stacks for layer in stack]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class Generation:
    """An answer under one plan. Iterate over it for the text so far, then read `run`.

    Args:
        sampling: how `generate` draws tokens; greedy by default. `seed` is the state of the draw.
    """

    def __init__(
        self,
        loaded: Loaded,
        inputs: dict[str, Any],
        plan: PrunePlan,
        max_new_tokens: int,
        stop: threading.Event,
        sampling: Mapping[str, Any] = MappingProxyType({"do_sample": False}),
    ) -> None:
        self._loaded, self._inputs, self._plan = loaded, inputs, plan
        self._max_new_tokens, self._stop, self._sampling = max_new_tokens, stop, dict(sampling)
        self._words = _Words(getattr(loaded.processor, "tokenizer", loaded.processor))
        self._error: BaseException | None = None
        self._run: Run | None = None

    @property
    def run(self) -> Run:
        """What was said and measured; there once the iteration has ended."""
        assert self._run is not None
        return self._run

    def __iter__(self) -> Iterator[str]:
        """The text so far, longer every time.

        Raises:
            StoppedError: the stop flag was set.
            Exception: whatever the model raised in its thread.
        """
        worker = threading.Thread(target=self._work, name="vlm-pruner-demo", daemon=True)
        worker.start()
        text = ""
        try:
            for piece in self._words:
                text += piece
                yield text
        except GeneratorExit:  # nobody listens any more
            self._stop.set()
            raise
        finally:
            worker.join()
        if self._error is not None:
            raise self._error
        if self._stop.is_set():
            raise StoppedError

    def _work(self) -> None:
        try:
            self._run = self._generate()
        except Exception as error:  # told to the reader by __iter__
            self._error = error
            self._words.end()

    def _generate(self) -> Run:
        started = time.perf_counter()
        model = self._loaded.model
        if (seed := self._sampling.pop("seed", None)) is not None:
            torch.manual_seed(seed)
        with torch.inference_mode(), _stoppable(model, self._stop), prune(model, self._plan) as session:
            ids = model.generate(
                **self._inputs,
                **self._sampling,
                max_new_tokens=self._max_new_tokens,
                streamer=self._words,
                stopping_criteria=StoppingCriteriaList([_Stop(self._stop)]),
            )
        report, arrivals = session.report, [started, *self._words.marks[1:]]
        gaps = [(b - a) * 1e3 for a, b in pairwise(arrivals)]
        answer = ids[0, self._inputs["input_ids"].shape[1] :]
        return Run(
            plan=self._plan,
            text=self._loaded.processor.decode(answer, skip_special_tokens=True).strip(),
            tokens=len(answer),
            times=Times(gaps[0], report.prefill_ms or 0.0, report.selection_ms, report.decode_ms_per_token, runs=1),
            report=report,
            images=tuple(session.images),
        )
