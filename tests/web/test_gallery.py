"""The shipped pictures, and pictures of visitors."""

from __future__ import annotations

import struct
import zlib

import pytest
from PIL import Image

from vlm_pruner.errors import InputError
from vlm_pruner.web.gallery import LONGEST_SIDE, gallery, read_upload
from vlm_pruner.web.settings import UPLOADED


def test_scenes_and_photographs_are_there_with_questions():
    pictures = gallery()
    assert next(iter(pictures)) == "demo"
    for kind in ("scene-", "photo-"):
        assert any(key.startswith(kind) for key in pictures)
    assert UPLOADED not in pictures
    for key, picture in pictures.items():
        assert picture.key == key
        assert picture.questions
        assert min(picture.image.size) >= 300


def test_known_answers_are_judged_and_others_left_open():
    demo = gallery()["demo"]
    assert demo.truth("What is the word?") == "MARCH"
    assert demo.verdict(" What is the word? ", "march") is True
    assert demo.verdict("What is the word?", "april") is False
    assert demo.verdict("Why?", "march") is None
    counting = gallery()["scene-counting"]
    assert len(counting.questions) == len(counting.truths) == 6
    assert counting.verdict(counting.questions[0], {"three": "3"}[counting.truth(counting.questions[0])]) is True
    assert gallery()["photo-chelsea"].truth("What animal is this?") is None


def test_an_upload_is_upright_rgb_and_not_too_large(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    Image.new("L", (3000, 500), 200).save(tmp_path / "me.jpg", exif=exif)
    picture = read_upload(tmp_path / "me.jpg")
    assert (picture.key, picture.image.mode) == (UPLOADED, "RGB")
    assert picture.image.height == LONGEST_SIDE
    assert picture.image.width < picture.image.height


def png(width: int, height: int) -> bytes:
    """A header that promises so many pixels."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", b"")]
    body = [struct.pack(">I", len(d)) + name + d + struct.pack(">I", zlib.crc32(name + d)) for name, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not an image", "'me.png' is not a readable image"),
        (png(100, 100), "'me.png' is not a readable image"),
        (png(10_000, 10_000), "10000 x 10000 = 100 megapixels; at most 64 are read"),
        (png(60_000, 60_000), "too large"),
    ],
)
def test_bad_uploads_are_refused_without_naming_the_servers_folders(tmp_path, content, message):
    (tmp_path / "me.png").write_bytes(content)
    with pytest.raises(InputError, match=message) as raised:
        read_upload(tmp_path / "me.png")
    assert str(tmp_path) not in str(raised.value)
