"""The manifest of the docs is YAML, and what it starts vLLM with is a plan that can be had."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import yaml

from vlm_pruner.serving.vllm.wanted import KEY, plan_of

PAGE = Path(__file__).parents[3] / "docs" / "serving.md"


def test_the_manifest_starts_a_server_that_prunes() -> None:
    (manifest,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    deployment = yaml.safe_load(manifest)
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    words = shlex.split(container["args"][0])
    assert words[words.index("vllm") + 1] == "serve"
    assert plan_of(json.loads(words[words.index("--hf-overrides") + 1])[KEY], rotary=True) is not None
    assert {one["name"]: one["value"] for one in container["env"]} == {"VLLM_USE_V2_MODEL_RUNNER": "0"}
