"""The chat server against its own description: requests that fit it and requests that do not, by schemathesis.

    python -m benchmarks.fuzz_server [--examples 200]                  writes results/fuzz_server.json

Needs schemathesis: pip install 'vlm-pruner[hardening]'. Each answer must have a status, a type and a body that the
description has, below 500, and the server must answer an ordinary question afterwards.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import schemathesis
from benchmarks.common import Report, arguments, prepare
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tests.support.chat_server import body, call, chat_server

__all__ = ["main"]

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


def asked(operation: Any, mode: GenerationMode, examples: int) -> Counter[str]:
    """Answers by status to so many requests of one kind, and forms among these. Raises what a check finds."""
    seen: Counter[str] = Counter()

    @settings(max_examples=examples, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(case=operation.as_strategy(generation_mode=mode))
    def one(case: Any) -> None:
        response = case.call(timeout=300)
        seen[f"status_{response.status_code}"] += 1
        seen["requests"] += 1
        seen["forms"] += case.media_type == "multipart/form-data"
        case.validate_response(response, checks=CHECKS)

    one()
    return seen


def main() -> None:
    """Entry point."""
    parser = arguments(__doc__)
    parser.add_argument("--examples", type=int, default=200, help="of each kind, of every operation")
    options = parser.parse_args()
    report = Report("fuzz_server", options, prepare(options))
    count = 10 if options.quick else options.examples
    with chat_server(tokens=2) as (address, chat):
        schema = schemathesis.openapi.from_url(f"http://{address}/openapi.json")
        for found in schema.get_all_operations():
            operation = found.ok()
            chats = operation.method.lower() == "post"
            for mode in (GenerationMode.POSITIVE, *[GenerationMode.NEGATIVE] * chats):
                seen = asked(operation, mode, count if chats else min(count, 20))
                report.check(not chats or seen["forms"] > 0, "the description has no form")
                report.row(f"{operation.label}, {mode.value}", failures=0, **seen)
        status, _, _ = call(address, body("What is the word?", max_tokens=2))
        report.check(status == 200, "an ordinary question is not answered")
        until = time.monotonic() + 5  # an answer is read before its request is taken off the queue
        while chat.waiting and time.monotonic() < until:
            time.sleep(0.01)
        report.check(chat.waiting == 0, f"{chat.waiting} requests are still under way")
    report.finish()


if __name__ == "__main__":
    main()
