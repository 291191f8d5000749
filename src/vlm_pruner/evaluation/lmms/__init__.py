"""Pruned models in lmms-eval: its entry point, and `vlm-pruner eval` over it. Needs the extra `eval`.

Importing this package does not import lmms_eval: it is the entry point, and lmms_eval imports it.
"""

from __future__ import annotations

from typing import Any

__all__ = ["MODEL", "manifests"]

MODEL = "vlm_pruner"
"""What `lmms_eval --model` calls it."""


def manifests() -> Any:
    """The model that lmms-eval finds through the entry point group `lmms_eval.models`."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(MODEL, chat_class_path="vlm_pruner.evaluation.lmms.model.PrunedModel")
