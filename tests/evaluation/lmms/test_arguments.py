"""Arguments of the lmms-eval model, answers on the disk, and the table: all that needs no lmms-eval."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.support.checkpoints import checkpoint
from tests.support.commands import complaint, run
from tests.support.lmms import evaluated, needs_no_lmms_eval
from tests.support.vision import needs_torchvision

from vlm_pruner.asking import Loaded, open_model
from vlm_pruner.cli.evaluate import _tasks
from vlm_pruner.cli.evaluate_recipe import chosen
from vlm_pruner.errors import InputError, PlanError
from vlm_pruner.evaluation.cells import build_grid
from vlm_pruner.evaluation.lmms import run as run_module
from vlm_pruner.evaluation.lmms.answers import Answers, Reply, key_of
from vlm_pruner.evaluation.lmms.arguments import open_with, sampling_of, treatment
from vlm_pruner.evaluation.lmms.retention import hard_score, report, retention
from vlm_pruner.evaluation.lmms.run import Evaluated, cells_of
from vlm_pruner.evaluation.lmms.suites import SUITES, numbers_of, published_row, score_of, tasks_of
from vlm_pruner.plan import PrunePlan
from vlm_pruner.video import Sampling


@pytest.fixture(scope="module")
def embedded() -> Loaded:
    return open_model()


def test_every_knob_means_what_it_means_elsewhere(embedded: Loaded, tmp_path: Path) -> None:
    assert treatment(embedded).plan == PrunePlan.of("none", num_layers=8)
    made = treatment(embedded, method="random", keep="64", layer="3", params={"seed": 2})
    assert made.plan == PrunePlan.of("random", 64, 3, num_layers=8, seed=2)
    assert treatment(embedded, method="grid", keep="0.25").plan == PrunePlan.of("grid", 0.25, num_layers=8)
    (tmp_path / "mine.json").write_text(made.plan.to_json())
    assert treatment(embedded, plan=str(tmp_path / "mine.json")).plan == made.plan


def test_down_sampling_is_what_bench_measures(embedded: Loaded) -> None:
    made = treatment(embedded, method="downsample", keep=64)
    (cell,) = build_grid(["downsample"], [64], layers=8, tokens=576).cells
    assert (made.plan, made.detail, made.tokens) == (cell.plan, cell.small_picture, 576)
    image = Image.linear_gradient("L").convert("RGB")
    assert made.apply(image).size == image.size
    assert made.apply(image).tobytes() != image.tobytes()


@pytest.mark.parametrize("mark", [pytest.param(0, marks=needs_torchvision)])
def test_where_pictures_have_any_size_a_smaller_picture_is_the_yardstick(mark: int) -> None:
    qwen = open_model(str(checkpoint("qwen2_5_vl")))
    made = treatment(qwen, method="downsample", keep="0.25")
    assert made.apply(Image.new("RGB", (80, 40))).size == (40, 20)
    cells, left_out = cells_of(qwen, {"vlm-pruner": "vlm-pruner", "scope": "scope"}, [0.5])
    assert [cell.label for cell in cells] == ["none", "random", "grid", "vlm-pruner", "scope", "downsample"]
    assert left_out == []
    with pytest.raises(PlanError, match="give a share"):
        treatment(qwen, method="downsample", keep=64)
    small = open_with(str(checkpoint("qwen2_5_vl")), max_pixels="1024", device="cpu")
    assert small.processor.image_processor.size["longest_edge"] == 1024


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "vlm-prunr", "keep": 64}, "did you mean 'vlm-pruner'"),
        ({"method": "random", "keep": 64, "params": {"sede": 1}}, "unknown model argument 'sede'; did you mean 'seed'"),
        ({"params": {"metod": "random"}}, "unknown model argument 'metod'; did you mean 'method'"),
        ({"method": "random"}, "how many tokens should random keep"),
        ({"method": "downsample"}, "how many tokens should downsample leave"),
        ({"method": "random", "keep": "some"}, "keep='some'"),
        ({"plan": "none.json"}, "cannot read the plan 'none.json'"),
        ({"plan": "p.json", "method": "random"}, "leave method, keep and layer out"),
        ({"method": "random", "keep": 64, "layer": 99}, "layer 99 does not exist"),
    ],
)
def test_what_is_not_known_is_refused(arguments: dict[str, Any], message: str, embedded: Loaded) -> None:
    with pytest.raises((InputError, PlanError)) as caught:
        treatment(embedded, **arguments)
    assert message in str(caught.value)


def test_a_resolution_that_a_processor_does_not_have_is_refused() -> None:
    with pytest.raises(InputError, match="has no min_pixels and max_pixels"):
        open_with("embedded", max_pixels=1000, device="cpu")


REPLY = Reply("yes", 10, 2, 576, 64, 64.0, 4.0, 1.0, 3.5, 0.5, 0.1)


def test_answers_survive_a_kill_at_any_byte(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    kept = Answers(path)
    for name in ("a", "b", "c"):
        kept.put(name, REPLY)
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        again = Answers(path)
        there = [name for name in ("a", "b", "c") if again.get(name)]
        assert there == ["a", "b", "c"][: len(there)]
        again.put("d", REPLY)
        assert Answers(path).get("d") == REPLY
    assert key_of("a", {"x": 1, "y": 2}) == key_of("a", {"y": 2, "x": 1}) != key_of("a", {"x": 1})


FULL = evaluated("none", 576, [1, 1, 1, 0])


def test_sums_are_taken_over_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    def gather(parts: list[Any], mine: Any) -> None:
        parts[:] = [mine, ({"kept": 2.0, "seconds": 0.5}, 3)]

    mine = {"kept": 4.0, "seconds": 1.0}
    assert run_module._together(mine, 5) == (mine, 5)
    for name, value in (("is_available", True), ("is_initialized", True), ("get_world_size", 2)):
        monkeypatch.setattr(run_module.dist, name, lambda value=value: value)
    monkeypatch.setattr(run_module.dist, "all_gather_object", gather)
    assert run_module._together(mine, 5) == ({"kept": 6.0, "seconds": 1.5}, 8)


def test_retention_is_the_mean_of_the_ratios() -> None:
    found = retention(evaluated("x", 64, [1, 0, 1, 0], 900.0), FULL)
    assert found.value == pytest.approx((0.5 / 0.75 + 0.5) / 2)
    assert found.low != found.low  # one task without single samples: no interval
    both = [Evaluated(**{**one.__dict__, "scores": {"gqa": one.scores["gqa"]}}) for one in (FULL,)]
    one = Evaluated(**{**FULL.__dict__, "scores": {"gqa": 0.5}, "samples": {"gqa": [1.0, 0.0, 1.0, 0.0]}})
    paired = retention(one, both[0])
    assert paired.low <= paired.value <= paired.high <= 1.0
    assert retention(both[0], both[0]).low == retention(both[0], both[0]).high == 1.0


def test_hard_samples_are_those_that_down_sampling_gets_wrong() -> None:
    small = evaluated("downsample", 64, [1, 0, 0, 0])
    assert hard_score(evaluated("x", 64, [0, 1, 1, 0]), small) == (2 / 3, 3)
    assert hard_score(FULL, evaluated("downsample", 64, [1, 1, 1, 1])) is None


def test_the_report_has_a_block_a_budget_and_says_what_did_not_run() -> None:
    cells = [FULL, evaluated("x", 64, [1, 0, 1, 0]), evaluated("x", 32, [0, 0, 1, 0])]
    text = report("m", cells, ["gqa", "mme"], [{"label": "y", "budget": 64, "reason": "no CLS"}])
    assert text.count("## keep") == 2
    assert "| x | 50.00 | 1800.00 | 83.33 |" in text
    assert "**y** at 64: no CLS" in text
    assert "published" not in text


def test_published_rows_stand_beside_their_own_models_alone() -> None:
    assert published_row("llava-hf/llava-1.5-7b-hf", "vlm-pruner", 64) == 95.61
    assert published_row("/models/llava-1.5-13b-hf/", "divprune", 64) == 90.2
    assert published_row("llava-hf/llava-v1.6-vicuna-7b-hf", "vlm-pruner", 0.111) == 91.6
    assert published_row("llava-hf/llava-1.5-7b-hf", "vlm-pruner", 32) is None
    assert published_row("Qwen/Qwen3-VL-8B-Instruct", "vlm-pruner", 64) is None


def test_frames_of_videos_are_said_as_numbers_or_texts() -> None:
    assert sampling_of(None, None) == Sampling()
    assert sampling_of("0.5", None) == Sampling(fps=0.5)
    assert sampling_of(None, 8) == Sampling(frames=8)
    for fps, frames in (("many", None), (None, "eight"), (1, 8), (None, 0)):
        with pytest.raises(InputError):
            sampling_of(fps, frames)


def test_suites_and_the_number_of_a_task() -> None:
    assert len(tasks_of("paper")) == 9
    assert set(SUITES) == {"paper", "ocr", "grounding", "hallucination", "paper-video", "video"}
    assert set(tasks_of("paper-video")) < set(tasks_of("video"))
    with pytest.raises(InputError, match="did you mean 'paper'"):
        tasks_of("papper")
    found = {"alias": "mme", "mme_perception_score,none": 1400.0, "mme_cognition_score,none": 350, "x_stderr,none": 3}
    assert score_of("mme", numbers_of(found)) == ("mme_perception_score+mme_cognition_score", 1750.0)
    assert score_of("new", {"first": 0.5, "second": 1.0}) == ("first", 0.5)
    with pytest.raises(InputError, match="gave no number"):
        score_of("mmbench_en_dev", {})


def test_tasks_are_named_or_those_of_a_suite(tmp_path: Path) -> None:
    assert _tasks("gqa, mme", "", tmp_path, tmp_path / "out", None) == (["gqa", "mme"], tmp_path)
    assert _tasks("", "paper", None, tmp_path / "out", None) == (tasks_of("paper"), None)
    named, folder = _tasks("gqa,scenes", "", None, tmp_path / "out", 28)
    assert (named, folder) == (["gqa", "vlm_pruner_scenes"], tmp_path / "out" / "scenes")


def test_a_recipe_has_a_cell_for_each_budget_named_after_its_habits(embedded: Loaded) -> None:
    for official, label in (("", "vlm-pruner"), ("rounding,early-stop", "vlm-pruner (rounding, early-stop)")):
        steps = chosen("llava-1.5-7b", official)
        assert steps is not None
        cells = steps.cells(embedded)
        assert [cell.budget for cell in cells] == list(steps.recipe.keep)
        assert {(cell.label, cell.how.label) for cell in cells} == {(label, label)}


def test_the_entry_point_is_declared() -> None:
    text = (Path(__file__).parents[3] / "pyproject.toml").read_text()
    assert '[project.entry-points."lmms_eval.models"]\nvlm_pruner = "vlm_pruner.evaluation.lmms:manifests"' in text
    published = Path(__file__).parents[3] / "src/vlm_pruner/evaluation/lmms/published.json"
    assert json.loads(published.read_text())["source"].startswith("arXiv:2512.02700")


@needs_no_lmms_eval
def test_without_lmms_eval_the_command_names_the_extra(tmp_path: Path) -> None:
    assert "pip install 'vlm-pruner[eval]'" in complaint(run("eval", "--tasks", "scenes", "-o", tmp_path / "e"))
