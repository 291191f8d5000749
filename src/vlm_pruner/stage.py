"""One step of a plan: which method, how much, and where. A stage is data: it can be written as JSON and read again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal, cast, get_args

from vlm_pruner.budget import Keep, check_keep
from vlm_pruner.errors import PlanError, unknown_name
from vlm_pruner.methods.base import PruningMethod, create

__all__ = ["TOWER", "Bias", "Layer", "Stage", "check_keys", "parse_bias", "parse_layer"]

TOWER: Literal["tower"] = "tower"
"""The `layer` of a stage that acts before the vision tower."""

Layer = int | Literal["tower"] | None
"""Where a stage acts: a decoder layer, None for before the language model, `tower` for before the vision tower."""

Bias = Literal["log-mass"]
"""What a survivor that is the mean of m tokens gets on its logit, behind the stage that merged it: log m."""


def parse_layer(text: str) -> Layer:
    """ "2" is a decoder layer, "0" before the language model, "tower" before the vision tower.

    Raises:
        PlanError: something else.
    """
    return _check_layer(int(text) if re.fullmatch(r"-?\d{1,9}", text, re.ASCII) else text) or 0


def parse_bias(text: str | None) -> Bias | None:
    """What a stage's `bias` says, or None for none.

    Raises:
        PlanError: it is not known.
    """
    if text is not None and text not in get_args(Bias):
        raise PlanError(unknown_name("bias", text, get_args(Bias)))
    return cast("Bias | None", text)


def _check_layer(layer: object) -> Layer:
    if layer is None or layer == TOWER:
        return layer
    if isinstance(layer, bool) or not isinstance(layer, Integral):
        raise PlanError(
            f"layer={layer!r} is not a decoder layer: a whole number, None for before the language model, or "
            f"{TOWER!r} for before the vision tower"
        )
    if layer < 0:
        raise PlanError(f"layer={int(layer)} is negative: decoder layers count from 0 (0 = before the language model)")
    return int(layer) or None


@dataclass(frozen=True)
class Stage:
    """One pruning step: before decoder layer `layer`, `method` keeps `keep` tokens of each image.

    With `layer="tower"` only the patches of the kept tokens enter the vision tower. A float `keep` is a share of the
    tokens that the image had at first, whatever earlier stages left of them.
    Layer 0 and None both mean before the language model; both are stored as None.

    Raises:
        PlanError: unknown method, invalid keep or layer.
    """

    method: PruningMethod
    keep: Keep
    layer: Layer = None
    bias: Bias | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "method", create(self.method))
        object.__setattr__(self, "keep", check_keep(self.keep))
        object.__setattr__(self, "layer", _check_layer(self.layer))
        if parse_bias(self.bias) is not None and self.layer == TOWER:
            raise PlanError(f"bias={self.bias!r}: nothing is merged before the vision tower; leave bias out")

    @property
    def site(self) -> int:
        """Index of the first decoder layer without the dropped tokens; 0 also for a stage before the tower."""
        return self.layer if isinstance(self.layer, int) else 0

    @property
    def place(self) -> str:
        """Where it acts, in words: "before the tower", "before the language model", "at decoder layer 2"."""
        if self.layer == TOWER:
            return "before the tower"
        return f"at decoder layer {self.layer}" if self.layer else "before the language model"

    def to_dict(self) -> dict[str, Any]:
        kind = self.method.budget
        return {
            "method": self.method.name,
            "params": self.method.params(),
            "keep": self.keep,
            "layer": self.layer,
            **({} if kind == "fixed" else {"budget": kind}),
            **({} if self.bias is None else {"bias": self.bias}),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Stage:
        check_keys("stage", data, {"method", "keep"}, {"params", "layer", "budget", "bias"})
        params = data.get("params", {})
        if not isinstance(params, Mapping):
            raise PlanError(f'params={params!r} is not an object such as {{"pivots": 8}}')
        method = create(data["method"], **params)
        stage = cls(method, data["keep"], data.get("layer"), data.get("bias"))
        if (kind := data.get("budget", stage.method.budget)) != stage.method.budget:
            raise PlanError(
                f"budget={kind!r}: {stage.method.name} with these parameters has budget={stage.method.budget!r}; "
                "write that, or leave budget out"
            )
        return stage


def check_keys(what: str, data: object, required: set[str], optional: set[str]) -> None:
    """Raise where `data` is no object with these keys.

    Raises:
        PlanError: what is wrong with it.
    """
    if not isinstance(data, Mapping):
        raise PlanError(f"a {what} is a JSON object with {sorted(required)}, got {type(data).__name__}")
    for key in data:
        if key not in required | optional:
            raise PlanError(unknown_name(f"key of a {what}", key, required | optional))
    if missing := required - data.keys():
        raise PlanError(f"a {what} needs {sorted(missing)}")
