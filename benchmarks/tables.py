"""Tables of the README and the docs, made from `results/*.json` and from the registries.

A page says where a table goes: `<!-- table: NAME -->`, then `<!-- /table -->`; what stands between is replaced.

    python -m benchmarks.tables            write every table of every page anew
    python -m benchmarks.tables --check    name the pages that are not what their sources say, and fail
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from benchmarks.table_sources import SOURCES

__all__ = ["fill", "pages", "stale"]

ROOT = Path(__file__).parents[1]
PLACE = re.compile(r"<!-- table: (?P<name>[\w-]+) -->\n.*?<!-- /table -->", re.DOTALL)


def fill(text: str, sources: Mapping[str, Callable[[], str]] = SOURCES) -> str:
    """`text` with every table made anew.

    Raises:
        KeyError: a table that no source makes; the message lists the known ones.
    """

    def table(place: re.Match[str]) -> str:
        name = place["name"]
        if name not in sources:
            raise KeyError(f"no source for table {name!r}; known: {', '.join(sources)}")
        return f"<!-- table: {name} -->\n{sources[name]().strip()}\n<!-- /table -->"

    return PLACE.sub(table, text)


def pages(root: Path = ROOT) -> list[Path]:
    """README.md and every page of the docs."""
    return [root / "README.md", *sorted((root / "docs").rglob("*.md"))]


def stale(root: Path = ROOT) -> Iterator[tuple[Path, str]]:
    """Pages that differ from what their sources say, and what they should be."""
    for page in pages(root):
        text = page.read_text(encoding="utf-8")
        new = fill(text)
        if new != text:
            yield page, new


def main(options: argparse.Namespace) -> None:
    """Write, or only say what is stale.

    Raises:
        SystemExit: `--check` found a stale page.
    """
    found = list(stale())
    for page, new in found:
        print(f"{'stale' if options.check else 'wrote'} {page.relative_to(ROOT)}")
        if not options.check:
            page.write_text(new, encoding="utf-8")
    if options.check and found:
        raise SystemExit("run python -m benchmarks.tables")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a page is stale")
    main(parser.parse_args())
