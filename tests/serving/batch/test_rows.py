"""Sources of a job: what is a row, what is a broken row, and what is no source."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from vlm_pruner.errors import InputError
from vlm_pruner.serving.batch.rows import Row, open_source


def lines(tmp_path: Path, *rows: object) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8")
    return path


def test_lines_are_rows_with_names_and_the_common_question(tmp_path: Path) -> None:
    path = lines(
        tmp_path, {"image": "a.png", "question": "Why?", "more": 1}, "", {"id": 7, "images": ["b.png", "c.png"]}
    )
    source = open_source(path, "What?")
    assert len(source) == 2
    assert source.rows(0, 1) == [Row("line-1", "Why?", (tmp_path / "a.png",))]
    assert source.rows(1, 5) == [Row("7", "What?", (tmp_path / "b.png", tmp_path / "c.png"))]


def test_line_separators_within_a_text_do_not_end_a_line(tmp_path: Path) -> None:
    path = lines(tmp_path, json.dumps({"image": "a.png", "question": "a\u2028b\x85c"}, ensure_ascii=False))
    assert [row.question for row in open_source(path).rows(0, 9)] == ["a\u2028b\x85c"]


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("{", "not JSON"),
        ("[1]", "not an object, but a list"),
        ('{"image": "a.png"}', "no 'question'"),
        ('{"image": "a.png", "question": ["x"]}', "'question' is a text, not ['x']"),
        ('{"question": "Why?"}', "one of 'image', 'images', 'folder' and 'video'"),
        ('{"question": "Why?", "image": "a.png", "folder": "b"}', "not two"),
        ('{"question": "Why?", "folder": "none"}', "cannot read the folder"),
        ('{"question": "Why?", "images": []}', "'images' is a list of names"),
    ],
)
def test_a_broken_line_is_a_row_with_an_error(tmp_path: Path, line: str, error: str) -> None:
    (row,) = open_source(lines(tmp_path, line)).rows(0, 1)
    assert error in row.error
    assert row.id == "line-1"


def test_a_line_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"question": "\xff", "image": "a.png"}\n')
    assert "not JSON" in open_source(path).rows(0, 1)[0].error


def test_a_folder_is_its_pictures_in_order(tmp_path: Path) -> None:
    for name in ("10.png", "9.png", "notes.txt"):
        Image.new("RGB", (8, 8)).save(tmp_path / name, format="PNG")
    source = open_source(tmp_path, "What is it?")
    assert [row.id for row in source.rows(0, len(source))] == ["9.png", "10.png"]
    with pytest.raises(InputError, match="say what is asked about each with --question"):
        open_source(tmp_path)


def test_what_is_no_source(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"does not end with \.jsonl or \.parquet"):
        open_source(tmp_path / "rows.csv")
    with pytest.raises(InputError, match="No such file"):
        open_source(tmp_path / "rows.jsonl")
    with pytest.raises(InputError, match="holds no rows"):
        open_source(lines(tmp_path))


def test_the_fingerprint_is_of_questions_and_names(tmp_path: Path) -> None:
    one = open_source(lines(tmp_path, {"image": "a.png", "question": "Why?"}), "Q").fingerprint()
    assert one == open_source(lines(tmp_path, {"image": "a.png", "question": "Why?"}), "Q").fingerprint()
    assert one != open_source(lines(tmp_path, {"image": "b.png", "question": "Why?"}), "Q").fingerprint()
    assert one != open_source(lines(tmp_path, {"image": "a.png", "question": "Why?"}), "R").fingerprint()


def test_parquet_holds_paths_bytes_and_structs(tmp_path: Path) -> None:
    parquet, pa = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    paths = pa.table({"image": ["a.png", "b.png", None], "question": ["1", "2", "3"]})
    parquet.write_table(paths, tmp_path / "p.parquet", row_group_size=2)
    source = open_source(tmp_path / "p.parquet")
    assert source.rows(1, 2) == [Row("row-2", "2", (tmp_path / "b.png",))]
    assert "one of 'image'" in source.rows(2, 3)[0].error
    held = [{"bytes": b"x", "path": "a.png"}, {"bytes": None, "path": "b.png"}]
    parquet.write_table(pa.table({"id": [1, 2], "image": held}), tmp_path / "s.parquet")
    first, second = open_source(tmp_path / "s.parquet", "Q").rows(0, 2)
    assert first == Row("1", "Q", (b"x",))
    assert second == Row("2", "Q", (tmp_path / "b.png",))
    parquet.write_table(pa.table({"images": [[b"x", b"y"]]}), tmp_path / "l.parquet")
    assert open_source(tmp_path / "l.parquet", "Q").rows(0, 1) == [Row("row-1", "Q", (b"x", b"y"))]
    (tmp_path / "bad.parquet").write_bytes(b"no parquet at all")
    with pytest.raises(InputError, match="not a readable Parquet file"):
        open_source(tmp_path / "bad.parquet")
