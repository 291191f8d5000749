"""The launcher against a stand-in of VLMEvalKit: its dict of models, its `run.py`, and how it asks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vlm_pruner.asking import ask, open_model
from vlm_pruner.errors import InputError
from vlm_pruner.evaluation.vlmevalkit import NAME, PrunedHF, main, register
from vlm_pruner.plan import PrunePlan
from vlm_pruner.scenes import load_split

RUN = """
import argparse
from vlmeval.config import supported_VLM

def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model")
    parser.add_argument("--data")
    args = parser.parse_args()
    model = supported_VLM[args.model]()
    model.set_dump_image(lambda line: [line])
    assert not getattr(model, "is_api", False) and not model.use_custom_prompt(args.data)
    message = [dict(type="image", value=args.data), dict(type="text", value="What is the word?")]
    print("ANSWER", model.generate(message=message, dataset=args.data))
    print("KEPT", model.report.kept)
"""


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    """A folder as a checkout of VLMEvalKit has it, as far as the launcher is concerned."""
    (tmp_path / "vlmeval").mkdir()
    (tmp_path / "vlmeval" / "__init__.py").write_text("")
    (tmp_path / "vlmeval" / "config.py").write_text("supported_VLM = {'other': None}\n")
    (tmp_path / "run.py").write_text(RUN)
    return tmp_path


def launch(kit: Path, *words: str) -> Any:
    command = [sys.executable, "-m", "vlm_pruner.evaluation.vlmevalkit", *words]
    return subprocess.run(command, cwd=kit, capture_output=True, text=True, timeout=300, env=_environment())


def _environment() -> dict[str, str]:
    import os

    import vlm_pruner

    return dict(os.environ) | {"PYTHONPATH": str(Path(vlm_pruner.__file__).parents[1])}


def test_it_runs_what_the_checkout_runs(kit: Path) -> None:
    question = next(q for q in load_split("test", 1) if q.type == "word")
    question.images[0].save(kit / "word.png")
    done = launch(kit, "--method", "vlm-pruner", "--keep", "64", "--", "--data", "word.png")
    assert done.returncode == 0, done.stderr
    plan = PrunePlan.of("vlm-pruner", 64, num_layers=8)
    expected = ask(open_model(), question.images[0], "What is the word?", [plan], runs=1)[1].text
    assert done.stdout.splitlines()[-2:] == [f"ANSWER {expected}", "KEPT 64"]


def test_refusals_are_one_line(kit: Path) -> None:
    done = launch(kit, "--method", "vlm-prunr", "--keep", "64", "--", "--data", "word.png")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: unknown method 'vlm-prunr'")
    assert "Traceback" not in done.stderr


def test_outside_a_checkout_it_says_where_to_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--method", "grid"]) == 2
    assert "clone github.com/open-compass/VLMEvalKit" in capsys.readouterr().err


def test_one_entry_is_added_and_nothing_is_loaded_before_it_is_asked_for() -> None:
    registry: dict[str, Any] = {"other": 1}
    register(registry, pretrained="no such model")
    assert set(registry) == {"other", NAME}
    with pytest.raises(InputError, match="no model"):
        registry[NAME]()


def test_messages_of_other_kinds_are_refused(tmp_path: Path) -> None:
    model = PrunedHF(method="grid", keep=64, max_new_tokens=3)
    assert isinstance(model.generate("Is there a cat?"), str)
    with pytest.raises(InputError, match="not 'video'"):
        model.generate([{"type": "video", "value": "v.mp4"}])
    with pytest.raises(InputError, match="set_dump_image first"):
        model.dump_image("line", "MMBench")
