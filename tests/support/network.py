"""No test reaches another machine: connecting to anything but loopback fails as if there were none."""

from __future__ import annotations

import errno
import ipaddress
import socket
import sys
from typing import Any

__all__ = ["block"]

_NAMES = {None, "", b"", "localhost", b"localhost", "ip6-localhost", socket.gethostname()}


def block() -> None:
    """From now on, for the whole process: connecting, sending and looking up names end with an OSError."""
    sys.addaudithook(_watch)


def _watch(event: str, given: tuple[Any, ...]) -> None:
    if event in ("socket.connect", "socket.sendto"):
        address = given[1]
        if isinstance(address, tuple) and not _here(address[0]):
            raise OSError(errno.ENETUNREACH, f"tests have no network, so that {address[0]!r} cannot be reached")
    elif event in ("socket.getaddrinfo", "socket.gethostbyname") and not _here(given[0]):
        raise socket.gaierror(socket.EAI_NONAME, f"tests have no network, so that {given[0]!r} cannot be looked up")


def _here(host: Any) -> bool:
    if host in _NAMES:
        return True
    try:
        found = ipaddress.ip_address(host.decode() if isinstance(host, bytes) else host)
    except ValueError:
        return False
    return found.is_loopback or found.is_unspecified
