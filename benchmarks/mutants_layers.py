"""Deliberate breaks of what the engine does for kinds of decoder layers, as in `benchmarks/mutants.py`."""

from __future__ import annotations

from benchmarks.mutants import Mutant

__all__ = ["LAYERS"]

_HYBRIDS = "engine/test_hybrids.py -k "

LAYERS = (
    Mutant("nobody counts the rows", "engine/checks.py", "if rows is not None and rows != fwd.rows:", "if False:",
           "engine/test_release.py -k rows"),
    Mutant("states see the padding of shorter rows", "engine/follow.py",
           "made = valid.long() if made is None else made * valid", "pass", f"{_HYBRIDS}different_counts"),
    Mutant("padding stands between two turns of a recurrence", "engine/follow.py",
           "if valid is not None and not fwd.first:", "if False:", f"{_HYBRIDS}later_rows"),
    Mutant("a mask of states keeps the columns of dropped rows", "engine/follow.py",
           "made = None if mask is None else gather_rows(mask, index)",
           "made = None if mask is None else mask[:, : index.shape[1]]",
           "engine/test_invariants.py -k 'padded_batch and qwen3_5-sdpa-2'"),
    Mutant("states that were not filled pass", "engine/checks.py",
           "if not (any(known.values()) if isinstance(known, dict) else known):", "if False:",
           "engine/test_hybrids.py -k not_filled"),
    Mutant("keys are read of a layer without any", "engine/support.py",
           "if stage.layer and keys and parts.follows(stage.layer - 1):", "if False:",
           f"{_HYBRIDS}attends_to_nothing"),
    Mutant("recurrences are counted as attention", "flops.py",
           "unlike += sorted(set(_first(config, \"layer_types\", default=())) - _SQUARES)", "pass",
           "test_flops.py"),
)  # fmt: skip
