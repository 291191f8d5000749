"""Pictures that are uploaded as files of a form."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import pytest
from PIL import Image
from tests.support.chat_server import body, call, chat_server, data_url

from vlm_pruner import scenes
from vlm_pruner.serving.http.limits import HttpError
from vlm_pruner.serving.http.uploads import read_form

ASKED = "What is the word?"
FILE = scenes.DEMO.read_bytes()
EDGE = "----edge7"


@pytest.fixture(scope="module")
def address() -> Any:
    with chat_server() as (address, _):
        yield address


def form(*fields: tuple[str, bytes], edge: str = EDGE) -> bytes:
    made = b"".join(
        f'--{edge}\r\nContent-Disposition: form-data; name="{name}"; filename="a \\"b\\".png"\r\n'
        f"Content-Type: image/png\r\n\r\n".encode()
        + data
        + b"\r\n"
        for name, data in fields
    )
    return made + f"--{edge}--\r\n".encode()


def posted(address: str, *fields: tuple[str, bytes]) -> tuple[int, Any, Any]:
    return call(address, form(*fields), **{"Content-Type": f"multipart/form-data; boundary={EDGE}"})


def asked(*urls: str, **more: Any) -> bytes:
    return json.dumps(body(ASKED, *urls, **more)).encode()


def test_an_uploaded_picture_is_answered_as_a_data_url(address: str) -> None:
    data = call(address, body(ASKED, data_url(Image.open(scenes.DEMO)), max_tokens=16))[1]
    status, answer, _ = posted(address, ("request", asked("upload:photo", max_tokens=16)), ("photo", FILE))
    assert status == 200
    assert answer["choices"] == data["choices"]
    assert answer["usage"] == data["usage"]
    assert (answer["vlm_pruner"]["total"], answer["vlm_pruner"]["kept"]) == (576, 64)


def test_two_files_of_which_one_is_shown_twice_beside_a_data_url(address: str) -> None:
    urls = ("upload:b", data_url(Image.open(scenes.DEMO)), "upload:a", "upload:b")
    status, answer, _ = posted(address, ("a", FILE), ("b", FILE), ("request", asked(*urls)))
    assert status == 200
    assert answer["vlm_pruner"]["total"] == 4 * 576


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ([("request", asked("upload:other")), ("photo", FILE)], 400, "no_upload"),
        ([("request", asked()), ("photo", FILE)], 400, "upload_unused"),
        ([("photo", FILE)], 400, "invalid_form"),
        ([("request", asked()), ("request", asked())], 400, "invalid_form"),
        ([("", FILE)], 400, "invalid_form"),
        ([("request", b"{")], 400, "invalid_json"),
        ([("request", asked("upload:photo")), ("photo", FILE[:200])], 400, "invalid_image"),
        ([("request", asked("upload:photo")), ("photo", b"")], 400, "invalid_image"),
        ([("request", asked("file:///etc/passwd"))], 400, "image_url_not_allowed"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_form_is_told(address: str, fields: Any, status: int, code: str) -> None:
    found, answer, _ = posted(address, *fields)
    assert (found, answer["error"]["code"]) == (status, code), answer


def test_a_name_without_its_file_is_no_url(address: str) -> None:
    assert call(address, body(ASKED, "upload:photo"))[1]["error"]["code"] == "no_upload"


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary=other"])
def test_a_form_that_does_not_part_where_it_says(address: str, kind: str) -> None:
    answer = call(address, form(("request", asked())), **{"Content-Type": kind})[1]
    assert answer["error"]["code"] == "invalid_form"


def test_a_form_that_is_cut_off(address: str) -> None:
    whole = form(("request", asked("upload:photo")), ("photo", FILE))
    for end in (0, 1, len(whole) // 2, len(whole) - 4):
        answer = call(address, whole[:end], **{"Content-Type": f"multipart/form-data; boundary={EDGE}"})[1]
        assert answer["error"]["code"] == "invalid_form", end


@pytest.mark.parametrize("data", [b"", b"\r\n", b"\r\n\r\n", b"--", b"\r\n--", bytes(range(256)) * 3, b"\n" + b"-" * 9])
def test_every_byte_of_a_file_arrives(data: bytes) -> None:
    text, files = read_form(form(("request", b"{}"), ("a", data)), f'multipart/form-data; boundary="{EDGE}"')
    assert text == b"{}"
    assert files.take("upload:a", "picture 1") == data
    files.check_all_taken()
    with pytest.raises(HttpError, match="no file 'b'"):
        files.take("upload:b", "picture 1")


def test_curl_uploads_as_documented(address: str, tmp_path: Any) -> None:
    if shutil.which("curl") is None:
        pytest.skip("no curl here")
    (tmp_path / "photo.png").write_bytes(FILE)
    words = ["curl", "-s", f"http://{address}/v1/chat/completions", "--form-string"]
    words += [f"request={asked('upload:photo').decode()}"]
    done = subprocess.run([*words, "-F", "photo=@photo.png"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["vlm_pruner"]["total"] == 576
