"""The HTTP side: one thread a connection, nothing read that is too large, nothing computed that nobody waits for."""

from __future__ import annotations

import contextlib
import hmac
import json
import logging
import re
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

from vlm_pruner.serving.http.chat import Chat, Gone
from vlm_pruner.serving.http.limits import HttpError
from vlm_pruner.serving.http.openapi import description
from vlm_pruner.serving.http.requests import Asked

__all__ = ["serving"]

log = logging.getLogger(__name__)
LOOK = 0.1  # seconds between two looks at whether a client is still there
DRAIN = 3.0  # seconds for a client to hear that it is refused


@contextmanager
def serving(chat: Chat, *, host: str = "127.0.0.1", port: int = 0, key: str | None = None) -> Iterator[str]:
    """The address of the server, which answers until the block ends.

    Args:
        port: 0 takes any free one.
        key: that clients must send as a bearer token; None lets everybody in.

    Raises:
        OSError: it cannot listen there.
    """
    handler = type("Handler", (_Handler,), {"chat": chat, "key": key, "timeout": chat.limits.read_seconds})
    with _Server((host, port), handler) as server:
        thread = threading.Thread(target=server.serve_forever, name="vlm-pruner-serve", daemon=True)
        thread.start()
        shown = "127.0.0.1" if host == "0.0.0.0" else host
        try:
            yield f"http://{shown}:{server.server_address[1]}"
        finally:
            server.closing.set()
            server.shutdown()
            thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, *args: Any) -> None:
        self.closing = threading.Event()
        super().__init__(*args)

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("a connection of %s ended", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    chat: ClassVar[Chat]
    key: ClassVar[str | None]
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "vlm-pruner", ""
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        """Health, metrics, the model's name, the description of the API."""
        self._guarded(self._get)

    def do_POST(self) -> None:
        """Chat completions."""
        self._guarded(self._post)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are told to the log, without what was asked."""
        log.info("%s %s", self.address_string(), format % args)

    def _guarded(self, work: Any) -> None:
        began, status = time.perf_counter(), 499
        try:
            status = work()
        except HttpError as error:
            status = error.status
            self.close_connection = True
            self._json(error.body(), error.status, **error.headers)
            self._drain()
        except (Gone, OSError):
            self.close_connection = True
            self._counted(self.chat.metrics.cancelled)
        except Exception:  # a fault of ours: told as one, and the next client is answered
            log.exception("a request failed")
            status, self.close_connection = 500, True
            with contextlib.suppress(OSError):
                self._json(HttpError(500, "the server failed at this request", "failed").body(), status)
        finally:
            self._counted(self.chat.metrics.answered, status, time.perf_counter() - began)

    def _counted(self, count: Callable[..., None], *values: Any) -> None:
        """Questions are counted, probes and readers of the metrics are not: they would hide the times of questions."""
        if self.command == "POST":
            count(*values)

    def handle_expect_100(self) -> bool:
        """A client that asks first is not told to send what will be refused."""
        return (self._length() or 0) > self.chat.limits.body or super().handle_expect_100()

    def _length(self) -> int | None:
        """Bytes of the body; None where that is not said, or said in two ways, which a proxy may read otherwise."""
        said = self.headers.get_all("Content-Length", [])
        if len(said) != 1 or "Transfer-Encoding" in self.headers:
            return None
        return int(said[0]) if re.fullmatch(r"[0-9]{1,18}", said[0]) else None

    def _drain(self) -> None:
        """Take what the client is still sending: one that is cut off while it sends never reads the refusal."""
        end = time.monotonic() + DRAIN
        self.connection.settimeout(LOOK)
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            while time.monotonic() < end and self.connection.recv(1 << 20):
                pass

    def _get(self) -> int:
        path = self.path.partition("?")[0]
        if path == "/health":
            return self._json({"status": "ok", "model": self.chat.loaded.name, "waiting": self.chat.waiting})
        self._allow()
        if path == "/openapi.json":
            return self._json(description(self.chat.limits, key=self.key is not None))
        if path == "/metrics":
            return self._send(self.chat.metrics.text(self.chat.waiting).encode(), "text/plain; version=0.0.4")
        if path == "/v1/models":
            model = {"id": self.chat.loaded.name, "object": "model", "created": 0, "owned_by": "vlm-pruner"}
            return self._json({"object": "list", "data": [model]})
        raise HttpError(404, f"there is nothing at {path[:80]}", "not_found")

    def _post(self) -> int:
        self._allow()
        if self.path.partition("?")[0] != "/v1/chat/completions":
            raise HttpError(404, f"there is nothing to post to at {self.path[:80]}", "not_found")
        self.chat.enter()
        try:
            asked = self.chat.read(self._body(), self.headers.get("Content-Type", ""))
            with self._watched() as (stop, late):
                return self._stream(asked, stop, late) if asked.stream else self._whole(asked, stop, late)
        finally:
            self.chat.leave()

    def _allow(self) -> None:
        given = self.headers.get("Authorization", "").encode()
        if self.key is not None and not hmac.compare_digest(given, f"Bearer {self.key}".encode()):
            raise HttpError(401, "the API key is missing or wrong", "invalid_api_key", **{"WWW-Authenticate": "Bearer"})

    def _body(self) -> bytes:
        length = self._length()
        if length is None:
            raise HttpError(411, "say how long the body is, once: Content-Length", "length_required")
        if length > self.chat.limits.body:
            most = f"{self.chat.limits.body / 1e6:.0f} MB"
            raise HttpError(413, f"the body has {length / 1e6:.0f} MB; at most {most} are read", "body_too_large")
        try:
            return self.rfile.read(length)
        except TimeoutError:
            raise HttpError(408, "the body did not come in time", "timeout") from None

    @contextmanager
    def _watched(self) -> Iterator[tuple[threading.Event, threading.Event]]:
        """(set when nobody waits any more, set when it has taken too long), for as long as the block lasts."""
        stop, late, over = threading.Event(), threading.Event(), threading.Event()
        end = time.monotonic() + self.chat.limits.seconds

        def look() -> None:
            while not over.wait(LOOK):
                if time.monotonic() > end:
                    late.set()
                if late.is_set() or self.server.closing.is_set() or _left(self.connection):
                    stop.set()
                    return

        watcher = threading.Thread(target=look, name="vlm-pruner-watch", daemon=True)
        watcher.start()
        try:
            yield stop, late
        finally:
            over.set()
            watcher.join()

    def _whole(self, asked: Asked, stop: threading.Event, late: threading.Event) -> int:
        for reply, _ in self.chat.answer(asked, stop, late):
            found = reply
        return self._json(found.whole())

    def _stream(self, asked: Asked, stop: threading.Event, late: threading.Event) -> int:
        """Server-sent events. What goes wrong before the first word is an ordinary error; later it is an event."""
        sent, began = "", False
        try:
            for reply, text in self.chat.answer(asked, stop, late):
                if not began:
                    self._begin()
                    began = True
                    self._event(reply.piece({"role": "assistant", "content": ""}))
                if len(text) > len(sent) and reply.run is None:
                    self._event(reply.piece({"content": text[len(sent) :]}))
                    sent = text
            last = reply.piece({}, reply.finish) | {"vlm_pruner": reply.report()}
            self._event(last)
            if asked.usage:
                self._event({**reply.piece({}), "choices": [], "usage": reply.usage()})
            self._chunk(b"data: [DONE]\n\n")
            self._chunk(b"")
            return 200
        except HttpError as error:
            if not began:
                raise
            self.close_connection = True
            self._event(error.body())
            self._chunk(b"")
            return error.status

    def _begin(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Cache-Control", "no-cache")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _event(self, data: Any) -> None:
        self._chunk(f"data: {json.dumps(data)}\n\n".encode())

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def _json(self, data: Any, status: int = 200, **headers: str) -> int:
        return self._send(json.dumps(data).encode(), "application/json", status, **headers)

    def _send(self, data: bytes, kind: str, status: int = 200, **headers: str) -> int:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)
        return status


def _left(connection: socket.socket) -> bool:
    """Has the client closed its end?"""
    try:
        readable, _, _ = select.select([connection], [], [], 0)
        return bool(readable) and connection.recv(1, socket.MSG_PEEK) == b""
    except (OSError, ValueError):
        return True
