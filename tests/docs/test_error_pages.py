"""Every error has a page, which leads out of every complaint and every traceback."""

from __future__ import annotations

import inspect
import traceback

import pytest
from docs.error_pages import pages
from tests.support.commands import complaint, run

from vlm_pruner import errors
from vlm_pruner.errors import HELP, PlanError, VlmPrunerError, explained

CLASSES = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, VlmPrunerError) and value is not VlmPrunerError
]


def test_the_pages_are_fresh():
    stale = [path.name for path, text in pages().items() if path.read_text(encoding="utf-8") != text]
    assert not stale, "run `python -m docs.error_pages`"


def test_every_error_has_a_page_of_its_own():
    assert sorted(str(cls.code) for cls in CLASSES) == sorted(HELP)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_a_page_says_what_is_seen_why_and_what_to_do(cls):
    text = explained(cls.code)
    assert text.startswith(f"# {cls.__name__}\n")
    assert [word for word in ("**What you see.**", "**Why.**", "**What to do") if word not in text] == []
    also = next(base.__name__ for base in cls.__mro__[1:] if base.__module__ == "builtins")
    assert f"`{also}`" in text or also == "Exception"
    assert explained(cls.__name__) == text


def test_a_complaint_ends_with_the_command_that_explains_it():
    said = run("ask", "demo", "what?", "--keep", "0").stderr
    assert said.rstrip().endswith("[vlm-pruner explain plan]")
    told = run("explain", "plan")
    assert told.exit_code == 0
    assert told.stdout.strip() == explained("plan").strip()


def test_all_errors_are_listed():
    assert [line.split()[0] for line in run("explain").stdout.splitlines()] == list(HELP)
    assert complaint(run("explain", "plam")).startswith("unknown error 'plam'; did you mean 'plan'?")


def test_a_traceback_ends_with_it_and_the_message_is_what_it_was():
    error = PlanError("keep=0")
    assert str(error) == "keep=0"
    assert traceback.format_exception(error)[-1].strip() == "What to do: vlm-pruner explain plan"


def test_the_root_has_no_page_and_says_where_the_others_are():
    assert VlmPrunerError("x").help_command == "vlm-pruner explain"
    assert not hasattr(VlmPrunerError("x"), "__notes__")
