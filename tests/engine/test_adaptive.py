"""Budgets that adapt, inside models: counts that differ from picture to picture, and what is said of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, final

import pytest
import torch
from tests.support.families import tiny
from tests.support.pruning import close, dropped, forward, generate

from vlm_pruner import InvalidSelectionError, PrunePlan, Stage, prune
from vlm_pruner.budget import Budget
from vlm_pruner.methods import create
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.types import Selection, VisualTokens
from vlm_pruner.verify.reference import masked


@final
@dataclass(frozen=True)
class Own(PruningMethod):
    """Keeps the tokens whose first channel is above a limit, at most `keep`, at least one."""

    name: ClassVar[str] = "test-own"
    title: ClassVar[str] = "Own"
    source: ClassVar[str] = "test"

    limit: float = 0.0
    kind: Budget = "ceiling"
    more: int = 0

    @property
    def budget(self) -> Budget:
        return self.kind

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        order = tokens.features[:, 0].argsort(descending=True, stable=True)
        count = int((tokens.features[:, 0] > self.limit).sum().clamp(1, keep)) + self.more
        return Selection(order[:count].sort().values)


def plan(method: PruningMethod, *places: Any, keep: float = 0.8) -> PrunePlan:
    return PrunePlan(tuple(Stage(method, keep, place) for place in places), min_visual_tokens=1)


@pytest.mark.parametrize("batches", [30, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("family", "places"),
    [("llava", ("tower", 2)), ("qwen2_5_vl", (0,)), ("qwen3_vl", ("tower", 0, 3)), ("llava", (1,))],
)
def test_random_ragged_batches_equal_the_rows_alone(family: str, places: tuple[Any, ...], batches: int) -> None:
    made, model = tiny(family)
    generator, counts = torch.Generator().manual_seed(0), set()
    with prune(model, plan(Own(), *places)) as session:
        for seed in range(batches // 4 or 1):
            number = torch.randint(0, 3, (int(torch.randint(2, 4, (1,), generator=generator)),), generator=generator)
            prompts = [made.prompt(9 * seed + row, int(n), tail=3 + 2 * row) for row, n in enumerate(number)]
            if not int(number.sum()):
                continue
            batch = forward(model, made.inputs(prompts, model.dtype)).logits[:, -1]
            counts |= {image.kept for image in session.images}
            for row, prompt in enumerate(prompts):
                alone = forward(model, made.inputs([prompt], model.dtype)).logits[:, -1]
                close([batch[row]], [alone[0]], model)
    assert len(counts) > 1


@pytest.mark.parametrize(("family", "places", "numbers", "seed"), [
    ("llava", ("tower", 2), (2, 2), 198), ("qwen3_vl", ("tower", 0, 3), (2, 1, 1), 162),
])  # fmt: skip
def test_another_row_may_be_the_longest_after_each_stage(
    family: str, places: tuple[Any, ...], numbers: tuple[int, ...], seed: int
) -> None:
    """A row that was padded, was the longest after the first stage and was not after the second ended the batch."""
    made, model = tiny(family)
    prompts = [made.prompt(seed + row, number, tail=3 + 2 * row) for row, number in enumerate(numbers)]
    with prune(model, plan(Own(), *places)):
        batch = generate(model, made.inputs(prompts, model.dtype)).logits
        for row, prompt in enumerate(prompts):
            alone = generate(model, made.inputs([prompt], model.dtype)).logits
            close([step[row] for step in batch], [step[0] for step in alone], model)


@pytest.mark.parametrize("place", [0, 2])
def test_a_ceiling_equals_the_hidden_tokens_at_every_step(place: int) -> None:
    made, model = tiny("llava")
    prompts = [made.prompt(3, 2), made.prompt(4, 1)]
    inputs = made.inputs(prompts, model.dtype)
    with prune(model, plan(Own(), place, keep=1.0)) as session:
        answer = generate(model, inputs)
    kept = [image.kept for image in session.images]
    assert len(set(kept)) > 1
    assert max(kept) < 16
    with masked(model, dropped(session, prompts)):
        close(answer.logits, generate(model, inputs).logits, model)


@pytest.mark.parametrize("told", [True, False], ids=["a mask of ones", "no mask"])
def test_rows_of_one_length_that_keep_different_counts(told: bool) -> None:
    """Nothing was padded, so that no layer is given a mask, and the shorter row has padding all the same."""
    made, model = tiny("llava")
    prompts = [made.prompt(3, 1), made.prompt(4, 1)]
    inputs = made.inputs(prompts, model.dtype)
    assert bool(inputs["attention_mask"].all())
    if not told:
        del inputs["attention_mask"]
    with prune(model, plan(Own(), 2, keep=1.0)) as session:
        answer = generate(model, inputs)
        assert len({image.kept for image in session.images}) > 1
        for row, prompt in enumerate(prompts):
            alone = generate(model, made.inputs([prompt], model.dtype)).logits
            close([step[row] for step in answer.logits], [step[0] for step in alone], model)


def test_a_ceiling_above_a_picture_does_not_leave_it_alone() -> None:
    made, model = tiny("qwen2_5_vl")
    inputs = made.inputs([made.prompt(3, 2)], model.dtype)
    with prune(model, plan(Own(), 0, keep=64)) as session:
        forward(model, inputs)
    assert not any(image.note for image in session.report.images)
    assert session.report.kept < session.report.total
    with prune(model, plan(create("random"), 0, keep=64)) as session:
        forward(model, inputs)
    assert all("fewer than keep=64" in image.note for image in session.report.images)


@pytest.mark.parametrize("place", [0, "tower"])
def test_a_mean_is_shared_by_all_pictures_of_a_call(place: Any) -> None:
    made, model = tiny("qwen3_vl")
    prompts = [made.prompt(3, 2), made.prompt(4, 1)]
    inputs = made.inputs(prompts, model.dtype)
    plain = inputs["pixel_values"][: 4 * prompts[0].tokens[0]]  # the first picture
    plain.mul_(0.01).add_(torch.randn(96, generator=torch.Generator().manual_seed(0), dtype=plain.dtype))
    with prune(model, plan(create("cover"), place, keep=3)) as session:
        answer = generate(model, inputs)
        beams = generate(model, inputs, num_beams=2, num_return_sequences=2)
        same = [image.selection.index.tolist() for image in session.images]
        uncached = generate(model, inputs, use_cache=False)
    report = session.report
    assert (report.kept, report.asked) == (9, 9)
    least, most = min(i.kept for i in report.images), max(i.kept for i in report.images)
    assert least < most
    assert f"{least} to {most} an image" in str(report)
    assert len(beams.sequences) == 4
    assert [image.selection.index.tolist() for image in session.images] == same
    assert torch.equal(uncached.sequences, answer.sequences)


@pytest.mark.parametrize(("kind", "more", "message"), [
    ("ceiling", 20, "selected out of 16|asked for"),
    ("fixed", -1, "12 tokens selected, 13 asked for|tokens selected, 13 asked for"),
    ("mean", 1, "tokens stay of all images, 13 were asked for"),
])  # fmt: skip
def test_what_breaks_its_budget_is_refused(kind: Budget, more: int, message: str) -> None:
    made, model = tiny("llava")
    with pytest.raises(InvalidSelectionError, match=message), prune(model, plan(Own(-1e9, kind, more), 0)):
        forward(model, made.inputs([made.prompt(3, 1)], model.dtype))


def test_a_plan_says_which_kind_it_is() -> None:
    for method in (create("cover"), create("cover", radius=0.5), create("pixelprune"), create("erase")):
        made = PrunePlan((Stage(method, 0.5, method.default_layer),))
        again = PrunePlan.from_json(made.to_json())
        assert again == made
        assert again.stages[0].method.budget == method.budget
        assert made.to_dict()["stages"][0]["budget"] == method.budget
    assert "budget" not in PrunePlan((Stage("random", 0.5),)).to_dict()["stages"][0]
