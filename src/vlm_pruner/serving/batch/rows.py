"""What a job asks: the rows of a folder, a JSONL file or a Parquet file. A broken row is a row, too."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from vlm_pruner.asking.videos import pictures_in
from vlm_pruner.errors import InputError, missing_package
from vlm_pruner.evaluation.own import images_of, sampling_of
from vlm_pruner.json_text import read_json
from vlm_pruner.video import Sampling

__all__ = ["ENDINGS", "Row", "Source", "arrow", "open_source"]

ENDINGS = (".jsonl", ".parquet")
"""Files that are read, and written."""

_COLUMNS = ("id", "question", "image", "images", "video", "fps", "frames")


@dataclass(frozen=True)
class Row:
    """One question about its pictures; `error` says why there is none."""

    id: str
    question: str = ""
    images: tuple[Path | bytes, ...] = ()  # files, or what is in them
    error: str = ""
    sampling: Sampling | None = None  # frames that are read of a video; None where the row is about pictures


class Source(Protocol):
    """The rows of a job by number, without all of them in memory."""

    def __len__(self) -> int: ...

    def rows(self, start: int, stop: int) -> list[Row]:
        """Rows `start` to `stop` - 1."""

    def fingerprint(self) -> str:
        """A hash over what is asked; pictures that lie in files of their own count by path."""


def open_source(path: str | Path, question: str | None = None) -> Source:
    """The rows of a folder of pictures, a .jsonl or a .parquet file.

    A row has `question`, `id` (the number of its line by default), and its pictures: `image` or `images`, paths from
    the folder of the file or, in Parquet, their bytes; in JSONL also `folder`, whose pictures are shown together. Or it
    has a `video`, the path of one, and perhaps `fps` or `frames`. What else it has is not looked at.

    Args:
        question: of rows that have none.

    Raises:
        InputError: no such folder or file, nothing in it, or a folder without a question.
        BackendUnavailableError: Parquet without pyarrow.
    """
    file = Path(path)
    if file.is_dir():
        if question is None:
            raise InputError(f"{str(path)!r} is a folder of pictures: say what is asked about each with --question")
        return _Folder(tuple(pictures_in(file)), question)
    kinds: dict[str, Any] = {".jsonl": _Lines, ".parquet": _Parquet}
    if file.suffix.lower() not in kinds:
        raise InputError(f"{str(path)!r} is no folder of pictures, and does not end with {' or '.join(ENDINGS)}")
    try:
        source: Source = kinds[file.suffix.lower()](file, question)
    except OSError as error:
        raise InputError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
    if not len(source):
        raise InputError(f"{str(path)!r} holds no rows")
    return source


def arrow() -> Any:
    """pyarrow.parquet.

    Raises:
        BackendUnavailableError: it is not installed.
    """
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise missing_package("Parquet", error) or error from None
    return parquet


@dataclass(frozen=True)
class _Folder:
    files: Sequence[Path]
    question: str

    def __len__(self) -> int:
        return len(self.files)

    def rows(self, start: int, stop: int) -> list[Row]:
        return [Row(file.name, self.question, (file,)) for file in self.files[start:stop]]

    def fingerprint(self) -> str:
        return _hash(self.question, *map(str, self.files))


class _Lines:
    """JSON objects, one a line; empty lines do not count."""

    def __init__(self, file: Path, question: str | None) -> None:
        self.file, self.question = file, question
        lines = enumerate(file.read_bytes().split(b"\n"), 1)
        self.lines = [(number, line) for number, line in lines if line.strip()]

    def __len__(self) -> int:
        return len(self.lines)

    def rows(self, start: int, stop: int) -> list[Row]:
        return [self._row(number, line) for number, line in self.lines[start:stop]]

    def fingerprint(self) -> str:
        return _hash(self.question, *(line for _, line in self.lines))

    def _row(self, number: int, line: bytes) -> Row:
        try:
            data = read_json(line)
        except InputError as error:
            return Row(f"line-{number}", error=str(error))
        if not isinstance(data, dict):
            return Row(f"line-{number}", error=f"not an object, but a {type(data).__name__}")
        return _row(data, f"line-{number}", self.question, functools.partial(images_of, folder=self.file.parent))


class _Parquet:
    """Columns `question`, `id`, `image` or `images`: paths, bytes, or structs of `path` and `bytes`."""

    def __init__(self, file: Path, question: str | None) -> None:
        self.file, self.question = file, question
        try:
            self.opened = arrow().ParquetFile(file)
        except ValueError as error:  # of pyarrow, for a file that is damaged or is something else
            raise InputError(f"{str(file)!r} is not a readable Parquet file: {error}") from error
        there = self.opened.schema_arrow.names
        self.columns = [name for name in _COLUMNS if name in there]
        sizes = [self.opened.metadata.row_group(i).num_rows for i in range(self.opened.num_row_groups)]
        self.starts = [sum(sizes[:i]) for i in range(len(sizes) + 1)]
        self._last: tuple[int, Any] = (-1, None)

    def __len__(self) -> int:
        return int(self.opened.metadata.num_rows)

    def rows(self, start: int, stop: int) -> list[Row]:
        found = []
        for group, first in enumerate(self.starts[:-1]):
            begin, end = max(start, first), min(stop, self.starts[group + 1])
            if begin < end:
                values = self._group(group).slice(begin - first, end - begin).to_pylist()
                found += [self._row(begin + i, value) for i, value in enumerate(values)]
        return found

    def fingerprint(self) -> str:
        digest = hashlib.sha256(self.file.read_bytes()).hexdigest()
        return _hash(self.question, digest)

    def _group(self, group: int) -> Any:
        if self._last[0] != group:
            self._last = group, self.opened.read_row_group(group, columns=self.columns)
        return self._last[1]

    def _row(self, number: int, value: Mapping[str, Any]) -> Row:
        data = {key: held for key, held in value.items() if held is not None}
        return _row(data, f"row-{number + 1}", self.question, self._images)

    def _images(self, data: Mapping[str, Any]) -> tuple[Path | bytes, ...]:
        """Bytes as they are; paths as in JSONL."""
        given: dict[str, Any] = {key: _held(data[key]) for key in ("image", "images", "video") if key in data}
        held = next(iter(given.values()), None)
        if len(given) == 1 and isinstance(held, bytes):
            return (held,)
        if len(given) == 1 and isinstance(held, list) and held and all(isinstance(one, bytes) for one in held):
            return tuple(held)
        return images_of(given, self.file.parent)


def _held(value: Any) -> Any:
    """A path or bytes; of a struct, its bytes where it has any; of a list, a list of these."""
    if isinstance(value, list):
        return [_held(one) for one in value]
    return (value.get("bytes") or value.get("path")) if isinstance(value, dict) else value


def _row(data: Mapping[str, Any], name: str, question: str | None, images: Any) -> Row:
    """A row of what a file says; whatever is wrong with it is its error."""
    name = str(data.get("id", name))
    try:
        asked = data.get("question", question)
        if not isinstance(asked, str):
            raise InputError("no 'question'" if asked is None else f"'question' is a text, not {asked!r}")
        return Row(name, asked, images(data), sampling=sampling_of(data))
    except InputError as error:
        return Row(name, error=str(error))


def _hash(*parts: str | bytes | None) -> str:
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else repr(part).encode(errors="surrogatepass")
        digest.update(f"{len(data)} ".encode() + data)
    return digest.hexdigest()[:16]
