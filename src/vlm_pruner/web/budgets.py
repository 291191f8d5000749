"""What a choice will keep, said before anybody asks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from html import escape
from types import MappingProxyType

from PIL import Image

from vlm_pruner.adapters import adapter_for
from vlm_pruner.asking import Loaded, Shown, catalogue
from vlm_pruner.budget import layer_average
from vlm_pruner.engine import prune
from vlm_pruner.errors import VlmPrunerError
from vlm_pruner.plan import PrunePlan
from vlm_pruner.web.controls import NOBODY, choices_of
from vlm_pruner.web.settings import Own

__all__ = ["Budgets"]


class Budgets:
    """Counts tokens of pictures, once for every size of them."""

    def __init__(self, loaded: Loaded, own: Own = MappingProxyType({})) -> None:
        self.loaded, self.own = loaded, own
        self._totals: dict[tuple[int, ...], int] = {}

    def total(self, shown: Shown) -> int:
        """Visual tokens of a picture or a video on this model.

        Raises:
            InputError: the model cannot read it.
        """
        key = shown.size if isinstance(shown, Image.Image) else (*shown.size, len(shown))
        if key not in self._totals:
            self._totals[key] = self.loaded.visual_tokens(self.loaded.inputs("?", shown))
        return self._totals[key]

    @property
    def exact(self) -> bool:
        """Is what one picture keeps known before it was encoded? Not where it may be cut into tiles of their own."""
        config = self.loaded.model.config
        return adapter_for(config.model_type).fixed_tokens(self.loaded.model.base_model.config) is not None

    def notes(self, shown: Shown, rows: Sequence[object]) -> list[str]:
        """HTML for every row of controls, as of `controls.choices_of`: how many tokens stay, and what the method does.

        A row without a method has none; of one that cannot be carried out, it is said why.
        """
        return [self._note(shown, rows[i : i + 3]) for i in range(0, len(rows), 3)]

    def _note(self, shown: Shown, row: Sequence[object]) -> str:
        if row[0] in (NOBODY, None):
            return _html("", "")
        name = str(row[0])
        try:
            (choice,) = choices_of(row)
            plan, total = choice.plan(self.loaded.plan, self.own), self.total(shown)
            prune(self.loaded.model, plan)  # which is not begun: only what the model cannot give is told
        except VlmPrunerError as error:
            return _html("-", str(error))
        pieces = len(self.loaded.reader.spread(shown))  # frames that are pictures of their own have their own budgets
        most = plan.stages[-1].method.budget == "ceiling"
        sign = "≤ " if most else "" if self.exact else "≈ "
        count = f"{sign}{pieces * plan.asked_of(total // pieces)} of {total}"
        return _html(count, f"{self._left(plan, total // pieces, pieces)}{self._summaries.get(name, '')}")

    def _left(self, plan: PrunePlan, total: int, pieces: int) -> str:
        """What a schedule makes of the budget that was asked for."""
        lengths = [pieces * length for length in plan.lengths(total, self.loaded.layers)]
        if len(plan.stages) == 1:
            return ""
        return f"{lengths[-1]} left at the end, {layer_average(lengths):.0f} a layer on average. "

    @cached_property
    def _summaries(self) -> dict[str, str]:
        return {entry.name: entry.summary for entry in catalogue()}


def _html(count: str, line: str) -> str:
    tokens = f"{escape(count)}<span> tokens</span>" if count else ""
    return f'<p class="vp-count">{tokens}</p><p class="vp-note vp-line">{escape(line)}</p>'
