"""Tuning each group of pictures for itself: those with little writing, and those that are text-dense."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vlm_pruner.errors import InputError
from vlm_pruner.evaluation.by_density import GROUPS, DensityPlans
from vlm_pruner.evaluation.density import DENSE
from vlm_pruner.evaluation.fidelity import Trial
from vlm_pruner.evaluation.questions import Asked
from vlm_pruner.evaluation.tuning import Trials, Tuned, tune
from vlm_pruner.plan import PrunePlan

__all__ = ["remembered", "tune_groups"]


def remembered(trials: Trials) -> Trials:
    """`trials` that asks no question about a plan twice."""
    known: dict[tuple[str, str], Trial] = {}

    def asked(one: Asked, plans: Sequence[PrunePlan]) -> list[Trial]:
        keys = [(one.key, plan.fingerprint()) for plan in plans]
        missing = [plan for key, plan in zip(keys, plans, strict=True) if key not in known]
        if missing:
            found = trials(one, missing)
            known.update(zip(((one.key, plan.fingerprint()) for plan in missing), found, strict=True))
        return [known[key] for key in keys]

    return asked


def tune_groups(
    questions: Sequence[Asked],
    plans: Sequence[PrunePlan],
    trials: Trials,
    densities: Mapping[int, float],
    *,
    progress: Callable[[str, float], None] = lambda *_: None,
    **asked: Any,
) -> DensityPlans:
    """Every group tuned for itself, on its own pictures; where they are too few, all of its tokens stay.

    Args:
        asked: `max_loss`, `confidence` and `cost`, as of `tune`.
    """
    found: dict[str, PrunePlan | None] = {}
    told: dict[str, str] = {}
    for number, name in enumerate(GROUPS):
        own = [one for one in questions if (densities[one.scene] >= DENSE) == bool(number)]
        found[name], told[name] = None, "no such pictures were given: all tokens stay"
        if not own:
            continue
        try:
            tuned = tune(own, plans, trials, progress=progress, **asked)
        except InputError as error:
            told[name] = f"{error}; until then all tokens stay"
            continue
        found[name], told[name] = tuned.plan, _told(tuned)
    return DensityPlans(found["plain"], found["dense"], told)


def _told(tuned: Tuned) -> str:
    if tuned.best is None:
        return f"no plan was shown to change at most {tuned.max_loss:.1%} of the answers: all tokens stay"
    return (
        f"changed {tuned.best.loss:.1%} of the answers about {len(tuned.best.losses)} held-out pictures; with "
        f"{tuned.confidence:.0%} confidence it changes fewer than {tuned.bound:.1%}"
    )
