"""The commands from the outside: what they print, what they write, and what they say to bad input."""

from __future__ import annotations

import json
import re
import runpy
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.support.commands import complaint, run
from tests.support.tiny import checkpoint
from typer.testing import CliRunner

import vlm_pruner
from vlm_pruner import scenes
from vlm_pruner.cli import COMMANDS, app


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "cup.png"
    Image.radial_gradient("L").resize((500, 400)).convert("RGB").save(path)
    return str(path)


def ask(picture, *words: object, question: str = "what is this ?"):
    return run("ask", picture, question, "--model", checkpoint(), "--max-new-tokens", 3, "--method", "random", *words)


def test_both_answers_the_report_and_the_overlay(picture, tmp_path):
    overlay = tmp_path / "new" / "overlay.png"
    result = ask(picture, "--keep", 64, "--layer", 2, "--overlay", overlay)
    assert result.exit_code == 0, result.output
    for expected in (
        "all tokens",
        "pruned",
        "576/576",
        "64/576",
        "prefill, ms",
        "visual tokens asked for",
        "per layer, mean",
        str(overlay.name),
    ):
        assert expected in result.stdout.replace("\n", ""), expected
    with Image.open(overlay) as drawn:
        assert drawn.width == 960


def test_json_is_all_that_is_printed(picture):
    result = ask(picture, "--keep", "0.111", "--json")
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    full, pruned = data["answers"]
    assert (full["report"]["kept"], pruned["report"]["kept"]) == (576, 64)
    assert pruned["report"]["flops_pruned"] < full["report"]["flops_pruned"]
    for answer in (full, pruned):
        assert answer["prefill_ms"] > 0
        assert answer["first_token_ms"] > 0
        assert 0 <= answer["probability"] <= 1
    assert full["probability"] == pytest.approx(full["probability_of_full_answer"], rel=1e-3)


def test_no_budget_changes_nothing_at_keep_all(picture):
    full, pruned = json.loads(ask(picture, "--keep", "1.0", "--json").stdout)["answers"]
    assert (pruned["text"], pruned["probability"]) == (full["text"], full["probability"])


def test_a_prompt_without_an_image_is_left_alone_and_said_so(tmp_path):
    result = ask("none", "--overlay", tmp_path / "none.png")
    assert result.exit_code == 0, result.output
    assert "no image in the prompt: nothing to prune" in " ".join(result.stdout.split())
    assert "overlay: not drawn, nothing was pruned" in result.stdout
    assert "probability of this answer" not in result.stdout, "both answers are the same: one line says it"


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ("0", "keep=0 keeps nothing"),
        ("-1", "keep=-1 keeps nothing"),
        ("1.5", "keep=1.5 is not a share in (0, 1]"),
        ("many", "keep='many' is not a number"),
        ("577", "keep=577 asks for more tokens than an image has: 576"),
        ("nan", "keep=nan is not a share"),
    ],
)
def test_budgets_that_make_no_sense(picture, keep, message):
    assert message in complaint(ask(picture, f"--keep={keep}"))


def test_a_layer_beyond_the_model(picture):
    message = complaint(ask(picture, "--layer", 40))
    assert message == "layer 40 does not exist: the model has 4 layers (0 to 3)"


def test_a_place_before_the_tower(picture):
    result = ask(picture, "--keep", 0.25, "--layer", "tower", "--method", "divprune", "--json")
    (choice,) = json.loads(result.stdout)["answers"][1]["report"]["plan"]["stages"]
    assert choice["layer"] == "tower"
    assert complaint(ask(picture, "--layer", "towr")).startswith("layer='towr' is not a decoder layer")


def test_an_unknown_method_is_answered_with_the_nearest(picture):
    assert "unknown method 'randon'; did you mean 'random'?" in complaint(ask(picture, "--method", "randon"))


def test_a_missing_image_is_answered_with_the_nearest(picture):
    message = complaint(ask(picture.replace("cup", "cap")))
    assert "no image at" in message
    assert "did you mean" in message
    assert "cup.png" in message
    assert "did you mean" not in complaint(ask(picture.replace("cup", "zap"))), "an ending in common is no likeness"


@pytest.mark.parametrize("content", [b"", b"not an image", None])
def test_damaged_images(picture, tmp_path, content):
    path = tmp_path / "broken.png"
    data = Path(picture).read_bytes()
    path.write_bytes(data[: len(data) // 2] if content is None else content)
    assert "broken.png' is not a readable image" in complaint(ask(path))


def test_a_folder_without_frames_is_neither_image_nor_video(tmp_path):
    assert "no pictures in the folder" in complaint(ask(tmp_path))


def test_an_image_too_large_to_decode_is_refused_before_it_is_decoded(tmp_path):
    path = tmp_path / "huge.bmp"
    width, height = 20_000, 5_000
    header = struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 54, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    path.write_bytes(header)
    assert "20000 x 5000 = 100 megapixels; at most 64" in complaint(ask(path))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("embeded", "no model 'embeded'; did you mean 'embedded'?"),
        ("./nowhere", "no model './nowhere'"),
    ],
)
def test_unknown_models(picture, model, message):
    assert message in complaint(ask(picture, "--model", model))


def test_a_folder_without_a_checkpoint(picture, tmp_path):
    assert "cannot be loaded" in complaint(ask(picture, "--model", tmp_path))


@pytest.mark.parametrize("content", [b"", b"\0" * 100, None])
def test_damaged_weights(picture, tmp_path, content):
    for file in Path(checkpoint()).iterdir():
        data = file.read_bytes()
        damaged = data[: len(data) // 2] if content is None else content
        (tmp_path / file.name).write_bytes(damaged if file.suffix == ".safetensors" else data)
    assert "cannot be loaded: " in complaint(ask(picture, "--model", tmp_path))


@pytest.mark.parametrize("name", ["kept.foo", "kept"])
def test_a_picture_of_unknown_kind_is_refused_before_the_work(picture, tmp_path, name):
    message = complaint(ask(picture, "--overlay", tmp_path / name, "--model", tmp_path))
    assert f"{name}' what to write: end it with .png, .jpg" in message


def test_a_model_that_takes_no_images(picture, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    assert complaint(ask(picture, "--model", tmp_path)).startswith("llama takes no images")


def test_devices_and_dtypes_that_are_not_there(picture):
    assert "device 'warp' cannot be used here" in complaint(ask(picture, "--device", "warp"))
    assert "unknown dtype 'int3'; known: auto, float32" in complaint(ask(picture, "--dtype", "int3"))


def test_questions_that_are_none(picture):
    assert complaint(ask(picture, question=" ")) == "the question is empty"
    assert "contains the image placeholder '<image>'" in complaint(ask(picture, question="<image> what?"))


def test_an_overlay_cannot_be_a_folder(picture, tmp_path):
    assert "is a folder; name a file in it" in complaint(ask(picture, "--overlay", tmp_path))


def test_methods_come_from_the_registry():
    from vlm_pruner.methods import registry

    rows = json.loads(run("methods", "--json").stdout)
    assert sorted(row["name"] for row in rows) == list(registry())
    assert all(row["name"] in run("methods").stdout for row in rows)


def test_the_list_of_methods_fits_80_columns_without_breaking_words():
    result = CliRunner().invoke(app, ["methods"], env={"COLUMNS": "80", "TTY_COMPATIBLE": "1"})
    lines = [line.rstrip() for line in re.sub(r"\x1b\[\d+m", "", result.stdout).splitlines()]
    table = lines[: next(i for i, line in enumerate(lines) if line.startswith("The best methods come first"))]
    assert max(map(len, table)) <= 80
    assert any(" ".join(line.split()).startswith("fastv layer 2 of 32 64, 96 yes") for line in table)
    assert any(" ".join(line.split()).startswith("v2drop layer 3 of 32 on 1, 104") for line in table)
    words = {word.strip(",;()") for line in table for word in line.split()}
    assert {"vision.attention", "text_attention", "arXiv:2512.02700"} <= words


def test_the_package_runs_as_a_module(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["vlm-pruner", "--version"])
    with pytest.raises(SystemExit) as left:
        runpy.run_module("vlm_pruner", run_name="__main__")
    assert left.value.code == 0
    assert capsys.readouterr().out.strip() == vlm_pruner.__version__


def test_models_come_from_the_adapters():
    from transformers.utils import logging

    from vlm_pruner.adapters import families

    logging.set_verbosity_warning()
    rows = json.loads(run("models", "--json").stdout)
    assert logging.get_verbosity() == logging.ERROR  # the configurations of families that nobody asked about say things
    assert {row["name"] for row in rows if row["works"]} == {"embedded", *families()}
    assert "cross-attention" in {row["name"]: row["why"] for row in rows if not row["works"]}["mllama"]
    assert all(name in run("models").stdout for name in families())


def test_make_demo_answers_rightly_with_and_without_pruning(tmp_path):
    makefile = (Path(__file__).parents[2] / "Makefile").read_text(encoding="utf-8")
    picture, question = (re.search(rf"^{name} +\?= (.+)$", makefile, re.MULTILINE)[1] for name in ("PICTURE", "ASK"))
    assert '/vlm-pruner ask "$(PICTURE)" "$(ASK)" --keep 64 --overlay out/overlay.png' in makefile
    result = run("ask", picture, question, "--keep", 64, "--overlay", tmp_path / "overlay.png")
    assert result.exit_code == 0, result.output
    words = result.stdout.split()
    right = dict(scenes.DEMO_QUESTIONS)[question]
    assert words[words.index("tokens") + 1] == right
    assert words[words.index("pruned") + 1] == right
    with Image.open(tmp_path / "overlay.png") as drawn:
        assert np.asarray(drawn.convert("HSV"))[:, :, 1].max() > 200


def test_a_person_watching_sees_a_bar_and_the_steps(picture, monkeypatch):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    result = ask(picture)
    for step in ("loading", "warming up", "timing, 6 of 6", "probabilities", "drawing"):
        assert step in result.stderr, step
    assert "━" in result.stderr
    assert "━" not in result.stdout


def test_every_command_is_listed_with_its_help():
    text = run("--help").stdout
    for command in COMMANDS:
        assert f" {command.__name__} " in text
        assert run(command.__name__, "--help").exit_code == 0


def test_the_version():
    import vlm_pruner

    assert run("--version").stdout.strip() == vlm_pruner.__version__
