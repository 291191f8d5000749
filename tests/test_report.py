"""What a report says, and that its numbers are those of the run."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime

import torch
from tests.support.families import tiny
from tests.support.pruning import forward, generate, plan
from tests.support.versions import cache_in

from vlm_pruner import ImageReport, PrunePlan, PruneReport, Selection, prune
from vlm_pruner.flops import DecoderShape, kv_bytes, prefill_flops


def report(**changes: object) -> PruneReport:
    choice = Selection(torch.tensor([0, 5, 7, 11]))
    image = ImageReport(0, 0, "image", (1, 24, 24), 576, 4, 100.5, selection=choice)
    return PruneReport((image,), PrunePlan.of("random", 4, num_layers=32), **changes)  # type: ignore[arg-type]


def test_one_line_says_only_what_was_measured() -> None:
    assert str(report()) == "4/576 tokens kept · 100.5 a layer"
    full = report(
        selection_ms=0.94, prefill_ms=81.2, decode_ms_per_token=9.51, flops_full=200, flops_pruned=50,
        kv_bytes_full=36_000_000, kv_bytes_pruned=12_400_000, notes=("so",),
    )  # fmt: skip
    assert str(full) == (
        "4/576 tokens kept · 100.5 a layer · select 0.9 ms · "
        "prefill 81 ms · decode 9.5 ms/token · FLOPs 25% · KV 36.0 -> 12.4 MB · so"
    )


def test_nothing_was_run() -> None:
    assert str(PruneReport((), PrunePlan.of("random", 4, num_layers=4))) == "nothing was run yet"


def test_table_has_aligned_columns() -> None:
    lines = report().table().splitlines()
    assert lines[0].split() == ["row", "image", "grid", "total", "asked", "kept", "layer", "average"]
    assert lines[1].split() == ["0", "image", "0", "1x24x24", "576", "4", "4", "100.5"]
    assert lines[0].index("total") == lines[1].index("576")


def test_json_has_every_number() -> None:
    data = json.loads(report(selection_ms=1.5).to_json())
    assert data["images"][0]["index"] == [0, 5, 7, 11]
    assert data["images"][0]["grid"] == [1, 24, 24]
    assert (data["total"], data["kept"], data["selection_ms"], data["prefill_ms"]) == (576, 4, 1.5, None)
    assert (data["asked"], data["layer_average"], data["images"][0]["image"]) == (4, 100.5, 0)
    assert data["versions"].keys() == {"vlm_pruner", "torch", "transformers"}
    assert datetime.fromisoformat(data["date"]).tzinfo is not None
    assert PrunePlan.from_dict(data["plan"]).fingerprint() == data["fingerprint"]


def test_a_schedule_is_told_by_what_was_asked_for_and_by_what_it_left() -> None:
    made = PrunePlan.of("v2drop", 64, num_layers=8)
    last = made.stages[-1].keep
    assert last < 64
    image = ImageReport(0, 0, "image", (1, 24, 24), 576, last, 300.0)
    seen = PruneReport((image,), made)
    assert (seen.asked, seen.kept) == (64, last)
    assert str(seen) == f"{last}/576 tokens kept, 64 asked for · 300.0 a layer"
    assert seen.table().splitlines()[1].split()[4:6] == ["576", "64"]


def test_images_that_were_left_alone_are_named() -> None:
    small = ImageReport(0, 1, "image", (1, 3, 3), 9, 9, 9.0, note="left alone: 9 tokens are fewer than 16")
    large = ImageReport(0, 0, "image", (1, 24, 24), 576, 4, 4.0)
    seen = PruneReport((large, small), PrunePlan.of("random", 4, num_layers=4), notes=("so",))
    assert seen.remarks == ("image 1 left alone: 9 tokens are fewer than 16", "so")
    assert str(seen).endswith(" · image 1 left alone: 9 tokens are fewer than 16 · so")
    assert seen.asked == 4 + 9
    other = replace(small, row=1, index=0)
    rows = PruneReport((small, other), seen.plan)
    assert rows.remarks == ("image 1 of row 0, image 0 of row 1 left alone: 9 tokens are fewer than 16",)


def test_numbers_of_a_run() -> None:
    """FLOPs and bytes by hand: two rows, three pictures of 16, 6 kept from layer 2 on, then 3 from layer 4 on."""
    family, model = tiny("llava")
    prompts = [family.prompt(1, 1), family.prompt(2, 2)]
    with prune(model, plan((6, 2), (3, 4))) as session:
        answer = generate(model, family.inputs(prompts))
    seen = session.report
    lengths = []
    for prompt, pictures in zip(prompts, (1, 2), strict=True):
        words = len(prompt.ids) - 16 * pictures
        lengths.append([words + n * pictures for n in (16, 16, 6, 6, 3)])
    shape = DecoderShape.from_config(model.config.get_text_config())
    full = [[len(p.ids)] * 5 for p in prompts]
    assert seen.flops_pruned == sum(prefill_flops(shape, row) for row in lengths)
    assert seen.flops_full == sum(prefill_flops(shape, row) for row in full)
    assert seen.kv_bytes_pruned == sum(kv_bytes(shape, row, 8) for row in lengths)
    assert seen.kv_bytes_full == sum(kv_bytes(shape, row, 8) for row in full)
    assert [image.layer_average for image in seen.images] == [(16 + 16 + 6 + 6 + 3) / 5] * 3
    assert (seen.total, seen.kept, seen.decoded_tokens) == (48, 9, len(answer.logits) - 1)
    assert 0 < seen.selection_ms < seen.prefill_ms
    assert seen.decode_ms_per_token > 0


def test_shares_are_of_the_original_tokens_at_every_stage() -> None:
    family, model = tiny("llava")
    with prune(model, plan((0.6, 1), (0.3, 3))) as session:
        forward(model, family.inputs([family.prompt(2, 2)]))
    assert [image.counts for image in session.images] == [(10, 5)] * 2  # ceil(9.6), ceil(4.8) of 16
    assert [image.kept for image in session.report.images] == [5, 5]


def test_bytes_are_those_of_the_cache() -> None:
    family, model = tiny("llava")
    with prune(model, plan((6, 2))) as session:
        cache = cache_in(forward(model, family.inputs([family.prompt(1, 1)]), use_cache=True))
    held = sum(t.numel() * t.itemsize for layer in cache.layers for t in (layer.keys, layer.values))
    assert session.report.kv_bytes_pruned == held


def test_a_new_prefill_starts_a_new_report() -> None:
    family, model = tiny("llava")
    with prune(model, plan((6, 2))) as session:
        assert str(session.report) == "nothing was run yet"
        generate(model, family.inputs([family.prompt(1, 2)]))
        forward(model, family.inputs([family.prompt(1, 1)]))
    assert session.report.total == 16
    assert session.report.decoded_tokens == 0
