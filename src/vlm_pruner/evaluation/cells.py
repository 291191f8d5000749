"""Which runs a benchmark consists of: methods x budgets x seeds, at equal nominal budgets or at equal cost."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from vlm_pruner.budget import EQUAL, Keep, keep_count, layer_average
from vlm_pruner.engine import decoder_costs
from vlm_pruner.errors import PlanError, VlmPrunerError, unknown_name
from vlm_pruner.flops import prefill_flops
from vlm_pruner.methods.base import PruningMethod, create, registry
from vlm_pruner.plan import PrunePlan
from vlm_pruner.types import Signal

__all__ = [
    "BLIND", "DOWNSAMPLE", "LAYER_AVERAGE", "MEASURE", "Cell", "Grid", "Price", "build_grid", "default_methods",
    "equal_cost", "price_named",
]  # fmt: skip

BLIND = "blind"
"""No pruning, but from layer 2 on no token may look at an image token: what the text alone can answer."""

DOWNSAMPLE = "downsample"
"""The picture itself is made small before the vision tower, and its tokens are pooled to the same number."""

MEASURE = "vlm-pruner"
"""The method whose cost at a nominal budget is the price at which `equal` compares: 64 tokens from layer 2 of 8 on
are 192 tokens per layer, and 96 where there are 32 layers."""

WORDS = 64
"""Tokens of a prompt beside its picture, where a price is in FLOPs."""

BLIND_LAYER = 2

Make = Callable[..., PrunePlan]
"""Makes the plan of a method, a budget and perhaps a layer."""

_TEXT_SIGNALS = frozenset({
    Signal.TEXT, Signal.TEXT_KEYS, Signal.TEXT_QUERIES, Signal.TEXT_VALUES, Signal.WORDS,
    Signal.LAST_QUERY_ATTENTION, Signal.TEXT_ATTENTION, Signal.SHARED_SPACE,
})  # fmt: skip


@dataclass(frozen=True)
class Price:
    """What two methods have in common at equal cost."""

    name: str
    unit: str
    of: Callable[[Sequence[int]], float]  # visual tokens that enter each layer -> what they cost


LAYER_AVERAGE = Price("layer-average", "visual tokens per layer", layer_average)


def price_named(name: str | None, model: Any) -> Price | None:
    """ "layer-average", or "flops": of the language model's prefill, at `WORDS` tokens beside the picture. None and
    "nominal" are no price: equal counts of kept tokens.

    Raises:
        PlanError: another name.
        UnsupportedModelError: the FLOPs of `model` are not known.
    """
    if name in (None, "nominal", LAYER_AVERAGE.name):
        return LAYER_AVERAGE if name == LAYER_AVERAGE.name else None
    if name != "flops":
        raise PlanError(unknown_name("cost", str(name), EQUAL))
    costs = decoder_costs(model)
    return Price(name, "prefill FLOPs", lambda lengths: prefill_flops(costs, [WORDS + n for n in lengths]))


@dataclass(frozen=True)
class Cell:
    """One method at one budget with one seed."""

    label: str
    budget: Keep  # tokens kept, or their share; at equal cost: tokens that the measure of cost keeps
    plan: PrunePlan
    seed: int = 0
    small_picture: int | None = None  # the picture holds about this many patches' worth of detail
    blind_from: int | None = None  # image tokens are invisible from this layer on

    @property
    def question_aware(self) -> bool:
        """May two questions about one picture keep different tokens? True as soon as a method sees any text."""
        methods = [stage.method for stage in self.plan.stages]
        return any(m.question_aware or (m.needs | m.wants) & _TEXT_SIGNALS for m in methods)

    def key(self, context: Mapping[str, Any]) -> str:
        """Name of the cell's answers on the disk: a hash of all that they depend on.

        `context` has the model's weights, the version of the split and the way of decoding.
        """
        record = {
            "context": dict(context),
            "plan": self.plan.canonical(),
            "small_picture": self.small_picture,
            "blind_from": self.blind_from,
        }
        return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Grid:
    """The cells of a run, and those that cannot be, each with its reason."""

    cells: tuple[Cell, ...]
    left_out: tuple[dict[str, Any], ...] = ()
    equal: str | None = None  # name of a price, or None: equal nominal budgets


def default_methods() -> list[str]:
    """The yardsticks first, then every registered method."""
    first = ["none", BLIND, "random", DOWNSAMPLE]
    return first + [name for name in registry() if name not in first]


def build_grid(
    methods: Iterable[str] | Mapping[str, str | PruningMethod | PrunePlan],
    budgets: Sequence[Keep],
    *,
    seeds: int = 5,
    layers: int,
    tokens: int | None,
    equal: Price | None = None,
    make: Make | None = None,
) -> Grid:
    """All cells for pictures of `tokens` visual tokens and a decoder of `layers` layers.

    Where pictures have no fixed number of tokens (None), budgets are shares, and what needs a number is left out.

    A mapping gives labels to method instances (ablations) and to finished plans, which say their own budget. Methods
    with a `seed` are run with 0 .. seeds-1, or with their own if `seeds` is 1. With `equal`, a budget is the cost that
    `MEASURE` has at it: every method keeps as many tokens as come to the same mean over the layers, or just fewer.

    Args:
        make: what makes the plans for the model that is measured, `plan_for`; by default of its layers alone.

    Raises:
        PlanError: unknown method, or a budget that no picture has, or that is a number where pictures have none.
    """
    make = make or partial(PrunePlan.of, num_layers=layers)
    if tokens is None:
        return _shares(methods, budgets, seeds, make, equal)
    counts = [keep_count(tokens, b) if isinstance(b, float) else b for b in budgets]
    named = methods if isinstance(methods, Mapping) else {name: name for name in methods}
    if bad := [b for b in counts if not 0 < b <= tokens]:
        raise PlanError(f"budgets {bad} are not between 1 and the {tokens} visual tokens of a picture")
    cells: list[Cell] = []
    left_out: list[dict[str, Any]] = []
    for label, method in named.items():
        if method in ("none", BLIND):
            everything = make("none")
            blind = {"blind_from": BLIND_LAYER} if method == BLIND else {}
            cells.append(Cell(label, tokens, everything, **blind))
            continue
        if isinstance(method, PrunePlan):
            cells.append(Cell(label, method.asked_of(tokens), make(method)))
            continue
        small = method == DOWNSAMPLE
        for budget in counts:
            for seed, variant in enumerate(_seeded(create("pooling" if small else method), seeds)):
                try:
                    keep = budget
                    if equal is not None:
                        lengths = _plan(create(MEASURE), budget, make, tokens).lengths(tokens, layers)
                        keep = equal_cost(variant, equal.of(lengths), layers, tokens, make, equal)
                    plan = _plan(variant, keep, make, tokens)
                except VlmPrunerError as error:
                    left_out.append({"label": label, "budget": budget, "reason": str(error)})
                    break
                cells.append(Cell(label, budget, plan, seed, keep if small else None))
    return Grid(tuple(cells), tuple(left_out), equal.name if equal else None)


def _shares(
    methods: Iterable[str] | Mapping[str, str | PruningMethod | PrunePlan],
    budgets: Sequence[Keep],
    seeds: int,
    make: Make,
    equal: Price | None,
) -> Grid:
    """The cells of a model whose pictures are of any size."""
    if equal:
        raise PlanError("equal cost is counted in tokens, and pictures of this model have no fixed number of them")
    if bad := [b for b in budgets if not isinstance(b, float)]:
        raise PlanError(f"pictures of this model have no fixed number of tokens: give shares (0.111), not {bad}")
    named = methods if isinstance(methods, Mapping) else {name: name for name in methods}
    cells, left_out = [Cell("none", 1.0, make("none"))] if "none" in named else [], []
    for label, method in named.items():
        if method in (BLIND, DOWNSAMPLE):
            reason = "measured only where pictures have a fixed number of tokens"
            left_out += [{"label": label, "budget": budget, "reason": reason} for budget in budgets]
        elif isinstance(method, PrunePlan):
            cells.append(Cell(label, _share(method), make(method)))
        elif method != "none":
            for budget in budgets:
                for seed, variant in enumerate(_seeded(create(method), seeds)):
                    try:
                        plan = make(variant, budget)
                    except VlmPrunerError as error:
                        left_out.append({"label": label, "budget": budget, "reason": str(error)})
                        break
                    cells.append(Cell(label, budget, plan, seed))
    return Grid(tuple(cells), tuple(left_out))


def _share(plan: PrunePlan) -> float:
    """The budget of a finished plan where pictures are of any size."""
    keep = plan.nominal
    if not isinstance(keep, float):
        raise PlanError(f"pictures of this model have no fixed number of tokens: let the plan keep a share, not {keep}")
    return keep


def _plan(method: PruningMethod, keep: int, make: Make, tokens: int) -> PrunePlan:
    """The method's own stages; those of a schedule that would leave more tokens than there are leave all."""
    plan = make(method, keep)
    stages = [dataclasses.replace(s, keep=min(s.keep, tokens)) if isinstance(s.keep, int) else s for s in plan.stages]
    return dataclasses.replace(plan, stages=tuple(stages))


def _seeded(method: PruningMethod, seeds: int) -> list[PruningMethod]:
    """`method` with as many seeds, from 0 on; with the one that it has where one is enough."""
    if seeds == 1 or "seed" not in method.params():
        return [method]
    return [dataclasses.replace(method, seed=seed) for seed in range(seeds)]  # type: ignore[type-var]


def equal_cost(
    method: PruningMethod,
    target: float,
    layers: int,
    tokens: int,
    make: Make | None = None,
    price: Price = LAYER_AVERAGE,
) -> int:
    """The largest nominal budget at which `method` costs at most `target`.

    The method's own stages are scaled together, because they follow from the nominal budget.

    Raises:
        PlanError: even a budget of one token costs more: the layers before the first stage see every token.
    """
    make = make or partial(PrunePlan.of, num_layers=layers)

    def cost(keep: int) -> float:
        return price.of(_plan(method, keep, make, tokens).lengths(tokens, layers))

    if (least := cost(1)) > target:
        raise PlanError(
            f"{method.name} cannot come down to {target:.4g} {price.unit}: with one token kept it has {least:.4g}"
        )
    low, high = 1, tokens
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if cost(middle) <= target else (low, middle - 1)
    return low
