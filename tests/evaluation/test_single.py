"""Questions asked one by one: right for every family, and on the disk one by one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.support.checkpoints import checkpoint
from tests.support.vision import needs_torchvision

from vlm_pruner import scenes
from vlm_pruner.asking import open_model
from vlm_pruner.cli.bench import load_setup
from vlm_pruner.cli.opening import Opening
from vlm_pruner.errors import PlanError
from vlm_pruner.evaluation import Setup, build_grid
from vlm_pruner.evaluation.bench import batches_of
from vlm_pruner.evaluation.cells import Cell
from vlm_pruner.evaluation.questions import Asked, ask_all
from vlm_pruner.plan import PrunePlan, Stage


def setup(name: str, dtype: str = "auto") -> Setup:
    return load_setup(str(checkpoint(name)), Opening("cpu", dtype), "test", 1)


@pytest.fixture(scope="module")
def qwen() -> Any:
    return setup("qwen2_5_vl")


def test_families_whose_pictures_can_be_encoded_apart_share_their_prefill() -> None:
    assert not setup("llava").single
    for name in ("paligemma", "deepseek_vl_hybrid", "llava_next"):  # token types, second pixels, sizes
        assert setup(name).single, name


@pytest.mark.parametrize("mark", [pytest.param(0, marks=needs_torchvision)])
def test_every_question_is_a_batch_of_its_own(qwen: Setup, mark: int) -> None:
    batches = batches_of(qwen.questions, qwen.batch)
    assert [len(scene) for batch in batches for scene in batch] == [1] * len(qwen.questions)
    assert len(batches) == len(qwen.questions)


@pytest.mark.parametrize("mark", [pytest.param(0, marks=needs_torchvision)])
def test_answers_are_those_of_the_command_line(qwen: Setup, mark: int) -> None:
    """Places of tokens and M-RoPE are the model's own: the shared prefill would number pictures like text."""
    from vlm_pruner.asking import ask

    loaded = open_model(str(checkpoint("qwen2_5_vl")))
    question = scenes.load_split("test", 1)[0]
    plan = PrunePlan.of("random", 0.25, num_layers=5)
    expected = ask(loaded, question.images[0], question.text, [plan], max_new_tokens=12, runs=1)[1]
    runner = qwen.runner()
    (answer,) = runner.run(Cell("random", 0.25, plan), runner.task([[qwen.questions[0]]]))
    assert (answer.text, answer.kept, answer.flops) == (
        expected.text,
        expected.report.kept,
        expected.report.flops_pruned,
    )
    assert answer.layer_average == expected.report.layer_average


def test_what_a_token_shows_is_looked_up_in_the_plane_of_its_picture() -> None:
    """All is kept: every piece of evidence is. A corner alone: what lies there, and nothing else."""
    from vlm_pruner.engine import ImageRecord
    from vlm_pruner.evaluation.measures import covered
    from vlm_pruner.types import Selection

    single = (q for q in scenes.load_split("test", 1) if len(q.scenes) == 1)
    question = next(q for q in single if any(len(tokens) for tokens in scenes.evidence_tokens(q, (6, 9))))
    asked: Asked = ask_all([question], _Words(), None)[0]
    assert asked.evidence is None
    h, w = 6, 9
    place = torch.cartesian_prod(torch.zeros(1), torch.arange(h).float(), torch.arange(w).float())
    evidence, objects = asked.regions((h, w))  # type: ignore[misc]
    for kept in (torch.arange(h * w), evidence.nonzero().flatten(), (~evidence).nonzero().flatten()):
        choice = Selection(kept)
        record = ImageRecord(0, 0, "image", (1, h, w), place, ((0, 1.0, choice),), (len(kept),), h * w, len(kept), "")
        shown, things = covered(asked, [record])
        assert shown == (1.0 if bool(evidence[kept].any()) else 0.0)
        assert things == pytest.approx(int(objects[kept].sum()) / int(objects.sum()), abs=1e-4)
    unknown = ImageRecord(0, 0, "image", (2, h, w), place, (), (), h * w, h * w, "")
    assert covered(asked, [unknown]) == (None, None)


class _Words:
    chat_template = "{{ messages[0]['content'][-1]['text'] }}"

    def apply_chat_template(self, messages: Any, **options: Any) -> str:
        return str(messages[0]["content"][-1]["text"])


def test_shares_make_the_cells_where_pictures_have_no_fixed_number_of_tokens() -> None:
    grid = build_grid(["none", "random", "blind", "downsample", "v2drop"], [0.5, 0.25], seeds=2, layers=8, tokens=None)
    assert [(cell.label, cell.budget) for cell in grid.cells] == [
        ("none", 1.0), ("random", 0.5), ("random", 0.5), ("random", 0.25), ("random", 0.25), ("v2drop", 0.5),
        ("v2drop", 0.25),
    ]  # fmt: skip
    assert {item["label"] for item in grid.left_out} == {"blind", "downsample"}
    with pytest.raises(PlanError, match="give shares"):
        build_grid(["random"], [64], layers=8, tokens=None)


def test_a_method_without_a_plan_is_a_row_that_says_why() -> None:
    """A model of two layers has no layer 2: one method ended the whole run."""
    grid = build_grid(["none", "vlm-pruner", "random"], [0.5, 0.25], seeds=1, layers=2, tokens=None)
    assert [cell.label for cell in grid.cells] == ["none", "random", "random"]
    assert [(item["label"], item["budget"]) for item in grid.left_out] == [("vlm-pruner", 0.5), ("vlm-pruner", 0.25)]
    assert all("layer 2 does not exist" in item["reason"] for item in grid.left_out)


def test_a_share_is_counted_where_pictures_have_a_number() -> None:
    cells = build_grid(["random"], [0.111, 64], seeds=1, layers=8, tokens=576).cells
    assert [cell.budget for cell in cells] == [64, 64]
    assert cells[0].plan == PrunePlan((Stage("random", 64),))
