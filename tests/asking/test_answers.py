"""Answers side by side: one that cannot be had does not lose the others, and their numbers are one set."""

from __future__ import annotations

from typing import Any

import pytest
from PIL import Image
from tests.support.checkpoints import checkpoint

from vlm_pruner.asking import Answer, Loaded, Refused, ask, compare, open_model
from vlm_pruner.asking.pages import answers_page
from vlm_pruner.errors import MissingSignalError, PlanError
from vlm_pruner.methods.base import method_class
from vlm_pruner.plan import PrunePlan, Stage

PICTURE = Image.radial_gradient("L").resize((200, 160)).convert("RGB")


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return open_model(str(checkpoint("llava")))


def plan(method: str, keep: int | float, layer: int | None = None) -> PrunePlan:
    return PrunePlan.of(method, keep, layer, num_layers=5)


TRIES = [
    plan("divprune", 8),
    plan("cdpruner", 500),
    Refused("grid 8", PlanError("layer 40 does not exist:\nthe model has 5")),
    PrunePlan((Stage("random", 4, 2),)),
]


def test_a_plan_that_cannot_be_carried_out_stands_beside_the_others(loaded: Loaded) -> None:
    found = compare(loaded, PICTURE, "What is this?", TRIES, max_new_tokens=2)
    assert [type(one) for one in found] == [Answer, Answer, Refused, Refused, Answer]
    assert [one.name for one in found] == ["all tokens", "divprune 8", "cdpruner 500", "grid 8", "random 4"]
    assert found[2].reason == "keep=500 asks for more tokens than an image has: 16 in this llava model"  # type: ignore[union-attr]
    assert "\n" not in found[3].reason  # type: ignore[union-attr]
    page = answers_page(loaded, PICTURE, "What is this?", found, name="cup.png", notes=["a further note"])
    assert page.count("<article") == 4
    assert page.count("not run: ") == 2
    for words in ("keep=500 asks for more tokens", "layer 40 does not exist", "cup.png", "a further note", "Made 20"):
        assert words in page
    assert "torch " in page
    assert "left at the end" in page
    assert page.count("tokens a layer on average") == 2, "of those that were pruned and answered"


def test_alone_it_is_an_error(loaded: Loaded) -> None:
    with pytest.raises(PlanError, match="keep=500"):
        ask(loaded, PICTURE, "What is this?", [plan("cdpruner", 500)], max_new_tokens=2)


def test_whatever_a_method_raises_is_a_reason(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*args: Any) -> Any:
        raise RuntimeError("out of memory\nTraceback")

    monkeypatch.setattr(method_class("grid"), "select_batch", explode)
    found = compare(loaded, PICTURE, "What is this?", [plan("grid", 8), plan("random", 8)], max_new_tokens=2)
    assert found[1].reason == "the model could not answer: out of memory"  # type: ignore[union-attr]
    assert isinstance(found[2], Answer)


def test_the_untouched_model_must_answer(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(**kwargs: Any) -> Any:
        raise MissingSignalError("no")

    monkeypatch.setattr(loaded.model, "generate", explode)
    with pytest.raises(MissingSignalError):
        compare(loaded, PICTURE, "What is this?", [plan("grid", 8)], max_new_tokens=2)


def test_the_report_has_the_times_of_the_table(loaded: Loaded) -> None:
    """The line of the last run stood below the table of the medians, with other numbers."""
    for answer in ask(loaded, PICTURE, "What is this?", [plan("random", 8, 2)], max_new_tokens=3):
        report, times = answer.report, answer.times
        assert (report.prefill_ms, report.selection_ms) == (times.prefill_ms, times.selection_ms)
        assert report.decode_ms_per_token == times.decode_ms_per_token
