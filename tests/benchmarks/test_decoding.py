"""The comparison of ways of decoding: it counts what differs, and refuses its figures then."""

from __future__ import annotations

import argparse
from collections import Counter
from typing import Any

import pytest
import torch
from benchmarks import decoding
from benchmarks.common import Report

from vlm_pruner.methods import registry

NAMES = ("refused", "choices", "other choices", "words", "other words")


@pytest.fixture(autouse=True)
def _gradients() -> Any:
    with torch.no_grad():
        yield


def made() -> tuple[Report, dict[str, Counter[tuple[str, str]]]]:
    options = argparse.Namespace(quick=True, out=None)
    return Report("decoding", options, torch.device("cpu")), {name: Counter() for name in NAMES}


@pytest.mark.parametrize("number", range(3))
def test_a_method_that_reads_no_question_chooses_alike_on_every_model(number: int) -> None:
    report, counts = made()
    decoding.compare(report, decoding.small_shapes()[number], ["divprune"], range(1), counts)
    decoding.rows(report, counts, ["divprune"], 1.0, quick=True)
    assert report.broken == []
    assert report.rows[-1]["comparisons"] == len(decoding.WAYS) + len(decoding.SAME_WORDS)
    assert report.rows[-1]["differing"] == 0


def test_other_choices_and_other_words_are_counted_and_break_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    def told(model: Any, inputs: Any, method: str, options: dict[str, Any]) -> tuple[decoding.Choice, list[int]]:
        order = [2, 1] if options.get("num_beams") else [1, 2]  # the same tokens in another order
        return [(2, [1, 2], order)], [3, 4 if options.get("use_cache", True) else 5]

    monkeypatch.setattr(decoding, "decode", told)
    report, counts = made()
    decoding.compare(report, decoding.small_shapes()[0], ["random"], range(2), counts)
    decoding.rows(report, counts, ["random"], 1.0, quick=True)
    by_name = {row["name"]: row for row in report.rows}
    assert (by_name["beams"]["other_choices"], by_name["no cache"]["other_words"]) == (2, 2)
    assert (by_name["samples"]["other_choices"], by_name["all"]["differing"]) == (0, 4)
    assert [line.partition(":")[0] for line in report.broken] == ["beams", "no cache"]
    assert "2 of 2 choices" in report.broken[0]
    with pytest.raises(SystemExit, match="no figures"):
        report.finish()


def test_a_full_run_compares_two_thousand_choices() -> None:
    report, counts = made()
    for method in registry():
        counts["choices"][method, "beams"] = 1
    decoding.rows(report, counts, list(registry()), 1.0, quick=False)
    assert report.broken == [f"{len(registry())} choices were compared, fewer than 2,000"]


def test_the_end_of_a_prompt_says_its_start_again() -> None:
    for spec in decoding.small_shapes():
        ids = decoding.prompt(spec, 0)["input_ids"][0]
        assert ids[-4:].tolist() == ids[:4].tolist() == ids[-8:-4].tolist()
