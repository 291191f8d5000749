"""The recipe: every stage runs from the one before in seconds, and an interrupted one goes on where it was."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vlm_pruner.models.embedded.tokenizer import pieces
from vlm_pruner.models.embedded.train import loop
from vlm_pruner.models.embedded.train.__main__ import main
from vlm_pruner.models.embedded.train.data import FREQUENCY, LENGTH, STEPS, Pool, draw_sample, fixed_batch, tokenise
from vlm_pruner.models.embedded.train.labels import FAMILIES, INDEX, NONE, token_labels
from vlm_pruner.models.embedded.train.stages import NUMBERS
from vlm_pruner.scenes import TYPES, render, sample_scene
from vlm_pruner.scenes.questions import ONE_IMAGE
from vlm_pruner.scenes.render import backgrounds
from vlm_pruner.scenes.vocabulary import ALPHABET, CATEGORIES, COLORS, COUNTS, KINDS, ROLES, TINY

SMALL = ("--workers", "0", "--option", "pool=8", "--option", "checked=4")


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Runs the command line in this process, on tiny numbers."""
    threads = torch.get_num_threads()

    def run(*arguments: str) -> Path:
        monkeypatch.setattr(sys, "argv", ["train", "--out", str(tmp_path), *SMALL, *arguments])
        main()
        return tmp_path

    yield run
    torch.set_num_threads(threads)


def log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.slow
def test_all_stages_from_nothing(train: Any) -> None:
    folder = train(*NUMBERS, "--option", "steps=1")
    lines = log(folder)
    assert [line["stage"] for line in lines] == [name for name in NUMBERS for _ in range(2)]
    assert all(np.isfinite(line["loss"]) for line in lines[1::2])
    assert {f"val_{name}" for name in ONE_IMAGE} & lines[-1].keys()
    assert lines[0]["run"] | {"seed": 1, "device": "cpu", "steps": 1, "batch": 8} == lines[0]["run"]
    states = {name: torch.load(folder / f"{name}.pt", weights_only=True)["model"] for name in NUMBERS}
    key = "model.language_model.layers.{}.self_attn.q_proj.weight"
    assert torch.equal(states["few"][key.format(1)], states["fresh"][key.format(1)])  # frozen below PRUNE_LAYER
    assert not torch.equal(states["few"][key.format(2)], states["fresh"][key.format(2)])
    tower = "model.vision_tower.encoder.layers.0.mlp.fc1.weight"
    assert torch.equal(states["vision"][tower], states["fresh"][tower])


def test_interrupted_stage_goes_on_with_the_same_state(train: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    step, calls = loop._step, []

    def killed(*arguments: Any) -> dict[str, float]:
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(None)
        return step(*arguments)

    monkeypatch.setattr(loop, "_step", killed)
    arguments = ("vision", "--option", "steps=3", "--option", "every=0")
    with pytest.raises(KeyboardInterrupt):
        train(*arguments)
    seen: list[dict[str, Any]] = []

    def watched(stage: loop.Stage, optimizer: Any, parameters: Any, batch: Any, progress: float) -> dict[str, float]:
        seen.append(
            {
                "progress": progress,
                "weight": parameters[0].detach().clone(),
                "moment": optimizer.state_dict()["state"][0]["exp_avg"].clone(),
                "image": batch["image"].clone(),
            }
        )
        return step(stage, optimizer, parameters, batch, progress)

    monkeypatch.setattr(loop, "_step", watched)
    folder = train("vision", "--option", "steps=2")  # the two steps are there: nothing more is done but to finish
    assert seen == []
    saved = torch.load(folder / "vision.pt", weights_only=True)
    assert saved["state"]["done"]
    assert saved["state"]["step"] == 2
    saved["state"]["done"] = False
    torch.save(saved, folder / "vision.pt")
    train(*arguments)
    assert [entry["progress"] for entry in seen] == [2 / 3]
    assert torch.equal(seen[0]["weight"], saved["model"]["model.vision_tower.embeddings.class_embedding"])
    assert torch.equal(seen[0]["moment"], saved["optimizer"]["state"][0]["exp_avg"])
    starts = [line["from_step"] for line in log(folder) if "from_step" in line]
    assert starts == [0, 2, 2]
    train(*arguments)
    assert len(seen) == 1  # a finished stage is passed over


def test_stage_needs_the_one_before(train: Any) -> None:
    with pytest.raises(SystemExit, match=r"no checkpoint .*few\.pt: run the stage before"):
        train("all")


def test_unknown_option_names_the_known(train: Any) -> None:
    with pytest.raises(SystemExit, match=r"unknown option 'rat' of stage 'vision'; known: steps, .*rate"):
        train("vision", "--option", "rat=1")


def test_rate_falls_at_the_end() -> None:
    assert loop.rate_at(0.2, 0.5) == loop.rate_at(0.49, 0.5) == 1
    assert 1 > loop.rate_at(0.6, 0.5) > loop.rate_at(0.9, 0.5) > loop.rate_at(1.0, 0.5) == pytest.approx(0.02)


def test_the_log_holds_four_digits(tmp_path: Path) -> None:
    stage = loop.Stage("x", {}, 8, None, 4, 1e-3, lambda *_: (torch.zeros(()), {}), [], lambda: {"word": 1 / 3})
    state = {"step": 5, "elapsed": 1.26, "done": False}
    loop._log(tmp_path, stage, state, Pool(4, (0, 1), False, 0), {"loss": 2 / 3})
    (line,) = log(tmp_path)
    assert line == {
        "stage": "x", "step": 5, "seconds": 1.3, "visits": 20, "distinct": 0, "loss": 0.6667, "val_word": 0.3333,
    }  # fmt: skip


def test_pool_draws_new_scenes_after_an_interruption() -> None:
    """And the same ones in a run that starts at the same step."""
    first = {}
    for name, seed, step in (("a", 1, 0), ("again", 1, 0), ("later", 1, 5), ("other", 2, 0)):
        pool = Pool(8, (seed, 0), questions=False, workers=0)
        pool.start(step)
        pool.refresh(1)
        assert (pool.filled, pool.seen) == (8, 8)
        first[name] = pool.data["image"][0]
    assert torch.equal(first["a"], first["again"])
    assert not torch.equal(first["a"], first["later"])
    assert not torch.equal(first["a"], first["other"])


def test_pool_overwrites_the_oldest() -> None:
    pool = Pool(12, (1, 0), questions=False, workers=0, transform=lambda b: {"item": b["item"]})
    pool.start(0)
    pool.refresh(1)
    oldest = pool.data["item"].clone()
    pool.refresh(1)
    assert (pool.filled, pool.seen) == (12, 16)
    assert torch.equal(pool.data["item"][4:8], oldest[4:8])
    assert not torch.equal(pool.data["item"][:4], oldest[:4])
    assert int(pool.draw(64).max()) < 12


@pytest.mark.parametrize("seed", range(6))
def test_samples_hold_what_the_scene_shows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scene = sample_scene(rng, "train", len(backgrounds("train")))
    labels, item, offsets = token_labels(scene, render(scene))
    names, colours = CATEGORIES + TINY, list(COLORS)
    y, x = (np.mgrid[:24, :24].reshape(2, -1) + 0.5) * 14  # centres of the tokens
    for index, thing in enumerate(scene.things):
        mine = item == index
        assert mine.any()
        shown = {
            "category": names.index(thing.name),
            "color": colours.index(thing.color),
            "role": ROLES.index(thing.role) if thing.role else NONE,
            "partner": CATEGORIES.index(thing.partner) if thing.partner else NONE,
            "count": COUNTS.index(thing.count) if thing.count else NONE,
            "ground": 1,
        }
        assert {family: set(labels[INDEX[family], mine]) for family in shown} == {k: {n} for k, n in shown.items()}
        to = np.stack([thing.x - x, thing.y - y, np.full_like(x, thing.size)], 1)[mine]
        np.testing.assert_allclose(offsets[mine, :3] * 56, to, atol=0.2)
    written = [(plate, char) for plate in scene.plates for char in plate.text]
    for slot, (plate, char) in enumerate(written):
        mine = item == len(scene.things) + slot
        assert set(labels[INDEX["character"], mine]) == {ALPHABET.index(char)}
        assert set(labels[INDEX["kind"], mine]) == {KINDS.index(plate.kind)}
        end = plate.x + plate.pitch * len(plate.text)
        np.testing.assert_allclose(offsets[mine, 3:] * 112, np.stack([x - plate.x, end - x], 1)[mine], atol=0.2)
    assert labels.shape == (len(FAMILIES), 576)


def test_packed_questions_are_the_drafts() -> None:
    """Blocks hold the whole question and answer, and every answer token its evidence."""
    rng, words = np.random.default_rng(1), pieces()
    seen = set()
    while seen != set(ONE_IMAGE):
        scene = sample_scene(rng, "train", len(backgrounds("train")))
        for name, ask in ONE_IMAGE.items():
            draft = ask(rng, scene)
            if draft:
                tokens, asked, target, bits = tokenise(draft)
                seen.add(name)
                assert len(tokens) <= LENGTH
                assert len(target) == len(bits) <= STEPS + 1
                text = "".join(words[i] for i in target[:-1]).replace("▁", "")
                assert text == draft.answer
                assert words[tokens[asked - 1]] == "ASSISTANT:"
                assert tokens[asked:] == target[:-1]
    assert set(FREQUENCY) == set(TYPES) - {"two_images"}


def test_fixed_batch_is_fixed_and_of_held_out_photographs() -> None:
    first, second = fixed_batch(2, True), fixed_batch(2, True)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert draw_sample(np.random.default_rng(0), True)["tokens"].shape == (40, LENGTH)
