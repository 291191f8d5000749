"""A request on its way through the model: its turn, its words, its report."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vlm_pruner.asking import DEMO_IMAGE, Loaded, Run, open_image
from vlm_pruner.asking.models import moved
from vlm_pruner.errors import VlmPrunerError, first_line
from vlm_pruner.plan import PrunePlan
from vlm_pruner.serving.http.limits import HttpError, Limits
from vlm_pruner.serving.http.metrics import Metrics
from vlm_pruner.serving.http.requests import Asked, read_request
from vlm_pruner.web.stream import Generation
from vlm_pruner.web.turns import StoppedError, Turns

__all__ = ["Chat", "Gone", "Reply"]


class Gone(Exception):
    """The client has left."""


@dataclass
class Reply:
    """An answer as it grows; `run` once it is whole."""

    name: str  # of the model
    id: str
    created: int
    prompt_tokens: int
    limit: int
    run: Run | None = None

    @property
    def finish(self) -> str:
        """As OpenAI's API calls the reason for the end."""
        return "length" if self.run is not None and self.run.tokens >= self.limit else "stop"

    def usage(self) -> dict[str, Any]:
        """Tokens of the prompt before pruning, and of the answer."""
        made = 0 if self.run is None else self.run.tokens
        return {
            "prompt_tokens": self.prompt_tokens, "completion_tokens": made, "total_tokens": self.prompt_tokens + made,
        }  # fmt: skip

    def report(self) -> dict[str, Any]:
        """What pruning did: visual tokens, and milliseconds."""
        assert self.run is not None
        report, times = self.run.report, self.run.times
        return {
            "plan": report.plan.fingerprint(), "total": report.total, "asked": report.asked, "kept": report.kept,
            "layer_average": report.layer_average, "first_token_ms": round(times.first_token_ms, 3),
            "prefill_ms": report.prefill_ms, "selection_ms": report.selection_ms, "notes": list(report.remarks),
        }  # fmt: skip

    def whole(self) -> dict[str, Any]:
        """The answer as one object."""
        assert self.run is not None
        choice = {
            "index": 0, "message": {"role": "assistant", "content": self.run.text}, "finish_reason": self.finish,
            "logprobs": None,
        }  # fmt: skip
        return self._object("chat.completion", [choice]) | {"usage": self.usage(), "vlm_pruner": self.report()}

    def piece(self, delta: Mapping[str, str], finish: str | None = None) -> dict[str, Any]:
        """A part of a stream."""
        choice = {"index": 0, "delta": dict(delta), "finish_reason": finish, "logprobs": None}
        return self._object("chat.completion.chunk", [choice])

    def _object(self, kind: str, choices: list[Any]) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.name, "choices": choices}


class Chat:
    """One model, the plan it has by default, and the line in front of it."""

    def __init__(self, loaded: Loaded, plan: PrunePlan, limits: Limits) -> None:
        self.loaded, self.plan, self.limits = loaded, plan, limits
        self.turns, self.metrics = Turns(), Metrics()
        self._under_way = 0
        self._lock = threading.Lock()

    @property
    def waiting(self) -> int:
        """Requests that wait or are answered."""
        return self._under_way

    def warm_up(self) -> None:
        """Answer once, so that the first client does not wait for what is compiled; a plan that fails is told now.

        Raises:
            MissingSignalError, PlanError, UnsupportedModelError: the plan cannot be carried out on this model.
        """
        inputs = self.loaded.inputs("What is this?", open_image(DEMO_IMAGE))
        for _ in Generation(self.loaded, inputs, self.plan, 2, threading.Event()):
            pass

    def enter(self) -> None:
        """A place among the requests that are worked on; `leave` gives it up.

        Raises:
            HttpError: there is none.
        """
        with self._lock:
            if self._under_way >= self.limits.queue:
                message = f"{self._under_way} requests are waiting; come back later"
                raise HttpError(503, message, "queue_full", **{"Retry-After": "5"})
            self._under_way += 1

    def leave(self) -> None:
        """Give up the place of `enter`."""
        with self._lock:
            self._under_way -= 1

    def read(self, body: bytes, kind: str) -> Asked:
        """The request in a body of this Content-Type; as `read_request`."""
        return read_request(body, kind, self.limits, self.loaded.plan)

    def answer(self, asked: Asked, stop: threading.Event, late: threading.Event) -> Iterator[tuple[Reply, str]]:
        """The reply and its text so far, longer every time; its `run` is there with the last.

        Args:
            stop: set when nobody waits any more, or when `late` is.
            late: set when it has taken too long.

        Raises:
            HttpError: the model cannot answer that, or not in time.
            Gone: the client has left.
        """
        try:
            read = self.loaded.reader.conversation(asked.messages, asked.images, asked.max_new_tokens)
            inputs = moved(self.loaded.model, read)
            reply = Reply(
                self.loaded.name, f"chatcmpl-{uuid.uuid4().hex}", int(time.time()), inputs["input_ids"].shape[1],
                asked.max_new_tokens,
            )  # fmt: skip
            with self.turns.ticket(stop) as ticket:
                for _ in ticket.wait():
                    pass
                plan = asked.plan or self.plan
                words = Generation(self.loaded, inputs, plan, asked.max_new_tokens, stop, asked.sampling)
                for text in words:
                    yield reply, text
            reply.run = words.run
            self.metrics.ran(reply.run.report, reply.run.tokens, reply.run.times.first_token_ms / 1e3)
            yield reply, reply.run.text
        except StoppedError:
            if not late.is_set():
                raise Gone from None
            limit = f"{self.limits.seconds:.0f} seconds"
            raise HttpError(504, f"there was no answer within {limit}", "timeout") from None
        except VlmPrunerError as error:
            raise HttpError(400, " ".join(str(error).split()), "cannot_answer") from None
        except (HttpError, Gone, GeneratorExit):
            raise
        except Exception as error:
            raise HttpError(500, f"the model could not answer: {first_line(error)}", "model_failed") from error
