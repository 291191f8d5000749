"""Comparisons on one model for many visitors, as a stream of events. Knows neither Gradio nor a browser."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from torch import Tensor

from vlm_pruner.asking import Loaded, Run, Shown
from vlm_pruner.errors import InputError, VlmPrunerError
from vlm_pruner.plan import PrunePlan
from vlm_pruner.web.settings import MAX_CHOICES, Choice, Own
from vlm_pruner.web.stream import Generation
from vlm_pruner.web.turns import StoppedError, Turns

__all__ = ["Done", "Event", "Failed", "Said", "Service", "Started", "Stopped", "Waiting"]

log = logging.getLogger(__name__)

REMEMBERED = 256  # plans and shapes that were run lately


@dataclass(frozen=True)
class Waiting:
    """Others use the model."""

    column: int
    ahead: int


@dataclass(frozen=True)
class Started:
    """The model has begun with a column; 0 is the answer with all tokens, then come the choices in their order."""

    column: int


@dataclass(frozen=True)
class Said:
    """The text of a column so far."""

    column: int
    text: str


@dataclass(frozen=True)
class Done:
    """A column is complete."""

    column: int
    run: Run


@dataclass(frozen=True)
class Failed:
    """A column has no answer; the others go on."""

    column: int
    message: str


@dataclass(frozen=True)
class Stopped:
    """The visitor has stopped it; nothing follows."""


Event = Waiting | Started | Said | Done | Failed | Stopped


class Service:
    """A model and the line in front of it."""

    def __init__(self, loaded: Loaded, own: Own = MappingProxyType({})) -> None:
        self.loaded, self.own = loaded, own
        self._turns = Turns()
        self._warm: OrderedDict[Any, None] = OrderedDict()  # what has been run once: plan and shapes of the inputs

    def compare(
        self,
        image: Shown | None,
        question: str,
        choices: Sequence[Choice],
        *,
        max_new_tokens: int = 32,
        stop: threading.Event | None = None,
    ) -> Iterator[Event]:
        """The answer with all tokens, then one for each choice.

        Visitors take turns answer by answer, so that a short question does not wait for three long ones. A choice that
        cannot be carried out fails alone. Closing the iterator early stops the model at its next token.

        Raises:
            InputError: no image, an empty question, or more choices than columns.
        """
        if image is None:
            raise InputError("choose or upload an image or a video first")
        if len(choices) > MAX_CHOICES:
            raise InputError(f"at most {MAX_CHOICES} methods can be compared, not {len(choices)}")
        inputs = self.loaded.inputs(question, image, max_new_tokens)
        stop = stop or threading.Event()
        whole = Choice("none", 100)
        for column, choice in enumerate((whole, *choices)):
            try:
                yield from self._column(column, choice.plan(self.loaded.plan, self.own), inputs, max_new_tokens, stop)
            except StoppedError:
                yield Stopped()
                return
            except VlmPrunerError as error:
                yield Failed(column, str(error))
            except Exception as error:
                log.exception("column %d: %s", column, choice)
                yield Failed(column, f"the model could not answer: {_first_line(error)}")

    def _column(
        self, column: int, plan: PrunePlan, inputs: dict[str, Any], max_new_tokens: int, stop: threading.Event
    ) -> Iterator[Event]:
        with self._turns.ticket(stop) as ticket:
            for ahead in ticket.wait():
                yield Waiting(column, ahead)
            yield Started(column)
            self._warm_plan(plan, inputs, stop)
            generation = Generation(self.loaded, inputs, plan, max_new_tokens, stop)
            for text in generation:
                yield Said(column, text)
        yield Done(column, generation.run)

    def _warm_plan(self, plan: PrunePlan, inputs: dict[str, Any], stop: threading.Event) -> None:
        """Run a plan on inputs of these shapes once, unless it has been: a cold start is no cost of the plan.

        Raises:
            StoppedError: the stop flag was set.
        """
        shapes = sorted((name, tuple(value.shape)) for name, value in inputs.items() if isinstance(value, Tensor))
        key = plan.fingerprint(), tuple(shapes)
        if key not in self._warm:
            for _ in Generation(self.loaded, inputs, plan, 2, stop):
                pass
        self._warm[key] = None
        self._warm.move_to_end(key)
        while len(self._warm) > REMEMBERED:
            self._warm.popitem(last=False)

    def warm_up(self, image: Shown) -> None:
        """Answer once, so that the first visitor's times are like the second's."""
        for _ in self.compare(image, "What is this?", [], max_new_tokens=2):
            pass


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).split("\n")[0]
