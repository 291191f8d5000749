"""The API reference holds every public name, and each of them has a docstring."""

from __future__ import annotations

import functools
import importlib

import pytest
from docs.api import ELSEWHERE, Public, pages, public_names, rooms

import vlm_pruner

MODULES = [module for modules in rooms().values() for module in modules]
NAMES = [public for module in MODULES for public in public_names(module)]


@functools.cache
def text() -> str:
    return "".join(pages().values())


def test_the_pages_are_fresh():
    stale = [path.name for path, text in pages().items() if path.read_text(encoding="utf-8") != text]
    assert not stale, "run `python -m docs.api`"


def test_no_page_is_of_a_room_that_is_gone():
    wanted = set(pages())
    assert {path for page in wanted for path in page.parent.glob("*.md")} == wanted
    assert not [room for room in ELSEWHERE if not importlib.util.find_spec(f"vlm_pruner.{room}")]


@pytest.mark.parametrize("public", NAMES, ids=lambda public: f"{public.offered}.{public.name}")
def test_a_public_name_is_documented_and_stands_in_the_reference(public: Public):
    assert public.text.strip(), f"{public.home}.{public.name} has no docstring"
    assert f"\n::: {public.home}.{public.name}\n" in text()


@pytest.mark.parametrize("module", [module for module in MODULES if module != "vlm_pruner.serving.vllm"])
def test_what_is_read_from_the_source_is_what_the_module_offers(module: str):
    offered = {public.name for public in public_names(module)}
    assert offered == set(importlib.import_module(module).__all__)


def test_the_package_is_the_first_page():
    assert {public.name for public in public_names("vlm_pruner")} == set(vlm_pruner.__all__)
