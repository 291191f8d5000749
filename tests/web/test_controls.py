"""What can be chosen on a model."""

from __future__ import annotations

from tests.support.tiny import model

from vlm_pruner.asking import Loaded, catalogue
from vlm_pruner.methods.base import registry
from vlm_pruner.methods.random import RandomPrune
from vlm_pruner.models import load_embedded
from vlm_pruner.plan import PrunePlan
from vlm_pruner.web.controls import AUTO, NOBODY, about, choices_of, layer_options, method_options, outside, row_of
from vlm_pruner.web.settings import Choice


def offered(loaded):
    """Names of the methods that the list does not mark as impossible on this model."""
    return {name for label, name in method_options(loaded) if "(not on this model)" not in label}


def test_methods_are_those_that_the_model_can_carry_out(tiny):
    names = [name for _, name in method_options(tiny)]
    assert names == [entry.name for entry in catalogue() if entry.name in names], "best first"
    assert set(names) <= registry().keys() - {"none"}
    assert {"divprune", "fastv", "text-attention"} <= offered(tiny)
    assert not any(module._forward_pre_hooks for module in tiny.model.model.language_model.layers)


def test_plans_that_the_server_was_started_with_come_first(tiny):
    own = {"plan.json": PrunePlan.of("grid", 9, num_layers=4), "random": RandomPrune(seed=3)}
    assert method_options(tiny, own)[0] == ("plan.json", "plan.json")
    assert [name for _, name in method_options(tiny, own)][1:] == [name for _, name in method_options(tiny)]


def test_a_method_whose_own_layer_is_too_deep_is_offered_for_another(tiny):
    shallow = Loaded("shallow", model(layers=2), tiny.processor)
    assert registry()["fastv"].default_layer == 2
    assert {"vlm-pruner", "fastv", "dart"} <= offered(shallow)


def test_layers_end_with_the_model():
    labels, values = zip(*layer_options(4), strict=True)
    assert values == (AUTO, "tower", "0", "1", "2", "3")
    assert len(set(labels)) == 6
    assert labels[-1] == "layer 3 of 4"


def test_rows_and_choices_are_the_same_thing():
    choices = (Choice("vlm-pruner", 11), Choice("grid", 50, 0))
    rows = row_of(choices)
    assert rows == ["vlm-pruner", 11, AUTO, "grid", 50, "0", NOBODY, 11, AUTO]
    assert choices_of(rows) == choices


def test_an_empty_row_between_others_is_left_out():
    assert choices_of(["", 11, AUTO, "grid", 5.0, "3", None, 11, AUTO]) == (Choice("grid", 5.0, 3),)
    assert choices_of(["grid", 5.0, "tower"]) == (Choice("grid", 5.0, "tower"),)


def test_only_the_embedded_model_is_said_to_be_small(tiny):
    assert "trained from scratch" not in about(tiny)
    assert "4 decoder layers" in about(tiny)
    assert "trained from scratch" in about(Loaded("embedded", tiny.model, tiny.processor))


def test_a_method_that_no_layer_suits_is_offered_as_such(tiny):
    one = Loaded("one layer", model(layers=1), tiny.processor)
    labels = {name: label for label, name in method_options(one)}
    assert labels.keys() == registry().keys() - {"none"}
    assert labels["fastv"].startswith("FastV (not on this model) – Keeps the tokens that the last prompt token attends")
    assert labels["divprune"].startswith("DivPrune – Keeps diverse tokens")
    marks = [" (not on this model) – " in label for label in labels.values()]
    assert marks == sorted(marks), "what cannot be carried out comes last"


def test_the_embedded_model_says_where_it_guesses(tiny):
    small = Loaded("embedded", tiny.model, load_embedded()[1])
    assert outside(small, True, "What color is the cup?") == ""
    assert outside(small, False, "What color is the cup?").startswith("This picture is outside what the embedded model")
    assert "these words, and guesses: animal, this." in outside(small, True, "What animal is this?")
    assert outside(tiny, False, "What animal is this?") == ""
