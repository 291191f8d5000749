"""The pages of the docs as tests read them: their files, their code blocks, their anchors."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

__all__ = ["PAGES", "ROOT", "Block", "anchors", "blocks", "name", "prose"]

ROOT = Path(__file__).parents[2]
TOP = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "ASSETS.md")
PAGES = [*(ROOT / page for page in TOP), *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"(?:^<!-- not run: (?P<why>.+) -->\n)?^```(?P<language>\w*)\n(?P<body>.*?)^```$", re.M | re.S)


class Block(NamedTuple):
    """A fenced block: its language, its text, and why it is not run (empty where it is)."""

    language: str
    body: str
    why: str


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(page: Path, *languages: str) -> list[Block]:
    """The fenced blocks of a page in these languages, in their order."""
    found = FENCE.finditer(page.read_text(encoding="utf-8"))
    return [Block(f["language"], f["body"], f["why"] or "") for f in found if f["language"] in languages]


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """What a link may name on a page: its headings as the site and GitHub call them, and names of the reference."""
    heads = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    made = {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}
    return made | set(re.findall(r"^::: (\S+)$", prose(page), re.MULTILINE))
