"""Deliberate breaks of the engine, its cache layers and the adapters: what, where, and which tests must see it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MUTANTS", "Mutant"]


@dataclass(frozen=True)
class Mutant:
    """One break: in `file`, the only occurrence of `old` becomes `new`."""

    name: str
    file: str  # under src/vlm_pruner
    old: str
    new: str
    tests: str  # arguments of pytest: files below tests, and perhaps -k


_INVARIANTS = "engine/test_invariants.py -k "
_FEW = "(llava-sdpa or qwen2_vl-sdpa or llava_next-sdpa)"
_EQUAL = f"{_INVARIANTS}'equals_the_full and {_FEW}'"
_PADDED = f"{_INVARIANTS}'padded_batch and (llava-sdpa or qwen2_vl-eager)'"

MUTANTS = (
    Mutant("places one too low", "engine/follow.py", "to(hidden.device) + 1 + past",
           "to(hidden.device) + past", _PADDED),
    Mutant(
        "rotary tables of the first rows in place of the survivors'",
        "engine/follow.py",
        "tuple(gather_rows(table, fwd.kept.index) for table in rotary)",
        "tuple(table[:, : fwd.kept.index.shape[1]] for table in rotary)",
        _EQUAL,
    ),
    Mutant(
        "position ids reach flash attention with gaps",
        "engine/follow.py",
        'if "flash" in parts.backend:\n                kwargs[name] = None',
        "if False:\n                kwargs[name] = None",
        "engine/test_backends.py -k 'flash and llava'",
    ),
    Mutant(
        "arguments without a rule pass",
        "engine/follow.py",
        "and fwd.length in value.shape:",
        "and False:",
        "engine/test_refusals.py -k without_a_rule",
    ),
    Mutant(
        "the floor for cropping is forgotten",
        "engine/follow.py",
        "layer.pruned_floor = past + fwd.length - fwd.prompt.tail",
        "layer.pruned_floor = 0",
        "engine/test_caches.py -k no_further",
    ),
    Mutant("padding entries are seen", "engine/masks.py",
           "inside = (key > 0) & (column >= 0) & (column < mask.shape[-1])",
           "inside = torch.ones_like(key, dtype=torch.bool)",
           "engine/test_caches.py -k different_counts"),
    Mutant(
        "a mask keeps the rows of dropped queries",
        "engine/masks.py",
        "row = kept.index.to(mask.device)[:, None, :, None]",
        "row = torch.arange(kept.index.shape[1]).expand_as(kept.index)[:, None, :, None]",
        _PADDED,
    ),
    Mutant(
        "a mask made from places forgets the own one",
        "engine/masks.py",
        "places.key[:, None, None, :] <= places.query[:, None, :, None]",
        "places.key[:, None, None, :] < places.query[:, None, :, None]",
        "engine/test_caches.py -k different_counts",
    ),
    Mutant(
        "no mask although rows keep different counts",
        "engine/masks.py",
        "return _from_places(places, causal, like, backend) if ragged else None",
        "return None",
        "engine/test_caches.py -k different_counts",
    ),
    Mutant(
        "padding masks of flash attention are not cut",
        "engine/masks.py",
        "return mask.gather(1, column) * inside",
        "return mask[:, -column.shape[1] :]",
        "engine/test_backends.py -k 'flash and llava'",
    ),
    Mutant(
        "a sliding window is counted in survivors",
        "engine/cache.py",
        "setattr(self, counter, stored + self.pruned_dropped)",
        "setattr(self, counter, stored)",
        "engine -k '(equals_the_full or static) and (mistral or gemma3)'",
    ),
    Mutant(
        "pruned layers report what they store",
        "engine/cache.py",
        "return super().get_seq_length() + self.pruned_dropped",
        "return super().get_seq_length()",
        _EQUAL,
    ),
    Mutant(
        "places are not reordered with the beams",
        "engine/cache.py",
        "self.pruned_shadow.reorder_cache(beam_idx)",
        "pass",
        "engine/test_caches.py -k 'change_places'",
    ),
    Mutant(
        "places are not repeated with the rows",
        "engine/cache.py",
        "self.pruned_shadow.batch_repeat_interleave(repeats)",
        "pass",
        "engine/test_caches.py -k 'repeated'",
    ),
    Mutant(
        "places are not selected with the rows",
        "engine/cache.py",
        "self.pruned_shadow.batch_select_indices(indices)",
        "pass",
        "engine/test_caches.py -k 'change_places'",
    ),
    Mutant("places are not cropped", "engine/cache.py", "self.pruned_shadow.crop(tokens_to_remove)", "pass",
           "engine -k 'no_further or prompt_lookup'"),
    Mutant("places are not reset", "engine/cache.py", "self.pruned_shadow.reset()", "pass",
           "engine/test_caches.py -k reset"),
    Mutant(
        "a pruned cache works outside the block",
        "engine/cache.py",
        "if not self.pruned_state.open:",
        "if False:",
        "engine/test_caches.py -k outside_the_block",
    ),
    Mutant("a pruned cache stays open behind a forward", "engine/hooks.py", "forward.state.open = False", "pass",
           "engine/test_caches.py -k outside_the_block"),
    Mutant(
        "a cache of another plan is taken",
        "engine/hooks.py",
        "(state.sites, state.positions) != (sites, positions)",
        "False",
        "engine/test_caches.py -k another_plan",
    ),
    Mutant("a decode step keeps the mask of the full sequence", "engine/layers.py",
           "return None if after is before else (args, {**kwargs, \"attention_mask\": after})",
           "return None", _PADDED),
    Mutant("pruned one layer late", "engine/hooks.py", "sum(site <= index for site in inner.sites)",
           "sum(site < index for site in inner.sites)", _EQUAL),
    Mutant(
        "a later stage counts its share of the survivors",
        "engine/prompt.py",
        "keep_count(self.total, stage.keep)",
        "keep_count(self.count, stage.keep)",
        "test_report.py -k 'numbers_of_a_run or shares'",
    ),
    Mutant(
        "every picture of a row gets the budget of the first",
        "engine/choose.py",
        "groups.setdefault((image.count, image.budget(stage)), [])",
        "groups.setdefault((0, prompt_budget := 3), [])",
        f"{_INVARIANTS}'keeps_its_count and llava'",
    ),
    Mutant("merged rows are not written", "engine/choose.py",
           "hidden[image.span.row, columns[image.span.row, slots]] = selection.features.to(hidden.device, hidden."
           "dtype)",
           "pass", f"{_INVARIANTS}'merged_rows and llava'"),
    Mutant("a second choice stays in coordinates of the first", "engine/choose.py",
           "own = Selection(before[selection.index],", "own = Selection(selection.index,",
           f"{_INVARIANTS}'several_stages and (llava or qwen2_vl)'"),
    Mutant("columns of survivors are counted from the left", "engine/rows.py",
           "return right_aligned + (self.index.shape[1] - 1)", "return self.mask.cumsum(1) - 1",
           "engine -k 'padded_batch and llava or merged_rows or several_stages'"),
    Mutant("padding of short rows is taken for tokens", "engine/rows.py", "ranked >= 0 if ragged else None", "None",
           "engine/test_caches.py -k different_counts"),
    Mutant(
        "DeepStack is not followed",
        "engine/layers.py",
        "visual_embeds[number.gather(1, index)[visual].to(visual_embeds.device)]",
        "visual_embeds[: int(visual.sum())]",
        f"{_INVARIANTS}'equals_the_full and qwen3_vl'",
    ),
    Mutant("DeepStack is told by length", "engine/layers.py", "if fwd is None or fwd.kept is None:  # lengths",
           "if fwd is None or fwd.kept is None or hidden_states.shape[1] == visual_pos_masks.shape[1]:  # lengths",
           f"{_INVARIANTS}'longest_row and qwen3_vl'"),
    Mutant("a query is compared without its rotation", "engine/signals.py",
           "q = _rotate(q.transpose(0, 1), self.rotary, row, queries)", "q = q.transpose(0, 1)",
           "engine/test_signals.py -k 'attention_rows and eager'"),
    Mutant("attention is read from the start of a preallocated cache", "engine/signals.py",
           "first = attention.shape[-1] - chunk if self.past is None else self.past", "first = 0",
           "engine/test_signals.py -k second_turn"),
    Mutant("tiles of the tower are not counted", "adapters/base.py", "source + parts, tile + layout.tiles",
           "source + parts, tile + 1", "engine/test_signals.py -k vision_signals"),
    Mutant("beams of one prompt get the pictures of the next", "adapters/base.py",
           "group = range(first, first + copies)", "group = range(first, first + 1)",
           "engine/test_generation.py adapters -k '(beams and llava) or repeat_rows'"),
    Mutant("unpadding cuts the wrong side", "adapters/llava_next.py", "if width / height > columns / rows:",
           "if width / height < columns / rows:", "adapters -k 'anyres'"),
    Mutant("height and width of a merged grid change places", "adapters/qwen.py",
           "raster(t, h // merge, w // merge)", "raster(t, w // merge, h // merge)", "adapters -k raster"),
    Mutant("every tile has a budget of its own", "adapters/tiles.py", "joins = True", "joins = False",
           "adapters -k 'two_tiles'"),
    Mutant("labels are let through", "engine/hooks.py", 'if arguments.get("labels") is not None:', "if False:",
           "engine/test_refusals.py -k labels"),
    Mutant("hooks stay on the model", "engine/session.py", "        self._hooks.remove()\n", "",
           f"{_INVARIANTS}'as_before and llava'"),
    Mutant("a wrapped method stays on the model", "engine/hooks.py",
           "self._undo.callback(object.__delattr__, owner, name)", "pass", f"{_INVARIANTS}'as_before and llava'"),
    Mutant("two pruners on one model", "engine/session.py", "if self._parts.base in _active:", "if False:",
           "engine/test_refusals.py -k second_pruner"),
    Mutant("questions share one cache", "engine/reuse.py", "cache = copy.deepcopy(self.cache)", "cache = self.cache",
           "engine/test_reuse.py -k 'whole_prompts and llava'"),
    Mutant("a question starts from foreign positions", "engine/reuse.py",
           "self.parts.base.rope_deltas = self.rope_deltas",
           "pass", "engine/test_reuse.py -k 'whole_prompts and qwen2_vl'"),
    Mutant("hidden states go back by the last stage", "engine/full_length.py", "_back(state, levels[level - 1])",
           "_back(state, levels[-1])", "engine/test_full_length.py -k 'at_their_places and llava'"),
    Mutant("repacked tokens move by their own gap only", "engine/positions.py",
           "before = closed.cumsum(1) - closed", "before = closed", "engine/test_positions.py"),
)  # fmt: skip
