"""Training logs become one file, and the file says what a training cost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks.training import RESULT, draw, gather, lines_of, stages_table, write

from vlm_pruner.models.embedded.train import video
from vlm_pruner.models.embedded.train.stages import NUMBERS

SHARES = {"flat", "grow", "full_share"}
LOG = [
    {"stage": "few", "from_step": 0, "run": {"seed": 1}},
    {"stage": "few", "step": 10, "seconds": 60.0, "visits": 40, "distinct": 24, "val_presence": 0.5, "val_color": 0.25},
    {"stage": "few", "from_step": 10, "run": {"seed": 1}},
    {
        "stage": "few",
        "step": 20,
        "seconds": 120.0,
        "visits": 80,
        "distinct": 16,
        "val_presence": 0.75,
        "val_color": 0.5,
    },
    {"stage": "all", "from_step": 0, "run": {"seed": 2}},
    {"stage": "all", "step": 5, "seconds": 60.0, "visits": 20, "distinct": 8, "val_presence": 1.0, "val_color": 0.5},
]


@pytest.fixture
def result(tmp_path: Path) -> Path:
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LOG), encoding="utf-8")
    write([tmp_path / "log.jsonl"], tmp_path / "training.json")
    return tmp_path / "training.json"


def test_stages_keep_their_runs_and_figures() -> None:
    few, last = gather(LOG)
    assert few["runs"] == [{"from_step": 0, "seed": 1}, {"from_step": 10, "seed": 1}]
    assert lines_of(few) == [{k: v for k, v in LOG[i].items() if k != "stage"} for i in (1, 3)]
    assert last["runs"] == [{"from_step": 0, "seed": 2}]


def test_the_table_adds_up_time_and_the_images_of_all_runs(result: Path) -> None:
    assert stages_table(result).splitlines()[2:] == [
        "| few | 2 | 20 | 80 | 40 | 62.5 | 50.0 |",
        "| all | 1 | 5 | 20 | 8 | 75.0 | 50.0 |",
        "| together | 3 |  |  |  |  |  |",
    ]


def test_the_curve_is_drawn_the_same_every_time(result: Path, tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        draw(result, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_the_log_of_the_shipped_weights_has_every_stage_of_the_recipe() -> None:
    stages = json.loads(RESULT.read_text(encoding="utf-8"))["stages"]
    assert [stage["stage"] for stage in stages] == list(NUMBERS)
    for stage in stages:
        steps = lines_of(stage)[-1]["step"]
        assert steps == pytest.approx(NUMBERS[stage["stage"]]["steps"], rel=0.005)
        assert all(run["seed"] is not None for run in stage["runs"])
        # Runs had minutes, not steps, so that shares of the budget are others there; the size of a check was not noted.
        same = {name: n for name, n in NUMBERS[stage["stage"]].items() if name not in SHARES | {"steps", "checked"}}
        assert all(run | same == run for run in stage["runs"])


def test_the_video_form_was_trained_with_the_numbers_of_its_recipe() -> None:
    (stage,) = json.loads(RESULT.with_name("training_video.json").read_text(encoding="utf-8"))["stages"]
    first = stage["runs"][0]
    assert first | video.NUMBERS == first
