"""What lists say of a method. Of the package's own methods it stands in a file: reading it needs no torch."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import entry_points
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vlm_pruner.methods.base import PruningMethod

__all__ = ["Entry", "catalogue", "entry_of", "to_text"]

LAYERS, TOKENS, KEEP = 32, 576, 64  # of the model and the budget that entries count for


@dataclass(frozen=True)
class Entry:
    """One method: where and how much it prunes by default, on a model of 32 layers whose picture has 576 tokens."""

    name: str
    title: str
    source: str
    summary: str  # one sentence
    layer: int | str | None  # of its first stage
    stages: int
    asked: int
    left: int  # tokens at the end, where `asked` were asked for
    layer_average: float  # tokens that enter a layer, mean over the layers
    question_aware: bool
    needs: tuple[str, ...]
    accuracy: float | None = None  # %, on the offline benchmark at equal cost; None where it was not measured

    @property
    def place(self) -> str:
        """ "layer 12 of 32", "layer 8 of 32 on" for a schedule, "LLM" for the input of the language model, "tower"."""
        if not isinstance(self.layer, int):
            return self.layer or "LLM"
        return f"layer {self.layer} of {LAYERS}" + " on" * (self.stages > 1)


def catalogue() -> list[Entry]:
    """Every known method, best accuracy on the offline benchmark first; those that were not measured follow by name.

    Methods of other packages and of files that were registered are asked themselves.
    """
    data = files("vlm_pruner").joinpath("methods", "catalogue.json").read_text(encoding="utf-8")
    known = [Entry(**{**row, "needs": tuple(row["needs"])}) for row in json.loads(data)]
    if not entry_points(group="vlm_pruner.methods") and "vlm_pruner.methods.base" not in sys.modules:
        return known
    from vlm_pruner.methods.base import registry

    inside = {entry.name for entry in known}
    return _sorted([*known, *(entry_of(cls) for name, cls in registry().items() if name not in inside)])


def to_text(classes: Iterable[type[PruningMethod]], accuracy: dict[str, float]) -> str:
    """The file of these methods.

    Args:
        accuracy: % by the name of a method.
    """
    entries = _sorted([entry_of(cls, accuracy.get(cls.name)) for cls in classes])
    return "[\n" + ",\n".join(" " + json.dumps(asdict(entry), ensure_ascii=False) for entry in entries) + "\n]\n"


def entry_of(cls: type[PruningMethod], accuracy: float | None = None) -> Entry:
    """What a list says of a method."""
    import inspect

    from vlm_pruner.budget import layer_average
    from vlm_pruner.plan import PrunePlan

    plan = PrunePlan.of(cls.name, KEEP, num_layers=LAYERS)
    lengths = plan.lengths(TOKENS, LAYERS)
    text = " ".join((inspect.getdoc(cls) or "").split())
    return Entry(
        cls.name, cls.title, cls.source, text.split(". ")[0].rstrip(".") + ".", cls.default_layer, len(plan.stages),
        KEEP, lengths[-1], round(layer_average(lengths), 3), cls.question_aware,
        tuple(sorted(signal.value for signal in cls.needs)), accuracy,
    )  # fmt: skip


def _sorted(entries: list[Entry]) -> list[Entry]:
    return sorted(entries, key=lambda entry: (-(entry.accuracy or 0.0), entry.name))
