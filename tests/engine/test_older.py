"""Old pictures of a long chat keep fewer tokens: what is kept, and that the answer is that of the masked model."""

from __future__ import annotations

import pytest
import torch
from tests.support.families import tiny
from tests.support.pruning import close, dropped, generate

from vlm_pruner import PrunePlan, Stage, prune
from vlm_pruner.methods.base import create
from vlm_pruner.verify.reference import masked


def aged(*stages: tuple[float, int], older: tuple[float, ...]) -> PrunePlan:
    made = tuple(Stage(create("random"), keep, layer) for keep, layer in stages)
    return PrunePlan(made, min_visual_tokens=1, older=older)


@pytest.mark.parametrize("name", ["llava", "qwen2_vl"])
@pytest.mark.parametrize("stages", [((0.5, 0),), ((0.8, 1), (0.5, 3))])
def test_pictures_keep_by_their_age_and_the_answer_is_the_masked_models(
    name: str, stages: tuple[tuple[float, int], ...]
) -> None:
    family, model = tiny(name, "")
    rows = [family.prompt(3, 3), family.prompt(4, 1, tail=9)]
    inputs = family.inputs(rows, model.dtype)
    with prune(model, aged(*stages, older=(0.25, 1))) as session:
        answer = generate(model, inputs)
    kept = [(image.row, image.total, image.kept) for image in session.images]
    totals = [total for _, total, _ in kept]
    assert kept == [
        (0, totals[0], 1), (0, totals[1], -(-totals[1] // 4)), (0, totals[2], -(-totals[2] // 2)),
        (1, totals[3], -(-totals[3] // 2)),
    ]  # fmt: skip
    assert session.report.asked == sum(k for *_, k in kept) == session.report.kept
    with masked(model, dropped(session, rows)):
        reference = generate(model, inputs)
    assert torch.equal(answer.sequences, reference.sequences)
    close(answer.logits, reference.logits, model)


def test_a_picture_that_the_stages_would_leave_alone_is_cut_for_its_age() -> None:
    family, model = tiny("qwen2_vl", "")
    rows = [family.prompt(3, 2)]
    with prune(model, aged((1000, 0), older=(3,))) as session:
        generate(model, family.inputs(rows, model.dtype))
    old, new = session.images
    assert (old.kept, new.kept) == (3, new.total)
    assert new.note
    assert not old.note
