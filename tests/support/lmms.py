"""lmms-eval, which `make test-eval` installs into an environment of its own: it brings too much for the main one. And
an evaluation that is made up."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from vlm_pruner.evaluation.lmms.answers import Reply
from vlm_pruner.evaluation.lmms.run import Evaluated

__all__ = ["evaluated", "needs_lmms_eval", "needs_no_lmms_eval"]

_HERE = find_spec("lmms_eval") is not None

needs_lmms_eval = pytest.mark.skipif(not _HERE, reason="needs lmms-eval: `make test-eval` runs it")
needs_no_lmms_eval = pytest.mark.skipif(_HERE, reason="says what is missing where lmms-eval is not installed")


def evaluated(label: str, budget: float, right: list[int], mme: float = 1800.0) -> Evaluated:
    means = {name: 1.0 for name in Reply.__dataclass_fields__ if name != "text"}
    samples = {"gqa": [float(x) for x in right]}
    scores = {"gqa": sum(right) / len(right), "mme": mme}
    return Evaluated(label, budget, {}, scores, {"gqa": "exact_match", "mme": "total"}, {}, samples, means)
