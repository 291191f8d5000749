"""Plans by how much writing a picture shows: what tuning writes and `--keep auto` reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image

from vlm_pruner.errors import InputError, PlanError
from vlm_pruner.evaluation.density import DENSE, stroke_density
from vlm_pruner.json_text import read_json
from vlm_pruner.plan import PrunePlan
from vlm_pruner.stage import check_keys

__all__ = ["GROUPS", "DensityPlans", "is_by_density"]

GROUPS = ("plain", "dense")
"""Pictures with little writing, and those that count as text-dense."""

_VERSION = 1


@dataclass(frozen=True)
class DensityPlans:
    """One plan for pictures with much text (`dense`) and one for the others (`plain`).

    Where there is None, such pictures keep all of their tokens, and `told` says why."""

    plain: PrunePlan | None
    dense: PrunePlan | None
    told: Mapping[str, str]  # by group, what is known of its plan
    dense_from: float = DENSE  # `stroke_density`

    def group(self, pictures: Sequence[Image.Image]) -> str:
        """The group of the densest of these pictures, which stand in one prompt."""
        return GROUPS[any(stroke_density(one) >= self.dense_from for one in pictures)]

    def plan(self, pictures: Sequence[Image.Image]) -> PrunePlan:
        """The plan for a prompt with these pictures."""
        return getattr(self, self.group(pictures)) or PrunePlan.of("none", num_layers=1)

    def to_json(self) -> str:
        plans = {name: None if (plan := getattr(self, name)) is None else plan.to_dict() for name in GROUPS}
        record = {"version": _VERSION, "dense_from": self.dense_from, **plans, "told": dict(self.told)}
        return json.dumps(record, indent=2)

    @classmethod
    def from_json(cls, text: str) -> DensityPlans:
        """Inverse of `to_json`.

        Raises:
            PlanError: it is something else.
        """
        try:
            data = read_json(text)
        except InputError as error:
            raise PlanError(f"not plans by density: {error}") from error
        check_keys("file of plans by density", data, {"version", "dense_from", *GROUPS}, {"told"})
        if data["version"] != _VERSION:
            raise PlanError(f"plans by density of version {data['version']!r}; this library reads version {_VERSION}")
        limit, told = data["dense_from"], data.get("told", {})
        if isinstance(limit, bool) or not isinstance(limit, int | float) or not isinstance(told, dict):
            raise PlanError(
                "plans by density: 'dense_from' must be a number, 'told' an object with a text for each group"
            )
        plain, dense = (None if data[name] is None else PrunePlan.from_dict(data[name]) for name in GROUPS)
        return cls(plain, dense, {str(name): str(words) for name, words in told.items()}, float(limit))


def is_by_density(text: str) -> bool:
    """Is this JSON text one of `DensityPlans`, and no plan?"""
    try:
        data = read_json(text)
    except InputError:
        return False
    return isinstance(data, dict) and "dense_from" in data
