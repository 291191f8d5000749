"""Every command on checkpoints of sixteen families with the processors that they come with, in two dtypes.

Whatever a family cannot do is a reason beside the others, or one line; there is no traceback anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Container
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.support.checkpoints import CHECKPOINTS, checkpoint
from tests.support.commands import complaint, run
from tests.support.slowly import the_rest_slowly
from tests.support.vision import needs_torchvision

from vlm_pruner.asking import fits, open_model
from vlm_pruner.evaluation import BenchResults
from vlm_pruner.methods import registry

PILLOW = ("llava", "llava_next", "gemma3", "paligemma", "deepseek_vl_hybrid")  # read pictures without torchvision


def families(always: Container[str]) -> list[Any]:
    """All of them, those marked slow that are not among `always`."""
    eyes, slow = needs_torchvision, [pytest.mark.slow]
    return [pytest.param(n, marks=eyes * (n not in PILLOW) + slow * (n not in always)) for n in CHECKPOINTS]


FAMILIES = families(CHECKPOINTS)
DTYPES = the_rest_slowly(["float32", "bfloat16"], ["bfloat16"])
ONE_SQUARE = ("llava", "gemma3", "paligemma", "smolvlm")  # or several of as many tokens
NO_TOWER = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5", "mistral3", "fuyu")  # towers without the signals of CLIP


@cache
def picture(folder: Path) -> Path:
    path = folder / "cup.png"
    Image.radial_gradient("L").resize((200, 160)).convert("RGB").save(path)
    return path


@pytest.fixture(scope="module")
def cup(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture(tmp_path_factory.mktemp("pictures"))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_ask_answers(name: str, dtype: str, cup: Path, tmp_path: Path) -> None:
    result = run(
        "ask", cup, "What is this?", "--model", checkpoint(name), "--dtype", dtype, "--keep", "0.5", "--method",
        "divprune", "--max-new-tokens", 3, "--json", "--overlay", tmp_path / "kept.png",
    )  # fmt: skip
    assert result.exit_code == 0, (result.output, result.exception)
    full, pruned = json.loads(result.stdout)["answers"]
    images = pruned["report"]["images"]
    assert pruned["asked"] == sum(-(-image["total"] // 2) for image in images) == pruned["kept"]
    assert full["kept"] == sum(image["total"] for image in images)
    assert (tmp_path / "kept.png").stat().st_size > 0


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_method_runs_or_has_a_reason(name: str, dtype: str) -> None:
    loaded = open_model(str(checkpoint(name)), dtype=dtype)
    image = Image.radial_gradient("L").resize((200, 160)).convert("RGB")
    reasons = fits(loaded.model, loaded.inputs("What is this?", image))
    assert reasons.keys() == registry().keys()
    assert not [reason for reason in reasons.values() if "could not answer" in reason], "an error of ours, or none"
    assert not any(reasons[method] for method in ("none", "random", "divprune", "fps", "grid", "vlm-pruner", "fastv"))
    assert bool(reasons["visionzip"]) or name not in NO_TOWER


OF_THE_TOWER = {  # methods that read what the tower of such a model does not offer
    "apet", "cls-attention", "fastvid", "flashvid", "hiprune", "holitom", "holov", "mmr", "mmtok", "pivoted-qr",
    "prumerge", "prumerge-plus", "scope", "star-pro", "visionzip", "vispruner", "vscan",
}  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_report_is_written(name: str, dtype: str, cup: Path, tmp_path: Path) -> None:
    words = ("--methods", "vlm-pruner,v2drop,visionzip", "--keep", "0.5", "--max-new-tokens", 2)
    result = run(
        "report", cup, "What is this?", "--model", checkpoint(name), "--dtype", dtype, *words, "-o", tmp_path / "r.html"
    )
    assert result.exit_code == 0, (result.output, result.exception)
    assert "could not answer" not in result.stdout, "an error of ours, or none"
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert text.count("<article") == 3
    assert text.count("not run: ") == result.stdout.count("not run: ")


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_report_has_every_method_or_its_reason(name: str, dtype: str, cup: Path, tmp_path: Path) -> None:
    """One method that could not run lost the whole report."""
    page = tmp_path / "report.html"
    result = run(
        "report", cup, "What is this?", "--model", checkpoint(name), "--dtype", dtype, "--keep", "0.5", "--methods",
        ",".join(registry()), "--max-new-tokens", 2, "-o", page,
    )  # fmt: skip
    assert result.exit_code == 0, (result.output, result.exception)
    text = page.read_text(encoding="utf-8")
    said = {line.split(" ")[0]: line for line in result.stdout.splitlines() if " 0.5: " in line}
    assert said.keys() == set(registry()) - {"none"}
    left_out = {method for method, line in said.items() if "not run: " in line}
    assert all(said[method].split("not run: ")[1].split("(")[0] in text for method in left_out), "the page says why"
    assert not any("could not answer" in line for line in said.values()), "an error of ours, or none"
    if name == "llava" or name in NO_TOWER:
        fused = {"hawk"} if name == "fuyu" else set()  # keys are made together with queries and values
        assert left_out == (OF_THE_TOWER | fused if name in NO_TOWER else set())
    assert text.count("<article") == len(registry())


@pytest.mark.parametrize(
    "name", families(("llava", "llava_next", "gemma3", "smolvlm", "qwen2_5_vl", "qwen3_5", "fuyu"))
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_benchmark_runs(name: str, dtype: str, tmp_path: Path) -> None:
    fixed = name in ONE_SQUARE
    keep = "8" if fixed else "0.25"
    words = ["--model", checkpoint(name), "--dtype", dtype, "--keep", keep, "--limit", 1, "--repeats", 1, "--jobs", 1]
    methods = "vlm-pruner,v2drop,visionzip,blind,downsample"
    result = run("bench", *words, "--seeds", 1, "--methods", methods, "-o", tmp_path / "r.json")
    assert result.exit_code == 0, (result.output, result.exception)
    results = BenchResults.load(tmp_path / "r.json")
    told = "left out: 1 question of two_images: the processor of this model refuses a question with 2 pictures: "
    assert (told in result.stderr) == (name == "fuyu"), "its prompts hold one picture"
    assert (f"## Not asked\n\n- {told}" in result.stdout) == (name == "fuyu")
    assert [one["type"] for one in results.unasked or ()] == ["two_images"] * (name == "fuyu")
    assert ("two_images" in results.types) == (name != "fuyu")
    assert {"none", "vlm-pruner", "v2drop"} <= {row.label for row in results.rows()}
    assert results.about is not None
    reasons = {item["label"]: item["reason"] for item in results.left_out}
    assert (results.model["tokens"] is None) != fixed
    if name in NO_TOWER:
        assert "VISION_KEYS" in reasons["visionzip"]
        assert "of any number of visual tokens" in result.stdout
        assert results.row("vlm-pruner").mean("evidence_kept") is not None, "where tokens lie is known"


@pytest.mark.parametrize("name", [pytest.param("qwen2_5_vl", marks=needs_torchvision)])
def test_budgets_are_shares_where_pictures_are_of_any_size(name: str, tmp_path: Path) -> None:
    words = ["bench", "--model", checkpoint(name), "--limit", 1, "--jobs", 1, "-o", tmp_path / "r.json"]
    assert "give shares (0.111), not [64]" in complaint(run(*words, "--keep", "64"))
    assert "equal cost is counted in tokens" in complaint(run(*words, "--keep", "0.5", "--equal", "layer-average"))


@pytest.mark.parametrize("name", ["llava", pytest.param("qwen2_5_vl", marks=needs_torchvision)])
def test_methods_are_tried_on_a_model(name: str) -> None:
    rows = {row["name"]: row for row in json.loads(run("methods", "--model", checkpoint(name), "--json").stdout)}
    assert rows.keys() == registry().keys()
    failed = {key for key, row in rows.items() if not row["runs"]}
    assert all(rows[key]["why_not"] for key in failed)
    assert ("visionzip" in failed) == (name in NO_TOWER)
    text = " ".join(run("methods", "--model", checkpoint(name)).stdout.split())
    assert all(key in text for key in rows)


def test_a_profile_names_what_was_asked_for_and_what_was_left(cup: Path) -> None:
    words = ["--image", cup, "--keep", "8", "--method", "v2drop", "--repeats", 1, "--new-tokens", 2, "--json"]
    result = run("profile", checkpoint("paligemma"), *words)
    assert result.exit_code == 0, (result.output, result.exception)
    data = json.loads(result.stdout)
    assert (data["image"], data["variants"][1]["asked"]) == ("cup.png", 8)
    assert data["variants"][1]["kept"] < 8
    assert data["versions"]["vlm_pruner"]
