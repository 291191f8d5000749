"""Pruned models in vLLM answer as the library does with the same plan: tokens, probabilities and prompt lengths.

Eight families, three settings (chunks of 64 tokens, without and with the prefix cache), two budgets each, two rounds of
five prompts: 480 comparisons. One process a family.
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

from tests.support.served import SERVED
from tests.support.vllm_answers import SETTINGS


@functools.cache
def answers(name: str) -> list[dict[str, Any]]:
    words = [sys.executable, "-W", "ignore", "-m", "tests.support.vllm_answers", name]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600, env=dict(os.environ), check=False)
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert done.returncode == 0, done.stderr[-6000:]
    return found


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", SERVED)
def test_the_same_answers_as_the_library(name: str, setting: str) -> None:
    found = [one for one in answers(name) if one["setting"] == setting]
    assert len(found) == 20
    for one in found:
        ours, library = one["vllm"], one["library"]
        about = (one["case"], one["keep"], one["round"])
        assert ours["length"] == library["length"], about
        assert ours["tokens"] == library["tokens"], about
        assert max(abs(a - b) for a, b in zip(ours["logs"], library["logs"], strict=True)) < 1e-4, about
        assert (library["dropped"] > 0) == (one["case"] != "text" and one["keep"] < 1.0), about
    if setting == "prefix cache":
        assert any(one["cached"] for one in found if one["round"] == 1), "no second round hit the cache"
