"""What happens when a visitor acts; nothing that they enter may raise."""

from __future__ import annotations

import re
from itertools import islice

import pytest
from PIL import Image

from vlm_pruner.asking import open_model
from vlm_pruner.errors import InputError
from vlm_pruner.methods import create
from vlm_pruner.scenes import DEMO_QUESTIONS
from vlm_pruner.web.budgets import Budgets
from vlm_pruner.web.controls import row_of
from vlm_pruner.web.desk import Desk, message_of
from vlm_pruner.web.gallery import gallery
from vlm_pruner.web.service import Service
from vlm_pruner.web.settings import UPLOADED, Choice, Settings

ROWS = row_of([Choice("grid", 11)])


def ask(desk, key="photo-test", question="what is this ?", rows=ROWS, tokens=3, uploaded=None):
    return list(desk.run("ann", key, uploaded, question, rows, tokens))


def test_a_run_fills_the_columns_it_needs_and_empties_the_others(desk):
    first, *_, last = frames = ask(desk)
    assert {number: bool(card) for number, card in first.cards.items()} == {0: True, 1: True, 2: False, 3: False}
    assert all(len(frame.cards) <= 1 for frame in frames[1:])  # a card is sent again only where it changed
    assert last.over
    assert not any(frame.over for frame in frames[:-1])
    assert "Done." in last.status


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"question": ""}, "the question is empty"),
        ({"question": "why " * 1000}, "the question has 4000 characters; at most 2000 are read"),
        ({"key": UPLOADED}, "your picture is no longer here; upload it again"),
        ({"key": "nowhere"}, "there is no picture 'nowhere'"),
        ({"rows": ["unheard-of", 11, "auto"]}, "unknown method 'unheard-of'"),
        ({"rows": ["grid", 11, "deep"]}, "is not a decoder layer"),
    ],
)
def test_entries_that_make_no_sense_end_in_one_message(desk, entry, message):
    last = ask(desk, **entry)[-1]
    assert message in last.alert
    assert last.over
    assert "Traceback" not in last.alert
    assert not desk.jobs.stop("ann")  # nothing is left under way


def test_a_question_that_cannot_be_asked_leaves_the_results_as_they_are(desk):
    for question in ("", "what <image> ?", "why " * 1000):
        (only,) = ask(desk, question=question)
        assert dict(only.cards) == {}
        assert only.status is None
        assert only.alert


def test_what_a_visitor_typed_stays_with_another_picture(desk):
    cat, cup = gallery()["photo-chelsea"], gallery()["photo-coffee"]
    assert desk.asked("Is it a hat?", cat, cup) == "Is it a hat?"
    assert desk.asked(cat.questions[1], cat, cup) == cup.questions[0]
    assert desk.asked(" ", cat, cup) == cup.questions[0]
    assert desk.asked(cat.questions[1], cat, cat) == cat.questions[1]


def test_tokens_are_counted_before_the_question(desk, picture):
    rows = row_of([Choice("grid", 25), Choice("v2drop", 11), Choice("fastv", 11, 0)])
    one, schedule, refused = desk.budgets.notes(picture.image, rows)
    assert '<p class="vp-count">144 of 576<span> tokens</span></p>' in one
    assert "Tokens on a regular grid" in one
    assert "64 of 576" in schedule
    assert "left at the end" in schedule
    assert "fastv cannot prune before the language model" in refused
    assert desk.budgets.notes(picture.image, row_of([]))[0].startswith('<p class="vp-count"></p>')
    plan = desk.service.loaded.plan("v2drop", 0.11)
    told = [frame for frame in ask(desk, rows=row_of([Choice("v2drop", 11)])) if 1 in frame.cards][-1].cards[1]
    assert f"{plan.lengths(576, 4)[-1]} of 576 tokens" in told
    assert f"{plan.lengths(576, 4)[-1]} left at the end" in schedule


def test_what_is_not_known_before_the_question_is_told_as_such(desk, picture, monkeypatch):
    budgets = Budgets(desk.service.loaded, {"cover": create("cover", radius=0.5)})
    assert '"vp-count">≤ 64 of 576<' in budgets.notes(picture.image, row_of([Choice("cover", 11)]))[0]
    assert '"vp-count">64 of 576<' in desk.budgets.notes(picture.image, row_of([Choice("cover", 11)]))[0]
    monkeypatch.setattr(Budgets, "exact", False)
    assert '"vp-count">≈ 144 of 576<' in budgets.notes(picture.image, row_of([Choice("grid", 25)]))[0]


def test_a_layer_that_does_not_exist_is_a_message_in_its_column(desk):
    frames = ask(desk, rows=["grid", 11, "40"])
    assert any("layer 40 does not exist" in card for frame in frames for card in frame.cards.values())
    assert "1 could not answer." in frames[-1].status


def test_an_uploaded_picture_can_be_asked_about(desk, tmp_path):
    Image.new("RGB", (90, 60), "red").save(tmp_path / "red.png")
    uploaded, problem = desk.upload(str(tmp_path / "red.png"))
    assert problem == ""
    assert "Done." in ask(desk, key=UPLOADED, uploaded=uploaded)[-1].status


def test_a_broken_upload_is_a_message(desk, tmp_path):
    (tmp_path / "x.png").write_bytes(b"no")
    assert desk.upload(str(tmp_path / "x.png"))[0] is None
    assert "'x.png' is not a readable image" in desk.upload(str(tmp_path / "x.png"))[1]


def test_stop_ends_the_visitors_run(desk):
    frames = desk.run("ann", "photo-test", None, "what is this ?", ROWS, 400)
    list(islice(frames, 3))
    assert desk.jobs.stop("ann")
    rest = list(frames)
    assert len(rest) < 10
    assert "Stopped." in rest[-1].status
    assert rest[-1].over


def test_a_plain_address_restores_the_first_picture(desk):
    settings, problem = desk.restore({})
    assert (settings.picture, problem) == ("demo", "")
    assert settings.question
    assert settings.choices == Settings().choices


def test_a_link_restores_what_it_names_and_says_what_it_cannot(desk):
    settings, problem = desk.restore({"picture": ["photo-chelsea"], "try": ["grid,20,1"]})
    assert (settings.picture, settings.choices, problem) == ("photo-chelsea", (Choice("grid", 20, 1),), "")
    for key, message in ((UPLOADED, "a link cannot carry an uploaded picture"), ("gone", "there is no picture 'gone'")):
        settings, problem = desk.restore({"picture": [key], "question": ["Why?"]})
        assert (settings.picture, settings.question) == ("demo", "Why?")
        assert message in problem


def test_sharing_tells_link_and_python(desk):
    shared = desk.share("http://127.0.0.1:7860/?old", Settings("demo", "Why?"))
    assert shared.link.startswith("http://127.0.0.1:7860/?picture=demo&question=Why%3F")
    assert "with vp.prune(" in shared.code


def test_an_uploaded_video_is_shown_frame_by_frame(desk, tmp_path):
    frames = [Image.new("RGB", (900, 600), (20 * n, 90, 90)) for n in range(3)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=100)
    uploaded, problem = desk.upload(str(tmp_path / "a.gif"))
    assert problem == ""
    assert uploaded.image.size == (640, 427), "videos of many visitors have to fit in memory"
    parts = pytest.importorskip("vlm_pruner.web.parts", reason="needs the extra `web`")
    told = parts.preview_html(uploaded)
    assert "Your video, 3 frames of 0.3 seconds" in told
    assert "this model takes no videos: 3 frames are asked about" in told
    last = ask(desk, key=UPLOADED, uploaded=uploaded)
    cards = {number: card for frame in last for number, card in frame.cards.items() if card}
    assert 'class="vp-film" data-frames="3"' in cards[1]
    assert desk.budgets.notes(uploaded.image, ROWS)[0].startswith('<p class="vp-count">192 of 1728<')
    assert "192 of 1728 tokens" in cards[1]
    assert "Done." in last[-1].status


def test_a_video_that_cannot_be_read_is_told_without_the_folders_of_the_server(desk, tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"")
    uploaded, problem = desk.upload(str(tmp_path / "a.mp4"))
    assert uploaded is None
    assert str(tmp_path) not in problem
    assert "'a.mp4'" in problem


def test_our_errors_are_told_and_others_are_not(caplog):
    assert message_of(InputError("the question is empty")) == "the question is empty"
    told = message_of(RuntimeError("secret /etc/path"))
    assert "secret" not in told
    assert "secret" in caplog.text


@pytest.mark.parametrize("key", ["demo", "photo-chelsea", UPLOADED])
def test_the_python_lines_run_as_they_are(desk, key, tmp_path, monkeypatch, capsys):
    Image.radial_gradient("L").resize((300, 200)).save(tmp_path / "mine.png")
    monkeypatch.chdir(tmp_path)
    uploaded, _ = desk.upload("mine.png")
    picture = desk.picture(key, uploaded)
    asked = picture.questions[0] if key == "demo" else "what is this ?"
    exec(desk.share("", Settings(key, asked, (Choice("grid", 11, 2),), 2), picture.file).code, {})
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("all tokens: ")
    assert second.startswith("Uniform grid: ")
    assert "64/576 tokens kept" in second
    assert "</s>" not in first + second


def test_the_python_lines_of_the_embedded_model_say_what_the_page_says(capsys):
    desk, question = Desk(Service(open_model())), DEMO_QUESTIONS[0]
    exec(desk.share("", Settings("demo", question[0], (Choice("divprune", 11),))).code, {})
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"all tokens: {question[1]}"
    frames = ask(desk, "demo", question[0], row_of([Choice("divprune", 11)]), tokens=32)
    card = [frame.cards[1] for frame in frames if 1 in frame.cards][-1]
    said = re.search(r'<p class="vp-answer">(.*?)</p>', card)
    assert said is not None
    assert second.startswith(f"DivPrune: {said[1]} ")
