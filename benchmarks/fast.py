"""Which plan for the whole pipeline answers best at a given time to first token: `python -m benchmarks.fast`.

Accuracy is that of questions about validation scenes, as in `benchmarks.preset`. Times are of the embedded model's
demo, from pixels to the first logits: choices, tower and prefill, measured in turns after a warm-up. A row is one plan
at one budget; it is on the front if no plan that is as fast answers better. Limits are shares of the unpruned time.

    python -m benchmarks.fast                  writes results/fast.json
    python -m benchmarks.fast --times          measures the times of results/fast.json anew, and nothing else

Killed, it goes on where it was: what every picture came to is kept in out/fast.jsonl, by plan.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.common import RESULTS, Report, arguments, prepare
from benchmarks.dense import Outcome, answer, draw_picture, encode
from benchmarks.fast_plans import ALONE, LAYERS, RIVALS, STAGED, TOKENS, Make
from benchmarks.preset import Paired

from vlm_pruner import load_embedded
from vlm_pruner.engine import prune
from vlm_pruner.plan import PrunePlan
from vlm_pruner.profiling.timing import Probe, interleave, median

__all__ = ["LIMITS", "chosen", "first_token", "front"]

FULL = "no pruning"
BUDGETS = (192, 128, 64, 32)
WIDE = (288, *BUDGETS)  # of single stages before the tower, which lose more
LIMITS = (0.5, 0.333, 0.2, 0.125)  # the unpruned time halved, divided by 3, by 5 and by 8
STORE = Path("out") / "fast.jsonl"


def cells() -> Iterator[tuple[str, int, PrunePlan]]:
    """(name, keep, plan) of every row, the unpruned model first."""
    yield FULL, TOKENS, PrunePlan.of("none", num_layers=LAYERS)
    groups: tuple[tuple[Mapping[str, Make], tuple[int, ...]], ...] = (
        (ALONE, WIDE), (STAGED, BUDGETS), (RIVALS, BUDGETS),
    )  # fmt: skip
    for group, budgets in groups:
        for name, make in group.items():
            plans = [(name, keep, make(keep)) for keep in budgets]
            yield from (cell for cell in plans if cell[2].stages[0].keep != TOKENS)  # those are plans without it


def first_token(model: Any, inputs: dict[str, Any], plan: PrunePlan) -> float:
    """Milliseconds of one forward from pixels to the logits of the first token."""
    with prune(model, plan), Probe({"whole": model}, inputs["input_ids"].device) as probe:
        model(**inputs, use_cache=True, logits_to_keep=1)
    return float(probe.times()["whole"][0])


def times(plans: Mapping[str, PrunePlan], repeats: int) -> dict[str, dict[str, Any]]:
    """Of every plan the median time and, run by run, its share of the unpruned one's, whose key is the first."""
    from vlm_pruner.asking import DEMO_IMAGE, open_image, open_model
    from vlm_pruner.scenes import DEMO_QUESTIONS

    loaded = open_model()
    inputs = dict(loaded.inputs(DEMO_QUESTIONS[0][0], open_image(DEMO_IMAGE)))
    made = {key: partial(first_token, loaded.model, inputs, plan) for key, plan in plans.items()}
    found = interleave(made, repeats, warmup=1)
    full = found[next(iter(plans))]
    return {
        key: {
            "first_token_ms": round(median(samples), 3),
            "first_token_share": round(median([a / b for a, b in zip(samples, full, strict=True)]), 4),
        }
        for key, samples in found.items()
    }


def front(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of which no other is as fast and more accurate, slowest first."""
    best: list[dict[str, Any]] = []
    for row in sorted(rows, key=lambda r: (r["first_token_share"], -r["accuracy"])):
        if not best or row["accuracy"] > best[-1]["accuracy"]:
            best.append(row)
    return best[::-1]


def chosen(rows: list[dict[str, Any]]) -> str:
    """The plan whose best accuracy within each of the limits of time is highest on average; of equals, the first.

    One that has no budget within a limit counts as if it had answered nothing there.
    """
    named = dict.fromkeys(row["name"] for row in rows if row["name"] != FULL)

    def score(name: str) -> float:
        own = [row for row in rows if row["name"] == name]
        within = ([row["accuracy"] for row in own if row["first_token_share"] <= limit] for limit in LIMITS)
        return sum(max(found, default=0.0) for found in within)

    return max(named, key=score)


def answer_all(number: int, known: Mapping[str, Any]) -> Mapping[str, Any]:
    """Types of the questions about one picture, and by plan what the answers came to; `known` ones are not asked."""
    missing = [plan for _, _, plan in cells() if plan.fingerprint() not in known.get("plans", {})]
    if not missing:
        return known
    model, processor = _loaded()
    scene, drafts = draw_picture("validation", number)
    picture = encode(model, processor, scene, drafts)
    memo: dict[Any, Any] = {}
    found = {plan.fingerprint(): answer(model, picture, plan, memo) for plan in missing}
    told = {name: {"right": one.right.tolist(), "loss": one.loss.tolist()} for name, one in found.items()}
    return {"picture": number, "types": [draft.type for draft in drafts], "plans": {**known.get("plans", {}), **told}}


def _as_outcomes(found: Mapping[str, Any]) -> tuple[list[str], dict[tuple[str, int], Outcome]]:
    """One picture as `Paired` reads it."""
    none = torch.empty(0)
    done = {}
    for name, keep, plan in cells():
        one = found["plans"][plan.fingerprint()]
        done[name, keep] = Outcome(torch.tensor(one["right"]), torch.tensor(one["loss"]), none, 0.0)
    return found["types"], done


def _answer_all(given: tuple[int, Mapping[str, Any]]) -> Mapping[str, Any]:
    return answer_all(*given)


def _loaded(held: list[Any] = []) -> tuple[Any, Any]:  # noqa: B006  (once per process)
    if not held:
        torch.set_num_threads(1)
        held += load_embedded()
    return held[0], held[1]


def main(options: argparse.Namespace) -> None:
    """Accuracies and times, or the times alone."""
    report = Report("fast", options, prepare(options))
    listed = list(cells())
    if options.times:
        rows = json.loads((RESULTS / "fast.json").read_text(encoding="utf-8"))["rows"]
    elif options.quick:
        report.check(len(_as_outcomes(answer_all(0, {}))[1]) == len(listed), "a plan has no answers")
        report.finish()
        return
    else:
        rows = accuracies(options)
    measured = times({f"{name}@{keep}": plan for name, keep, plan in listed}, options.repeats)
    rows = [row | measured[f"{row['name']}@{row['keep']}"] for row in rows]
    ahead = {(row["name"], row["keep"]) for row in front(rows)}
    for row in rows:
        report.row(**row | {"front": (row["name"], row["keep"]) in ahead})
    report.finish()


def accuracies(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for every cell: accuracy in per cent, its change against the unpruned model with 95 % intervals, loss."""
    known = {one["picture"]: one for one in map(json.loads, STORE.read_text().splitlines())} if STORE.exists() else {}
    results, end = [], time.monotonic() + 60 * options.minutes
    STORE.parent.mkdir(exist_ok=True)
    with multiprocessing.get_context("spawn").Pool(options.workers) as pool:
        asked = [(number, known.get(number, {})) for number in range(options.pictures)]
        for found in pool.imap(_answer_all, asked):
            results.append(_as_outcomes(found))
            if found != known.get(found["picture"]):
                with STORE.open("a") as file:
                    file.write(json.dumps(found) + "\n")
            print(f"picture {len(results)}", flush=True)
            if time.monotonic() > end:
                break
        pool.terminate()
    paired, rows = Paired(results), []
    full = paired.column(FULL, TOKENS, "right")
    for name, keep, plan in cells():
        right = paired.column(name, keep, "right")
        gain = 100 * paired.means(right - full)
        rows.append({
            "name": name,
            "keep": keep,
            "stages": [[s.method.name, s.keep, s.layer] for s in plan.stages],
            "accuracy": round(100 * float(paired.means(right)[0]), 2),
            "change": round(float(gain[0]), 2),
            "change_interval": [round(float(q), 2) for q in np.quantile(gain[1:], [0.025, 0.975])],
            "loss": round(float(paired.means(paired.column(name, keep, "loss"))[0]), 4),
            "pictures": len(results),
            "questions": len(paired.types),
        })  # fmt: skip
    return rows


if __name__ == "__main__":
    parser = arguments((__doc__ or "").splitlines()[0], repeats=5)
    parser.add_argument("--pictures", type=int, default=20, help="at most so many validation scenes")
    parser.add_argument("--minutes", type=float, default=30.0, help="stop after the picture at which this is over")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--times", action="store_true", help="only the times, for rows that are there")
    main(parser.parse_args())
