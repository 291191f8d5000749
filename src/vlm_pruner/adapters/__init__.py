"""Model families: the only place with model names. `adapter_for("llava")` finds the one of a `model_type`."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from importlib.metadata import entry_points

from vlm_pruner.adapters.base import Adapter, Encoded, Layout, VisualSpan
from vlm_pruner.adapters.refused import REASONS
from vlm_pruner.errors import UnsupportedModelError, unknown_name
from vlm_pruner.torchvision_fit import declare_operators

__all__ = ["Adapter", "Encoded", "Layout", "VisualSpan", "adapter_for", "families"]

declare_operators()  # adapters import transformers


@functools.cache
def families() -> dict[str, type[Adapter]]:
    """Adapter class of every supported `model_type`: the modules of this package, then the entry points of
    `vlm_pruner.adapters`."""
    names = [m.name for m in pkgutil.iter_modules(__path__) if m.name not in ("base", "refused")]
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    modules += [entry.load() for entry in entry_points(group="vlm_pruner.adapters")]
    classes = {c for m in modules for c in vars(m).values() if isinstance(c, type) and issubclass(c, Adapter)}
    pairs = [(t, c) for c in classes for t in vars(c).get("model_types", ())]
    return dict(sorted(pairs, key=lambda pair: pair[0]))


def adapter_for(model_type: str) -> Adapter:
    """The adapter of a family.

    Raises:
        UnsupportedModelError: no adapter; the message says why, or lists the known families.
    """
    known = families()
    if model_type in REASONS and model_type not in known:
        raise UnsupportedModelError(f"{model_type} cannot be pruned: {REASONS[model_type]}")
    if model_type not in known:
        raise UnsupportedModelError(unknown_name("model family", model_type, known))
    return known[model_type]()
