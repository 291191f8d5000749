"""`vlm-pruner bench` on the embedded model: what it writes, that it repeats itself, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import pytest
from click.testing import Result
from PIL import Image
from tests.support.commands import complaint, run

from vlm_pruner.cli.bench import _budgets
from vlm_pruner.evaluation.results import BenchResults

FEW = ("--methods", "vlm-pruner,random", "--tiny", "--split", "validation", "--jobs", "1")


def bench(*words: object) -> Result:
    return run("bench", *words)


@contextmanager
def telling(told: list[tuple[str, float]]) -> Iterator[Callable[[str, float], None]]:
    yield lambda text, share: told.append((text, share))


def test_results_table_curves_and_times_and_the_same_answers_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    told: list[tuple[str, float]] = []
    monkeypatch.setattr(import_module("vlm_pruner.cli.bench"), "progress", lambda doing: telling(told))
    first = bench(*FEW, "-o", tmp_path / "a" / "r.json")
    assert first.exit_code == 0, first.output
    results = BenchResults.load(tmp_path / "a" / "r.json")
    assert [row.label for row in results.rows()] == ["none", "vlm-pruner", "random"]
    assert results.row("vlm-pruner").mean("layer_average") == 2 / 8 * 576 + 6 / 8 * 64
    assert results.split["name"] == "validation"
    assert results.left_out == []
    assert (tmp_path / "a" / "r.md").read_text() in first.stdout
    assert '"select_ms"' in (tmp_path / "a" / "r.timing.json").read_text()
    with Image.open(tmp_path / "a" / "r.png") as drawn:
        assert drawn.width > 500
    assert told[-2:] == [("timed 1 of 2 times", 0.5), ("timed 2 of 2 times", 1.0)]
    shares = [share for _, share in told[:-2]]
    assert (shares[0], shares[-1], len(set(shares)) > 2) == (0.0, 1.0, True)
    assert shares == sorted(shares)
    second = bench(*FEW, "--repeats", 0, "-o", tmp_path / "b" / "r.json")
    assert second.exit_code == 0, second.output
    both = [json.loads((tmp_path / name / "r.json").read_text()) for name in ("a", "b")]
    assert all(one.pop("about").keys() == {"date", "versions"} for one in both)
    assert both[0] == both[1]
    for name in ("r.answers.jsonl",):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert not (tmp_path / "b" / "r.timing.json").exists()


@pytest.mark.parametrize("tiny", [False, True])
def test_usual_budgets_are_counts_or_the_same_shares(tiny: bool) -> None:
    counts = _budgets(576, tiny, False)
    assert counts == ([64] if tiny else [192, 128, 64, 32])
    assert _budgets(None, tiny, False) == [round(count / 576, 3) for count in counts]
    assert _budgets(576, tiny, True) == _budgets(None, tiny, True) == ([0.1] if tiny else [0.25, 0.15, 0.1])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--equal", "cost"), "--equal is one of nominal, layer-average, flops"),
        (("--keep", "64,many"), "keep='many' is not a number"),
        (("--keep", "600"), "not between 1 and the 576"),
        (("--split", "exam"), "unknown split 'exam'"),
        (("--methods", "vlm-prunr", "--limit", "1"), "did you mean"),
        (("--limit", "1000"), "limit must lie between"),
    ],
)
def test_what_cannot_be_measured_is_one_line(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    result = bench(*words, "-o", tmp_path / "r.json")
    assert message in complaint(result)
    assert not list(tmp_path.iterdir())


def test_ctrl_c_is_one_line_and_keeps_what_was_answered(tmp_path: Path) -> None:
    """From outside, with two processes: Ctrl-C goes to all of them, and each one told of it with a traceback."""
    words = [
        "bench",
        "--methods",
        "random,grid,divprune",
        "--limit",
        "2",
        "--jobs",
        "2",
        "-o",
        str(tmp_path / "r.json"),
    ]
    listen = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # a background job is deaf to it
    code = f"{listen}; from vlm_pruner.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", f"if __name__ == '__main__':\n    {code}", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    answers, deadline = tmp_path / "r.answers.jsonl", time.monotonic() + 240
    while not (answers.exists() and answers.read_text().count("\n") > 2):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)  # as the terminal does
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    (line,) = (line for line in err.splitlines() if line.startswith("error: "))
    assert line.startswith("error: stopped; what was answered is in")
    assert "Traceback" not in err
    assert "KeyboardInterrupt" not in err
    assert out == ""
    assert answers.read_text().count("\n") > 2
