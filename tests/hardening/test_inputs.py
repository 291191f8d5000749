"""Files and requests that were made to harm: each is refused with one line, at once. What the fuzzers found is here."""

from __future__ import annotations

import io
import json
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.support.chat_server import body, call, chat_server
from tests.support.videos import write_video

from vlm_pruner import InputError, PlanError, PrunePlan
from vlm_pruner.asking.colours import notes_of
from vlm_pruner.asking.opening import read_image
from vlm_pruner.asking.videos import open_shown
from vlm_pruner.evaluation.own import read_questions
from vlm_pruner.json_text import read_json
from vlm_pruner.methods import create
from vlm_pruner.plan import parse_layer
from vlm_pruner.serving.batch.rows import open_source
from vlm_pruner.video import Sampling, open_video

DEEP, LONG = "[" * 100_000, "9" * 5_000
STAGE = {"method": "vlm-pruner", "keep": 64, "layer": 2}


def refused(read: Callable[[], Any], error: type[Exception], words: str, seconds: float = 20.0) -> None:
    began = time.process_time()
    with pytest.raises(error, match=words) as caught:
        read()
    assert len(str(caught.value).splitlines()) == 1
    assert time.process_time() - began < seconds


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (DEEP, "nested too deeply"),
        (LONG, "too many digits"),
        (f'{{"version": 1, "stages": [], "min_visual_tokens": {LONG}}}', "too many digits"),
        ("\ud800", "not JSON"),
    ],
    ids=["deep", "digits", "digits inside", "surrogate"],
)
def test_json_that_cannot_be_read(text: str, words: str, tmp_path: Path) -> None:
    refused(lambda: PrunePlan.from_json(text), PlanError, words)
    refused(lambda: read_json(text), InputError, words)
    path = tmp_path / "questions.jsonl"
    path.write_bytes(text.encode(errors="surrogatepass"))
    refused(lambda: read_questions(path), InputError, f"cannot read questions|{words}")
    assert open_source(path, "What?").rows(0, 1)[0].error


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"stages": None}, "stages=None is not a list"),
        ({"stages": 5}, "stages=5 is not a list"),
        ({"stages": {}}, "stages={} is not a list"),
        ({"stages": [None]}, "a stage is a JSON object"),
        ({"stages": [STAGE | {"params": None}]}, "params=None is not an object"),
        ({"stages": [STAGE | {"params": [1]}]}, "is not an object"),
        ({"stages": [STAGE | {"params": "pivots"}]}, "is not an object"),
        ({"stages": [STAGE | {"method": []}]}, "a method is a name"),
        ({"stages": [STAGE | {"keep": 1e400}]}, "is not a share"),
        ({"made_by": 5}, "made_by=5 is not the name"),
        ({"older": 5}, "older=5 is not a list"),
    ],
    ids=str,
)
def test_a_plan_with_a_value_of_another_kind(change: dict[str, Any], words: str) -> None:
    data = {"version": 1, "stages": [STAGE]} | change
    refused(lambda: PrunePlan.from_json(json.dumps(data)), PlanError, words)


@pytest.mark.parametrize("text", ["--5", "-", "9" * 5000, "²", "1.5"])
def test_a_layer_that_is_no_number(text: str) -> None:
    refused(lambda: parse_layer(text), PlanError, "is not a decoder layer")


def test_numbers_beyond_every_float() -> None:
    refused(lambda: Sampling(fps=10**400), InputError, "cannot be taken")
    refused(lambda: create("vlm-pruner", spatial_weight=10**400), PlanError, "vlm-pruner")


def gif(frames: int, size: tuple[int, int] = (1, 1)) -> bytes:
    head = b"GIF89a" + struct.pack("<HHBBB", *size, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    frame = b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\0"
    return head + frame * frames + b";"


def tiff(pages: int) -> bytes:
    tags = ((256, 1), (257, 1), (258, 8), (259, 1), (262, 1), (273, 0), (278, 1), (279, 1))
    size, made = 6 + 12 * len(tags), bytearray(b"II*\0" + struct.pack("<I", 8))
    for page in range(pages):
        made += struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, 3, 1, value) for tag, value in tags)
        made += struct.pack("<I", 8 + size * (page + 1) if page < pages - 1 else 0)
    return bytes(made)


def png(width: int, height: int) -> bytes:
    held = io.BytesIO()
    Image.new("L", (1, 1)).save(held, "PNG")
    data = bytearray(held.getvalue())
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def test_pictures_that_declare_a_huge_size() -> None:
    refused(lambda: read_image(png(100_000, 100_000), "bomb"), InputError, "megapixels; at most 64 are read")
    refused(lambda: read_image(png(9_000, 9_000), "bomb"), InputError, "81 megapixels; at most 64 are read")
    refused(lambda: read_image(png(1, 70_000), "bomb"), InputError, "a side of 70000 pixels; at most 65535")


def test_a_program_is_not_run_as_a_picture() -> None:
    for start in (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", b"\xc5\xd0\xd3\xc6" + bytes(40)):
        refused(lambda data=start: read_image(data, "photo.jpg"), InputError, "an EPS file, a program")


@pytest.mark.parametrize(("pages", "said"), [(7, "7 frames"), (1_200, "more than 1000 frames")])
def test_pages_of_a_scan_are_counted_up_to_a_thousand(pages: int, said: str) -> None:
    assert notes_of(read_image(tiff(pages), "scan")) == (f"it holds {said}: the first one is shown",)


def test_animations_of_few_bytes_that_ask_for_minutes(tmp_path: Path) -> None:
    for data, words in ((gif(40, (7_900, 7_900)), "at most 2,000 megapixels"), (gif(20_001), "at most 20,000")):
        (tmp_path / "bomb.gif").write_bytes(data)
        refused(lambda: open_shown(tmp_path / "bomb.gif"), InputError, words)


def test_a_script_is_not_read_as_a_video(tmp_path: Path) -> None:
    """FFmpeg would open the files that it names."""
    write_video(tmp_path / "secret.mp4", 6, (64, 48))
    write_video(tmp_path / "secret.ts", 6, (64, 48))
    scripts = {
        "concat.mp4": "ffconcat version 1.0\nfile secret.mp4\n",
        "list.avi": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.ts\n#EXT-X-ENDLIST\n",
    }
    for name, text in scripts.items():
        (tmp_path / name).write_text(text)
        refused(lambda path=tmp_path / name: open_video(path), InputError, "is not a readable video")
    assert len(open_video(tmp_path / "secret.mp4")) == 4


def test_a_video_that_declares_huge_frames(tmp_path: Path) -> None:
    """A file of kilobytes whose frames say that they are 268 megapixels, whatever its header says."""
    path = write_video(tmp_path / "bomb.webm", 6, (64, 48))
    data, mark = path.read_bytes(), b"\x9d\x01\x2a"  # of a key frame, before its width and height
    assert mark + struct.pack("<HH", 64, 48) in data
    path.write_bytes(data.replace(mark + struct.pack("<HH", 64, 48), mark + struct.pack("<HH", 16_383, 16_383)))
    refused(lambda: open_video(path), InputError, "megapixels; at most 64 are read|not a readable video|is damaged")


def test_requests_that_were_made_to_harm() -> None:
    with chat_server() as (address, _):
        for given, code in (
            (body("a", temperature=10**400), "invalid_temperature"),
            (body("a", seed=10**400), "invalid_seed"),
            (DEEP.encode(), "invalid_json"),
            (LONG.encode(), "invalid_json"),
            (body("a", vlm_pruner={"version": 1, "stages": 5}), "invalid_plan"),
            (body("a", vlm_pruner={"keep": 64, "params": 5}), "invalid_plan"),
        ):
            status, answer, _ = call(address, given)
            assert (status, answer["error"]["code"]) == (400, code)
        for headers in ({"Content-Length": LONG}, {"Transfer-Encoding": "chunked", "Content-Length": "2"}):
            status, answer, _ = call(address, b"{}", **headers)
            assert (status, answer["error"]["code"]) == (411, "length_required")


def test_a_fault_of_the_server_is_told_and_the_next_client_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    with chat_server() as (address, chat):
        with monkeypatch.context() as broken:
            broken.setattr(chat, "read", lambda body, kind: 1 // 0)
            status, answer, _ = call(address, body("a"))
            assert (status, answer["error"]["code"]) == (500, "failed")
        assert call(address, {"messages": []})[0] == 400
        assert chat.waiting == 0


def test_the_description_of_the_api_is_what_the_server_takes() -> None:
    from vlm_pruner.serving.http.requests import IGNORED, KNOWN, NEUTRAL

    with chat_server(key="secret", tokens=7) as (address, _):
        assert call(address, path="/openapi.json")[0] == 401
        status, found, _ = call(address, path="/openapi.json", Authorization="Bearer secret")
    assert status == 200
    asked = found["paths"]["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert asked["properties"].keys() == KNOWN | IGNORED | NEUTRAL.keys() | {"vlm_pruner"}
    assert asked["properties"]["max_tokens"]["maximum"] == 7
    assert found["security"] == [{"key": []}]
