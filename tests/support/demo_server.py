"""Run `vlm-pruner demo`, tell on stderr about every attempt to reach another machine, and hold the model on demand."""

from __future__ import annotations

import ipaddress
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from vlm_pruner.cli import main

OUTSIDE = "OUTSIDE"
HOLD = "VLM_PRUNER_TEST_HOLD"
"""Variable with the path of a file: as long as it is there, no answer goes on."""


def tell(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook."""
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    name = host.decode() if isinstance(host, bytes) else host
    if name is not None and not _here(name):
        sys.stderr.write(f"{OUTSIDE} {event} {name}\n")


def _here(name: str) -> bool:
    if name in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def hold(file: Path) -> None:
    """Have every answer wait for the end of `file`, with the model in its hands."""
    from vlm_pruner.web.stream import Generation

    work = Generation._work

    def wait(self: Generation) -> None:
        while file.exists():
            time.sleep(0.02)
        work(self)

    Generation._work = wait  # type: ignore[method-assign]


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what was started in the background is deaf to Ctrl-C
    sys.addaudithook(tell)
    if HOLD in os.environ:
        hold(Path(os.environ[HOLD]))
    main()
