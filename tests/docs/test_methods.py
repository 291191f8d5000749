"""The page of methods is what the registry says today."""

import inspect

import pytest
from docs.methods import CATALOGUE, PAGE, catalogue, page

from vlm_pruner.methods import registry


def test_the_page_is_fresh():
    assert PAGE.read_text(encoding="utf-8") == page(), "run `python -m docs.methods`"


def test_the_list_of_the_command_line_is_fresh():
    assert CATALOGUE.read_text(encoding="utf-8") == catalogue(), "run `python -m docs.methods`"


@pytest.mark.parametrize("name", registry())
def test_a_method_says_what_it_costs_and_where_it_comes_from(name):
    cls = registry()[name]
    text = inspect.getdoc(cls)
    assert "Cost:" in text
    assert cls.source == "baseline" or "Deviates" in text
