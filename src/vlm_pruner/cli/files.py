"""Files that a command reads or writes: looked at before the work, so that nothing is lost after it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vlm_pruner.errors import InputError

__all__ = ["PAGES", "PICTURES", "PLOTS", "RESULTS", "present", "saving", "writable"]

PAGES = (".html", ".htm")
"""Endings of the pages that browsers open."""

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tiff", ".pdf")
"""Endings of the pictures that Pillow writes."""

PLOTS = (".png", ".svg", ".pdf")
"""Endings of the plots that matplotlib writes."""

RESULTS = (".json",)
"""Ending of the results; tables and curves lie beside them under the same name."""


def present(path: str | Path | None, what: str = "image") -> None:
    """Raise where nothing lies at a path that is given: told before torch is imported.

    Raises:
        InputError: as of `asking.check_there`.
    """
    from vlm_pruner.asking import check_there

    if path is not None:
        check_there(path, what)


def writable(path: Path, endings: Sequence[str] = (), *, read: str = "") -> Path:
    """`path`, its folder made, if a file can be written there; one that is there stays as it is.

    Args:
        endings: what it may end with; empty = anything.
        read: the file that the command reads, which it shall not write over.

    Raises:
        InputError: it is a folder, or the file that is read; it cannot be written; it has none of the endings.
    """
    with saving(path):
        if path.is_dir():
            raise InputError(f"{str(path)!r} is a folder; name a file in it")
    if endings and path.suffix.lower() not in endings:
        raise InputError(f"cannot tell from {str(path)!r} what to write: end it with {', '.join(endings)}")
    with saving(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        there = path.exists()
        if there and read and Path(read).exists() and path.samefile(read):
            raise InputError(f"{str(path)!r} is the image that is asked about: name another file")
        with path.open("ab"):
            pass
        if not there:
            path.unlink()
    return path


@contextmanager
def saving(path: Path) -> Iterator[None]:
    """Within the block, what the system says against writing `path` is told in plain words.

    Raises:
        InputError: it cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write {str(path)!r}: {error.strerror or error}") from error
    except ValueError as error:  # a name with a NUL
        if isinstance(error, InputError):
            raise
        raise InputError(f"cannot write {str(path)!r}: {error}") from error
