"""Deliberate breaks of what the engine does for kinds of decoder layers, as in `benchmarks/mutants.py`."""

from __future__ import annotations

from benchmarks.mutants import Mutant

__all__ = ["LAYERS"]

_HYBRIDS = "engine/test_hybrids.py -k "
_KINDS = "engine/test_kinds.py -k "

LAYERS = (
    Mutant("DeepStack is told by length", "engine/added.py",
           "if fwd is not None and fwd.kept is not None:  # lengths",
           "if fwd is not None and fwd.kept is not None and hidden_states.shape[1] != visual_pos_masks.shape[1]:  #",
           "engine/test_invariants.py -k 'longest_row and qwen3_vl'"),
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
           "if stage.layer and keys and not parts.makes_keys(stage.layer - 1):", "if False:",
           f"{_HYBRIDS}attends_to_nothing"),
    Mutant("queries are scaled by their number among the survivors", "engine/layers.py",
           "fwd.scales[index] = true / made", "fwd.scales[index] = made / made", f"{_KINDS}scaled_by"),
    Mutant("who reads others' keys sees the rows that are left of its own", "engine/shared.py",
           "stored = fwd.levels[stages - 1] if stages else None", "stored = fwd.kept",
           "engine/test_invariants.py -k 'equals_the_full and gemma3n-sdpa-2'"),
    Mutant("rows that the model itself cut are cut again", "engine/shared.py", "None if cut else rows, uneven)",
           "rows, uneven)", "engine/test_invariants.py -k 'equals_the_full and gemma4-shared-eager'"),
    Mutant("the end of a prompt is a picture", "engine/shared.py",
           "if bool(fwd.prompt.visual[:, -n:].any()):", "if False:", f"{_KINDS}ends_with"),
    Mutant("features of one layer get lost", "engine/added.py", "if index > first}", "if index > first + 1}",
           "engine/test_invariants.py -k 'equals_the_full and granite4_vision-sdpa-1'"),
    Mutant("features are lost where nothing was dropped", "engine/layers.py",
           "return None if hidden is before else with_hidden(hidden, args, kwargs, self.streams)", "return None",
           "engine/test_invariants.py -k 'keeping_everything and granite4_vision-sdpa'"),
    Mutant("streams are mixed up", "engine/arguments.py", "return rows.movedim(streams, 2).flatten(2)",
           "return rows.movedim(streams, 2).transpose(2, 3).flatten(2)",
           "engine/test_invariants.py -k 'equals_the_full and gemma3n-sdpa-1'"),
    Mutant("a stage parts a choice from who goes by it", "engine/support.py",
           "if not parts.adapter.allows(parts.text_config, stage.site):", "if False:", f"{_KINDS}choose_themselves"),
    Mutant("a tap changes what an attention does by its name", "engine/tap.py", " and _asks(forward) <= 1", "",
           "engine/test_signals.py -k 'rows_and_keys and dots3_note-False'"),
    Mutant("gates pass for queries", "engine/signals.py",
           "heads = (attended.query if name == \"text_queries\" else keys).shape[1]", "heads = keys.shape[1]",
           "engine/test_signals.py -k 'projections and qwen3_5'"),
    Mutant("pictures of patches run into one another", "adapters/rows.py", "(slots.diff() > 2)", "(slots.diff() > 20)",
           "engine/test_invariants.py -k 'keeps_its_count and fuyu'"),
    Mutant("recurrences are counted as attention", "flops/decoder.py",
           "unlike += sorted(set(_first(config, \"layer_types\", default=())) - _SQUARES)", "pass",
           "test_flops.py"),
)  # fmt: skip
