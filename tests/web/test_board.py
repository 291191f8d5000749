"""What a visitor sees of every event."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from vlm_pruner.asking import Loaded
from vlm_pruner.models import load_embedded
from vlm_pruner.scenes import DEMO_QUESTIONS
from vlm_pruner.web.board import Board, alert
from vlm_pruner.web.gallery import gallery
from vlm_pruner.web.service import Done, Failed, Said, Service, Started, Stopped, Waiting
from vlm_pruner.web.settings import Choice

CHOICES = (Choice("vlm-pruner", 11), Choice("random", 25, 0))


@pytest.fixture(scope="module")
def events(tiny, picture):
    return list(Service(tiny).compare(picture.image, "what is this ?", CHOICES, max_new_tokens=3))


@pytest.fixture
def board(tiny, picture) -> Board:
    return Board(tiny, picture, "what is this ?", CHOICES)


def test_before_anything_happens_all_columns_wait(board):
    assert "Answer 1 of 3: All tokens." in board.status
    for number, title in enumerate(("All tokens", "VLM-Pruner", "Random")):
        assert f"<h3>{title}</h3>" in board.card(number)
        assert 'aria-busy="true"' in board.card(number)


def test_a_whole_comparison(board, events):
    for event in events:
        assert board.apply(event) == event.column
    full, pruned, random = (board.card(number) for number in range(3))
    assert "The whole picture: nothing was pruned" in full
    assert "64 of 576 tokens; arXiv:2512.02700" in pruned
    assert 'aria-label="Tokens that VLM-Pruner keeps: 64 of 576"' in pruned
    assert "144 of 576 tokens" in random
    assert "= all tokens" not in full
    for card in (pruned, random):
        assert card.count("&quot;version&quot;: 1") == 1
        assert "= all tokens" in card or "≠ all tokens" in card
        assert 'aria-busy="false"' in card
    assert "of 2 give the answer of all tokens." in board.status
    assert "<progress" not in board.status


@pytest.mark.parametrize(("said", "same"), [("aaa", 2), ("aab", 1), ("aba", 1), ("abb", 0)])
def test_only_methods_that_say_the_same_agree(board, events, said, same):
    for event in events:
        text = said[event.column]
        board.apply(replace(event, run=replace(event.run, text=text)) if isinstance(event, Done) else event)
    assert f"{same} of 2 give the answer of all tokens." in board.status
    for number in (1, 2):
        assert f"{'=' if said[number] == 'a' else '≠'} all tokens" in board.card(number)


def test_a_bar_is_the_share_of_what_all_tokens_cost(board, events):
    for event in events:
        board.apply(event)
    tokens = re.compile(r'<div style="--share:([\d.]+)%"><dt>left at the end</dt><dd>(\d+)</dd>')
    bars = [tokens.findall(board.card(number)) for number in range(3)]
    assert bars == [[("100.0", "576")], [("11.1", "64")], [("25.0", "144")]]


def unordered(stage):
    layer, keep, selection = stage
    return layer, keep, replace(selection, order=None)


@pytest.mark.parametrize("ordered", [True, False])
def test_a_selection_without_an_order_says_so(board, events, ordered):
    for event in events:
        if isinstance(event, Done) and event.column and not ordered:
            images = [replace(one, stages=(unordered(one.stages[-1]),)) for one in event.run.images]
            event = replace(event, run=replace(event.run, images=images))
        board.apply(event)
    full, *pruned = (board.card(number) for number in range(3))
    remark = "This method chooses all tokens at once, in no order."
    assert [card.count(remark) for card in pruned] == [0 if ordered else 1] * 2
    assert not any("None<" in card or remark in full for card in (full, *pruned))


def test_only_merging_methods_have_a_map_of_it(tiny, picture):
    board = Board(tiny, picture, "what is this ?", [Choice("tome", 25), Choice("grid", 25)])
    for event in Service(tiny).compare(picture.image, "what is this ?", [Choice("tome", 25), Choice("grid", 25)]):
        board.apply(event)
    assert "Where the dropped tokens went" in board.card(1)
    assert "Where the dropped tokens went" not in board.card(2)


def test_words_appear_as_they_come(board):
    board.apply(Started(0))
    assert "vp-thinking" in board.card(0)
    board.apply(Said(0, "a <b>red</b> cup"))
    assert "a &lt;b&gt;red&lt;/b&gt; cup" in board.card(0)


def test_waiting_says_for_how_many(board):
    board.apply(Waiting(0, 2))
    assert "Waiting for 2 answers of other visitors, then: All tokens." in board.status
    board.apply(Waiting(0, 1))
    assert "Waiting for 1 answer of other visitors" in board.status
    board.apply(Started(0))
    assert "Waiting" not in board.status


def test_a_failure_is_a_message_in_its_column_and_counted(board, events):
    for event in events:
        board.apply(Failed(1, "needs <keys>") if event.column == 1 and isinstance(event, Done) else event)
    assert '<p class="vp-alert" role="alert">needs &lt;keys&gt;</p>' in board.card(1)
    assert "1 could not answer." in board.status


def test_stopping_leaves_what_was_done(board, events):
    for event in events:
        if event.column == 0:
            board.apply(event)
    board.apply(Started(1))
    assert board.apply(Stopped()) is None
    assert "Stopped." in board.status
    assert 'data-state="done"' in board.card(0)
    assert 'data-state="stopped"' in board.card(1)
    assert 'data-state="stopped"' in board.card(2)


def test_answers_are_judged_where_the_truth_is_known(tiny, events):
    question, answer = DEMO_QUESTIONS[0]
    board = Board(tiny, gallery()["demo"], question, CHOICES)
    done = [event for event in events if isinstance(event, Done)]
    board.apply(done[0])
    board.apply(Done(1, replace(done[1].run, text=answer)))
    assert f"it is {answer}" in board.card(0)
    assert "✓ right" in board.card(1)
    assert 'class="vp-even">≠ all tokens' in board.card(1), "all tokens say what is wrong"


@pytest.mark.parametrize(
    ("key", "texts", "kinds"),
    [
        ("demo", ("MARCH", "MARCH", "APRIL"), ("same", "other")),
        ("demo", ("JUNE", "JUNE", "MARCH"), ("even", "even")),
        ("photo-chelsea", ("cat", "cat", "dog"), ("even", "even")),
    ],
)
def test_agreement_is_good_only_where_all_tokens_may_be_right(tiny, events, key, texts, kinds):
    small, picture = Loaded("embedded", tiny.model, load_embedded()[1]), gallery()[key]
    board = Board(small, picture, picture.questions[0], CHOICES)
    done = [event for event in events if isinstance(event, Done)]
    for event, text in zip(done, texts, strict=True):
        board.columns[event.column].state, board.columns[event.column].run = "done", replace(event.run, text=text)
    for column, kind in enumerate(kinds, 1):
        assert f'class="vp-{kind}"' in board._verdicts(board.columns[column].run)
    assert ("it guesses" in board.status) is (key != "demo")


def test_all_cards_have_the_same_rows(board, events):
    for event in events:
        board.apply(event)
    cards = [board.card(number) for number in range(3)]
    facts = [re.findall(r"<dt>(.*?)</dt>", card) for card in cards]
    assert facts[0] == facts[1] == facts[2]
    assert "<dt>of it selection, ms</dt><dd>-</dd>" in cards[0]


def test_the_card_of_all_tokens_shows_what_is_cut_off(tiny, events):
    wide = replace(gallery()["demo"], image=gallery()["demo"].image.resize((900, 300)), truths={})
    board = Board(tiny, wide, "what is this ?", CHOICES)
    run = next(event.run for event in events if isinstance(event, Done))
    board.apply(Done(0, run))
    assert "what the model does not see is struck out" in board.card(0)


def test_an_alert_is_said_and_can_be_cleared():
    assert alert("a < b") == '<p class="vp-alert" role="alert">a &lt; b</p>'
    assert alert("") == ""
