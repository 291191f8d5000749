"""`vlm-pruner batch`: one command from a folder to answers, refusals of one line, SIGKILL, torchrun."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.support.commands import complaint, run
from tests.support.jobs import mixed_rows

from vlm_pruner.serving.batch.job import Job, local
from vlm_pruner.serving.batch.on_vllm import OnVllm

QUICK = ("--max-new-tokens", "1", "--batch", "4", "--workers", "0", "--keep", "64")
FEW = ("--max-new-tokens", "3", "--batch", "2", "--workers", "0", "--threads", "1", "--keep", "64")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mixed_rows(tmp_path_factory.mktemp("rows"), 20)


@pytest.fixture(scope="module")
def done(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    output = tmp_path_factory.mktemp("done") / "out.jsonl"
    result = run("batch", rows, *FEW, "-o", output)
    assert result.exit_code == 0, result.output
    assert "20 rows, 0 with an error; 1344 of 12096 visual tokens kept (11.1%); prefill FLOPs " in result.stdout
    return output.read_bytes()


def test_a_folder_with_one_question(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("RGB", (60, 40), "red").save(folder / "red.png")
    (folder / "broken.png").write_bytes(b"no picture")
    words = ("--question", "What color is the background?", *FEW)
    result = run("batch", folder, *words, "-o", tmp_path / "out.jsonl")
    assert result.exit_code == 0, result.output
    broken, red = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    assert "not a readable image" in broken["error"]
    assert red["id"] == "red.png"
    assert red["answer"]
    assert "1 of 2 rows have no answer" in result.stderr


def test_nothing_but_errors_is_exit_code_1(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("{\n")
    result = run("batch", tmp_path / "rows.jsonl", *FEW, "-o", tmp_path / "out.jsonl")
    assert result.exit_code == 1
    assert "not JSON" in (tmp_path / "out.jsonl").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("-o", "answers.csv"), "end it with .jsonl, .parquet"),
        (("--engine", "spark"), "--engine is one of local, ray, vllm, not 'spark'"),
        (("--actors", "2"), "belong to --engine ray"),
        (("--keep", "7.5"), "keep=7.5"),
        (("--layer", "99"), "layer 99 does not exist"),
        (("--model", "embeded"), "did you mean 'embedded'?"),
    ],
)
def test_what_cannot_be_done_is_one_line(words: tuple[str, ...], message: str, rows: Path, tmp_path: Path) -> None:
    result = run("batch", rows, *FEW, "-o", tmp_path / "out.jsonl", *words)
    assert message in complaint(result)
    assert not list(tmp_path.iterdir())


def test_what_is_read_is_not_written_over(rows: Path) -> None:
    assert "is the file that is read" in complaint(run("batch", rows, *FEW, "-o", rows))


def test_killed_and_started_again_it_ends_with_the_same_bytes(rows: Path, done: bytes, tmp_path: Path) -> None:
    output, kills = tmp_path / "out.jsonl", 0
    words = [sys.executable, "-m", "vlm_pruner", "batch", str(rows), *FEW, "-o", str(output)]
    for last in (False, True):
        process = subprocess.Popen(words, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        if not last:
            while not list(tmp_path.glob("out.jsonl.parts/*.log")) and process.poll() is None:
                time.sleep(0.01)
            time.sleep(random.Random(7).uniform(0.0, 0.3))
            process.send_signal(signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
    assert process.wait() == 0
    assert kills == 1
    assert output.read_bytes() == done


@pytest.mark.slow
def test_two_processes_of_torchrun_end_with_the_same_bytes(rows: Path, done: bytes, tmp_path: Path) -> None:
    words = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "vlm_pruner", "batch", str(rows), *FEW]
    subprocess.run([sys.executable, *words, "-o", str(tmp_path / "out.jsonl")], check=True, capture_output=True)
    assert (tmp_path / "out.jsonl").read_bytes() == done


def test_without_vllm_its_extra_is_named(rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    said = complaint(run("batch", rows, "--engine", "vllm", *QUICK, "-o", tmp_path / "out.jsonl"))
    assert said == "--engine vllm needs vllm: pip install 'vlm-pruner[vllm]'"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--layer", "2"), "leave out --layer"),
        (("--bias", "log-mass", "--threads", "1"), "leave out --bias, --threads"),
        (("--actors", "2"), "--ray-address and --actors belong to --engine ray"),
    ],
)
def test_what_has_no_meaning_in_vllm(words: tuple[str, ...], message: str, rows: Path, tmp_path: Path) -> None:
    said = complaint(run("batch", rows, "--engine", "vllm", *QUICK, *words, "-o", tmp_path / "out.jsonl"))
    assert said.endswith(message)


def test_vllm_is_given_the_plan_and_is_another_job(rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def as_local(self: OnVllm, job: Job) -> Any:
        given.append((self.asked, job.pruning["engine"]))
        return local(job)

    monkeypatch.setattr(OnVllm, "__call__", as_local)
    words = ("batch", rows, "--engine", "vllm", *QUICK, "-o", tmp_path / "out.jsonl")
    assert run(*words, "--method", "random", "--set", "seed=3", "--layer", 0).exit_code == 0
    (tmp_path / "plan.json").write_text(json.dumps({"version": 1, "stages": [{"method": "grid", "keep": 9}]}))
    without_keep = [word for word in words if word not in ("--keep", "64")]
    assert run(*without_keep, "--plan", tmp_path / "plan.json").exit_code == 0
    assert given[0] == ({"method": "random", "keep": 64, "params": {"seed": 3}}, "vllm")
    assert given[1][0]["stages"][0]["method"] == "grid"
