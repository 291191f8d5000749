"""Every error the library raises on purpose. A message carries shapes, names and the known alternatives."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "BackendUnavailableError",
    "InputError",
    "InvalidSelectionError",
    "MissingSignalError",
    "PlanError",
    "PrunedCacheError",
    "UnsupportedModelError",
    "VlmPrunerError",
    "unknown_name",
]


class VlmPrunerError(Exception):
    """Root of all errors of this library."""


class InputError(VlmPrunerError, ValueError):
    """An image, a question, a model or a split of questions that cannot be had."""


class PlanError(VlmPrunerError, ValueError):
    """A budget, layer, method name or plan that cannot be carried out."""


class UnsupportedModelError(VlmPrunerError, TypeError):
    """A model, or a way of calling it, that cannot be pruned."""


class InvalidSelectionError(VlmPrunerError, ValueError):
    """A method returned duplicates, indices out of range or the wrong count."""


class MissingSignalError(VlmPrunerError, RuntimeError):
    """A method needs something that this model or site does not have."""


class PrunedCacheError(VlmPrunerError, RuntimeError):
    """A pruned cache used outside a pruner, or with another plan."""


class BackendUnavailableError(VlmPrunerError, ImportError):
    """A backend asked for by name cannot run here."""


def unknown_name(kind: str, name: object, known: Iterable[str]) -> str:
    """Message for an unknown name: the nearest known one is offered, then all of them.

    >>> unknown_name("method", "vlm-prunner", ["divprune", "vlm-pruner"])
    "unknown method 'vlm-prunner'; did you mean 'vlm-pruner'? Known: divprune, vlm-pruner"
    >>> unknown_name("method", "foo", ["divprune", "vlm-pruner"])
    "unknown method 'foo'. Known: divprune, vlm-pruner"
    """
    names = sorted(known)
    near = get_close_matches(str(name), names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"unknown {kind} {name!r}{hint} Known: {', '.join(names)}"
