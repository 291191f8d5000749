"""Progress where nobody watches, terminals that cannot show everything, and the shipped picture beside a folder."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.support import checkpoints
from tests.support.commands import complaint, run
from tests.support.slowly import the_rest_slowly
from tests.support.tiny import checkpoint

from vlm_pruner.cli import console


def test_off_a_terminal_progress_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "EVERY", 0.05)
    with console.progress("loading x") as say:
        time.sleep(0.12)
        say("12 of 40 answers", 0.3)
        time.sleep(0.12)
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first == "loading x, 0 s"
    assert last == "12 of 40 answers, 30% done, 0 s"


def test_after_a_minute_it_is_said_how_long_the_rest_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    pace = console._Pace()
    assert pace.left(0.5) == ""  # half of it is there from an earlier run
    for second, share, said in (
        (59, 0.55, ""), (60, 0.6, ", about 4 min left"), (80, 0.9, ", about 20 s left"), (90, 1.0, ""),
        (100, 0.2, ""), (150, 0.3, ""), (160, 0.4, ", about 3 min left"),
    ):  # fmt: skip
        now[0] = second
        assert pace.left(share) == said, second


@pytest.mark.parametrize(("second", "said"), [(89, ", about 89 s left"), (90, ", about 2 min left")])
def test_from_a_minute_and_a_half_on_what_is_left_is_said_in_minutes(
    second: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    pace = console._Pace()
    pace.left(0.5)
    now[0] = second
    assert pace.left(0.75) == said  # as long as it took until now


def test_a_quick_step_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert console.EVERY == 10.0
    with console.progress("loading x") as say:
        say("done", 1.0)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("encoding", the_rest_slowly(["latin-1", "ascii", "utf-8"], ["latin-1", "ascii"]))
def test_output_in_terminals_that_cannot_show_everything(encoding: str, tmp_path: Path) -> None:
    """A quotation mark of the table ended `ask` in a UnicodeEncodeError."""
    environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    words = [
        "ask",
        "demo",
        "what is “this” ?",
        "--model",
        str(checkpoint()),
        "--max-new-tokens",
        "2",
        "--method",
        "random",
    ]
    code = "import sys; from tests.support.vision import prepare; prepare(); from vlm_pruner.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *words], env=environment, capture_output=True, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    assert "left at the end" in done.stdout.decode(encoding)


def test_json_in_a_terminal_that_cannot_show_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    for encoding in ("latin-1", "utf-8"):
        written = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        monkeypatch.setattr(sys, "stdout", written)
        console.print_json({"text": "“\udcff”" if encoding == "utf-8" else "“word”"})
        written.flush()
        text = written.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
        assert json.loads(text)["text"][0] == "“"


def test_a_folder_called_demo_does_not_hide_the_shipped_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "demo").mkdir()
    monkeypatch.chdir(tmp_path)
    result = run("ask", "demo", "what ?", "--model", checkpoint(), "--max-new-tokens", 2, "--method", "random")
    assert result.exit_code == 0, result.output


def test_one_token_is_said_to_be_one() -> None:
    words = ["what ?", "--model", checkpoint(), "--max-new-tokens", 2]
    one = run("ask", "demo", *words, "--method", "random", "--keep", "1")
    assert "keep 1 keeps 1 token of 576; all of them is 1.0" in one.stderr
    every = run("ask", "demo", *words, "--method", "random", "--keep", "1.0")
    assert "keeps 1 token" not in every.stderr


def test_ask_prints_one_set_of_numbers_and_both_counts() -> None:
    words = ["what ?", "--model", checkpoint(), "--max-new-tokens", 2, "--method", "v2drop", "--keep", "64"]
    out = run("ask", "demo", *words).stdout
    rows = {line[:26].strip(): line[26:].split() for line in out.splitlines() if line[:1].isalpha()}
    assert rows["visual tokens asked for"] == ["576", "64"]
    assert rows["left at the end"][1] != "64/576"
    assert rows["per layer, mean"][0] == "576.0"
    assert "tokens kept" not in out
    assert out.count("prefill, ms") == 1


def test_a_picture_that_was_left_alone_is_named() -> None:
    words = ["what ?", "--model", checkpoints.checkpoint("gemma3"), "--max-new-tokens", 2, "--method", "random"]
    for keep, said in (("0.5", False), ("17", True)):
        result = run("ask", "demo", *words, "--keep", keep)
        if said and result.exit_code == 2:
            assert "17 asks for more tokens" in result.stderr  # a family of fixed pictures says it beforehand
        else:
            assert ("left alone" in result.stdout) is said
    assert "no image in the prompt: nothing to prune" in run("ask", "none", *words, "--keep", "0.5").stdout


def test_json_says_when_with_what_and_about_which_picture() -> None:
    words = ["what ?", "--model", checkpoint(), "--max-new-tokens", 2, "--method", "random", "--json"]
    data = json.loads(run("ask", "demo", *words).stdout)
    assert data["image"] == "demo"
    assert data["versions"].keys() == {"vlm_pruner", "torch", "transformers"}
    assert data["date"].startswith("20")
    assert [answer["asked"] for answer in data["answers"]] == [576, 64]
    assert data["answers"][1]["report"]["layer_average"] == data["answers"][1]["layer_average"] == 64


def test_kernels_that_torch_cannot_compile_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor.exc import CppCompileError

    from vlm_pruner import asking

    def fails(*args: object, **kwargs: object) -> None:
        raise CppCompileError(["g++", "main.cpp"], "main.cpp: error\nmany lines")

    monkeypatch.setattr(asking, "ask", fails)
    said = complaint(run("ask", "demo", "What is it?"))
    assert said == "torch cannot compile this model's kernels on this machine (CppCompileError): choose another --attn"
