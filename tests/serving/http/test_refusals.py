"""What a server refuses: each with a status, a message and a code, and the next client is answered."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from PIL import Image
from tests.support.chat_server import body, call, chat_server, data_url, loaded

from vlm_pruner import scenes

URL = data_url(Image.open(scenes.DEMO))


@pytest.fixture(scope="module")
def address() -> Any:
    with chat_server() as (address, _):
        yield address
        assert call(address, body("What is the word?", URL))[0] == 200  # after all of that


def until(what: Any, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


def large() -> str:
    return data_url(Image.new("1", (10000, 10000)))


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"{", 400, "invalid_json"),
        (b"[]", 400, "invalid_json"),
        (b"[" * 100_000, 400, "invalid_json"),
        ({}, 400, "invalid_messages"),
        ({"messages": [{"role": "robot", "content": "a"}, {"role": "user", "content": "a"}]}, 400, "invalid_messages"),
        ({"messages": ["a"]}, 400, "invalid_messages"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, 400, "invalid_messages"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, 400, "invalid_messages"),
        (body("a", max_tokens=0), 400, "invalid_max_tokens"),
        (body("a", max_tokens=10**9), 400, "invalid_max_tokens"),
        (body("a", temperature="hot"), 400, "invalid_temperature"),
        (body("a", temperature=True), 400, "invalid_temperature"),
        (body("a", temperature=-0.1), 400, "invalid_temperature"),
        (body("a", temperature=2.1), 400, "invalid_temperature"),
        (body("a", top_p=-0.1), 400, "invalid_top_p"),
        (body("a", top_p=1.1), 400, "invalid_top_p"),
        (body("a", seed=0.5), 400, "invalid_seed"),
        (body("a", seed=2**63), 400, "invalid_seed"),
        (body("a", seed=-(2**63) - 1), 400, "invalid_seed"),
        (body("a", tools=[{"type": "function"}]), 400, "unsupported_parameter"),
        (body("a", stop=["."]), 400, "unsupported_parameter"),
        (body("a", n=2), 400, "unsupported_parameter"),
        (body("a", vlm_pruner={"keep": 0}), 400, "invalid_plan"),
        (body("a", vlm_pruner={"keep": 64, "metod": "x"}), 400, "invalid_plan"),
        (body("a", vlm_pruner={"keep": 64, "method": "vlm-prunr"}), 400, "invalid_plan"),
        (body("a", vlm_pruner="64"), 400, "invalid_plan"),
        (body("Is there a <image>?", URL), 400, "cannot_answer"),
        (body(" ", URL), 400, "cannot_answer"),
        (body("a", "file:///etc/passwd"), 400, "image_url_not_allowed"),
        (body("a", "http://169.254.169.254/latest/meta-data/"), 400, "image_url_not_allowed"),
        (body("a", "https://example.org/cat.png"), 400, "image_url_not_allowed"),
        (body("a", "data:image/png;base64,AAAA"), 400, "invalid_image"),
        (body("a", "data:image/png;base64,?"), 400, "invalid_image_url"),
        (body("a", "data:text/html,hello"), 400, "invalid_image_url"),
        (body("a", *[URL[:100]] * 1000), 400, "too_many_images"),
        (body("a", large()), 413, "image_too_large"),
    ],
)
def test_a_request_that_cannot_be_answered(address: str, data: Any, status: int, code: str) -> None:
    found, answer, _ = call(address, data)
    assert (found, answer["error"]["code"]) == (status, code), answer
    assert answer["error"]["message"]


def test_a_body_of_200_megabytes_is_refused_before_it_is_read(address: str) -> None:
    connection = http.client.HTTPConnection(address, timeout=60)
    connection.putrequest("POST", "/v1/chat/completions")
    connection.putheader("Content-Length", "200000000")
    connection.endheaders()
    sent = 0
    with contextlib.suppress(OSError):  # it may be cut off, and the answer is there all the same
        while sent < 200_000_000:
            connection.send(b" " * 1_000_000)
            sent += 1_000_000
    answer = connection.getresponse()
    assert answer.status == 413
    assert json.loads(answer.read())["error"]["code"] == "body_too_large"
    connection.close()


def test_a_body_of_unknown_length_and_unknown_places(address: str) -> None:
    connection = http.client.HTTPConnection(address, timeout=60)
    connection.request("POST", "/v1/chat/completions", iter([b"{}"]), encode_chunked=True,
                       headers={"Transfer-Encoding": "chunked"})  # fmt: skip
    assert connection.getresponse().status == 411
    connection.close()
    assert call(address, path="/v1/nothing")[0] == 404
    assert call(address, {}, path="/v1/completions")[0] == 404


def test_a_client_that_stops_sending_is_let_go() -> None:
    with chat_server(read_seconds=0.3) as (address, chat):
        host, port = address.split(":")
        with socket.create_connection((host, int(port))) as client:
            client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 100\r\n\r\n{")
            assert b" 408 " in client.recv(4096)
        until(lambda: chat.waiting == 0)


def test_the_key_is_asked_for() -> None:
    with chat_server(key="secret") as (address, _):
        assert call(address, path="/health")[0] == 200
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer s\xe9cret"}):
            assert call(address, path="/v1/models", **headers)[0] == 401
            assert call(address, body("a"), **headers)[1]["error"]["code"] == "invalid_api_key"
        assert call(address, path="/v1/models", Authorization="Bearer secret")[0] == 200


def test_a_full_queue_says_when_to_come_back() -> None:
    with chat_server(queue=1) as (address, chat):
        with chat.turns.ticket(threading.Event()):
            first = threading.Thread(target=call, args=(address, body("hello")))
            first.start()
            until(lambda: len(chat.turns.line) == 2)
            status, answer, headers = call(address, body("hello"))
            assert (status, answer["error"]["code"]) == (503, "queue_full")
            assert int(headers["Retry-After"]) > 0
        first.join()
        until(lambda: chat.waiting == 0)
        assert call(address, body("hello"))[0] == 200


def leave(address: str, data: Any) -> socket.socket:
    """A client that has sent its request."""
    host, port = address.split(":")
    client = socket.create_connection((host, int(port)))
    sent = json.dumps(data).encode()
    client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(sent) + sent)
    return client


@pytest.fixture
def slow() -> Iterator[None]:
    """Every decoder layer takes a tenth of a second."""
    layers = loaded().model.base_model.get_decoder().layers
    hooks = [layer.register_forward_pre_hook(lambda *_: time.sleep(0.1)) for layer in layers]
    yield
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_stops_its_answer(slow: None, stream: bool) -> None:
    with chat_server() as (address, chat):
        client = leave(address, body("Is there a cat?", temperature=2.0, max_tokens=1000, stream=stream))
        until(lambda: bool(chat.turns.line))
        client.close()
        until(lambda: chat.waiting == 0 and not chat.turns.line, 10.0)
        until(lambda: 'code="499"} 1' in call(address, path="/metrics")[1])
        assert "vlm_pruner_cancelled_total 1" in call(address, path="/metrics")[1]


def test_an_answer_that_takes_too_long_is_told(slow: None) -> None:
    with chat_server(seconds=0.5) as (address, chat):
        status, answer, _ = call(address, body("Is there a cat?"))
        assert (status, answer["error"]["code"]) == (504, "timeout")
        until(lambda: chat.waiting == 0)


class _Pictures(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/open/cat.png":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(scenes.DEMO.read_bytes())
        else:
            self.send_response(302)
            self.send_header("Location", "/secret/cat.png")
            self.end_headers()

    def log_message(self, *_: Any) -> None: ...


def test_pictures_are_fetched_from_where_it_is_allowed_and_nowhere_else() -> None:
    with HTTPServer(("127.0.0.1", 0), _Pictures) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        here = f"http://127.0.0.1:{server.server_address[1]}"
        with chat_server(prefixes=(f"{here}/open/",)) as (address, _):
            assert call(address, body("What is the word?", f"{here}/open/cat.png"))[1]["vlm_pruner"]["total"] == 576
            for url, code in (
                (f"{here}/open/../secret/cat.png", "image_url_not_allowed"),
                (f"{here}/secret/cat.png", "image_url_not_allowed"),
                (f"{here}/open/@169.254.169.254/", "image_url_not_allowed"),
                (f"{here}/open/moved.png", "image_url_failed"),
            ):
                assert call(address, body("a", url))[1]["error"]["code"] == code, url
        server.shutdown()
