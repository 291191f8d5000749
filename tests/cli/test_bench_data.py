"""`vlm-pruner bench --data`: own questions, killed and resumed, on pictures of a fixed and of any number of tokens."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.support.checkpoints import checkpoint
from tests.support.commands import complaint, run
from tests.support.own import own_data
from tests.support.vision import needs_torchvision

from vlm_pruner.evaluation.results import BenchResults

MAIN = """
from tests.support.vision import prepare
prepare()
from vlm_pruner.cli import main
if __name__ == "__main__":
    main()
"""


def start(*words: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", MAIN, "bench", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def whole_lines(path: Path) -> list[str]:
    return path.read_text().splitlines()[1:] if path.exists() else []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "keep"),
    [("embedded", "0.25"), pytest.param("qwen2_5_vl", "0.25", marks=needs_torchvision)],
)
def test_sixty_own_questions_killed_and_resumed_give_the_same_bytes(model: str, keep: str, tmp_path: Path) -> None:
    name = model if model == "embedded" else str(checkpoint(model))
    data = own_data(tmp_path, 60)
    words = ("--data", data, "--model", name, "--methods", "random,grid,scope", "--seeds", 1, "--keep", keep)
    words += ("--jobs", 1, "--repeats", 0, "--max-new-tokens", 4)
    for folder in ("killed", "whole"):
        (tmp_path / folder).mkdir()
    answers, deadline = tmp_path / "killed" / "r.answers.jsonl", time.monotonic() + 240
    process = start(*words, "-o", tmp_path / "killed" / "r.json")
    while len(whole_lines(answers)) < 3:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "killed" / "r.json").exists()
    before = whole_lines(answers)
    for folder in ("killed", "whole"):
        out, err = (again := start(*words, "-o", tmp_path / folder / "r.json")).communicate(timeout=500)
        assert again.returncode == 0, err
        assert "questions about 30 pictures of questions.jsonl" in out
    assert len(before) >= 3
    for ending in ("r.answers.jsonl", "r.md"):
        assert (tmp_path / "killed" / ending).read_bytes() == (tmp_path / "whole" / ending).read_bytes()
    both = [json.loads((tmp_path / folder / "r.json").read_text()) for folder in ("killed", "whole")]
    assert all(one.pop("about") for one in both)
    assert both[0] == both[1]
    results = BenchResults.load(tmp_path / "whole" / "r.json")
    assert set(results.types) == {"photo", "page"}
    labels = [row.label for row in results.rows()]
    assert labels == ["none", "random", "grid", *(["scope"] if model == "embedded" else [])]
    if model != "embedded":
        (item,) = results.left_out
        assert item["label"] == "scope"
        assert "needs VISION_FEATURES" in item["reason"]
    rows = [json.loads(line) for line in whole_lines(tmp_path / "whole" / "r.answers.jsonl")]
    asked = [answer["question"] for answer in rows[0]["answers"]]
    assert len(asked) == len(set(asked)) == 60


def test_no_answer_is_computed_twice(tmp_path: Path) -> None:
    """What an earlier run has answered stands in the file before the next one starts: nothing is appended then."""
    data = own_data(tmp_path, 4)
    words = ("bench", "--data", data, "--methods", "grid", "--keep", "64", "--jobs", 1, "--repeats", 0)
    words += ("-o", tmp_path / "r.json", "--match", "anls")
    first = run(*words)
    assert first.exit_code == 0, first.output
    answers = tmp_path / "r.answers.jsonl"
    marked = answers.read_text().replace('"text":"', '"text":"seen ')
    answers.write_text(marked)
    assert run(*words).exit_code == 0
    assert answers.read_text() == marked
    other = run(*words, "--max-new-tokens", 2)  # other answers, and none of them there
    assert other.exit_code == 0
    assert answers.read_text().startswith(marked.splitlines()[0])
    assert len(whole_lines(answers)) == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--match", "soft"), "unknown matching 'soft'"),
        (("--model", "embeded"), "did you mean 'embedded'"),
        (("--data", "none.jsonl"), "no file of questions at"),
    ],
)
def test_what_cannot_be_asked_is_one_line(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    data = own_data(tmp_path, 2)
    result = run("bench", "--data", data, "-o", tmp_path / "out" / "r.json", *words)
    assert message in complaint(result)
