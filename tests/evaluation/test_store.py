from __future__ import annotations

from pathlib import Path

import pytest

from vlm_pruner.errors import PlanError
from vlm_pruner.evaluation.store import Answer, AnswerStore


def answer(question: str, text: str = "red") -> Answer:
    return Answer(question, text, text == "red", 64, 64.0, 10**9, 0.5, 0.25, 0.125)


def test_answers_come_back(tmp_path: Path) -> None:
    store = AnswerStore(tmp_path / "a.jsonl")
    store.append("cell", [answer("q1"), answer("q2", "blau")])
    again = AnswerStore(tmp_path / "a.jsonl")
    assert again["cell"]["q2"] == answer("q2", "blau")
    assert again.has("cell", ["q1", "q2"])
    assert not again.has("cell", ["q1", "q3"])
    assert not again.has("other", ["q1"])


@pytest.mark.parametrize("cut", [1, 20, 200])
def test_a_torn_line_is_cut_off_as_a_whole_and_the_rest_survives(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "a.jsonl"
    store = AnswerStore(path)
    store.append("cell", [answer("q1"), answer("q2")])
    whole = path.read_bytes()
    store.append("cell", [answer("q3"), answer("q4")])
    path.write_bytes(path.read_bytes()[:-cut])
    again = AnswerStore(path)
    assert path.read_bytes() == whole
    assert list(again["cell"]) == ["q1", "q2"]
    again.append("cell", [answer("q3")])
    assert AnswerStore(path).has("cell", ["q1", "q2", "q3"])


def test_a_kill_before_the_first_line_is_complete_starts_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"vlm_prun')
    AnswerStore(path).append("cell", [answer("q1")])
    assert AnswerStore(path).has("cell", ["q1"])


def test_compact_gives_the_same_bytes_whatever_the_order(tmp_path: Path) -> None:
    one, two = AnswerStore(tmp_path / "one"), AnswerStore(tmp_path / "two")
    one.append("a", [answer("q1")])
    one.append("a", [answer("q2")])
    one.append("b", [answer("q1"), answer("q2")])
    two.append("b", [answer("q2"), answer("q1")])
    two.append("a", [answer("q2"), answer("q1")])
    for store in (one, two):
        store.compact(["a", "b"], ["q1", "q2"])
    assert one.path.read_bytes() == two.path.read_bytes()
    assert AnswerStore(one.path)["b"]["q2"] == answer("q2")


def test_compact_drops_nothing(tmp_path: Path) -> None:
    store = AnswerStore(tmp_path / "a")
    store.append("later", [answer("q9")])
    store.append("a", [answer("q1")])
    store.compact(["a"], ["q1"])
    assert AnswerStore(store.path).has("later", ["q9"])


@pytest.mark.parametrize("line", [b"{}\n", b"broken\n", b'{"vlm_pruner_answers":1}\nbroken\n'])
def test_a_file_that_is_not_ours_is_refused_and_left_alone(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(line)
    with pytest.raises(PlanError, match="no record of answers"):
        AnswerStore(path)
    assert path.read_bytes() == line
