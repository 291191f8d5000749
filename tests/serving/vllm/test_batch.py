"""`--engine vllm`: the rows of a batch job are those of the library with the same plan, killed and resumed or not.

One process a family, as in `test_engine`. Thirteen rows: two pictures in one, a long question, and
every kind of error.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from typing import Any

import pytest

pytest.importorskip("vllm")

FAMILIES = {"llava": 4, "qwen2_vl": 5}
"""Rows that are answered; positions are repacked, and kept (M-RoPE). To Qwen's tokenizer `<image>` is a word."""


@functools.cache
def found(name: str) -> dict[str, Any]:
    words = [sys.executable, "-W", "ignore", "-m", "tests.support.vllm_batch", name]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600, env=dict(os.environ), check=False)
    assert done.returncode == 0, done.stderr[-6000:]
    return dict(json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{"))))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_same_rows_as_the_library(name: str) -> None:
    job = found(name)
    answered = [row for row in job["library"] if row["error"] is None]
    assert len(answered) == FAMILIES[name]
    assert all(0 < row["kept"] < row["total"] for row in answered)
    for ours, library in zip(job["whole"], job["library"], strict=True):
        assert ours == library
    assert job["kept"][0] == job["kept"][1] == sum(row["kept"] for row in answered)
    assert job["total"][0] == job["total"][1]


@pytest.mark.parametrize("name", FAMILIES)
def test_killed_it_goes_on_and_asks_nothing_again(name: str) -> None:
    job = found(name)
    assert job["resumed"] == job["whole"]
    told = job["told"]
    assert told["windows"] == [1, 2, 3], "the first window was answered before"
    assert told["known"][0] > 0, "of the second one the broken rows were"
    assert told["again"] == len(job["whole"]) - 4 - sum(told["known"])
