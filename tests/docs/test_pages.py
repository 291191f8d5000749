"""The pages are true: their links lead somewhere, their commands exist, the README stays short."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer
from docs.site import TOP
from tests.support.pages import PAGES, ROOT, anchors, blocks, name, prose

from vlm_pruner.cli import app


def test_the_readme_is_short():
    assert len(PAGES[0].read_text(encoding="utf-8").splitlines()) < 150


COMMANDS = [
    (page, line)
    for page in PAGES
    for block in blocks(page, "sh", "bash", "console")
    for line in block.body.splitlines()
    if line.startswith(("vlm-pruner ", "make "))
]


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=[f"{name(p)}: {line[:40]}" for p, line in COMMANDS])
def test_commands_and_their_options_exist(page: Path, line: str):
    program, command, *words = shlex.split(line, comments=True)
    if program == "make":
        assert re.search(rf"^{command}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        return
    known = typer.main.get_command(app).commands
    assert command in known
    options = {option for parameter in known[command].params for option in parameter.opts}
    assert [word for word in words if re.match("--?[a-z]", word) and word not in options] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path):
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in link:
            assert link.startswith("https://"), link
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{name(page)} links to {link}"
        assert not anchor or anchor in anchors(target), f"{name(page)} links to {link}"


def test_every_page_can_be_reached_from_the_readme():
    found, new = set(), {PAGES[0]}
    while new:
        page = new.pop()
        found.add(page)
        links = re.findall(r"\]\(([^)#\s]+\.md)", page.read_text(encoding="utf-8"))
        new |= {(page.parent / link).resolve() for link in links if "://" not in link} - found
    assert [name(page) for page in PAGES if page not in found] == []


def test_every_page_is_in_the_navigation_of_the_site():
    listed = set(re.findall(r"[\w./-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    pages = {page.relative_to(ROOT / "docs").as_posix() for page in PAGES if page.is_relative_to(ROOT / "docs")}
    assert pages - listed == set()
    assert listed - pages == set(TOP.values())


def test_pictures_are_small():
    pictures = [p for p in (ROOT / "docs").rglob("*") if p.suffix in {".png", ".jpg", ".gif", ".svg"}]
    assert pictures
    assert [p.name for p in pictures if p.stat().st_size > 200_000] == []
