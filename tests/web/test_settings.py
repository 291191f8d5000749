"""A visitor's choice in its other spellings: a link that comes back, and Python that runs."""

from __future__ import annotations

import ast
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from vlm_pruner.errors import InputError, PlanError
from vlm_pruner.methods import base, methods_from
from vlm_pruner.methods.random import RandomPrune
from vlm_pruner.plan import PrunePlan
from vlm_pruner.web.settings import MAX_CHOICES, UPLOADED, Choice, Settings, address, python_lines

ALL = Settings(
    "scene-word",
    "What & why = “ö”?\n#1",
    (Choice("vlm-pruner", 11, 2), Choice("divprune", 7.5), Choice("grid", 100, 0)),
    64,
)


def _of(layers: int) -> partial[PrunePlan]:
    """What makes plans for a model of so many layers."""
    return partial(PrunePlan.of, num_layers=layers)


@pytest.mark.parametrize("settings", [Settings(), ALL])
def test_a_link_restores_everything(settings):
    assert Settings.from_query(parse_qs(settings.to_query())) == (settings, [])


def test_what_a_link_does_not_say_stays_at_its_default():
    assert Settings.from_query({}) == (Settings(), [])


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("try=vlm-prunner,11", "did you mean 'vlm-pruner'?"),
        ("try=vlm-pruner", "is not method,percent,layer"),
        ("try=vlm-pruner,many", "is not method,percent,layer"),
        ("try=vlm-pruner,11,deep", "is not method,percent,layer"),
        ("try=vlm-pruner,0", "1 to 100 can be asked for"),
        ("try=vlm-pruner,nan", "1 to 100 can be asked for"),
        ("tokens=0", "tokens='0' is not a number from 1 to"),
        ("tokens=1e9", "is not a number from 1 to"),
        ("&".join(["try=grid,5"] * 4), "may try 3 methods, this one has 4"),
    ],
)
def test_a_broken_link_says_what_is_wrong_and_the_rest_counts(query, problem):
    settings, problems = Settings.from_query(parse_qs(f"question=Why?&{query}"))
    assert problem in " ".join(problems)
    assert settings.question == "Why?"
    assert 1 <= len(settings.choices) <= MAX_CHOICES


def test_the_link_replaces_what_was_in_the_address():
    assert address("http://h:1/p?old=1#x", Settings()) == f"http://h:1/p?{Settings().to_query()}"
    assert address("", Settings()).startswith("?picture=")


def test_plans_are_those_of_the_library():
    plan = Choice("vlm-pruner", 11).plan(_of(8))
    assert (plan.stages[0].keep, plan.stages[0].layer) == (0.11, 2)
    with pytest.raises(PlanError, match="layer 9 does not exist"):
        Choice("grid", 11, 9).plan(_of(8))


def test_choices_are_read_strictly():
    assert Choice.from_text("vlm-pruner,11") == Choice("vlm-pruner", 11)
    assert Choice.from_text("vlm-pruner,11,2") == Choice("vlm-pruner", 11, 2)
    assert Choice.from_text("vlm-pruner,11,tower") == Choice("vlm-pruner", 11, "tower")
    assert Choice("vlm-pruner", 11, "tower").to_text() == "vlm-pruner,11,tower"
    with pytest.raises(InputError, match="is not method,percent,layer"):
        Choice.from_text("vlm-pruner,11,2.5")


@pytest.mark.parametrize("model", ["embedded", "owner/name"])
def test_the_python_lines_are_python_with_two_lines_for_each_choice(model):
    text = python_lines(model, ALL)
    ast.parse(text)
    assert text.count("with vp.prune(loaded.model") == 3
    assert 'vp.prune(loaded.model, "vlm-pruner", keep=0.11, layer=2)' in text
    assert repr(ALL.question) in text
    assert "gallery()['scene-word'].image" in text
    assert "open_shown('mine.mp4')" in python_lines(model, Settings(UPLOADED), file="mine.mp4")
    assert 'open_image("demo")' in python_lines(model, Settings("demo"))
    assert "open_model()" in text if model == "embedded" else "open_model('owner/name')" in text


OWN = {"random": RandomPrune(seed=7), "plan.json": PrunePlan.of("grid", 9, num_layers=4)}


def test_what_the_server_was_started_with_is_what_a_choice_means() -> None:
    assert Choice("random", 50).plan(_of(4), OWN).stages[0].method == RandomPrune(seed=7)
    assert Choice("random", 50).plan(_of(4)).stages[0].method == RandomPrune()
    assert Choice("plan.json", 50, 3).plan(_of(4), OWN) is OWN["plan.json"]
    assert Choice("plan.json", 50).title(OWN) == ("plan.json", "keeps what the plan says")
    assert Choice("random", 50).title(OWN)[1] == "keeps 50 % of the tokens"
    assert Choice.from_text("plan.json,11", OWN) == Choice("plan.json", 11)
    with pytest.raises(PlanError, match=r"unknown method 'plan\.json'"):
        Choice.from_text("plan.json,11")
    settings = Settings("demo", "Why?", (Choice("random", 25, 2), Choice("plan.json", 11)))
    assert Settings.from_query(parse_qs(settings.to_query()), OWN) == (settings, [])
    text = python_lines("embedded", settings, OWN)
    assert 'vp.prune(loaded.model, "random", keep=0.25, layer=2, seed=7)' in text
    assert "vp.prune(loaded.model, vp.PrunePlan.from_json(open('plan.json').read()))" in text
    assert "methods_from" not in text


def test_the_python_lines_name_the_file_of_a_method_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "a_page_method.py"
    file.write_text(
        "import dataclasses\nimport vlm_pruner as vp\n\n\n@dataclasses.dataclass(frozen=True)\n"
        "class First(vp.PruningMethod):\n    name, title, source = 'first', 'First', 'a test'\n\n"
        "    def select(self, tokens, keep):\n        raise NotImplementedError\n"
    )
    try:
        methods_from(file)
        text = python_lines("embedded", Settings("demo", "Why?", (Choice("first", 25),)))
    finally:
        base._registered.clear()
        base.registry.cache_clear()
    assert "from vlm_pruner.methods import methods_from\nmethods_from('a_page_method.py')\n" in text
