"""Builds the pages as a site, in which a warning is an error: `make docs`, which is `python -m docs.site`.

The pages of the repository's root (changelog, contributing, assets) become pages of the site: everything is copied to a
folder of its own first, where their links and the links to them are what they are on the site.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

__all__ = ["build", "stage"]

ROOT = Path(__file__).parents[1]
STAGE = ROOT / "out" / "docs"
TOP = {
    "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md", "ASSETS.md": "assets.md",
    "SECURITY.md": "security.md",
}  # fmt: skip
"""Pages of the root -> what they are called on the site."""
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def stage(folder: Path = STAGE) -> Path:
    """Copy what the site is made of to `folder`: the configuration, the sources of the reference, and all pages.

    Returns:
        The configuration.
    """
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "docs", folder / "docs", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    for page, name in TOP.items():
        text = (ROOT / page).read_text(encoding="utf-8").replace("](docs/", "](")
        (folder / "docs" / name).write_text(_renamed(text, ""), encoding="utf-8")
    for path in (folder / "docs").rglob("*.md"):
        depth = len(path.relative_to(folder / "docs").parts)
        path.write_text(_renamed(path.read_text(encoding="utf-8"), "../" * depth), encoding="utf-8")
    for notebook in (ROOT / "docs" / "notebooks").glob("*.py"):
        shutil.copy(notebook, folder / "docs" / "notebooks")
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    (folder / "mkdocs.yml").write_text(config.replace("paths: [src]", f"paths: [{ROOT / 'src'}]"), encoding="utf-8")
    return folder / "mkdocs.yml"


def _renamed(text: str, up: str) -> str:
    """Links to pages of the root, which lie `up` from here in the repository, as they are on the site."""
    for page, name in TOP.items():
        text = text.replace(f"]({up}{page}", f"]({up.removesuffix('../')}{name}")
    return text


def build(target: Path) -> None:
    """Build the site into `target`.

    Raises:
        SystemExit: the build failed, or warned of anything.
    """
    config = stage()
    done = subprocess.run(
        [Path(sys.executable).parent / "zensical", "build", "--strict", "--clean", "-f", config],
        capture_output=True,
        text=True,
        cwd=config.parent,
    )
    said = COLOUR.sub("", done.stdout + done.stderr)
    if done.returncode or re.search(r"warning|^griffe:", said, re.IGNORECASE | re.MULTILINE):
        raise SystemExit(f"the site was not built without a warning:\n{said}")
    shutil.rmtree(target, ignore_errors=True)
    shutil.move(config.parent / "site", target)
    print(f"{len(list(target.rglob('*.html')))} pages, no warning: {target / 'index.html'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "site", help="folder to write to")
    build(parser.parse_args().out)
