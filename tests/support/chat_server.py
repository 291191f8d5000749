"""A chat server on the embedded model for tests, and what is sent to it."""

from __future__ import annotations

import base64
import functools
import http.client
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from PIL import Image

from vlm_pruner.asking import Loaded, open_model
from vlm_pruner.plan import PrunePlan
from vlm_pruner.serving.http import Limits, serving
from vlm_pruner.serving.http.chat import Chat

__all__ = ["body", "call", "chat_server", "data_url", "loaded"]


@functools.cache
def loaded() -> Loaded:
    return open_model("embedded")


@contextmanager
def chat_server(key: str | None = None, **limits: Any) -> Iterator[tuple[str, Chat]]:
    """host:port and the chat behind it."""
    chat = Chat(loaded(), PrunePlan.of("vlm-pruner", 64, num_layers=loaded().layers), Limits(**limits))
    with serving(chat, key=key) as address:
        yield address.removeprefix("http://"), chat


def data_url(image: Image.Image, kind: str = "PNG") -> str:
    """A picture as clients send it."""
    held = io.BytesIO()
    image.save(held, format=kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(held.getvalue()).decode()}"


def body(text: str, *urls: str, **more: Any) -> dict[str, Any]:
    """A request with one message."""
    content = [*({"type": "image_url", "image_url": {"url": url}} for url in urls), {"type": "text", "text": text}]
    return {"model": "embedded", "messages": [{"role": "user", "content": content}], "max_tokens": 4, **more}


def call(address: str, data: Any = None, path: str = "/v1/chat/completions", **headers: str) -> tuple[int, Any, Any]:
    """(status, answer, headers); a GET where there is no data."""
    connection = http.client.HTTPConnection(address, timeout=120)
    try:
        sent = data if data is None or isinstance(data, bytes) else json.dumps(data).encode()
        connection.request("GET" if data is None else "POST", path, sent, headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        return answer.status, json.loads(text) if text.startswith("{") else text, answer.headers
    finally:
        connection.close()
