"""Run `vlm-pruner demo` and tell on stderr about every attempt to reach another machine."""

from __future__ import annotations

import ipaddress
import signal
import sys
from typing import Any

from vlm_pruner.cli import main

OUTSIDE = "OUTSIDE"


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


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what was started in the background is deaf to Ctrl-C
    sys.addaudithook(tell)
    main()
