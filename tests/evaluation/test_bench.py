from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageOps
from tests.support.bench import WordProcessor, asked, tiny_setup

from vlm_pruner.engine import prune
from vlm_pruner.evaluation.bench import answer_batches, batches_of, run_bench
from vlm_pruner.evaluation.cells import Cell, Grid, build_grid
from vlm_pruner.evaluation.results import BenchResults
from vlm_pruner.evaluation.runner import Runner, shrink
from vlm_pruner.evaluation.timing import measure_cells

SETUP = tiny_setup()
METHODS = ["none", "blind", "random", "fastv", "pooling", "downsample"]
NEEDS_CLIP = "cdpruner"


def grid(methods: list[str] | None = None, budgets: tuple[int, ...] = (10,)) -> Grid:
    return build_grid(methods or METHODS, budgets, seeds=2, layers=4, tokens=WordProcessor.tokens)


def run(out: Path, **options: Any) -> BenchResults:
    options = {"grid": grid(), "setup": SETUP, **options}
    return run_bench(tiny_setup, out=out / "r.json", name="tiny", split={"name": "test", "version": 1}, **options)


def files(out: Path) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in out.iterdir()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run from beginning to end."""
    out = tmp_path_factory.mktemp("whole")
    run(out)
    return out


@pytest.mark.parametrize("cell", grid().cells, ids=lambda c: f"{c.label}-{c.seed}")
def test_answers_are_those_of_generate_one_question_at_a_time(cell: Cell) -> None:
    """Shared prefixes, repeated caches, cached encodings and padding change no answer."""
    if cell.blind_from is not None:
        pytest.skip("nothing to compare with")
    runner = Runner(SETUP.model, SETUP.processor)
    for batch in batches_of(SETUP.questions):
        questions = [question for scene in batch for question in scene]
        for answer, question in zip(runner.run(cell, runner.task(batch)), questions, strict=True):
            images = question.images
            if cell.small_picture:
                images = [shrink(i, cell.small_picture, WordProcessor.tokens) for i in images]
            inputs = SETUP.processor(images=images, text=question.prompt, return_tensors="pt")
            with prune(SETUP.model, cell.plan) as session:
                out = SETUP.model.generate(**inputs, max_new_tokens=12, do_sample=False)
            new = out[0, inputs["input_ids"].shape[1] :].tolist()
            stops = SETUP.model.generation_config.eos_token_id
            new = new[: next((i for i, token in enumerate(new) if token in stops), len(new))]
            assert answer.text == SETUP.processor.decode(new, skip_special_tokens=True)
            assert answer.flops == session.report.flops_pruned
            assert answer.kept == sum(i.kept for i in session.images) // len(images)
            reported = sum(i.layer_average for i in session.report.images) / len(images)
            assert answer.layer_average == pytest.approx(reported, abs=1e-3)


def test_the_blind_row_answers_the_same_about_any_picture() -> None:
    runner = Runner(SETUP.model, SETUP.processor)
    cell = next(cell for cell in grid().cells if cell.label == "blind")
    question = SETUP.questions[0]
    other = dataclasses.replace(question, draw=lambda: [ImageOps.invert(image) for image in question.stills])
    for first, number in ((None, 2), (0, 1)):
        seeing = dataclasses.replace(cell, blind_from=first)
        answers = {runner.run(seeing, runner.task([[one]]))[0].text for one in (question, other)}
        assert len(answers) == number


def test_two_runs_give_the_same_bytes(whole: Path, tmp_path: Path) -> None:
    run(tmp_path, setup=tiny_setup())
    assert files(tmp_path) == files(whole)


@pytest.fixture(scope="module")
def appended(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """r.answers.jsonl as it stands just before the end of a run, in the order of work."""
    out = tmp_path_factory.mktemp("stopped")

    def stop(done: int, total: int) -> None:
        if done == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(out, progress=stop)
    return (out / "r.answers.jsonl").read_bytes()


@pytest.mark.parametrize("share", [0.01, 0.3, 0.62, 0.999])
def test_a_killed_run_resumes_to_the_same_bytes(whole: Path, appended: bytes, tmp_path: Path, share: float) -> None:
    """A kill leaves a prefix of what was appended, cut at any byte."""
    (tmp_path / "r.answers.jsonl").write_bytes(appended[: int(share * len(appended))])
    progress: list[int] = []
    run(tmp_path, progress=lambda done, total: progress.append(done))
    assert progress[0] < progress[-1]
    assert progress[0] >= int(share * progress[-1]) - 6, "what was there is not computed again"
    assert files(tmp_path) == files(whole)


def test_a_finished_run_is_not_computed_again(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = files(whole)
    monkeypatch.setattr(Runner, "run", lambda *_: pytest.fail("an answer was computed again"))
    run(whole)
    assert files(whole) == before


def test_other_weights_share_no_answers(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "r.answers.jsonl").write_bytes((whole / "r.answers.jsonl").read_bytes())
    other = tiny_setup()
    with torch.no_grad():
        other.model.lm_head.weight[7] += 1e-3
    done: list[int] = []
    run(tmp_path, setup=other, progress=lambda now, total: done.append(now))
    assert done[0] == 0


def test_answers_are_shared_between_runs_that_differ_in_labels_alone(whole: Path, tmp_path: Path) -> None:
    done: list[int] = []
    again = Grid(tuple(dataclasses.replace(c, label=f"my {c.label}") for c in grid().cells))
    answers = whole / "r.answers.jsonl"
    results = run(tmp_path, grid=again, answers=answers, progress=lambda now, total: done.append(now))
    assert done[0] == done[-1]
    assert [row.label for row in results.rows()] == [f"my {name}" for name in METHODS]


@pytest.mark.slow
def test_workers_give_the_same_bytes(whole: Path, tmp_path: Path) -> None:
    run(tmp_path, workers=2)
    assert files(tmp_path) == files(whole)


def test_results_say_what_happened(whole: Path) -> None:
    results = BenchResults.load(whole / "r.json")
    rows = {row.label: row for row in results.rows()}
    assert list(rows) == METHODS
    assert len(rows["random"].cells) == 2
    assert rows["none"].mean("layer_average") == rows["blind"].mean("layer_average") == 25
    assert rows["random"].mean("kept") == rows["random"].mean("layer_average") == 10
    assert rows["fastv"].mean("layer_average") == (25 + 25 + 10 + 10) / 4
    assert rows["none"].mean("evidence_kept") == 1
    assert rows["none"].mean("evidence_lost") == 0
    assert 0 < rows["random"].mean("evidence_kept") < 1
    assert rows["random"].mean("flops") < rows["fastv"].mean("flops") < rows["none"].mean("flops")
    assert results.chance == {"color": 0.1, "word": 0.2}
    lines = (whole / "r.answers.jsonl").read_text().splitlines()[1:]
    answers = {a["question"]: a for a in json.loads(lines[0])["answers"]}
    scored = [question.score(answers[question.key]["text"]) for question in SETUP.questions]
    assert rows["none"].correct[0].tolist() == [float(s) for s in scored]
    assert answers["0.0"]["evidence_kept"] is None, "a question without evidence tokens has no coverage"


def test_a_method_that_lacks_a_signal_is_listed_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needy = [dataclasses.replace(c, label="needy") for c in grid(["pooling"]).cells]
    original = Runner.run

    def refuse(runner: Runner, cell: Cell, task: Any) -> Any:
        from vlm_pruner.errors import MissingSignalError

        if cell.label == "needy":
            raise MissingSignalError("needy needs CLIP")
        return original(runner, cell, task)

    monkeypatch.setattr(Runner, "run", refuse)
    results = run(tmp_path, grid=Grid((*needy, *grid(["none", "random"]).cells)))
    assert results.left_out == [{"label": "needy", "budget": 10, "reason": "needy needs CLIP"}]
    assert [row.label for row in results.rows()] == ["none", "random"]


def test_batches_are_a_partition_into_scenes_of_one_shape() -> None:
    questions = [*asked(scenes=20), *(dataclasses.replace(a, scene=99, key=f"x{a.key}") for a in asked(1, 2))]
    batches = batches_of(questions)
    assert sorted(a.key for batch in batches for scene in batch for a in scene) == sorted(a.key for a in questions)
    for batch in batches:
        assert len({(len(scene), scene[0].pictures) for scene in batch}) == 1
        assert len({a.scene for scene in batch for a in scene}) == len(batch)
        assert sum(len(scene) for scene in batch) <= 16


def test_a_single_question_is_enough() -> None:
    alone = dataclasses.replace(SETUP, questions=SETUP.questions[:1])
    outcomes = list(answer_batches(alone, grid(["none"]).cells, {0: [0]}, iter([0])))
    assert (alone.tokens, alone.single) == (SETUP.tokens, SETUP.single) == (25, False)
    assert [answer.question for outcome in outcomes for answer in outcome.answers] == ["0.0"]


def test_the_pictures_are_encoded_once_for_all_cells() -> None:
    calls: list[int] = []
    handle = SETUP.model.model.vision_tower.register_forward_hook(lambda *_: calls.append(1))
    cells = grid(["none", "random", "fastv", "pooling"]).cells
    list(answer_batches(SETUP, cells, {0: range(len(cells))}, iter([0])))
    handle.remove()
    assert len(calls) == 1


def test_shrinking_keeps_the_size_and_loses_the_detail() -> None:
    noise = asked()[0].images[0].resize((336, 336), Image.Resampling.NEAREST)
    small = shrink(noise, 64, 576)
    assert small.size == noise.size
    assert shrink(noise, 576, 576).tobytes() == noise.tobytes()
    detail = [_contrast(i) for i in (noise, shrink(noise, 192, 576), small, shrink(noise, 16, 576))]
    assert detail == sorted(detail, reverse=True)
    third = noise.crop((0, 0, 300, 150)).resize((100, 50), Image.Resampling.LANCZOS)
    expected = third.resize((300, 150), Image.Resampling.BICUBIC)
    assert shrink(noise.crop((0, 0, 300, 150)), 64, 576).tobytes() == expected.tobytes()


def _contrast(image: Image.Image) -> float:
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).float()
    return float(pixels.std())


def test_timing_has_both_times_of_every_method() -> None:
    times = measure_cells(SETUP, grid().cells, SETUP.questions[:1], repeats=2)
    assert set(times["methods"]) == {"none@25", "random@10", "fastv@10", "pooling@10", "downsample@10"}
    assert all(0 <= t["select_ms"] < t["prefill_ms"] for t in times["methods"].values())
    assert times["vision_ms"] > 0
