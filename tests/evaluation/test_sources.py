from __future__ import annotations

from pathlib import Path

from vlm_pruner.evaluation import sources
from vlm_pruner.evaluation.sources import code_hash, imported


def test_imports_of_every_form_are_found(tmp_path: Path) -> None:
    file = tmp_path / "m.py"
    file.write_text(
        "import os\nimport vlm_pruner.plan\nfrom vlm_pruner.ops import grow\nfrom . import near\n"
        "def f():\n    from ..budget import keep_count\n    from vlm_pruner import scenes\n"
    )
    found = set(imported("vlm_pruner.methods.m", file))
    assert {"vlm_pruner.plan", "vlm_pruner.ops", "vlm_pruner.methods.near", "vlm_pruner.budget"} <= found
    assert "vlm_pruner.scenes" in found
    assert not any(name.startswith("os") for name in found)


def test_a_hash_covers_what_answers_and_choices_depend_on() -> None:
    runner, method = (set(sources._closure([f"vlm_pruner.{m}"])) for m in ("evaluation.runner", "methods.vlm_pruner"))
    assert {
        "vlm_pruner.engine.hooks",
        "vlm_pruner.adapters.llava",
        "vlm_pruner.scenes.splits",
        "vlm_pruner.plan",
    } <= runner
    assert {"vlm_pruner.ops.growth.torch", "vlm_pruner.types"} <= method
    assert not {"vlm_pruner.methods.fastv", "vlm_pruner.evaluation.table"} & (runner | method)
    assert code_hash("vlm_pruner.methods.fastv") != code_hash("vlm_pruner.methods.dart")
