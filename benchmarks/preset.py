"""The ablation behind `vlm-pruner-plus`, on validation scenes of the embedded model: `python -m benchmarks.preset`.

Scenes on the validation photographs, drawn apart from the fixed splits, with up to two questions of every type; the
test split is never touched. A row is one candidate at one budget. Accuracy is the mean over question types, loss the
mean cross entropy of the answers' tokens, likewise over types; differences to the published VLM-Pruner at the same
budget are paired, with 95 % bootstrap intervals over pictures. `--check` compares the fast path with `generate`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from benchmarks.common import Report, arguments, prepare
from benchmarks.dense import Outcome, State, answer, draw_picture, encode
from benchmarks.preset_candidates import CANDIDATES, RIVALS, STEPS, Candidate, named
from numpy.typing import NDArray

from vlm_pruner import load_embedded, prune
from vlm_pruner.scenes.questions import TYPES
from vlm_pruner.scenes.render import render

BASE, PRESET = "published", "emphasis 0.5"
CELLS: dict[str, tuple[dict[str, Candidate], tuple[int, ...]]] = {
    "step": (STEPS, (128, 64, 32)),
    "ends": ({name: STEPS[name] for name in (BASE, PRESET)}, (192,)),
    "candidate": (CANDIDATES, (64, 32)),
    "rival": (RIVALS, (64, 32)),
}
DRAWS = 2000
Answers = tuple[list[str], dict[tuple[str, int], Outcome]]


def cells() -> Iterator[tuple[str, str, int, Candidate]]:
    """(kind, name, keep, plan) of every row, the unpruned model first."""
    yield "full", "no pruning", 576, named("none")
    for kind, (group, budgets) in CELLS.items():
        for keep in budgets:
            yield from ((kind, name, keep, plan) for name, plan in group.items())


def answer_all(number: int) -> Answers:
    """Types of the questions about one picture, and the outcome of every cell."""
    model, processor = _loaded()
    scene, drafts = draw_picture("validation", number)
    picture = encode(model, processor, scene, drafts)
    memo: dict[int, State] = {}
    done = {(name, keep): answer(model, picture, plan(picture, keep), memo) for _, name, keep, plan in cells()}
    return [draft.type for draft in drafts], done


def _loaded(held: list[Any] = []) -> tuple[Any, Any]:  # noqa: B006  (once per process)
    if not held:
        torch.set_num_threads(1)
        held += load_embedded()
    return held[0], held[1]


class Paired:
    """Means over types, and the same resamples of the pictures for every cell."""

    def __init__(self, results: list[Answers]) -> None:
        self.results = results
        self.types = np.array([TYPES.index(t) for types, _ in results for t in types])
        picture = np.repeat(np.arange(len(results)), [len(types) for types, _ in results])
        picks = np.random.default_rng(0).integers(len(results), size=(DRAWS, len(results)))
        counts = np.stack([np.bincount(pick, minlength=len(results)) for pick in picks])
        weight = np.concatenate([np.ones((1, len(picture))), counts[:, picture]])  # [1 + draws, questions]
        member = np.stack([self.types == t for t in sorted(set(self.types))], 1).astype(float)  # [questions, types]
        total = weight @ member
        self._share = [weight, member, total]

    def column(self, name: str, keep: int, field: str) -> NDArray[np.float64]:
        """[questions] one field of the outcomes of a cell."""
        parts = [getattr(done[name, keep], field).double().numpy() for _, done in self.results]
        return np.concatenate(parts)

    def means(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """[1 + draws] means over types; row 0 is the data."""
        weight, member, total = self._share
        with np.errstate(invalid="ignore", divide="ignore"):
            by_type: NDArray[np.float64] = np.nanmean((weight * values) @ member / total, axis=1)
        return by_type


def row(paired: Paired, name: str, keep: int) -> dict[str, Any]:
    """Figures of one cell; accuracies in percent."""
    right, loss = (paired.column(name, keep, field) for field in ("right", "loss"))
    base = ("no pruning", 576) if name == "no pruning" else (BASE, keep)
    gain = 100 * paired.means(right - paired.column(*base, "right"))
    less = paired.means(loss - paired.column(*base, "loss"))
    average = float(np.mean([done[name, keep].layer_average for _, done in paired.results]))
    return {
        "keep": keep,
        "layer_average": round(average, 1),
        "accuracy": round(100 * float(paired.means(right)[0]), 2),
        "gain": round(float(gain[0]), 2),
        "gain_interval": [round(float(q), 2) for q in np.quantile(gain[1:], [0.025, 0.975])],
        "loss": round(float(paired.means(loss)[0]), 4),
        "loss_change": round(float(less[0]), 4),
        "loss_interval": [round(float(q), 4) for q in np.quantile(less[1:], [0.025, 0.975])],
    }


def difference(paired: Paired, name: str, keep: int) -> dict[str, Any]:
    """The preset less another cell, accuracy in percent."""
    ours, theirs = paired.column(PRESET, keep, "right"), paired.column(name, keep, "right")
    gain = 100 * paired.means(ours - theirs)
    low, high = (round(float(q), 2) for q in np.quantile(gain[1:], [0.025, 0.975]))
    return {"preset_less_this": round(float(gain[0]), 2), "preset_interval": [low, high]}


def check(report: Report) -> None:
    """The fast path gives what `generate` gives, for methods of every kind."""
    model, processor = _loaded()
    scene, drafts = draw_picture("validation", 0, per_type=1)
    picture, image = encode(model, processor, scene, drafts), render(scene).image
    texts = [f"USER: <image>\n{draft.text} ASSISTANT:" for draft in drafts]
    inputs = processor(images=[image] * len(texts), text=texts, return_tensors="pt", padding=True)
    for name in ("vlm-pruner", "vlm-pruner-plus", "dart", "star-pro"):
        plan = named(name)(picture, 64)
        with prune(model, plan):
            tokens = model.generate(**inputs, max_new_tokens=10, do_sample=False)
        said = processor.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        right = [a.strip() == d.answer for a, d in zip(said, drafts, strict=True)]
        report.check(right == answer(model, picture, plan).right.tolist(), f"{name} answers otherwise")


def parse() -> argparse.Namespace:
    parser = arguments("Ablation of the preset vlm-pruner-plus")
    parser.add_argument("--pictures", type=int, default=60, help="at most so many validation scenes")
    parser.add_argument("--minutes", type=float, default=15.0, help="stop after the picture at which this is over")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--check", action="store_true", help="only compare the fast path with generate")
    return parser.parse_args()


def main() -> None:
    options = parse()
    report = Report("preset", options, prepare(options))
    check(report)
    if options.check or options.quick:
        options.quick = True
        report.finish()
        return
    results, end = [], time.monotonic() + 60 * options.minutes
    with multiprocessing.get_context("spawn").Pool(options.workers) as pool:
        for number, result in enumerate(pool.imap(answer_all, range(options.pictures))):
            results.append(result)
            print(f"picture {number + 1}", flush=True)
            if time.monotonic() > end:
                break
        pool.terminate()
    paired = Paired(results)
    for kind, name, keep, _ in cells():
        ours = difference(paired, name, keep) if kind == "rival" else {}
        report.row(
            name, kind=kind, **row(paired, name, keep), **ours, pictures=len(results), questions=len(paired.types)
        )
    report.finish()


if __name__ == "__main__":
    main()
