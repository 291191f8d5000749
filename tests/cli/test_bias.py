"""`--bias log-mass`: every command that makes its own plan passes it on, and what cannot be is one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from PIL import Image
from tests.support.commands import complaint, run
from tests.support.tiny import checkpoint

from vlm_pruner.cli import app
from vlm_pruner.plan import PrunePlan

BIAS = ("--bias", "log-mass")
FEW = ("--max-new-tokens", 2)
Words = tuple[object, ...]
COMMANDS: dict[str, tuple[Words, Words]] = {
    "ask": (("cup.png", "what is this ?", "--model", checkpoint()), FEW),
    "report": (("cup.png", "what is this ?", "--model", checkpoint()), ("--methods", "vlm-pruner", *FEW)),
    "check": ((checkpoint(), "cup.png"), ("--new-tokens", 2)),
    "profile": ((checkpoint(),), ("--repeats", 1, "--new-tokens", 2)),
    "batch": (("rows.jsonl", "--model", checkpoint()), ("--workers", 0, *FEW)),
    "bench": (("--model", checkpoint(), "--methods", "vlm-pruner,random", "--tiny"), ("--jobs", 1, "--repeats", 0)),
    "tune": (
        (checkpoint(), "rows.jsonl", "--methods", "vlm-pruner", "--keep", "0.5"),
        ("--max-loss", 0.95, "--confidence", 0.5, *FEW),
    ),
}
"""What is given, and what makes it short."""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two pictures and a question about each."""
    rows = [{"image": name, "question": "what is this ?"} for name in ("cup.png", "saucer.png")]
    for width, row in zip((300, 400), rows, strict=True):
        Image.radial_gradient("L").resize((width, 200)).convert("RGB").save(tmp_path / row["image"])
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[PrunePlan]:
    """Every plan that is made of a method and a budget."""
    found: list[PrunePlan] = []
    original = PrunePlan.of.__func__  # type: ignore[attr-defined]

    def remember(cls: Any, method: Any, *args: Any, **kwargs: Any) -> PrunePlan:
        plan: PrunePlan = original(cls, method, *args, **kwargs)
        found.extend([] if isinstance(method, PrunePlan) else [plan])
        return plan

    monkeypatch.setattr(PrunePlan, "of", classmethod(remember))
    return found


def test_every_command_with_a_budget_and_a_place_takes_it() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    options = {name: {word for p in command.params for word in p.opts} for name, command in commands.items()}
    assert {name for name, known in options.items() if "--bias" in known} == {*COMMANDS, "serve"}
    assert {name for name, known in options.items() if known & {"--layer", "--layers"}} <= {*COMMANDS, "serve"}


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("command", COMMANDS)
def test_it_is_in_the_plan(command: str, made: list[PrunePlan]) -> None:
    given, short = COMMANDS[command]
    result = run(command, *given, *short, *BIAS)
    assert result.exit_code == 0, (result.output, result.exception)
    merging = [stage for plan in made for stage in plan.stages if stage.method.name == "vlm-pruner"]
    assert merging
    assert all(stage.bias == "log-mass" for stage in merging)
    assert not any(stage.bias for plan in made for stage in plan.stages if stage.method.name == "none")


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("command", COMMANDS)
def test_what_cannot_be_is_told_before_a_model_is_opened(command: str) -> None:
    given, _ = COMMANDS[command]
    assert complaint(run(command, *given, "--bias", "mass")).startswith("unknown bias 'mass'; did you mean 'log-mass'?")


def test_beside_a_plan_it_is_refused(here: Path) -> None:
    (here / "plan.json").write_text(json.dumps({"version": 1, "stages": [{"method": "grid", "keep": 9}]}))
    for command in ("ask", "check", "profile"):
        given, _ = COMMANDS[command]
        assert complaint(run(command, *given, "--plan", "plan.json", *BIAS)).endswith("leave out --bias")


@pytest.mark.usefixtures("here")
def test_nothing_is_merged_before_the_tower() -> None:
    given, _ = COMMANDS["ask"]
    said = "nothing is merged before the vision tower; leave bias out"
    assert complaint(run("ask", *given, "--layer", "tower", *BIAS)).endswith(said)


@pytest.mark.usefixtures("here")
def test_check_leaves_it_out_with_the_merging_and_says_so() -> None:
    given, short = COMMANDS["check"]
    found = json.loads(run("check", *given, *short, *BIAS, "--json").stdout)
    assert found["kept"] is True
    assert found["checks"][2]["promise"].endswith("merging and its bias left out")


def test_another_bias_is_another_job(here: Path) -> None:
    given, short = COMMANDS["batch"]
    assert run("batch", *given, *short).exit_code == 0
    assert run("batch", *given, *short, *BIAS).exit_code == 0
    record = json.loads((here / "answers.summary.json").read_text())
    assert record["job"]["pruning"]["bias"] == "log-mass", "what was finished without it was taken for its answers"
