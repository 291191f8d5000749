"""The pages are true: their code runs, their commands and links exist, and the README stays short."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer
from PIL import Image

from vlm_pruner import load_embedded, scenes
from vlm_pruner.cli import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "ASSETS.md", *sorted((ROOT / "docs").rglob("*.md"))]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(page: Path, *languages: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return [body for language, body in re.findall(r"^```(\w+)\n(.*?)^```$", text, re.M | re.S) if language in languages]


@pytest.fixture(scope="module")
def given():
    """What a page may take for granted: a model, its processor, an image and a prompt."""
    model, processor = load_embedded()
    image = Image.open(scenes.DEMO)
    content = [{"type": "image"}, {"type": "text", "text": scenes.DEMO_QUESTIONS[0][0]}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = processor(text=[prompt], images=[image], return_tensors="pt")
    return {"model": model, "processor": processor, "image": image, "inputs": inputs}


def test_the_readme_is_short():
    assert len(PAGES[0].read_text(encoding="utf-8").splitlines()) < 150


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=name)
def test_python_runs_in_the_order_of_the_page(page, given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = dict(given)
    for number, block in enumerate(blocks(page, "python")):
        exec(compile(block, f"{name(page)}, block {number}", "exec"), namespace)


def test_the_four_lines_of_the_readme_prune(given, capsys):
    exec(blocks(PAGES[0], "python")[0], dict(given))
    assert capsys.readouterr().out.startswith("64/576 tokens kept")


COMMANDS = [
    (page, line)
    for page in PAGES
    for block in blocks(page, "sh", "console")
    for line in block.splitlines()
    if line.startswith(("vlm-pruner ", "make "))
]


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=[f"{name(p)}: {line[:40]}" for p, line in COMMANDS])
def test_commands_and_their_options_exist(page, line):
    program, command, *words = shlex.split(line, comments=True)
    if program == "make":
        assert re.search(rf"^{command}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        return
    known = typer.main.get_command(app).commands
    assert command in known
    options = {option for parameter in known[command].params for option in parameter.opts}
    assert [word for word in words if re.match("--?[a-z]", word) and word not in options] == []


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
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


def test_pictures_are_small():
    pictures = [p for p in (ROOT / "docs").rglob("*") if p.suffix in {".png", ".jpg", ".gif", ".svg"}]
    assert pictures
    assert [p.name for p in pictures if p.stat().st_size > 200_000] == []
