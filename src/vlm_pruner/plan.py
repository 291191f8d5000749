"""What is pruned, where and how much. A plan is data: it can be written as JSON and read again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from vlm_pruner.budget import Keep, check_keep, keep_count
from vlm_pruner.errors import InputError, PlanError, unknown_name
from vlm_pruner.json_text import read_json
from vlm_pruner.methods.base import PruningMethod, create
from vlm_pruner.stage import TOWER, Bias, Layer, Stage, check_keys, parse_bias, parse_layer

__all__ = [
    "PLAN_VERSION",
    "TOWER",
    "Bias",
    "Layer",
    "Per",
    "Positions",
    "PrunePlan",
    "Stage",
    "parse_bias",
    "parse_layer",
]

PLAN_VERSION = 1
"""Version of the JSON form of a plan; a file of another version is refused."""

Positions = Literal["kept", "repacked"]
"""`kept`: a survivor keeps its place in the unpruned sequence. `repacked`: renumbered without the dropped tokens."""

_STORY = ("asked", "made_by")  # of a plan: told, but no part of what it does

Per = Literal["image", "frame"]
"""Whose budget it is: one per image or video, or one per frame of a video."""


@dataclass(frozen=True)
class PrunePlan:
    """A plan: one or more stages, in the order of their layers.

    Images of fewer than `min_visual_tokens` tokens are left alone, and the report says so. With `per="frame"` every
    frame of a video is pruned, and reported, as an image of its own. `asked` is the budget for which the method
    `made_by` made the stages, which may leave fewer tokens at the end. Plans with the same stages are equal, whoever
    made them. `older` limits the older pictures of a prompt: its first number is the most tokens of the picture before
    the newest one, its second that of the picture before that, and so on; the last number counts for all older ones.

    Raises:
        PlanError: no stage, stages out of order, a budget that grows, repacked positions without a stage before the
            language model, or `older` where the age of a picture is not known.
    """

    stages: tuple[Stage, ...]
    min_visual_tokens: int = 16
    positions: Positions = "kept"
    per: Per = "image"
    older: tuple[Keep, ...] = ()
    asked: Keep | None = field(default=None, compare=False)
    made_by: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "stages", tuple(self.stages))
        if not self.stages:
            raise PlanError("a plan needs at least one stage")
        for before, after in zip(self.stages, self.stages[1:], strict=False):
            if after.layer == TOWER or (after.site <= before.site and before.layer != TOWER):
                raise PlanError(f"the layers of the stages must ascend, got {[s.layer or 0 for s in self.stages]}")
            if type(after.keep) is type(before.keep) and after.keep > before.keep:
                raise PlanError(
                    f"layer {after.site} cannot keep {after.keep}: layer {before.layer or 0} leaves only {before.keep}"
                )
        for name, kind in (("positions", Positions), ("per", Per)):
            if getattr(self, name) not in get_args(kind):
                raise PlanError(unknown_name(name, getattr(self, name), get_args(kind)))
        if self.per == "frame" and self.stages[0].layer == TOWER:
            raise PlanError(
                "per='frame' cannot be used with layer='tower': before the vision tower a video has one budget"
            )
        object.__setattr__(self, "older", tuple(check_keep(keep) for keep in _listed(self.older)))
        if self.older and (self.per == "frame" or self.stages[0].layer == TOWER):
            raise PlanError(
                "older= is for whole pictures after the vision tower: leave it out with per='frame' or layer='tower'"
            )
        if self.positions == "repacked" and self.stages[0].site:
            raise PlanError(
                f"positions can only be repacked before the language model, not at layer {self.stages[0].layer}: "
                "the keys of earlier layers already carry the original positions"
            )
        if isinstance(self.min_visual_tokens, bool) or not isinstance(self.min_visual_tokens, int):
            raise PlanError(f"min_visual_tokens={self.min_visual_tokens!r} is not a whole number")
        if self.made_by is not None and not isinstance(self.made_by, str):
            raise PlanError(f"made_by={self.made_by!r} is not the name of a method")
        if self.asked is not None:
            object.__setattr__(self, "asked", check_keep(self.asked))

    @classmethod
    def of(
        cls,
        method: PrunePlan | PruningMethod | str,
        keep: Keep | None = None,
        layer: Layer = None,
        *,
        num_layers: int,
        positions: Positions = "kept",
        per: Per = "image",
        older: Sequence[Keep] = (),
        bias: Bias | None = None,
        **params: Any,
    ) -> PrunePlan:
        """The plan that `prune(model, method, keep=, layer=)` means on a model of `num_layers` decoder layers.

        `layer=None` leaves the choice to the method; 0 is before the language model, "tower" before the vision tower.

        Raises:
            PlanError: no budget, anything beside a finished plan, or a layer the model does not have.
        """
        if isinstance(method, PrunePlan):
            if keep is not None or layer is not None or bias is not None or older or params:
                raise PlanError(
                    "a plan already says how much, where and how: keep, layer, bias and parameters belong in its stages"
                )
            return method.check(num_layers)
        chosen = create(method, **params)
        if keep is None and chosen.name != "none":
            raise PlanError(f"how many tokens should {chosen.name} keep? keep=64 (per image) or keep=0.111 (a share)")
        asked, maker, bias = (None, None, None) if chosen.name == "none" else (keep, chosen.name, bias)
        stages = [Stage(*s, bias=bias) for s in chosen.stages(1.0 if keep is None else check_keep(keep), num_layers)]
        if layer is not None:
            if len(stages) != 1:
                raise PlanError(
                    f"layer={layer} cannot be met: {chosen.name} prunes at several layers, here "
                    f"{[s.site for s in stages]}. Call it without layer=, or write a PrunePlan with a stage for every "
                    "layer you want"
                )
            stages = [Stage(stages[0].method, stages[0].keep, layer, bias)]
        rest: dict[str, Any] = {"positions": positions, "per": per, "older": older}
        return cls(tuple(stages), **rest, asked=asked, made_by=maker).check(num_layers)

    @property
    def nominal(self) -> Keep:
        """The budget that was asked for: that of the schedule if a method made one, else that of the last stage."""
        return self.stages[-1].keep if self.asked is None else self.asked

    def asked_of(self, total: int, age: int = 0) -> int:
        """Tokens that were asked for of an image of `total`: what a schedule was made for, else what its end keeps.

        Args:
            age: pictures behind it in its prompt.
        """
        keep = self.nominal
        return min(_at_most(keep, total), self.most(total, age))

    def most(self, total: int, age: int) -> int:
        """Tokens that an image of `total` keeps at most for its age, whatever the stages leave."""
        return _at_most(self.older[min(age, len(self.older)) - 1], total) if age and self.older else total

    def lengths(self, total: int, num_layers: int) -> list[int]:
        """Tokens of one image of `total` that enter each of `num_layers` decoder layers."""
        lengths = [total] * num_layers
        for stage in self.stages:
            keep = min(stage.keep, total) if isinstance(stage.keep, int) else stage.keep
            left = min(lengths[-1], keep_count(total, keep))
            lengths[stage.site :] = [left] * (num_layers - stage.site)
        return lengths

    def check(self, num_layers: int) -> PrunePlan:
        """Return self if a model of `num_layers` decoder layers can carry it out.

        Raises:
            PlanError: a stage at a layer that does not exist.
        """
        for stage in self.stages:
            if stage.site >= num_layers:
                raise PlanError(
                    f"layer {stage.site} does not exist: the model has {num_layers} layers (0 to {num_layers - 1})"
                )
        return self

    def to_dict(self) -> dict[str, Any]:
        return {
            "version": PLAN_VERSION,
            "stages": [s.to_dict() for s in self.stages],
            "min_visual_tokens": self.min_visual_tokens,
            "positions": self.positions,
            "per": self.per,
            **({"older": list(self.older)} if self.older else {}),
            **{key: getattr(self, key) for key in _STORY if getattr(self, key) is not None},
        }

    def canonical(self) -> dict[str, Any]:
        """`to_dict` without who made the plan: what it does, and what its fingerprint is of."""
        return {key: value for key, value in self.to_dict().items() if key not in _STORY}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PrunePlan:
        """Inverse of `to_dict`.

        Raises:
            PlanError: another version, a missing key, one that is not known, or a value of another kind.
        """
        check_keys("plan", data, {"version", "stages"}, {f.name for f in fields(cls)})
        if data["version"] != PLAN_VERSION:
            raise PlanError(
                f"plan version {data['version']!r} cannot be read; this library reads version {PLAN_VERSION}"
            )
        if not isinstance(data["stages"], list | tuple):
            raise PlanError(f"stages={data['stages']!r} is not a list of stages")
        rest = {k: v for k, v in data.items() if k not in ("version", "stages")}
        return cls(tuple(Stage.from_dict(s) for s in data["stages"]), **rest)

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_json(cls, text: str) -> PrunePlan:
        """Inverse of `to_json`. Errors as of `from_dict`, also for a text that is no JSON."""
        try:
            data = read_json(text)
        except InputError as error:
            raise PlanError(f"not a plan: {error}") from error
        return cls.from_dict(data)

    def fingerprint(self) -> str:
        """Twelve hex digits that name this plan in results: equal plans, equal names."""
        canonical = json.dumps(self.canonical(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def _at_most(keep: Keep, total: int) -> int:
    return min(keep, total) if isinstance(keep, int) else keep_count(total, keep)


def _listed(older: object) -> Sequence[Any]:
    if not isinstance(older, list | tuple):
        raise PlanError(f"older={older!r} is not a list of numbers, one for each age")
    return older
