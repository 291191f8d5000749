"""A stage before the vision tower, family by family, against the whole tower with the dropped patches hidden."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.support.families import FAMILIES, LAYERS, tiny
from tests.support.pruning import Reader, Scatter, close, dropped, forward, generate, largest_difference
from tests.support.tower_reference import hidden_patches, kept_of, tower_of
from torch.utils.flop_counter import FlopCounterMode

from vlm_pruner import PlanError, PrunePlan, Stage, UnsupportedModelError, prune
from vlm_pruner.engine import tower as engine
from vlm_pruner.verify.reference import masked

SQUARES = ("llava", "llava-cls", "vipllava", "llava_next", "llava_onevision", "paligemma", "gemma3", "internvl",
           "idefics3", "smolvlm")  # fmt: skip
PACKED = ("qwen2_vl", "qwen2_vl-video", "qwen2_5_vl", "qwen3_vl", "qwen3_vl-video", "qwen3_vl_moe", "qwen3_5",
          "qwen3_5_moe")  # fmt: skip
SAME = ("llava-mistral", "paligemma2")  # as the towers above, in front of other decoders
each_tower = pytest.mark.parametrize("name", [*SQUARES, *PACKED])
EIGHT = {"max_new_tokens": 9}  # the first token comes of the prefill


def before(keep: float | int = 0.4, *later: tuple[float | int, int | None]) -> PrunePlan:
    stages = [Stage(Scatter(), keep, "tower"), *(Stage(Scatter(seed=1), k, layer) for k, layer in later)]
    return PrunePlan(tuple(stages), min_visual_tokens=1)


def grid_of(inputs: dict[str, Any]) -> Any:
    return inputs.get("image_grid_thw", inputs.get("video_grid_thw"))


def encoded(model: Any, inputs: dict[str, Any]) -> Any:
    """What the tower itself returns for the pictures of `inputs`, inside `get_*_features`."""
    seen: list[Any] = []
    handle = tower_of(model).register_forward_hook(lambda module, args, out: seen.append(out))
    try:
        forward(model, inputs)
    finally:
        handle.remove()
    return seen[-1]


@each_tower
def test_kept_rows_are_those_of_the_whole_tower_with_the_others_hidden(name, monkeypatch):
    """Tower, merger and DeepStack in float32, over pictures of several sizes in one batch."""
    family = FAMILIES[name]
    model = family.model("sdpa", torch.float32)
    inputs = family.inputs([family.prompt(3, 2), family.prompt(4, 1), family.prompt(6, 2)], model.dtype)
    with kept_of(monkeypatch) as seen, prune(model, before()):
        got = encoded(model, inputs)
    with hidden_patches(model, seen[0], grid_of(inputs)):
        want = encoded(model, inputs)
    plain = encoded(model, inputs)
    pairs = {"rows": (got.last_hidden_state, want.last_hidden_state, plain.last_hidden_state)}
    if name in PACKED:
        pairs["merged"] = tuple(torch.cat(list(out.pooler_output)) for out in (got, want, plain))
    pairs |= {f"deepstack {i}": three for i, three in enumerate(_deep(got, want, plain))}
    assert len(pairs) == (5 if "qwen3_vl" in name else 2 if name in PACKED else 1)
    for field, (ours, reference, unpruned) in pairs.items():
        rows = ours.abs().sum(-1) > 0  # zeros where nothing was run
        assert 0.3 < float(rows.float().mean()) < 0.6, field
        assert float((ours - reference)[rows].abs().max()) < 5e-6, field
        assert float((unpruned - reference)[rows].abs().max()) > 1e-3, field  # the test has teeth


def _deep(*outputs: Any) -> list[Any]:
    lists = [out.get("deepstack_features") or [] for out in outputs]
    return [tuple(torch.cat(list(rows)) for rows in three) for three in zip(*lists, strict=True)]


@each_tower
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_logits_and_eight_decode_steps_equal_the_hidden_patches_end_to_end(name, attention, monkeypatch):
    family, model = tiny(name, attention)
    prompts = [family.prompt(3, 2)]
    inputs = family.inputs(prompts, model.dtype)
    with kept_of(monkeypatch) as seen, prune(model, before()) as session:
        prefill, answer = forward(model, inputs).logits, generate(model, inputs, **EIGHT)
    assert len(seen) == 2
    gone = dropped(session, prompts)
    with hidden_patches(model, seen[0], grid_of(inputs)), masked(model, gone):
        full, reference = forward(model, inputs).logits, generate(model, inputs, **EIGHT)
    kept = ~gone[LAYERS - 1][0]
    assert 0 < int(gone[0].sum()) == session.report.total - session.report.kept
    assert torch.equal(answer.sequences, reference.sequences)
    assert len(answer.logits) == 9
    close(answer.logits, reference.logits, model)
    if "qwen3_5" not in name:  # the rows of a recurrence are left out of its reference, too
        close([prefill[0]], [full[0, kept]], model)
    assert largest_difference(answer.logits, generate(model, inputs, **EIGHT).logits) > 1e-3


@each_tower
def test_keeping_everything_changes_no_bit(name):
    family = FAMILIES[name]
    model = family.model("sdpa", torch.float32)
    inputs = family.inputs([family.prompt(1, 2), family.prompt(2, 1)], model.dtype)
    want = generate(model, inputs, **EIGHT)
    with prune(model, before(1.0)) as session:
        got = generate(model, inputs, **EIGHT)
    assert torch.equal(got.sequences, want.sequences)
    assert all(torch.equal(a, b) for a, b in zip(got.logits, want.logits, strict=True))
    assert session.report.kept == session.report.total > 0


@each_tower
def test_rows_of_a_batch_equal_the_rows_alone(name):
    """Two pictures in one row, pictures of different size, and a row of text."""
    family, model = tiny(name)
    prompts = [family.prompt(4, 1, tail=4), family.prompt(5, 2, tail=7), family.prompt(7, 0)]
    with prune(model, before(0.4, (0.2, 2))) as session:
        batch = generate(model, family.inputs(prompts, model.dtype))
        assert session.report.notes == ("rows without an image, left alone: 2",)
        alone = [generate(model, family.inputs([p], model.dtype)) for p in prompts]
    for row, one in enumerate(alone):
        assert torch.equal(batch.sequences[row, -4:], one.sequences[0, -4:])
        close([step[row] for step in batch.logits], [step[0] for step in one.logits], model)


@each_tower
def test_later_stages_cut_what_is_left(name, monkeypatch):
    family, model = tiny(name)
    prompts = [family.prompt(3, 2), family.prompt(4, 1)]
    inputs = family.inputs(prompts, model.dtype)
    with kept_of(monkeypatch) as seen, prune(model, before(0.7, (0.5, 0), (0.2, 3))) as session:
        answer = generate(model, inputs)
    with hidden_patches(model, seen[0], grid_of(inputs)), masked(model, dropped(session, prompts)):
        reference = generate(model, inputs)
    assert torch.equal(answer.sequences, reference.sequences)
    close(answer.logits, reference.logits, model)
    for record in session.images:
        sets = [set(choice.index.tolist()) for _, _, choice in record.stages]
        assert len(sets) == 3
        assert sets[2] < sets[1] < sets[0]
        assert record.counts == tuple(map(len, sets))


@pytest.mark.parametrize("name", ["llava", "llava_next", "qwen2_5_vl", "qwen3_vl", "gemma3"])
def test_beams_and_samples(name):
    family, model = tiny(name)
    inputs = family.inputs([family.prompt(3, 2), family.prompt(4, 1)], model.dtype)
    with prune(model, before()) as session:
        beams = generate(model, inputs, num_beams=3, num_return_sequences=3)
        greedy = generate(model, inputs, num_return_sequences=1)
        kept = session.report.kept
        uncached = generate(model, inputs, use_cache=False)
    assert len(beams.sequences) == 6
    assert torch.equal(greedy.sequences, uncached.sequences)
    assert len(session.images) == 3
    assert kept == session.report.kept


@pytest.mark.parametrize("name", ["llava", "internvl"])
def test_repacked_positions_close_up_behind_the_tower(name):
    family, model = tiny(name)
    inputs = family.inputs([family.prompt(3, 1)], model.dtype)

    def answer(*stages: Stage, positions: str) -> Any:
        with prune(model, PrunePlan(stages, min_visual_tokens=1, positions=positions)):
            return generate(model, inputs)

    first, second = Stage(Scatter(), 0.6, "tower"), Stage(Scatter(seed=1), 0.3, 0)
    kept, repacked = answer(first, second, positions="kept"), answer(first, second, positions="repacked")
    assert largest_difference(kept.logits, repacked.logits) > 1e-4
    everything = Stage(Scatter(), 1.0, "tower")
    both, alone = answer(everything, second, positions="repacked"), answer(second, positions="repacked")
    assert all(torch.equal(a, b) for a, b in zip(both.logits, alone.logits, strict=True))


@pytest.mark.parametrize("name", ["llava", "llava_next", "gemma3", "qwen2_vl-video", "qwen2_5_vl"])
def test_the_report_counts_what_the_tower_computes(name):
    """Against torch's own counter, which also sees that patches are embedded once more for the choice."""
    family = FAMILIES[name]
    model = family.model("eager", torch.float32)
    inputs = family.inputs([family.prompt(3, 2), family.prompt(4, 1)], model.dtype)
    with prune(model, before(0.5, (0.3, 2))) as session:
        pruned, _ = _flops_of_the_tower(model, inputs)
    full, embedding = _flops_of_the_tower(model, inputs)
    report = session.report
    assert report.vision_flops_full == full + embedding
    assert report.vision_flops_pruned == pruned + embedding
    assert pruned < 0.6 * full
    assert f"tower FLOPs {report.vision_flops_pruned / report.vision_flops_full:.0%}" in str(report)
    assert report.to_dict()["vision_flops_pruned"] == report.vision_flops_pruned
    with prune(model, "random", keep=0.5, layer=0) as session:
        forward(model, inputs)
    assert session.report.vision_flops_full is None


def _flops_of_the_tower(model: Any, inputs: dict[str, Any]) -> tuple[int, int]:
    """Of its blocks, and of embedding all patches."""
    with FlopCounterMode(display=False) as counter:
        forward(model, inputs)
    (name,) = [name for name, module in model.named_modules() if module is tower_of(model)]
    found = {path: sum(counts.values()) for path, counts in counter.get_flop_counts().items() if f".{name}" in path}

    def largest(part: str) -> int:
        return max((flops for path, flops in found.items() if part in path.rpartition(name)[2]), default=0)

    embedding = largest("patch_embed")
    return largest("") - embedding - largest("merger"), embedding


@pytest.mark.parametrize("name", ["llava_next", "internvl"])
def test_a_number_of_tokens_has_no_meaning_for_a_picture_in_squares(name):
    family, model = tiny(name)
    prompt = next(p for p in (family.prompt(seed, 1) for seed in range(9)) if p.tokens[0] > 17)
    with pytest.raises(PlanError, match=r"keep=5 before the tower: it sees this image as \d tiles"):
        _run(model, family.inputs([prompt], model.dtype), 5)


def test_a_number_of_tokens_is_that_of_each_picture():
    family, model = tiny("qwen3_vl")
    inputs = family.inputs([family.prompt(3, 2), family.prompt(4, 1)], model.dtype)
    with prune(model, before(5)) as session:
        forward(model, inputs)
    assert [image.kept for image in session.images] == [5, 5, 5]


def test_small_pictures_are_left_alone_in_the_tower_too():
    family, model = tiny("qwen3_vl")
    inputs = family.inputs([family.prompt(3, 2)], model.dtype)
    want = forward(model, inputs).logits
    with prune(model, PrunePlan((Stage(Scatter(), 0.4, "tower"),), min_visual_tokens=16)) as session:
        assert torch.equal(forward(model, inputs).logits, want)
    assert "fewer than min_visual_tokens=16" in str(session.report)


def test_methods_that_read_what_lies_behind_are_refused():
    _, model = tiny("llava")
    with pytest.raises(PlanError, match="fastv cannot prune before the vision tower: it needs attention"):
        prune(model, "fastv", keep=4, layer="tower")
    with pytest.raises(PlanError, match="per='frame' cannot be used with layer='tower'"):
        prune(model, "random", keep=4, layer="tower", per="frame")
    with pytest.raises(PlanError, match=r"must ascend, got \[0, 'tower'\]"):
        PrunePlan((Stage("random", 4), Stage("random", 2, "tower")))


def test_a_later_stage_reads_the_tower_where_patches_are_left():
    """CLS attention of the kept patches among themselves; a token that was dropped is not asked for."""
    family, model = tiny("llava")
    inputs = family.inputs([family.prompt(3, 2)], model.dtype)
    Reader.seen.clear()
    plan = PrunePlan((Stage(Scatter(), 0.5, "tower"), Stage(Reader(), 0.2, 2)), min_visual_tokens=1)
    with prune(model, plan):
        forward(model, inputs)
    first = Reader.seen[0].vision
    assert first.cls_attention.shape == (4, 8)
    assert first.attention.shape == (2, 8)
    assert float(first.keys.abs().sum(2).min()) > 0
    share = first.cls_attention.sum(-1)
    assert bool((share > 0.5).all())  # with CLS itself the rows sum to 1
    Reader.seen.clear()


def test_the_tower_alone_and_the_model_after_the_block_are_stock():
    family, model = tiny("llava")
    inputs = family.inputs([family.prompt(3, 1)], model.dtype)
    pixels, stock = inputs["pixel_values"], vars(tower_of(model)).copy()
    with torch.no_grad():
        want = tower_of(model)(pixels).last_hidden_state
        with prune(model, before()):
            assert torch.equal(tower_of(model)(pixels).last_hidden_state, want)
    assert vars(tower_of(model)).keys() == stock.keys()


@pytest.mark.parametrize("name", [n for n in FAMILIES if n not in (*SQUARES, *PACKED, *SAME)])
def test_other_towers_are_refused_by_name(name):
    family, model = tiny(name)
    inputs = family.inputs([family.prompt(3, 1)], model.dtype)
    with pytest.raises(UnsupportedModelError, match=r"vision tower|made, behind the tower, of patches"):
        _run(model, inputs)


def _run(model: Any, inputs: dict[str, Any], keep: float | int = 0.4) -> None:
    with prune(model, before(keep)):
        forward(model, inputs)


def test_newlines_that_no_patch_stands_behind_stay(monkeypatch):
    """Of LLaVA-NeXT: one at the end of every row of tokens."""
    layouts, joined = [], engine._joined

    def spy(layout, kept, sizes):
        layouts.append(layout)
        return joined(layout, kept, sizes)

    monkeypatch.setattr(engine, "_joined", spy)
    family, model = tiny("llava_next")
    with prune(model, before()) as session:
        forward(model, family.inputs([family.prompt(3, 1)], model.dtype))
    (layout,) = layouts
    newlines = (layout.patch < 0).nonzero().flatten().tolist()
    (record,) = session.images
    assert newlines
    assert set(newlines) <= set(record.stages[0][2].index.tolist())
