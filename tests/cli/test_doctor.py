"""`vlm-pruner doctor`: what would keep a vLLM server from pruning."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
from tests.support.commands import complaint, run
from tests.support.tiny import checkpoint

from vlm_pruner.models.embedded import embedded_folder


def test_without_vllm_it_says_so() -> None:
    if find_spec("vllm") is not None:
        pytest.skip("vLLM is installed")
    result = run("doctor")
    assert result.exit_code == 1
    assert "vLLM is not installed: pip install vllm" in result.stdout


def test_an_architecture_and_a_plan() -> None:
    result = run("doctor", "--model", checkpoint(), "--hf-overrides", '{"vlm_pruner": {"keep": 0.25}}')
    assert "LlavaForConditionalGeneration is pruned" in result.stdout
    assert " can be had" in result.stdout
    result = run(
        "doctor", "--model", embedded_folder(), "--hf-overrides", '{"vlm_pruner": {"keep": 9, "method": "dart"}}'
    )
    assert result.exit_code == 1
    assert "reads the question" in result.stdout


def test_a_plugin_that_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_PLUGINS", "another")
    assert "leaves the plugin out" in run("doctor").stdout


@pytest.mark.parametrize("words", ["{", "[]", '{"other": 1}'])
def test_what_is_no_override_is_one_line(words: str) -> None:
    assert "is JSON with a key 'vlm_pruner'" in complaint(run("doctor", "--hf-overrides", words))
