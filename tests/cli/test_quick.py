"""What is said before torch is read, in processor time: help, lists, and paths at which nothing lies."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOADED = """
import json, sys
from vlm_pruner.cli import app
try:
    app(sys.argv[1:])
except SystemExit as end:
    code = end.code
heavy = [name for name in ("torch", "transformers", "numba", "gradio") if name in sys.modules]
print(json.dumps([code, heavy]), file=sys.stderr)
"""
SLACK = 3  # a machine that is busy or slow takes longer for the same


def timed(*words: str) -> tuple[float, subprocess.CompletedProcess[str]]:
    """Seconds of processor time that the command took, its children's included, and what it said."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", LOADED, *words], cwd=ROOT, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done


@pytest.mark.parametrize(
    ("words", "seconds", "said"),
    [
        ("--help", 0.3, ""),
        ("methods", 1.5, ""),
        ("methods --json", 1.5, ""),
        ("ask nope.png what", 1.0, "no image at 'nope.png'"),
        ("ask nope.mkv what", 1.0, "no video at 'nope.mkv'"),
        ("report nope.png what", 1.0, "no image at 'nope.png'"),
        ("check embedded nope.png", 1.0, "no image at 'nope.png'"),
        ("profile --image nope.png", 1.0, "no image at 'nope.png'"),
        ("batch nope.jsonl", 1.0, "no folder or file of questions at 'nope.jsonl'"),
        ("bench --data nope.jsonl", 1.0, "no file of questions at 'nope.jsonl'"),
        ("tune embedded nope", 1.0, "no folder of pictures at 'nope'"),
        ("tune embedded tests --questions nope.txt", 1.0, "no file of questions at 'nope.txt'"),
        ("eval --plan nope.json", 1.0, "no plan at 'nope.json'"),
        ("serve --plan nope.json", 1.0, "no plan at 'nope.json'"),
        ("demo --methods-from nope.py", 1.0, "no file of methods at 'nope.py'"),
        ("ask demo what --device-map all", 1.0, "unknown device map 'all'"),
    ],
)
def test_it_is_said_before_torch_is_read(words: str, seconds: float, said: str) -> None:
    spent, done = timed(*words.split())
    code, heavy = json.loads(done.stderr.splitlines()[-1])
    assert heavy == []
    assert code == (2 if said else 0)
    assert said in done.stderr
    assert spent < SLACK * seconds


def test_lists_have_one_row_a_line_whatever_the_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    _, done = timed("methods")
    lines = done.stdout.splitlines()
    _, data = timed("methods", "--json")
    known = json.loads(data.stdout)
    assert [line.split()[0] for line in lines[1:-1]] == [row["name"] for row in known]
    assert len({line.index("  " + row["title"]) for line, row in zip(lines[1:], known, strict=False)}) == 1
    assert all(row["summary"] in line for line, row in zip(lines[1:], known, strict=False))
    (text,) = (line for line in lines if line.startswith("text-attention "))
    assert "layer 12 of 32  " in text
    (pyramid,) = (line for line in lines if line.startswith("pyramiddrop "))
    assert "layer 8 of 32 on" in pyramid


def test_good_methods_come_first() -> None:
    _, data = timed("methods", "--json")
    accuracy = [row["accuracy"] for row in json.loads(data.stdout)]
    measured = [value for value in accuracy if value is not None]
    assert len(measured) > 20
    assert measured == sorted(measured, reverse=True)
    assert accuracy == [*measured, *[None] * (len(accuracy) - len(measured))]
