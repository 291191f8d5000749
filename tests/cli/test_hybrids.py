"""Commands on a hybrid decoder that attends in every fourth layer only, as published Qwen3.5 does.

VLM-Pruner's own layer has no keys before it there: every command takes the next that has, and says so.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.support.checkpoints import checkpoint
from tests.support.commands import complaint, run
from tests.support.vision import needs_torchvision

from vlm_pruner.evaluation import BenchResults

pytestmark = needs_torchvision

TYPES = ["linear_attention"] * 3 + ["full_attention", "linear_attention"]
BEHIND = 4  # the layer behind the only one that attends


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint with its attention elsewhere; what no longer fits is drawn anew when it is loaded."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    folder = tmp_path_factory.mktemp("hybrid") / "model"
    shutil.copytree(checkpoint("qwen3_5"), folder)
    config = AutoConfig.from_pretrained(folder)
    config.text_config.layer_types = TYPES
    torch.manual_seed(0)
    made = AutoModelForImageTextToText.from_config(config)
    made.generation_config = AutoModelForImageTextToText.from_pretrained(checkpoint("qwen3_5")).generation_config
    made.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def cup(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "cup.png"
    Image.radial_gradient("L").resize((200, 160)).convert("RGB").save(path)
    return path


def layers(plan: Any) -> list[int | None]:
    return [stage["layer"] for stage in plan["stages"]]


def test_ask_and_check_take_the_next_layer_with_keys(model: Path, cup: Path) -> None:
    words = ("--model", model, "--keep", "0.5", "--max-new-tokens", 2, "--json")
    result = run("ask", cup, "What is this?", *words)
    assert result.exit_code == 0, (result.output, result.exception)
    assert layers(json.loads(result.stdout)["answers"][1]["report"]["plan"]) == [BEHIND]
    checked = run("check", model, cup, "--new-tokens", 2, "--dtype", "float32", "--json")
    assert checked.exit_code == 0, (checked.output, checked.exception)
    assert json.loads(checked.stdout)["places"] == [BEHIND]


def test_the_layer_that_is_asked_for_is_refused(model: Path, cup: Path) -> None:
    result = run("ask", cup, "What is this?", "--model", model, "--keep", "0.5", "--layer", 2)
    assert "vlm-pruner cannot prune at layer 2" in complaint(result)
    assert "attends to nothing; layers with keys stand before 4" in complaint(result)


def test_report_bench_and_tune_take_it_too(model: Path, cup: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    words = ("--model", model, "--keep", "0.5")
    result = run("report", cup, "What?", *words, "--methods", "vlm-pruner,fastv", "-o", page, "--max-new-tokens", 2)
    assert result.exit_code == 0, (result.output, result.exception)
    assert "not run" not in result.stdout
    few = ("--limit", 1, "--repeats", 0, "--jobs", 1, "--seeds", 1)
    result = run("bench", *words, "--methods", "vlm-pruner,fastv", *few, "-o", tmp_path / "bench.json")
    assert result.exit_code == 0, (result.output, result.exception)
    results = BenchResults.load(tmp_path / "bench.json")
    assert not results.left_out
    total = results.row("none").mean("layer_average")
    half = results.row("vlm-pruner").mean("layer_average")
    assert half == pytest.approx(total * (4 + 0.5) / 5, rel=0.02), "four of five layers see every token"
    (tmp_path / "pictures").mkdir()
    for i in range(6):
        shutil.copy(cup, tmp_path / "pictures" / f"{i}.png")
    result = run(
        "tune", model, tmp_path / "pictures", "--methods", "vlm-pruner", "--keep", "0.9,0.5", "--max-loss", 0.5,
        "--max-new-tokens", 2, "-o", tmp_path / "plan.json",
    )  # fmt: skip
    assert result.exit_code == 0, (result.output, result.exception)
    explored = json.loads((tmp_path / "plan.tuning.json").read_text())["explored"]
    assert [layers(row["plan"]) for row in explored] == [[BEHIND], [BEHIND]]
