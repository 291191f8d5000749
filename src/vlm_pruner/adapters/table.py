"""Every image-text-to-text family of the installed transformers: does pruning work, and if not, why not.

The answer is worked out, not written down: an adapter exists, or the family's default configuration tells what stands
in the way, or somebody looked and noted the reason (`vlm_pruner.adapters.refused`).
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass

from transformers import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from vlm_pruner.adapters import families
from vlm_pruner.adapters.obstacles import obstacle
from vlm_pruner.adapters.refused import REASONS, UNCHECKED

__all__ = ["FamilySupport", "support_table"]


@dataclass(frozen=True)
class FamilySupport:
    """One row of the table."""

    model_type: str
    model: str  # class that `AutoModelForImageTextToText` makes
    works: bool
    why: str  # where its tokens lie, or what stands in the way


def support_table() -> list[FamilySupport]:
    """All families by name, those that work first."""
    known = families()
    rows = []
    for kind, model in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.items():
        works = kind in known
        why = _first_sentence(known[kind]) if works else _obstacle(kind)
        rows.append(FamilySupport(kind, str(model if isinstance(model, str) else model[0]), works, why))
    return sorted(rows, key=lambda row: (not row.works, row.model_type))


def _obstacle(kind: str) -> str:
    """The note of somebody who looked goes first: a default configuration says less."""
    if kind in REASONS:
        return REASONS[kind]
    found = obstacle(CONFIG_MAPPING[kind]())
    return found.removeprefix(f"{kind}: ").removeprefix(f"{kind} ") if found else UNCHECKED


def _first_sentence(thing: type) -> str:
    text = " ".join((inspect.getdoc(thing) or "").split())
    return text.split(". ")[0].rstrip(".")
