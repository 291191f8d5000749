"""Answers compared by name: what each matching takes for the same, and how far apart edits put two answers."""

from __future__ import annotations

import pytest

from vlm_pruner.errors import InputError
from vlm_pruner.evaluation.matching import MATCHES, anls, exact, match_named, normalised, plain_words


@pytest.mark.parametrize(
    ("answer", "accepted", "exactly", "as_vqa", "by_edits"),
    [
        ("red", ["red"], 1, 1, 1),
        (" Red. ", ["red"], 0, 1, 0.75),  # one edit of four letters
        ("Red", ["blue", "Red"], 1, 1, 1),
        ("the two dogs", ["2 dogs"], 0, 1, 0),
        ("Two", ["2"], 0, 1, 0),
        ("1,000", ["1000"], 0, 1, 0.8),
        ("3.5", ["35"], 0, 0, 2 / 3),
        ("don't know", ["dont know"], 0, 1, 0.9),
        ("black-and-white", ["black and white"], 0, 1, 13 / 15),
        ("invoice 4711", ["invoice 4712"], 0, 0, 11 / 12),
        ("abcd", ["abxy"], 0, 0, 0.5),  # half is enough
        ("abcd", ["axyz"], 0, 0, 0),  # less counts nothing
        ("", ["no"], 0, 0, 0),
    ],
)
def test_the_three_matchings(answer: str, accepted: list[str], exactly: float, as_vqa: float, by_edits: float) -> None:
    assert exact(answer, accepted) == exactly
    assert normalised(answer, accepted) == as_vqa
    assert anls(answer, accepted) == pytest.approx(by_edits)


def test_plain_words_drop_articles_and_marks_alone() -> None:
    assert plain_words("A Man, the cat; an owl!") == "man cat owl"
    assert plain_words("v1.2 is out.") == "v1.2 is out"
    assert plain_words("theater") == "theater"


def test_a_matching_that_is_not_there_is_refused_with_the_names() -> None:
    assert match_named("anls") is MATCHES["anls"]
    with pytest.raises(InputError, match=r"unknown matching 'anl'; did you mean 'anls'\?"):
        match_named("anl")
