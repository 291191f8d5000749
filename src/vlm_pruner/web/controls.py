"""What the controls of the page offer on a given model, and what their values mean. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import MappingProxyType

from vlm_pruner.asking import EMBEDDED, EMBEDDED_VIDEO, Loaded, catalogue
from vlm_pruner.engine import prune
from vlm_pruner.errors import VlmPrunerError
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.plan import TOWER, PrunePlan, parse_layer
from vlm_pruner.web.settings import MAX_CHOICES, Choice, Own

__all__ = ["AUTO", "NOBODY", "about", "choices_of", "layer_options", "method_options", "outside", "row_of"]

NOBODY = ""  # a row of controls without a method
AUTO = "auto"
SMALL = (EMBEDDED, EMBEDDED_VIDEO)  # models of a closed vocabulary


def method_options(loaded: Loaded, own: Own = MappingProxyType({})) -> list[tuple[str, str]]:
    """(label, name) of every plan, then of every method with what it does in a line: those that were measured to be
    good first, those that this model cannot carry out last.

    What only a run can tell, such as a vision tower without the signals that a method needs, is told by the run.
    """
    plans = [(name, name) for name, thing in own.items() if isinstance(thing, PrunePlan)]
    entries = [entry for entry in catalogue() if entry.name != "none"]
    fit = {entry.name: _fits(loaded, own.get(entry.name, entry.name)) for entry in entries}
    entries.sort(key=lambda entry: not fit[entry.name])
    marks = {name: "" if good else " (not on this model)" for name, good in fit.items()}
    return [*plans, *((f"{one.title}{marks[one.name]} – {one.summary}", one.name) for one in entries)]


def _fits(loaded: Loaded, method: PrunePlan | PruningMethod | str) -> bool:
    """Can the method be carried out at its own layer, or, where the model is too shallow for that, in its middle?"""
    for layer in (None, loaded.layers // 2):
        try:
            prune(loaded.model, method, keep=0.5, layer=layer)
        except VlmPrunerError:
            continue
        return True
    return False


def layer_options(layers: int) -> list[tuple[str, str]]:
    """(label, value) of the places where a model of so many decoder layers can be pruned."""
    inside = [(f"layer {i} of {layers}", str(i)) for i in range(1, layers)]
    return [("auto", AUTO), ("before tower", TOWER), ("before LLM", "0"), *inside]


def choices_of(rows: Sequence[object]) -> tuple[Choice, ...]:
    """The choices of the rows: method, percent, layer, method, percent, layer, ...; rows without a method are none."""
    triples = [rows[i : i + 3] for i in range(0, len(rows), 3)]
    return tuple(
        Choice(str(method), float(str(percent)), None if layer in (AUTO, None) else parse_layer(str(layer)))
        for method, percent, layer in triples
        if method
    )


def row_of(choices: Sequence[Choice]) -> list[str | float]:
    """Inverse of `choices_of`, filled up to `MAX_CHOICES` rows."""
    rows: list[str | float] = []
    for number in range(MAX_CHOICES):
        choice = choices[number] if number < len(choices) else Choice(NOBODY, 11)
        rows += [choice.method, choice.percent, AUTO if choice.layer is None else str(choice.layer)]
    return rows


def about(loaded: Loaded) -> str:
    """One line about the model."""
    dtype = str(loaded.model.dtype).removeprefix("torch.")
    line = f"Model: {loaded.name}, {loaded.layers} decoder layers, {dtype} on {loaded.model.device.type.upper()}."
    if loaded.name in SMALL:
        line += (
            " It is small, trained from scratch, and knows the drawn scenes only: words, numbers, symbols, colours"
            " and places. About photographs it guesses; give a larger model with --model to ask about those."
        )
    return line


def outside(loaded: Loaded, known: bool, question: str) -> str:
    """Why the answers of the embedded model to a question are guesses; empty where they need not be.

    Args:
        known: the picture is one of the scenes that the model was made for.
    """
    if loaded.name not in SMALL:
        return ""
    if not known:
        return "This picture is outside what the embedded model knows: it guesses."
    words = dict.fromkeys(re.findall(r"[a-z]+", question.lower()))
    strange = [word for word in words if len(loaded.processor.tokenizer.tokenize(word)) > 1]
    return f"The embedded model does not know these words, and guesses: {', '.join(strange)}." if strange else ""
