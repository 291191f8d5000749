"""The model inside lmms-eval, offline: its own command line, `vlm-pruner eval`, batches, processes, kills, refusals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.support.lmms import needs_lmms_eval

from vlm_pruner.evaluation.results import BenchResults
from vlm_pruner.scenes.motion import FPS
from vlm_pruner.scenes.motion_splits import load_motion_split

pytestmark = needs_lmms_eval

OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
EACH = 2  # questions of every type
TYPES = 14
FEW = ("--tasks", "scenes", "--limit", EACH * TYPES)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return dict(os.environ) | OFFLINE | {"HF_HOME": str(tmp_path_factory.mktemp("hf"))}


def run(home: dict[str, str], *words: object, module: tuple[str, ...] = ("vlm_pruner",)) -> Any:
    command = [sys.executable, "-m", *module, *map(str, words)]
    return subprocess.run(command, env=home, capture_output=True, text=True, timeout=900)


def evaluated(out: Path) -> list[dict[str, Any]]:
    cells = json.loads((out / "eval.json").read_text())["cells"]
    for cell in cells:
        for name in ("prefill_ms", "select_ms", "seconds"):
            cell["means"].pop(name)
    return list(cells)


@pytest.fixture(scope="module")
def whole(home: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three methods at two budgets on questions of every type, one at a time."""
    out = tmp_path_factory.mktemp("whole")
    done = run(home, "eval", *FEW, "--methods", "vlm-pruner,random,grid", "--keep", "128,64", "--hard", "-o", out)
    assert done.returncode == 0, done.stderr
    assert (out / "eval.md").read_text() in done.stdout
    return out


def test_the_scenes_give_the_accuracies_of_bench(home: dict[str, str], whole: Path, tmp_path: Path) -> None:
    words = ("--methods", "none,random,grid,downsample,vlm-pruner", "--keep", "128,64", "--limit", EACH, "--seeds", 1)
    done = run(home, "bench", *words, "--jobs", 1, "--repeats", 0, "-o", tmp_path / "b.json")
    assert done.returncode == 0, done.stderr
    bench = BenchResults.load(tmp_path / "b.json")
    cells = evaluated(whole)
    assert len(cells) == len(bench.rows()) == 9
    for cell in cells:
        row = bench.row(cell["label"], cell["budget"])
        asked: dict[str, list[float]] = {}
        for name, value in zip(bench.types, row.correct[0], strict=True):
            asked.setdefault(name, []).append(float(value))
        assert {len(values) for values in asked.values()} == {EACH}
        (numbers,) = cell["numbers"].values()
        assert numbers == {"accuracy": pytest.approx(row.correct.mean())} | {
            f"accuracy_{name}": pytest.approx(sum(values) / EACH) for name, values in asked.items()
        }
        assert cell["means"]["visual_tokens_after"] == pytest.approx(row.mean("kept") * 15 / 14, abs=0.1)


def test_everything_is_beside_the_scores(whole: Path) -> None:
    record = json.loads((whole / "eval.json").read_text())
    assert {"lmms_eval", "transformers", "torch", "vlm_pruner"} <= record["versions"].keys()
    assert record["resolution"]
    means = {cell["label"]: cell["means"] for cell in record["cells"] if cell["budget"] != 128}
    assert means["vlm-pruner"]["visual_tokens_per_layer"] > means["random"]["visual_tokens_per_layer"]
    assert means["none"]["kv_mib_after"] == means["none"]["kv_mib_before"] > means["random"]["kv_mib_after"] > 0
    assert all(one["prefill_ms"] > 0 for one in means.values())


def test_the_command_line_of_lmms_eval_writes_scores_tokens_and_times(
    home: dict[str, str], whole: Path, tmp_path: Path
) -> None:
    given = "pretrained=embedded,method=vlm-pruner,keep=64"
    words = ("--model", "vlm_pruner", "--model_args", given, "--tasks", "vlm_pruner_scenes", "--batch_size", "4")
    where = ("--include_path", whole / "scenes", "--output_path", tmp_path, "--log_samples")
    done = run(home, *words, *where, module=("lmms_eval",))
    (path,) = tmp_path.rglob("*_results.json")
    record = json.loads(path.read_text())
    (cell,) = [c for c in evaluated(whole) if (c["label"], c["budget"]) == ("vlm-pruner", 64)]
    assert record["results"]["vlm_pruner_scenes"]["accuracy,none"] == cell["scores"]["vlm_pruner_scenes"], done.stderr
    assert record["throughput"]["avg_visual_tokens_before"] == pytest.approx(576 * 15 / 14)
    assert record["throughput"]["avg_visual_tokens_after"] == pytest.approx(64 * 15 / 14)
    assert record["throughput"]["avg_prefill_ms"] > 0
    speed = record["throughput"]["total_gen_tokens"] / record["throughput"]["total_elapsed_time"]
    assert record["throughput"]["avg_speed"] == pytest.approx(speed, rel=1e-3)


def test_batches_and_processes_change_nothing(home: dict[str, str], whole: Path, tmp_path: Path) -> None:
    words = ("eval", *FEW, "--methods", "vlm-pruner", "--keep", 64, "--no-yardsticks")
    batch = run(home, *words, "--batch-size", 4, "-o", tmp_path / "four")
    assert batch.returncode == 0, batch.stderr
    two = ("torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29671", "-m", "vlm_pruner")
    both = run(home, *words, "-o", tmp_path / "two", module=two)
    assert both.returncode == 0, both.stderr
    expected = [c for c in evaluated(whole) if c["label"] == "none" or (c["label"], c["budget"]) == ("vlm-pruner", 64)]
    for name in ("four", "two"):
        for one, other in zip(evaluated(tmp_path / name), expected, strict=True):
            assert (one["scores"], one["samples"]) == (other["scores"], other["samples"]), name
    lines = [(out / "answers.jsonl").read_text().splitlines() for out in (tmp_path / "two", tmp_path / "four")]
    assert len({json.loads(line)[0] for line in lines[0] if line}) == 2 * EACH * TYPES  # of both processes


def test_a_killed_run_goes_on_and_asks_nothing_twice(home: dict[str, str], whole: Path, tmp_path: Path) -> None:
    words = [*map(str, ("eval", *FEW, "--methods", "grid", "--keep", 64, "--no-yardsticks", "-o", tmp_path))]
    process = subprocess.Popen([sys.executable, "-m", "vlm_pruner", *words], env=home, start_new_session=True)
    answers, deadline = tmp_path / "answers.jsonl", time.monotonic() + 300
    while not (answers.exists() and answers.read_bytes().count(b"\n") >= 3):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "eval.json").exists()
    done = run(home, *words)
    assert done.returncode == 0, done.stderr
    keys = [json.loads(line)[0] for line in answers.read_text().splitlines() if line.endswith("]")]
    assert len(keys) == len(set(keys)) == 2 * EACH * TYPES
    expected = [c for c in evaluated(whole) if c["label"] in ("none", "grid") and c["budget"] != 128]
    assert evaluated(tmp_path) == expected


def test_a_recipe_stands_for_budgets_and_plans(home: dict[str, str], whole: Path, tmp_path: Path) -> None:
    """One command per row: its own model cannot be had here, so that another one is named."""
    words = ("eval", "--recipe", "llava-1.5-13b", "--model", "embedded", *FEW, "--no-yardsticks", "-o", tmp_path)
    done = run(home, *words, "--official", "rounding,early-stop")
    assert done.returncode == 0, done.stderr
    full, official = evaluated(tmp_path)
    assert official["label"] == "vlm-pruner (rounding, early-stop)"
    assert official["plan"]["stages"][0]["params"]["rounding"] == "round"
    expected = next(c for c in evaluated(whole) if (c["label"], c["budget"]) == ("vlm-pruner", 64))
    assert official["scores"] == expected["scores"]  # 576 tokens round to 64, and no scene is flat
    assert full["budget"] == 576


def test_parameters_and_a_plan_of_ones_own(home: dict[str, str], tmp_path: Path) -> None:
    words = ("eval", *FEW, "--no-yardsticks")
    done = run(home, *words, "--methods", "random", "--keep", 64, "--set", "random.seed=3", "-o", tmp_path / "set")
    assert done.returncode == 0, done.stderr
    plan = evaluated(tmp_path / "set")[1]["plan"]
    assert plan["stages"][0]["params"] == {"seed": 3}
    (tmp_path / "mine.json").write_text(json.dumps(plan))
    done = run(home, *words, "--plan", tmp_path / "mine.json", "-o", tmp_path / "plan")
    assert done.returncode == 0, done.stderr
    by_set, by_plan = evaluated(tmp_path / "set")[1], evaluated(tmp_path / "plan")[1]
    assert (by_plan["label"], by_plan["budget"]) == ("mine.json", 64)
    assert by_plan["samples"] == by_set["samples"]


VIDEO_TASK = """task: moving
dataset_path: json
dataset_kwargs:
  data_files:
    test: {folder}/moving.jsonl
test_split: test
output_type: generate_until
doc_to_visual: !function utils.as_seen
doc_to_text: "question"
doc_to_target: "answer"
process_results: !function utils.as_scored
generation_kwargs:
  max_new_tokens: 12
  do_sample: false
metric_list:
  - metric: accuracy
    aggregation: mean
    higher_is_better: true
"""
VIDEO_UTILS = """
def as_seen(doc):
    return [doc["video"]]

def as_scored(doc, results):
    return {"accuracy": float(results[0].strip() == doc["answer"])}
"""


def test_videos_are_read_and_give_the_answers_of_bench(home: dict[str, str], tmp_path: Path) -> None:
    folder, rows = tmp_path / "task", []
    folder.mkdir()
    for question in load_motion_split("test", 1):
        frames = folder / question.id
        frames.mkdir()
        for number, image in enumerate(question.frames):
            image.save(frames / f"{number}.png")
        rows.append({"video": str(frames), "question": question.text, "answer": question.answer})
    (folder / "moving.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "moving.yaml").write_text(VIDEO_TASK.format(folder=folder))
    (folder / "utils.py").write_text(VIDEO_UTILS)
    words = ("--methods", "vlm-pruner,downsample", "--keep", 0.25, "--batch-size", 4, "--fps", FPS)
    where = ("--model", "embedded-video", "--tasks", "moving", "--include-path", folder, "-o", tmp_path / "out")
    done = run(home, "eval", *where, *words)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "out" / "eval.json").read_text())
    assert {item["label"]: item["reason"] for item in record["left_out"]} == {
        "downsample": "measured only on pictures, not on videos"
    }
    bench = ("--split", "video", "--methods", "none,random,grid,vlm-pruner", "--keep", 0.25, "--limit", 1)
    done = run(home, "bench", *bench, "--seeds", 1, "--jobs", 1, "--repeats", 0, "-o", tmp_path / "b.json")
    assert done.returncode == 0, done.stderr
    rows_of = BenchResults.load(tmp_path / "b.json")
    assert {cell["label"] for cell in record["cells"]} == {"none", "random", "grid", "vlm-pruner"}
    for cell in record["cells"]:
        row = next(r for r in rows_of.rows() if r.label == cell["label"])
        assert cell["samples"]["moving"] == [float(value) for value in row.correct[0]]
        assert cell["means"]["visual_tokens_after"] == pytest.approx(row.mean("kept"), abs=0.1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--recipe", "llava-1.5-7b", "--keep", "64"), "leave out --keep"),
        (("--tasks", "scenes", "--plan", __file__, "--methods", "random"), "leave out --methods"),
        (("--tasks", "scenes", "--set", "pivotz=9"), "pivotz"),
        (("--official", "all"), "name one"),
        (("--recipe", "llava-1.5-7"), "did you mean 'llava-1.5-7b'"),
        (("--recipe", "llava-1.5-7b", "--official", "roundin"), "did you mean 'rounding'"),
        (("--tasks", "vlm_pruner_scenez"), "unknown task 'vlm_pruner_scenez'"),
        (("--tasks", "scenes", "--model", "embeded"), "did you mean 'embedded'"),
        (("--tasks", "scenes", "--methods", "vlm-prunr"), "did you mean 'vlm-pruner'"),
        (("--tasks", "scenes", "--suite", "paper"), "--tasks or --suite, not both"),
        ((), "say what to run: --tasks or --suite"),
        (("--suite", "papers"), "did you mean 'paper'"),
        (("--tasks", "scenes", "--keep", "999"), "not between 1 and the 576"),
        (("--tasks", "gqa", "--limit", "1"), "lmms-eval could not run gqa"),  # its data cannot be had offline
    ],
)
def test_what_cannot_be_evaluated_fails_in_one_line(
    words: tuple[str, ...], message: str, home: dict[str, str], tmp_path: Path
) -> None:
    done = run(home, "eval", "--limit", 1, *words, "-o", tmp_path)
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert message in line
    assert "Traceback" not in done.stderr


def test_an_unknown_option_fails(home: dict[str, str], tmp_path: Path) -> None:
    assert run(home, "eval", "--taks", "scenes", "-o", tmp_path).returncode == 2
