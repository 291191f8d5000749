"""`vlm-pruner check` on checkpoints: what it prints, and its exit code."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.support.checkpoints import checkpoint
from tests.support.commands import complaint, run
from tests.support.vision import needs_torchvision

from vlm_pruner.engine import choose
from vlm_pruner.engine.rows import gather_rows

FAMILIES: list[Any] = ["gemma3", *(pytest.param(name, marks=needs_torchvision) for name in ("qwen2_5_vl", "qwen3_5"))]
"""Checkpoint folders that are checked; another family joins by its name in `tests.support.checkpoints`."""


@pytest.fixture(scope="module")
def cup(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "cup.png"
    Image.radial_gradient("L").resize((200, 160)).convert("RGB").save(path)
    return path


def checked(name: str, cup: Path, *words: object) -> Any:
    return run("check", checkpoint(name), cup, "--new-tokens", 3, "--dtype", "float32", *words)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_every_promise_is_kept_on_a_checkpoint(name: str, attention: str, cup: Path) -> None:
    result = checked(name, cup, "--attn", attention, "--json")
    assert result.exit_code == 0, (result.output, result.exception)
    found = json.loads(result.stdout)
    assert found["kept"] is True
    assert [check["kept"] for check in found["checks"]] == [True] * 5
    assert (found["family"], found["attention"], found["dtype"], found["device"]) == (name, attention, "float32", "cpu")
    assert (found["model"], found["image"], found["new_tokens"]) == (checkpoint(name).name, "cup.png", 3)
    assert {"transformers", "torch", "vlm-pruner", "python"} <= found["versions"].keys()
    assert str(checkpoint(name).parent) not in json.dumps(found), "folders of this machine are nobody's business"


def _wrong_rows(rows: Any, index: Any) -> Any:
    return gather_rows(rows, index).roll(1, 1)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_broken_engine_ends_with_exit_code_1(name: str, cup: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "gather_rows", _wrong_rows)
    result = checked(name, cup, "--layer", 2)
    assert result.exit_code == 1, result.output
    assert " NO" in result.stdout
    assert "a promise is broken" in result.stdout
    assert json.loads(checked(name, cup, "--json").stdout)["kept"] is False


def test_the_table_says_what_was_checked_where_and_how(cup: Path) -> None:
    result = checked("gemma3", cup, "--method", "divprune", "--keep", "0.5", "--layer", 2)
    assert result.exit_code == 0, result.output
    text = " ".join(result.stdout.split())
    for part in (
        "keep=1.0 changes no bit 0 0 yes", "rows of a padded batch", "the model is left as it was 0 0 yes",
        "random, before the language model", "divprune, layer 2, merging left out", "keep 0.5, before layer 2",
        "sdpa attention, float32 on cpu", "transformers 5.", "every promise that can be checked on this model is kept",
    ):  # fmt: skip
        assert part in text, part


def test_a_finished_plan_is_checked_at_its_own_layers(cup: Path, tmp_path: Path) -> None:
    stages = [{"method": "grid", "keep": 9}, {"method": "random", "keep": 4, "params": {"seed": 3}, "layer": 2}]
    plan = {"version": 1, "stages": stages, "min_visual_tokens": 100}  # small pictures are pruned all the same
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    result = checked("gemma3", cup, "--plan", tmp_path / "plan.json", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["method"], found["keep"], found["places"]) == ("random", 4, [0, 2])
    assert found["checks"][2]["promise"].endswith("random, layer 0, 2, merging left out")
    assert found["checks"][2]["kept"] is True


def test_before_the_tower_it_says_what_is_not_checked(cup: Path) -> None:
    result = checked("gemma3", cup, "--method", "divprune", "--keep", "0.5", "--layer", "tower")
    assert result.exit_code == 0, result.output
    text = " ".join(result.stdout.split())
    for part in (
        "keep=1.0 changes no bit 0 0 yes", "- 0 not run",
        "dropped patches hidden: not checked on this model: there is no", "keep 0.5, before the vision tower;",
        "every promise that can be checked on this model is kept",
    ):  # fmt: skip
        assert part in text, part


def test_repacked_positions_are_refused(cup: Path, tmp_path: Path) -> None:
    plan = {"version": 1, "stages": [{"method": "grid", "keep": 4}], "positions": "repacked"}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    assert "cannot be checked: the full model has only its original positions" in complaint(
        checked("gemma3", cup, "--plan", tmp_path / "plan.json")
    )


def test_the_embedded_model_is_checked_in_seconds() -> None:
    """On a free machine 20 are enough, with all imports; seconds of this process do not depend on others."""
    before = time.process_time()
    result = run("check")
    assert result.exit_code == 0, (result.output, result.exception)
    assert "embedded: llava, 8 decoder layers" in result.stdout
    assert time.process_time() - before < 20
