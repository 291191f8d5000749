"""transformers' tests under a pruner: what counts as passed, and which files are taken."""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from benchmarks import upstream_tests
from benchmarks.common import Report
from benchmarks.upstream_plugin import _reason
from benchmarks.upstream_tests import compare, take_tests


def outcome(kind: str, said: str = "", prefills: int = 1) -> dict[str, Any]:
    return {"outcome": kind, "seconds": 1.0, "models": 2, "prefills": prefills, "said": said}


def compared(alone: dict[str, Any], pruned: dict[str, Any], quick: bool = False) -> Report:
    report = Report("upstream_tests", argparse.Namespace(quick=quick, out=None), torch.device("cpu"))
    compare(report, "llava", alone, pruned)
    return report


def test_what_passes_both_ways_is_counted_and_the_others_are_listed() -> None:
    alone = {"a": outcome("passed"), "b": outcome("skipped", "no quanto"), "c": outcome("failed", "no network")}
    report = compared(alone, alone | {"c": outcome("passed")})
    row, *others = report.rows
    assert report.broken == []
    assert (row["tests"], row["passed"], row["skipped_by_transformers"], row["fail_without_pruner"]) == (3, 1, 1, 1)
    assert [(r["name"], r["outcome"], r["reason"]) for r in others] == [
        ("llava: b", "skipped", "no quanto"),
        ("llava: c", "fails without pruner", "no network"),
    ]


def test_what_only_a_pruner_breaks_needs_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = {"a": outcome("passed")}, {"a": outcome("failed", "logits differ")}
    assert compared(*runs).broken == ["llava: a: logits differ"]
    monkeypatch.setitem(upstream_tests.NOT_APPLICABLE, "a", "reads dropped tokens")
    report = compared(*runs)
    assert report.broken == []
    assert report.rows[1]["reason"] == "reads dropped tokens"
    assert report.rows[0]["not_applicable"] == 1


def test_a_run_in_which_no_pruner_saw_an_image_is_worth_nothing() -> None:
    runs = {"a": outcome("passed", prefills=0)}, {"a": outcome("passed", prefills=0)}
    assert compared(*runs).broken == ["llava: no test ever reached a pruner"]
    assert compared({"a": outcome("passed")}, {}, quick=True).broken == [
        "llava: the two runs collected different tests"
    ]


def test_reasons() -> None:
    assert _reason(("file.py", 3, "Skipped: needs a GPU")) == "needs a GPU"
    assert _reason("def test():\n    x\nE   ValueError: first\nE   more\nfile.py:3: ValueError") == "ValueError: first"


@pytest.mark.parametrize("bare", [False, True])
def test_files_come_from_a_working_tree_or_from_a_git_directory(tmp_path: Path, bare: bool) -> None:
    source, folder = tmp_path / "source", tmp_path / "folder"
    for name, text in {
        "tests/test_a.py": "a = 1\n",
        "utils/u.py": "",
        "conftest.py": "",
        "pyproject.toml": "",
        "src/transformers/__init__.py": '__version__ = "5.0.0"\n',
    }.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(text)
    options = argparse.Namespace(checkout=source, revision="HEAD")
    if bare:
        git = ["git", "-C", str(source), "-c", "user.name=t", "-c", "user.email=t@t"]
        for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "all"]):
            subprocess.run([*git, *command], check=True)
        options.checkout = source / ".git"
    folder.mkdir()
    assert take_tests(options, folder) == "5.0.0"
    assert (folder / "tests" / "test_a.py").read_text() == "a = 1\n"
    assert (folder / "src" / "transformers").resolve() == Path(transformers.__file__).parent.resolve()


def test_a_command_that_fails_says_why() -> None:
    with pytest.raises(SystemExit, match="git no-such-verb failed"):
        upstream_tests.run("git", "no-such-verb")
