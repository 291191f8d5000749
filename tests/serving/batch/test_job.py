"""Jobs on the embedded model: one answer for every row, the same bytes whoever computes them and whatever is killed."""

from __future__ import annotations

import functools
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tests.support.jobs import POISON, mixed_rows, poisoned

from vlm_pruner.asking import Loaded, open_image, open_model
from vlm_pruner.engine import prune
from vlm_pruner.errors import InputError, PlanError
from vlm_pruner.plan import PrunePlan
from vlm_pruner.serving.batch import Job, prepare, run_job
from vlm_pruner.serving.batch import answer as answering
from vlm_pruner.serving.batch.job import local
from vlm_pruner.serving.batch.results import beside
from vlm_pruner.serving.batch.rows import Row


def plan(method: str, keep: float, loaded: Loaded) -> PrunePlan:
    return loaded.plan(method, keep)


def job(source: Path, **changes: Any) -> Job:
    given = {"batch": 2, "workers": 0, "threads": 1, "max_new_tokens": 4, "question": None} | changes
    return Job(str(source), model="embedded", opening={}, make=functools.partial(plan, "vlm-pruner", 64), **given)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return poisoned(mixed_rows(tmp_path_factory.mktemp("rows")))


@pytest.fixture(scope="module")
def done(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("done") / "out.jsonl"
    summary = run_job(job(rows), output)
    assert summary is not None
    assert (summary.rows, summary.errors) == (19, 9)
    assert summary.kept == 11 * 64
    assert summary.tokens == 11 * 576
    assert 0 < summary.flops_pruned < summary.flops_full
    return output


def test_rows_come_in_their_order_and_broken_ones_say_why(rows: Path, done: Path) -> None:
    found = read(done)
    assert [list(row) for row in found] == [["id", "answer", "kept", "total", "error"]] * 19
    asked = [json.loads(line).get("id", f"line-{n}") for n, line in enumerate(rows.read_text().splitlines()[:-1], 1)]
    assert [row["id"] for row in found] == [*asked, "line-19"]
    assert "not JSON" in found[-1]["error"]
    for row in found[:-1]:
        if row["id"] in POISON:
            assert POISON[row["id"]] in row["error"], row
            assert row["answer"] is row["kept"] is row["total"] is None
        else:
            assert row["error"] is None
            assert row["kept"] * 9 == row["total"]


def test_a_video_is_a_row_of_its_frames(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (64, 48), (60 * number, 0, 0)) for number in range(4)]
    frames[0].save(tmp_path / "clip.gif", save_all=True, append_images=frames[1:], duration=500)
    asked = [
        {"video": "clip.gif", "question": "Is it red?"},
        {"video": "clip.gif", "frames": 2, "question": "Is it red?"},
        {"image": "clip.gif", "question": "Is it red?"},
        {"video": "clip.gif", "fps": "fast", "question": "Is it red?"},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    run_job(job(tmp_path / "rows.jsonl"), tmp_path / "out.jsonl")
    *good, bad = read(tmp_path / "out.jsonl")
    assert [row["total"] for row in good] == [4 * 576, 2 * 576, 576]
    assert [row["kept"] for row in good] == [4 * 64, 2 * 64, 64]
    assert bad["error"] == "'fps' is a number, not 'fast'"


def test_answers_are_those_of_the_rows_by_themselves(rows: Path, done: Path) -> None:
    loaded = open_model("embedded")
    for line, row in zip(rows.read_text().splitlines(), read(done), strict=True):
        if row["error"] is None:
            asked = json.loads(line)
            names = asked.get("images") or [asked["image"]]
            inputs = loaded.inputs(asked["question"], [open_image(rows.parent / name) for name in names])
            with torch.inference_mode(), prune(loaded.model, "vlm-pruner", keep=64):
                ids = loaded.model.generate(**inputs, do_sample=False, max_new_tokens=4)
            said = loaded.processor.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()
            assert row["answer"] == said


def test_times_and_summary_lie_beside(done: Path) -> None:
    names = beside(done)
    assert [row["id"] for row in read(names["times"])] == [row["id"] for row in read(done)]
    assert all(row["ms"] >= 0 for row in read(names["times"]))
    assert json.loads(names["summary"].read_text())["errors"] == 9
    assert {path.name for path in done.parent.iterdir()} == {"out.jsonl", "out.times.jsonl", "out.summary.json"}


def test_the_same_job_is_not_done_twice(rows: Path, done: Path) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("it was computed again")

    assert run_job(job(rows), done, engine=never) is not None


@pytest.mark.parametrize("stop", [0, 1, 4, 7])
def test_stopped_anywhere_it_goes_on_to_the_same_bytes(rows: Path, done: Path, tmp_path: Path, stop: int) -> None:
    computed: list[int] = []

    def some(job: Job) -> Any:
        def compute(todo: Any) -> Iterator[Any]:
            yield from itertools.islice(local(job)(todo), stop)
            raise KeyboardInterrupt

        return compute

    def rest(job: Job) -> Any:
        def compute(todo: Any) -> Iterator[Any]:
            for record in local(job)(todo):
                computed.extend(record.results)
                yield record

        return compute

    with pytest.raises(KeyboardInterrupt):
        run_job(job(rows), tmp_path / "out.jsonl", engine=some)
    (log,) = [*(tmp_path / "out.jsonl.parts").glob("*.log")] or [None]
    before = 0
    if log is not None:
        before = sum(len(json.loads(line)["results"]) for line in log.read_text().splitlines())
        with log.open("a") as file:
            file.write('{"results":{"4":{"answ')  # what a kill leaves of a line
    run_job(job(rows), tmp_path / "out.jsonl", engine=rest)
    assert (tmp_path / "out.jsonl").read_bytes() == done.read_bytes()
    assert len(computed) == len(set(computed)) == 19 - before


def test_another_job_does_not_go_on_with_what_is_there(rows: Path, tmp_path: Path) -> None:
    def stopped(todo: Any) -> Iterator[Any]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_job(job(rows), tmp_path / "out.jsonl", engine=lambda _: stopped)
    with pytest.raises(InputError, match="another max_new_tokens"):
        run_job(job(rows, max_new_tokens=5), tmp_path / "out.jsonl")


def test_other_processes_read_the_same(rows: Path, done: Path, tmp_path: Path) -> None:
    run_job(job(rows, workers=1), tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes() == done.read_bytes()


@pytest.mark.slow
def test_a_picture_that_ends_its_process_is_an_error_of_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "_in_worker", _deadly)
    pool = prepare._Pool(prepare.Opened("embedded", {}, 4), 1)
    rows = [Row("a", error="known"), Row("b", "deadly"), Row("c", error="known, too")]
    try:
        window = pool.window(0, rows, [pool.submit(row) for row in rows], 3)
        again = pool.window(1, rows[:1], [pool.submit(rows[0])], 3)
    finally:
        pool.close()
    assert [one.error for one in window.prepared] == ["known", prepare.CRASHED, "known, too"]
    assert [one.error for one in again.prepared] == ["known"]


def _deadly(row: Row) -> Any:
    if row.question == "deadly":
        os._exit(9)
    return prepare.Prepared(None, row.error)


def test_a_row_that_the_model_stumbles_over_leaves_the_others(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.jsonl"
    good = [json.loads(line) for line in rows.read_text().splitlines()[:-1] if "id" not in json.loads(line)][:2]
    path.write_text("".join(json.dumps(row | {"image": str(rows.parent / row["image"])}) + "\n" for row in good))
    collate, longest = answering.collate, []

    def stumbling(parts: Any, fill: int) -> Any:
        longest.append(max(part["input_ids"].shape[1] for part in parts))
        if longest[-1] == longest[0]:  # the batch, and then the row with the long question
            raise RuntimeError("out of memory")
        return collate(parts, fill)

    monkeypatch.setattr(answering, "collate", stumbling)
    summary = run_job(job(path), tmp_path / "out.jsonl")
    assert summary is not None
    assert summary.errors == 1
    short, long = read(tmp_path / "out.jsonl")
    assert short["error"] is None
    assert long["error"] == "no answer: out of memory"


def test_a_plan_that_cannot_be_carried_out_stops_the_job(rows: Path, tmp_path: Path) -> None:
    asked = Job(str(rows), None, "embedded", {}, functools.partial(early, "fastv"), 4, 2, 0)
    with pytest.raises(PlanError, match="fastv cannot prune before the language model"):
        run_job(asked, tmp_path / "out.jsonl")
    assert not list(tmp_path.iterdir())


def early(method: str, loaded: Loaded) -> PrunePlan:
    return loaded.plan(method, 64, 0)


def test_parquet_holds_the_same_rows(rows: Path, done: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    for name in ("a", "b"):
        run_job(job(rows), tmp_path / f"{name}.parquet")
    assert parquet.read_table(tmp_path / "a.parquet").to_pylist() == read(done)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
