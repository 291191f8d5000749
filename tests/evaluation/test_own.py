"""Questions of your own: what a line may say, what is refused and how, and how they are asked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.support.bench import made_up_results
from tests.support.own import own_data

from vlm_pruner.errors import InputError
from vlm_pruner.evaluation.bench import Setup
from vlm_pruner.evaluation.own import about_own, ask_own, pictures_in, read_questions
from vlm_pruner.evaluation.questions import Unasked
from vlm_pruner.evaluation.results import CellResult
from vlm_pruner.evaluation.table import markdown, unasked_lines
from vlm_pruner.models import load_embedded


class OnePicture:
    """Of a processor, what refuses two pictures in a prompt."""

    chat_template = "a template"
    tokenizer = type("Words", (), {"bos_token": None, "all_special_tokens": ()})()

    def image_processor(self, images: list[Image.Image], return_tensors: str) -> dict[str, Any]:
        return {}

    def apply_chat_template(self, messages: Any, **options: Any) -> str:
        return str(messages[0]["content"][-1]["text"])

    def __call__(self, text: list[str], return_tensors: str, images: list[Image.Image]) -> dict[str, Any]:
        if len(images) > 1:
            raise ValueError("one picture a prompt")
        return {}


GOOD = {"image": "a.png", "question": "What is it?", "answer": "cup"}


def write(folder: Path, *rows: Any) -> Path:
    for name in ("a", "b"):
        Image.new("RGB", (30, 20), "red" if name == "a" else "blue").save(folder / f"{name}.png")
    path = folder / "q.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return path


def test_a_line_says_what_is_shown_asked_and_right(tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    for number in (10, 9, 1):
        Image.new("RGB", (8, 8)).save(tmp_path / "frames" / f"f{number}.png")
    (tmp_path / "frames" / "notes.txt").write_text("no picture")
    path = write(
        tmp_path,
        GOOD,
        "",
        {"images": ["b.png", "a.png"], "question": "Which?", "answer": ["left", 2], "group": "pairs", "id": "x"},
        {"folder": "frames", "question": "What happens?", "answer": "rain"},
    )
    first, second, third = read_questions(path)
    assert (first.id, first.group, first.answers, first.images) == ("line-1", "all", ("cup",), (tmp_path / "a.png",))
    assert (second.id, second.group, second.answers) == ("x", "pairs", ("left", "2"))
    assert [file.name for file in second.images] == ["b.png", "a.png"]
    assert [file.name for file in third.images] == ["f1.png", "f9.png", "f10.png"]
    assert [one.id for one in read_questions(path, limit=1)] == ["line-1", "x"]


def test_questions_about_more_pictures_than_a_prompt_takes_are_left_out_and_told(tmp_path: Path) -> None:
    model, _ = load_embedded()
    pair = {"images": ["b.png", "a.png"], "question": "Which?", "answer": "left", "group": "pairs"}
    questions = read_questions(write(tmp_path, GOOD, pair, pair | {"question": "Why?"}))
    asked = ask_own(model, OnePicture(), questions)
    reason = "the processor of this model refuses a question with 2 pictures: one picture a prompt"
    setup = Setup.of(model, OnePicture(), asked)
    assert [one.key for one in setup.questions] == ["line-1"]
    assert setup.unasked == [Unasked("pairs", 2, reason)]
    assert unasked_lines([vars(one) for one in setup.unasked]) == [f"left out: 2 questions of pairs: {reason}"]
    with pytest.raises(InputError, match="refuses a question with 2 pictures"):
        Setup.of(model, OnePicture(), asked[1:])
    kept = [replace(one, videos=True) for one in asked]
    assert list(Setup.of(model, OnePicture(), kept).questions) == kept, "frames of a video are no pictures of a prompt"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "line 2: not JSON"),
        ([1], "line 2: not a JSON object"),
        (GOOD | {"anwser": "x"}, "did you mean 'answer'"),
        ({"image": "a.png", "question": "What?"}, "no 'answer'"),
        ({"question": "What?", "answer": "x"}, "one of 'image', 'images', 'folder' and 'video'"),
        (GOOD | {"images": ["b.png"]}, "not two"),
        (GOOD | {"answer": []}, "'answer' is a text or a list of texts"),
        (GOOD | {"answer": [True]}, "'answer' is a text or a list of texts"),
        (GOOD | {"question": " "}, "'question' is a text"),
        (GOOD | {"group": 3}, "'group' is a text, not 3"),
        (GOOD | {"image": ["a.png"]}, "'image' is a name"),
        ({"images": "a.png", "question": "What?", "answer": "x"}, "'images' is a list of names"),
        ({"folder": "none", "question": "What?", "answer": "x"}, "cannot read the folder"),
        (GOOD | {"video": "v.mp4"}, "not two"),
        (GOOD | {"fps": 2}, "'fps' belongs to a line with 'video'"),
        ({"video": "v.mp4", "frames": "x", "question": "What?", "answer": "x"}, "'frames' is a number, not 'x'"),
        ({"video": "v.mp4", "frames": 2.5, "question": "What?", "answer": "x"}, "'frames' is a number, not 2.5"),
        ({"video": "v.mp4", "frames": 2, "fps": 1, "question": "What?", "answer": "x"}, "exclude each other"),
        (GOOD | {"id": "first"}, "was used before"),
    ],
)
def test_a_bad_line_is_refused_with_its_number(row: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"line 2: ") as caught:
        read_questions(write(tmp_path, GOOD | {"id": "first"}, row))
    assert message in str(caught.value)


def test_files_without_questions_and_folders_without_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no questions"):
        read_questions(write(tmp_path, ""))
    with pytest.raises(InputError, match="cannot read questions from"):
        read_questions(tmp_path / "none.jsonl")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no pictures in the folder"):
        pictures_in(tmp_path / "empty")


def test_every_picture_and_question_is_looked_at_before_the_run(tmp_path: Path) -> None:
    model, processor = load_embedded()
    asked = ask_own(model, processor, read_questions(write(tmp_path, GOOD, GOOD | {"image": "b.png"}, GOOD)), "anls")
    assert [one.scene for one in asked] == [0, 1, 0]
    assert [one.score("cups") for one in asked] == [0.75] * 3
    assert asked[0].images[0].getpixel((0, 0)) == (255, 0, 0)
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:60])
    with pytest.raises(InputError, match=r"question 'line-2': .* is not a readable image"):
        ask_own(model, processor, read_questions(tmp_path / "q.jsonl"))
    with pytest.raises(InputError, match=r"question 'line-1': .*placeholder"):
        ask_own(model, processor, read_questions(write(tmp_path, GOOD | {"question": "What is <image>?"})))


def test_the_record_changes_with_whatever_was_asked(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    prints = {about_own(path, read_questions(path), "exact")["fingerprint"]}
    Image.new("RGB", (30, 20), "green").save(tmp_path / "a.png")
    prints.add(about_own(path, read_questions(path), "exact")["fingerprint"])
    for change in ({"answer": "mug"}, {"question": "What?"}, {"group": "g"}):
        changed = write(tmp_path, GOOD | change)
        prints.add(about_own(changed, read_questions(changed), "exact")["fingerprint"])
    assert len(prints) == 5
    assert {len(one) for one in prints} == {16}


def test_the_same_data_twice_is_the_same_record(tmp_path: Path) -> None:
    records = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        path = own_data(tmp_path / name, 8)
        records.append(about_own(path, read_questions(path), "exact"))
    assert records[0] == records[1]


def test_parts_of_an_answer_are_numbers_in_the_results_and_in_the_table() -> None:
    import dataclasses

    assert CellResult.pack([True, 1.0, 0.0]) == CellResult.pack([True, True, False]) == "c0"
    assert CellResult.pack([1.0, 0.75]) == [1.0, 0.75]
    results = made_up_results(4)
    cells = [dataclasses.replace(cell, correct=CellResult.pack([1.0, 0.5, 0.25, 0.25])) for cell in results.cells]
    split = {"name": "q.jsonl", "version": 1, "match": "anls", "fingerprint": "0" * 16}
    graded = dataclasses.replace(results, cells=cells, chance={}, split=split)
    again = type(graded).from_json(json.loads(json.dumps(graded.to_json())))
    assert again.row("none").correct.tolist() == [[1.0, 0.5, 0.25, 0.25]]
    text = markdown(again)
    assert "4 questions about 1 picture of q.jsonl" in text
    assert "answers matched by anls" in text
    assert "chance" not in text
