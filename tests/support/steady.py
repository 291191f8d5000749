"""One model under much use: pruning put on and taken off again and again, and many threads at once."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

import torch
from tests.support.families import Prompt, tiny
from tests.support.pruning import GENERATE, plan

from vlm_pruner import prune

__all__ = ["hooks", "in_turn", "interleaved"]

PLAN = plan((0.4, 0), (0.2, 2))
REQUESTS = 10  # different ones


def hooks(model: Any) -> int:
    """Hooks on all modules, and forwards that are not their class's."""
    count = 0
    for module in model.modules():
        count += sum(len(v) for k, v in vars(module).items() if "hook" in k and hasattr(v, "__len__"))
        count += "forward" in vars(module)
    return count


def _asked(family: Any, model: Any) -> list[dict[str, Any]]:
    prompts: list[Prompt] = [family.prompt(number, 1 + number % 3, tail=2 + number) for number in range(REQUESTS)]
    return [family.inputs([prompt], model.dtype) for prompt in prompts]


def _answer(model: Any, inputs: dict[str, Any], **more: Any) -> list[int]:
    with torch.no_grad():
        return model.generate(**inputs, **GENERATE, **more).sequences[0].tolist()


def in_turn(times: int, after: Callable[[], None] = lambda: None) -> tuple[int, list[str]]:
    """So many calls of `generate`, every second one with pruning attached for it alone.

    Args:
        after: called behind every call.

    Returns:
        hooks that are left more than before, and what was wrong.
    """
    family, model = tiny("llava")
    asked = _asked(family, model)
    plain = [_answer(model, inputs) for inputs in asked]
    before, wrong = hooks(model), []
    with prune(model, PLAN):
        pruned = [_answer(model, inputs) for inputs in asked]
    for number in range(times):
        inputs = asked[number // 2 % REQUESTS]
        if number % 2:
            with prune(model, PLAN):
                found, want = _answer(model, inputs), pruned[number // 2 % REQUESTS]
        else:
            found, want = _answer(model, inputs), plain[number // 2 % REQUESTS]
        if found != want:
            wrong.append(f"call {number}: {found} instead of {want}")
        after()
    return hooks(model) - before, wrong


class _Words:
    """A streamer that keeps what it is given."""

    def __init__(self) -> None:
        self.ids: list[int] = []

    def put(self, value: torch.Tensor) -> None:
        self.ids += value.flatten().tolist()

    def end(self) -> None:
        """Nothing to do."""


def interleaved(threads: int, each: int) -> list[str]:
    """What was wrong with the answers of threads that ask one attached model at the same time, half of them streamed.

    Every thread has the requests in an order of its own; each answer must be that of the request alone.
    """
    family, model = tiny("llava")
    asked = _asked(family, model)
    wrong: list[str] = []
    with prune(model, PLAN) as session:
        alone = [_answer(model, inputs) for inputs in asked]
        kept = [report.kept for report in session.reports]
        together = threading.Barrier(threads)

        def ask(seed: int) -> None:
            lots = random.Random(seed)
            together.wait()
            for number in range(each):
                which, words = lots.randrange(REQUESTS), _Words()
                streamed = {"streamer": words} if number % 2 else {}
                try:
                    found = _answer(model, asked[which], **streamed)
                except Exception as error:
                    wrong.append(f"thread {seed}, request {which}: {error!r}")
                    continue
                if found != alone[which] or (streamed and words.ids != alone[which]):
                    wrong.append(f"thread {seed}, request {which}: {found} instead of {alone[which]}")

        workers = [threading.Thread(target=ask, args=(seed,)) for seed in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        calls = session.total.calls
        if calls != REQUESTS + threads * each:
            wrong.append(f"{calls} calls were counted instead of {REQUESTS + threads * each}")
        if not {report.kept for report in session.reports} <= set(kept):
            wrong.append("a report holds another count than its request alone")
    return wrong
