"""`vlm-pruner profile` from the outside."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support import commands
from tests.support.commands import complaint

QUICK = ("--repeats", "1", "--new-tokens", "2", "--method", "random", "--device", "cpu")


def run(*words: object) -> Any:
    return commands.run("profile", *words)


def test_table_and_plot(tmp_path: Path) -> None:
    plot = tmp_path / "new" / "bars.png"
    result = run("tiny", *QUICK, "--keep", "64,0.5", "--plot", plot)
    assert result.exit_code == 0, result.output
    for part in (
        "576 image + 60 text tokens",
        "keep 64",
        "keep 0.5",
        "ideal by FLOPs",
        "peak memory",
        "pays",
        "bars.png",
    ):
        assert part in result.stdout.replace("\n", ""), part
    assert plot.stat().st_size > 1000


def test_json_is_all_that_is_printed_and_threads_are_restored() -> None:
    before = torch.get_num_threads()
    result = run("tiny", *QUICK, "--layer", 1, "--tokens", 1152, "--threads", before + 1, "--json")
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    assert data["image_tokens"] == [576, 576]
    assert data["machine"]["threads"] == before + 1
    assert [variant["stages"] for variant in data["variants"]] == [[], [[1, 64]]]
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("embeded",), "did you mean 'embedded'"),
        (("tiny", "--tokens", "5"), "5 is no multiple"),
        (("tiny", "--keep", "600"), "576"),
        (("tiny", "--keep", ","), "commas"),
        (("tiny", "--method", "vlm-prune"), "did you mean 'vlm-pruner'"),
        (("tiny", "--layer", "9"), "9"),
        (("tiny", "--device", "quantum"), "quantum"),
    ],
)
def test_bad_input_is_one_line(words: tuple[str, ...], said: str) -> None:
    assert said in complaint(run(*words))


def test_a_plot_that_cannot_be_drawn_is_said_before_the_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = run("nowhere", "--plot", tmp_path / "bars.png")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        "error: plots need matplotlib: pip install 'vlm-pruner[viz]' [vlm-pruner explain backend]\n"
    )
