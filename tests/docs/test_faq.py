"""Every answer of the FAQ points to a test that exists or to a measured table."""

from __future__ import annotations

import re

import pytest
from tests.support.pages import ROOT

PAGE = ROOT / "docs" / "faq.md"
ANSWERS = re.findall(r"^### (.+)\n((?:(?!##).*\n?)*)", PAGE.read_text(encoding="utf-8"), re.MULTILINE)


def test_all_questions_are_there():
    assert len(ANSWERS) >= 36
    assert len(re.findall(r"\]\(https://github.com/", PAGE.read_text(encoding="utf-8"))) >= 50


@pytest.mark.parametrize(("question", "answer"), ANSWERS, ids=[question[:50] for question, _ in ANSWERS])
def test_an_answer_can_be_checked(question: str, answer: str):
    shown = re.findall(r"`(tests/[\w/.]+?)(?:::(\w+))?`", answer)
    measured = re.findall(r"\]\(([\w]+\.md)[#)]", answer.partition("*Measured*")[2] + answer.partition("measured]")[2])
    assert shown or "easured" in answer, f"{question} points to nothing"
    for path, test in shown:
        assert (ROOT / path).exists(), path
        assert not test or re.search(rf"^def {test}\(", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE), test
    if not shown:
        pages = [(ROOT / "docs" / page).read_text(encoding="utf-8") for page in measured]
        assert any("<!-- table: " in page for page in pages), f"{question}: no table on {measured}"
