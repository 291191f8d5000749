"""Visual-token pruning for stock Hugging Face vision-language models.

    import vlm_pruner as vp

    with vp.prune(model, "vlm-pruner", keep=64) as session:
        out = model.generate(**inputs)
    print(session.report)

Importing this package loads neither transformers nor triton: names are fetched when first used.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "vlm_pruner.errors": (
        "BackendUnavailableError",
        "InputError",
        "InvalidSelectionError",
        "MissingSignalError",
        "NotFiniteError",
        "PlanError",
        "PrunedCacheError",
        "UnsupportedModelError",
        "VlmPrunerError",
    ),
    "vlm_pruner.types": ("Selection", "Signal", "VisionSignals", "VisualTokens"),
    "vlm_pruner.budget": ("keep_count",),
    "vlm_pruner.plan": ("PrunePlan", "Stage"),
    "vlm_pruner.engine": ("ImageRecord", "Session", "attach", "detach", "plan_for", "prune"),
    "vlm_pruner.report": ("ImageReport", "PruneReport", "SessionTotal"),
    "vlm_pruner.evaluation.by_density": ("DensityPlans",),
    "vlm_pruner.models": ("load_embedded",),
    "vlm_pruner.methods.base": ("PruningMethod",),
    "vlm_pruner.methods.divprune": ("DivPrune",),
    "vlm_pruner.methods.grid": ("GridPrune",),
    "vlm_pruner.methods.none": ("NoPruning",),
    "vlm_pruner.methods.random": ("RandomPrune",),
    "vlm_pruner.methods.vlm_pruner": ("VLMPruner",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'vlm_pruner' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
