"""What a request may cost, and how it is told that it costs too much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["HttpError", "Limits"]


@dataclass(frozen=True)
class Limits:
    """Of one server."""

    body: int = 32_000_000  # bytes of a request
    pixels: int = 32_000_000  # of a picture
    images: int = 16  # of a request
    queue: int = 32  # requests that wait or are answered
    seconds: float = 300.0  # from the last byte of a request to the last of its answer
    tokens: int = 1024  # of an answer
    read_seconds: float = 30.0  # between two pieces of what a client sends or takes
    prefixes: tuple[str, ...] = ()  # of picture URLs that are fetched; none are by default


class HttpError(Exception):
    """A refusal: its status, its message, and a code that programs can read."""

    def __init__(self, status: int, message: str, code: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.headers = status, message, code, headers

    def body(self) -> dict[str, Any]:
        """As OpenAI's API has it."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {"error": {"message": self.message, "type": kind, "param": None, "code": self.code}}
