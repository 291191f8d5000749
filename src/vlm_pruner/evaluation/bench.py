"""The benchmark: every cell of a grid on every question of a split, over several processes, resumable at any moment."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from vlm_pruner.engine import plan_for
from vlm_pruner.errors import InputError, VlmPrunerError
from vlm_pruner.evaluation.cells import Cell, Grid, Price, price_named
from vlm_pruner.evaluation.pool import in_processes
from vlm_pruner.evaluation.questions import Asked, Unasked, picture_tokens, takeable
from vlm_pruner.evaluation.results import BenchResults, CellResult
from vlm_pruner.evaluation.runner import Runner
from vlm_pruner.evaluation.single import Single, encoded_apart
from vlm_pruner.evaluation.sources import code_hash
from vlm_pruner.evaluation.store import Answer, AnswerStore
from vlm_pruner.plan import PrunePlan

__all__ = ["Loaded", "Outcome", "Setup", "answer_batches", "batches_of", "describe", "run_bench"]

BATCH = 16  # questions; part of what answers depend on, since sums of floats do
SINGLE = 1  # of models that answer one at a time, so that each answer is on the disk as soon as it is there


@dataclass(frozen=True)
class Setup:
    """What a worker needs."""

    model: Any
    processor: Any
    questions: Sequence[Asked]
    max_new_tokens: int = 12  # of an answer
    unasked: Sequence[Unasked] = ()  # left out of the questions

    @classmethod
    def of(cls, model: Any, processor: Any, questions: Sequence[Asked], max_new_tokens: int = 12) -> Setup:
        """With those of the questions that the processor takes.

        Raises:
            InputError: it takes none of them.
        """
        asked, unasked = takeable(processor, questions)
        if not asked:
            raise InputError(unasked[0].reason)
        return cls(model, processor, asked, max_new_tokens, unasked)

    @cached_property
    def single(self) -> bool:
        """Is every question asked by itself? See `evaluation.single`."""
        return picture_tokens(self.model) is None or not encoded_apart(self.processor, self.questions[0])

    @property
    def plan(self) -> Callable[..., PrunePlan]:
        """What makes plans for the model, as `plan_for`."""
        return partial(plan_for, self.model)

    def price(self, name: str | None) -> Price | None:
        """What methods have in common at equal cost, by name; see `price_named`."""
        return price_named(name, self.model)

    @property
    def batch(self) -> int:
        """Most questions of a batch."""
        return SINGLE if self.single else BATCH

    def runner(self) -> Any:
        """What answers the questions: a `Runner`, or a `Single`."""
        kind = Single if self.single else Runner
        return kind(self.model, self.processor, max_new_tokens=self.max_new_tokens)


Loaded = Callable[[], Setup]
"""Makes a `Setup`; picklable, because every worker process calls it."""


@dataclass(frozen=True)
class Outcome:
    """One cell on one batch of questions: its answers, or why the method cannot run."""

    cell: int
    batch: int
    answers: tuple[Answer, ...] = ()
    reason: str = ""


def describe(setup: Setup, name: str) -> dict[str, Any]:
    """The model as results name it: `weights` is a hash over all parameters."""
    config = setup.model.base_model.config
    digest = hashlib.sha256()
    for key, value in sorted(setup.model.state_dict().items()):
        digest.update(key.encode())
        if isinstance(value, torch.Tensor) and not value.is_meta:  # those that are offloaded lie elsewhere
            whole = value.dequantize() if type(value) not in (torch.Tensor, torch.nn.Parameter) else value
            digest.update(whole.detach().cpu().float().numpy().tobytes())
    backend = config.get_text_config()._attn_implementation
    return {
        "name": name,
        "weights": digest.hexdigest()[:16],
        "layers": config.get_text_config().num_hidden_layers,
        "tokens": picture_tokens(setup.model),
        "dtype": str(setup.model.dtype).removeprefix("torch."),
        **({} if backend == "sdpa" else {"attention": backend}),
    }


def batches_of(questions: Sequence[Asked], most: int = BATCH) -> list[list[list[Asked]]]:
    """Batches of scenes that have equally many pictures and questions: a fixed partition of the split."""
    if most == SINGLE:
        return [[[asked]] for asked in questions]
    alike: dict[tuple[int, int], list[list[Asked]]] = {}
    for _, group in groupby(questions, key=lambda asked: asked.scene):
        scene = list(group)
        alike.setdefault((scene[0].pictures, len(scene)), []).append(scene)
    batches = []
    for (_, width), scenes in sorted(alike.items()):
        size = max(1, most // width)
        batches += [scenes[i : i + size] for i in range(0, len(scenes), size)]
    return batches


def answer_batches(
    setup: Setup, cells: Sequence[Cell], todo: Mapping[int, Sequence[int]], numbers: Iterator[int]
) -> Iterator[Outcome]:
    """Run the cells `todo[number]` on each of the batches `numbers`."""
    runner = setup.runner()
    batches = batches_of(setup.questions, setup.batch)
    broken: set[int] = set()
    for number in numbers:
        task = runner.task(batches[number])
        for cell in todo[number]:
            if cell in broken:
                continue
            try:
                yield Outcome(cell, number, tuple(runner.run(cells[cell], task)))
            except VlmPrunerError as error:
                broken.add(cell)
                yield Outcome(cell, number, reason=str(error))


def run_bench(
    load: Loaded,
    grid: Grid,
    out: str | Path,
    *,
    name: str,
    split: Mapping[str, Any],
    answers: str | Path | None = None,
    setup: Setup | None = None,
    workers: int = 1,
    about: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> BenchResults:
    """Answer every question in every cell, and sum up.

    The file `answers` holds the single answers: what is there already is not computed again. `out` is written at the
    end. Both depend on nothing but the model, the code, the grid and the split, and `about`: killed and resumed runs,
    and runs with more workers, give the same bytes.

    Args:
        load: makes the model and the questions, here (unless `setup` is given) and in every worker process.
        out: the results, a JSON file.
        split: name, version and whatever else decides what is asked.
        answers: None = a file beside `out`; runs on the same questions can share one.
        workers: processes; 1 runs in this one.
        about: date and versions for the results, see `report.provenance`; None leaves them out.
        progress: called with (answers so far, answers in all).
    """
    setup = setup or load()
    model = describe(setup, name)
    store = AnswerStore(answers or Path(out).with_suffix(".answers.jsonl"))
    keys = [_key(cell, model, split, setup.batch) for cell in grid.cells]
    names = [[a.key for scene in batch for a in scene] for batch in batches_of(setup.questions, setup.batch)]
    todo = _missing(store, keys, names)
    total = len(setup.questions) * len(keys)
    done = total - sum(len(names[batch]) * len(cells) for batch, cells in todo.items())
    broken: dict[int, str] = {}
    progress(done, total)
    for outcome in _outcomes(load, setup, grid.cells, todo, workers):
        if outcome.reason:
            broken.setdefault(outcome.cell, outcome.reason)
        else:
            store.append(keys[outcome.cell], outcome.answers)
            done += len(outcome.answers)
        progress(done, total)
    progress(total, total)
    store.compact([key for c, key in enumerate(keys) if c not in broken], [a.key for a in setup.questions])
    cells = [
        CellResult.of(cell, [store[key][asked.key] for asked in setup.questions])
        for c, (cell, key) in enumerate(zip(grid.cells, keys, strict=True))
        if c not in broken
    ]
    results = _results(setup, model, dict(split), cells, _left_out(grid, broken), grid.equal, about)
    results.save(out)
    return results


def _key(cell: Cell, model: Mapping[str, Any], split: Mapping[str, Any], batch: int) -> str:
    methods = {type(stage.method).__module__ for stage in cell.plan.stages}
    runner = "vlm_pruner.evaluation.single" if batch == SINGLE else "vlm_pruner.evaluation.runner"
    code = [code_hash(runner), *(code_hash(name) for name in sorted(methods))]
    return cell.key({"model": dict(model), "split": dict(split), "code": code, "batch": batch})


def _outcomes(
    load: Loaded, setup: Setup, cells: Sequence[Cell], todo: Mapping[int, Sequence[int]], workers: int
) -> Iterator[Outcome]:
    if workers == 1:
        with _one_thread():
            yield from answer_batches(setup, cells, todo, iter(todo))
    else:
        yield from in_processes(partial(_answer_with, load, cells, todo), todo, workers)


@contextmanager
def _one_thread() -> Iterator[None]:
    """As in a worker process: sums of floats depend on how many threads share them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _answer_with(
    load: Loaded, cells: Sequence[Cell], todo: Mapping[int, Sequence[int]], numbers: Iterator[int]
) -> Iterator[Outcome]:
    yield from answer_batches(load(), cells, todo, numbers)


def _missing(store: AnswerStore, keys: Sequence[str], batches: Sequence[Sequence[str]]) -> dict[int, list[int]]:
    """The cells in which each batch of question ids still has to be answered; batches without any are not there."""
    todo = {}
    for number, names in enumerate(batches):
        if cells := [c for c, key in enumerate(keys) if not store.has(key, names)]:
            todo[number] = cells
    return todo


def _left_out(grid: Grid, broken: Mapping[int, str]) -> list[dict[str, Any]]:
    late = [(grid.cells[number], reason) for number, reason in sorted(broken.items())]
    return [*map(dict, grid.left_out), *({"label": c.label, "budget": c.budget, "reason": why} for c, why in late)]


def _results(
    setup: Setup,
    model: dict[str, Any],
    split: dict[str, Any],
    cells: list[CellResult],
    left_out: list[dict[str, Any]],
    equal: str | None,
    about: Mapping[str, Any] | None,
) -> BenchResults:
    chance: dict[str, list[float]] = {}
    for asked in setup.questions:
        if asked.chance is not None:
            chance.setdefault(asked.type, []).append(asked.chance)
    return BenchResults(
        model=model,
        split=split,
        types=[asked.type for asked in setup.questions],
        scenes=[asked.scene for asked in setup.questions],
        chance={name: round(sum(values) / len(values), 4) for name, values in sorted(chance.items())},
        cells=cells,
        left_out=left_out,
        equal=equal,
        about=None if about is None else dict(about),
        unasked=[vars(one) for one in setup.unasked] or None,
    )
