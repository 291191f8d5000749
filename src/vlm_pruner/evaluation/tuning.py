"""Which plan a model can afford on given pictures, found without labels.

Losses are shares of changed answers: whatever is asked, no accuracy by exact answers can fall by more than that. A
third of the pictures choose the Pareto front of cost and loss; the others, which had no part in that, test it from the
dearest plan to the cheapest, and testing stops at the first plan that cannot be shown to stay within the loss. So the
bound holds for the plan that is recommended, although many were tried (fixed-sequence testing, arXiv:2110.01052).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from statistics import median
from typing import Any

from vlm_pruner.asking import name_of
from vlm_pruner.errors import InputError, unknown_name
from vlm_pruner.evaluation.bounds import least_pictures, tail, upper_bound
from vlm_pruner.evaluation.density import DENSE
from vlm_pruner.evaluation.fidelity import Trial
from vlm_pruner.evaluation.questions import Asked
from vlm_pruner.plan import PrunePlan

__all__ = ["COSTS", "Measured", "Tuned", "tune"]

Trials = Callable[[Asked, Sequence[PrunePlan]], list[Trial]]
"""`fidelity.Meter.trials`."""

COSTS = ("flops", "tokens", "time")
"""What a plan costs: FLOPs of the prefill, visual tokens per layer, or measured milliseconds of the prefill."""

EXPLORE = 3  # one picture in so many chooses, the others test


@dataclass(frozen=True)
class Measured:
    """One plan on some pictures."""

    plan: PrunePlan
    losses: dict[int, float]  # per picture, the share of its questions whose answer changed
    kl: float  # nats per token, mean over questions
    prefill_ms: float  # median
    layer_average: float
    flops: float | None

    @property
    def loss(self) -> float:
        """Mean over the pictures."""
        return sum(self.losses.values()) / len(self.losses)

    def cost(self, kind: str) -> float:
        """The mean cost of a question, in the unit of the kind."""
        if kind == "time":
            return self.prefill_ms
        return self.layer_average if kind == "tokens" or self.flops is None else self.flops


@dataclass(frozen=True)
class Tuned:
    """What was found: `plan` is None where no plan can be shown to stay within the loss."""

    plan: PrunePlan | None
    max_loss: float
    confidence: float
    cost: str
    explored: list[Measured]  # every plan that could run, on the pictures that choose
    front: list[Measured]  # those that none beats in both cost and loss, dearest first
    confirmed: list[Measured]  # on the other pictures, dearest first; the last may be the one that failed
    left_out: list[dict[str, str]]  # name and reason
    dense: frozenset[int] = frozenset()  # numbers of the text-dense pictures

    @property
    def best(self) -> Measured | None:
        """The recommended plan on the pictures that test."""
        return next((m for m in self.confirmed if m.plan == self.plan), None)

    @property
    def bound(self) -> float | None:
        """The loss of the recommended plan is below this with the confidence asked for."""
        return None if self.best is None else upper_bound(list(self.best.losses.values()), self.confidence)

    def dense_loss(self, measured: Measured) -> float | None:
        """Its mean loss on text-dense pictures; None where there are none."""
        found = [loss for picture, loss in measured.losses.items() if picture in self.dense]
        return sum(found) / len(found) if found else None

    def milder(self) -> Measured | None:
        """The cheapest plan tested whose loss on text-dense pictures is within what was asked, if the best's is not."""
        if self.best is None or (self.dense_loss(self.best) or 0.0) <= self.max_loss:
            return None
        dearer = self.confirmed[: self.confirmed.index(self.best)]
        return next((m for m in reversed(dearer) if (self.dense_loss(m) or 0.0) <= self.max_loss), None)

    def to_dict(self) -> dict[str, Any]:
        """JSON values only."""

        def row(m: Measured) -> dict[str, Any]:
            return {
                "name": name_of(m.plan), "loss": round(m.loss, 4), "dense_loss": self.dense_loss(m),
                "kl": round(m.kl, 5), "prefill_ms": round(m.prefill_ms, 2),
                "layer_average": round(m.layer_average, 2), "flops": m.flops, "pictures": len(m.losses),
                "plan": m.plan.to_dict(),
            }  # fmt: skip

        return {
            "recommended": None if self.plan is None else self.plan.to_dict(),
            "bound": self.bound, "max_loss": self.max_loss, "confidence": self.confidence, "cost": self.cost,
            "explored": [row(m) for m in self.explored], "front": [name_of(m.plan) for m in self.front],
            "confirmed": [row(m) for m in self.confirmed], "left_out": self.left_out,
        }  # fmt: skip


def tune(
    questions: Sequence[Asked],
    plans: Sequence[PrunePlan],
    trials: Trials,
    *,
    max_loss: float,
    confidence: float = 0.9,
    cost: str = "flops",
    densities: Mapping[int, float] | None = None,
    progress: Callable[[str, float], None] = lambda *_: None,
) -> Tuned:
    """The cheapest plan that changes no more than `max_loss` of the answers, shown with `confidence`.

    Args:
        questions: those with equal `scene` are about one picture.
        densities: `stroke_density` of the pictures, by `scene`; text-dense ones are told apart.

    Raises:
        InputError: too few pictures to show such a loss, or a loss, a confidence or a cost that is none.
    """
    if cost not in COSTS:
        raise InputError(unknown_name("cost", cost, COSTS))
    for name, value in (("max_loss", max_loss), ("confidence", confidence)):
        if not 0 < value < 1:
            raise InputError(f"{name} is a share between 0 and 1, not {value:g}")
    pictures = list(dict.fromkeys(asked.scene for asked in questions))
    chosen, others = pictures[::EXPLORE], [p for i, p in enumerate(pictures) if i % EXPLORE]
    if (needed := least_pictures(max_loss, confidence)) > len(others):
        more = -(-needed * EXPLORE // (EXPLORE - 1))
        raise InputError(
            f"{len(pictures)} pictures cannot show a loss of at most {max_loss:.1%} with {confidence:.0%} confidence: "
            f"that takes {more}; give more, or allow a larger loss"
        )
    explored, refused = _measure(questions, chosen, plans, trials, lambda s: progress("choosing plans", 0.6 * s))
    front = _front(explored, cost)
    tested = [m.plan for m in front if m.loss <= max_loss]
    held, later = _measure(
        questions, others, tested, trials, lambda s: progress("testing plans on held-out pictures", 0.6 + 0.4 * s)
    )
    good = list(takewhile(lambda m: tail(list(m.losses.values()), max_loss) <= 1 - confidence, held))
    confirmed = held[: len(good) + 1]
    plan = good[-1].plan if good else None
    refused += later
    dense = frozenset(p for p, d in (densities or {}).items() if d >= DENSE)
    return Tuned(plan, max_loss, confidence, cost, explored, front, confirmed, refused, dense)


def _measure(
    questions: Sequence[Asked],
    pictures: Sequence[int],
    plans: Sequence[PrunePlan],
    trials: Trials,
    progress: Callable[[float], None],
) -> tuple[list[Measured], list[dict[str, str]]]:
    """Every plan on the questions about some pictures, and the plans that cannot run there."""
    wanted = set(pictures)
    asked = [one for one in questions if one.scene in wanted]
    rows: list[list[Trial]] = []
    for number, one in enumerate(asked):
        progress(number / len(asked))
        rows.append(trials(one, plans))
    measured, refused = [], []
    for number, plan in enumerate(plans):
        column = [row[number] for row in rows]
        if reason := next((t.refused for t in column if t.refused), ""):
            refused.append({"name": name_of(plan), "reason": reason})
            continue
        measured.append(_summed(plan, asked, column))
    return measured, refused


def _summed(plan: PrunePlan, asked: Sequence[Asked], column: Sequence[Trial]) -> Measured:
    changed: dict[int, list[bool]] = {}
    for one, trial in zip(asked, column, strict=True):
        changed.setdefault(one.scene, []).append(not trial.agrees)
    flops = [trial.flops for trial in column if trial.flops is not None]
    n = len(column)
    return Measured(
        plan=plan,
        losses={picture: sum(flags) / len(flags) for picture, flags in changed.items()},
        kl=sum(trial.kl for trial in column) / n,
        prefill_ms=median(trial.prefill_ms for trial in column),
        layer_average=sum(trial.layer_average for trial in column) / n,
        flops=sum(flops) / n if len(flops) == n else None,
    )


def _front(measured: Sequence[Measured], cost: str) -> list[Measured]:
    """Those that no other beats in cost and loss (equal losses: in divergence), dearest first."""
    front: list[Measured] = []
    for one in sorted(measured, key=lambda m: (m.cost(cost), m.loss, m.kl)):
        if not front or (one.loss, one.kl) < (front[-1].loss, front[-1].kl):
            front.append(one)
    return front[::-1]
