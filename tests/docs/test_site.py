"""The site has the pages of the root, and their links lead to where they are on it."""

from __future__ import annotations

import re

from docs.site import TOP, stage


def test_pages_of_the_root_are_pages_of_the_site(tmp_path):
    config = stage(tmp_path / "site")
    docs = config.parent / "docs"
    assert all((docs / name).exists() for name in TOP.values())
    assert "](log.md)" in (docs / "contributing.md").read_text(encoding="utf-8")
    assert "](contributing.md)" in (docs / "index.md").read_text(encoding="utf-8")
    for page in docs.rglob("*.md"):
        for link in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
            assert "://" in link or (page.parent / link).exists(), f"{page.relative_to(docs)}: {link}"
