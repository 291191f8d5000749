"""`vlm-pruner tune`: a plan file that `prune` takes, and refusals of one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.support.commands import complaint, run
from tests.support.own import own_data

from vlm_pruner.plan import PrunePlan

FEW = ("--methods", "random,divprune", "--keep", "0.9,0.1", "--max-new-tokens", 2)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return own_data(tmp_path_factory.mktemp("own"), 12)


def test_a_plan_a_record_and_a_picture(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    result = run("tune", "embedded", data, *FEW, "--max-loss", 0.5, "-o", tmp_path / "plan.json")
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "plan.tuning.json").read_text())
    plan = PrunePlan.from_json((tmp_path / "plan.json").read_text())
    assert plan == PrunePlan.from_dict(record["recommended"])
    assert record["bound"] <= 0.5
    assert len(record["explored"]) == 4
    assert record["about"]["versions"]
    assert "Recommended: " in result.stdout
    assert (tmp_path / "plan.png").stat().st_size > 5000


def test_a_folder_and_questions_of_a_text_file(data: Path, tmp_path: Path) -> None:
    (tmp_path / "q.txt").write_text("Is there a cat?\n\nWhat is the word?\n")
    words = (*FEW, "--methods", "grid", "--layers", "default,2", "--max-loss", 0.5, "--limit", 6)
    result = run("tune", "embedded", data.parent, "--questions", tmp_path / "q.txt", *words, "-o", tmp_path / "p.json")
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "p.tuning.json").read_text())
    assert {row["pictures"] for row in record["explored"]} == {2}
    assert sorted(row["plan"]["stages"][0]["layer"] or 0 for row in record["explored"]) == [0, 0, 2, 2]


def test_candidates_have_parameters_and_a_plan_is_measured_alone(data: Path, tmp_path: Path) -> None:
    words = ("--max-loss", 0.9, "--limit", 6, "--max-new-tokens", 2)
    own = ("--methods", "vlm-pruner", "--keep", "0.5", "--set", "pivots=9")
    result = run("tune", "embedded", data, *words, *own, "-o", tmp_path / "set.json")
    assert result.exit_code == 0, result.output
    plan = PrunePlan.from_json((tmp_path / "set.json").read_text())
    assert plan.stages[0].method.params()["pivots"] == 9
    result = run("tune", "embedded", data, *words, "--plan", tmp_path / "set.json", "-o", tmp_path / "again.json")
    assert result.exit_code == 0, result.output
    (row,) = json.loads((tmp_path / "again.tuning.json").read_text())["explored"]
    assert PrunePlan.from_dict(row["plan"]) == plan == PrunePlan.from_json((tmp_path / "again.json").read_text())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--plan", __file__, "--keep", "0.5"), "leave out --keep"),
        (("--set", "pivotz=9"), "pivotz"),
        (("--max-loss", "0.01"), "6 pictures cannot show a loss of at most 1.0%"),
        (("--methods", "divprun"), "did you mean 'divprune'"),
        (("--layers", "first"), "--layers has numbers, 'tower' and 'default', not 'first'"),
        (("--layers", "99"), "no candidate can be carried out: layer 99 does not exist"),
        (("--keep", "2.5"), "keep=2.5"),
        (("--questions", __file__), "has the questions already"),
        (("-o", "plan.txt"), "end it with .json"),
    ],
)
def test_what_cannot_be_tuned_is_one_line(words: tuple[str, ...], message: str, data: Path, tmp_path: Path) -> None:
    result = run("tune", "embedded", data, "-o", tmp_path / "p.json", *words)
    assert message in complaint(result)
    assert not list(tmp_path.iterdir())


def test_an_empty_folder_is_one_line(tmp_path: Path) -> None:
    assert "no pictures in the folder" in complaint(run("tune", "embedded", tmp_path, "-o", tmp_path / "o" / "p.json"))
