"""The chat server: OpenAI's shapes, the plan of server and request, streams, metrics."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from typing import Any

import pytest
from PIL import Image
from tests.support.chat_server import body, call, chat_server, data_url, loaded

from vlm_pruner import scenes
from vlm_pruner.asking import ask, open_image
from vlm_pruner.plan import PrunePlan

URL = data_url(Image.open(scenes.DEMO))
ASKED = "What is the word?"


@pytest.fixture(scope="module")
def address() -> Any:
    with chat_server() as (address, _):
        yield address


def events(text: str) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_an_answer_has_the_shape_of_openai_and_a_report(address: str) -> None:
    status, answer, _ = call(address, body(ASKED, URL, max_tokens=16))
    assert status == 200
    plan = PrunePlan.of("vlm-pruner", 64, num_layers=loaded().layers)
    own = ask(loaded(), open_image("demo"), ASKED, [plan], max_new_tokens=16, runs=1)[1]
    assert answer["object"] == "chat.completion"
    (choice,) = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": own.text}
    assert choice["finish_reason"] == "stop"
    assert answer["usage"] == {
        "prompt_tokens": 584, "completion_tokens": own.tokens, "total_tokens": 584 + own.tokens,
    }  # fmt: skip
    assert (answer["vlm_pruner"]["total"], answer["vlm_pruner"]["kept"]) == (576, 64)
    assert answer["vlm_pruner"]["plan"] == plan.fingerprint()


def test_a_stream_says_the_same_piece_by_piece(address: str) -> None:
    whole = call(address, body(ASKED, URL, max_tokens=16))[1]["choices"][0]["message"]["content"]
    options = {"stream": True, "stream_options": {"include_usage": True}}
    status, text, headers = call(address, body(ASKED, URL, max_tokens=16, **options))
    assert status == 200
    assert headers["Content-Type"].startswith("text/event-stream")
    *pieces, last, usage = events(text)
    assert pieces[0]["choices"][0]["delta"]["role"] == "assistant"
    assert "".join(piece["choices"][0]["delta"]["content"] for piece in pieces) == whole
    assert len(pieces) > 3
    assert last["choices"][0]["finish_reason"] == "stop"
    assert last["vlm_pruner"]["kept"] == 64
    assert usage["choices"] == []
    assert usage["usage"]["prompt_tokens"] == 584


@pytest.mark.parametrize(
    ("asked", "kept"),
    [({"keep": 0.5}, 288), ({"keep": 32, "method": "divprune"}, 32), ({"method": "none"}, 576),
     (PrunePlan.of("grid", 144, 0, num_layers=8).to_dict(), 144)],
)  # fmt: skip
def test_a_request_may_have_a_plan_of_its_own(address: str, asked: Any, kept: int) -> None:
    answer = call(address, body(ASKED, URL, vlm_pruner=asked))[1]
    assert answer["vlm_pruner"]["kept"] == kept


def test_a_conversation_with_pictures_in_several_messages(address: str) -> None:
    first, then = body(ASKED, URL)["messages"], body("Is there a cat?", URL, URL)["messages"]
    between = [{"role": "assistant", "content": "MARCH"}]
    system = [{"role": "system", "content": "Be brief."}]
    status, answer, _ = call(address, {"messages": [*system, *first, *between, *then], "max_tokens": 4})
    assert status == 200
    assert answer["vlm_pruner"]["total"] == 3 * 576


def test_text_alone_is_answered(address: str) -> None:
    status, answer, _ = call(address, {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4})
    assert status == 200
    assert answer["vlm_pruner"]["total"] == 0


def test_sampling_is_reproducible_with_a_seed(address: str) -> None:
    drawn = [
        call(address, body("Is there a cat?", temperature=2.0, seed=seed, max_tokens=12))[1] for seed in (1, 1, 2, 3, 4)
    ]
    texts = [answer["choices"][0]["message"]["content"] for answer in drawn]
    assert texts[0] == texts[1]
    assert len(set(texts)) > 1


def test_health_models_and_metrics(address: str) -> None:
    assert call(address, path="/health")[1]["status"] == "ok"
    assert call(address, path="/v1/models")[1]["data"][0]["id"] == "embedded"
    with chat_server() as (other, _):
        began = time.perf_counter()
        call(other, body(ASKED, URL))
        call(other, {"messages": []})
        for path in ("/health", "/v1/models", "/metrics", "/nothing"):
            call(other, path=path)
        for _ in range(100):  # a request is counted when its answer has left
            status, text, headers = call(other, path="/metrics")
            if 'code="400"' in text and 'code="200"' in text:
                break
            time.sleep(0.02)
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain")
    for line in (
        'vlm_pruner_requests_total{code="200"} 1', 'vlm_pruner_requests_total{code="400"} 1',
        "vlm_pruner_visual_tokens_total 576", "vlm_pruner_kept_tokens_total 64", "vlm_pruner_generated_tokens_total 4",
        "vlm_pruner_images_total 1", 'vlm_pruner_first_token_seconds_bucket{le="+Inf"} 1',
        "vlm_pruner_request_seconds_count 2",
    ):  # fmt: skip
        assert line in text, line
    (seconds,) = re.findall(r"vlm_pruner_request_seconds_sum (\S+)", text)
    assert 0 < float(seconds) < time.perf_counter() - began
    assert 'code="404"' not in text
    assert "# TYPE vlm_pruner_queue gauge" in text


def test_many_clients_at_once_get_their_own_answers(address: str) -> None:
    plans: list[Any] = [{"keep": keep} for keep in (16, 32, 64, 128)] * 2
    kept: dict[int, int] = {}

    def one(number: int) -> None:
        kept[number] = call(address, body(ASKED, URL, vlm_pruner=plans[number]))[1]["vlm_pruner"]["kept"]

    threads = [threading.Thread(target=one, args=(number,)) for number in range(len(plans))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [kept[number] for number in range(len(plans))] == [plan["keep"] for plan in plans]


def test_no_piece_of_an_answer_waits_for_the_next(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nagle's algorithm would hold back a word until the client has confirmed the one before: 40 ms each."""
    whole, seen = socket.socket.setsockopt, []
    monkeypatch.setattr(socket.socket, "setsockopt", lambda own, *given: (seen.append(given), whole(own, *given))[1])
    with socket.create_connection((address.split(":")[0], int(address.split(":")[1]))) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.recv(12) == b"HTTP/1.1 200"
    assert (socket.IPPROTO_TCP, socket.TCP_NODELAY, True) in seen


def test_the_official_client(address: str) -> None:
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"http://{address}/v1", api_key="none")
    assert [model.id for model in client.models.list()] == ["embedded"]
    messages = body(ASKED, URL)["messages"]
    given = {"model": "embedded", "messages": messages, "max_tokens": 16}
    whole = client.chat.completions.create(**given, extra_body={"vlm_pruner": {"keep": 144}})
    assert whole.choices[0].message.content
    assert whole.usage.prompt_tokens == 584
    assert whole.vlm_pruner["kept"] == 144
    pieces = [piece.choices[0].delta.content or "" for piece in client.chat.completions.create(**given, stream=True)]
    assert "".join(pieces)
    with pytest.raises(openai.BadRequestError, match="does not fetch"):
        client.chat.completions.create(model="embedded", messages=body("a", "file:///etc/passwd")["messages"])
