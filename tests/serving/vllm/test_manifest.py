"""The manifest of the docs has the parts of a deployment, and starts a server that vLLM and our plan know."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from vlm_pruner.serving.vllm.wanted import KEY, plan_of

DOCS = Path(__file__).parents[3] / "docs"
RUNNER = "VLLM_USE_V2_MODEL_RUNNER"


def deployment() -> dict[str, Any]:
    (manifest,) = re.findall(r"^```yaml\n(.*?)^```$", (DOCS / "serving.md").read_text(encoding="utf-8"), re.M | re.S)
    made: dict[str, Any] = yaml.safe_load(manifest)
    return made


def container() -> dict[str, Any]:
    (only,) = deployment()["spec"]["template"]["spec"]["containers"]
    return dict(only)


def started() -> list[str]:
    """The words behind `vllm serve`, as the container's shell would hand them on."""
    assert container()["command"] == ["sh", "-c"]
    (script,) = container()["args"]
    install, serve = (shlex.split(line) for line in script.split("&&"))
    assert install == ["pip", "install", "--no-deps", "vlm-pruner"]
    assert serve[:2] == ["vllm", "serve"]
    return serve[2:]


def documented() -> list[list[str]]:
    """The words behind every `vllm serve` of the docs' examples."""
    found = []
    for page in sorted(DOCS.glob("*.md")):
        blocks = re.findall(r"^```(?:sh|bash)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)
        lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
        found += [shlex.split(line)[2:] for line in lines if line.startswith("vllm serve ")]
    return found


def test_the_manifest_is_a_deployment() -> None:
    made, pod = deployment(), container()
    assert (made["apiVersion"], made["kind"]) == ("apps/v1", "Deployment")
    assert made["metadata"]["name"]
    assert made["spec"]["selector"]["matchLabels"] == made["spec"]["template"]["metadata"]["labels"]
    assert pod.keys() == {"name", "image", "command", "args", "env", "ports", "readinessProbe", "resources"}
    (port,) = pod["ports"]
    assert pod["readinessProbe"]["httpGet"] == {"path": "/health", "port": port["containerPort"]}
    assert {one["name"]: one["value"] for one in pod["env"]} == {RUNNER: "0"}  # values of env are strings
    assert re.fullmatch(r"vllm/vllm-openai:v0\.3[23]\.\d+", pod["image"])  # that the plugin is made for


def test_what_it_starts_prunes_by_a_plan_that_can_be_had() -> None:
    words = started()
    assert plan_of(json.loads(words[words.index("--hf-overrides") + 1])[KEY], rotary=True) is not None


def test_vllm_takes_every_command_of_the_docs() -> None:
    pytest.importorskip("vllm")
    from vllm import envs
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = make_arg_parser(FlexibleArgumentParser())
    assert documented()
    for words in (started(), *documented()):
        asked = parser.parse_args(words)
        validate_parsed_serve_args(asked)
        assert asked.model_tag == words[0]
        assert plan_of(asked.hf_overrides[KEY], rotary=True) is not None
    assert parser.parse_args(started()).port == container()["ports"][0]["containerPort"]
    assert RUNNER in envs.environment_variables
