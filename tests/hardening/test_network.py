"""Nothing is reached over the network, neither by tests nor by an import."""

from __future__ import annotations

import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

IMPORT = """
import sys

def watch(event, given):
    if event in {events}:
        raise RuntimeError(f"{{event}} {{given}}")

sys.addaudithook(watch)
{code}
"""
ANY = ("socket.__new__", "socket.connect", "socket.bind", "socket.getaddrinfo", "urllib.Request")
OUT = ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request")
EVERYTHING = "import vlm_pruner; [getattr(vlm_pruner, name) for name in vlm_pruner.__all__]; vlm_pruner.load_embedded()"


def test_other_machines_cannot_be_reached() -> None:
    with socket.socket() as one, pytest.raises(OSError, match=r"tests have no network, so that '192\.0\.2\.1'"):
        one.connect(("192.0.2.1", 80))
    with pytest.raises(socket.gaierror, match="tests have no network"):
        socket.getaddrinfo("example.org", 443)
    with pytest.raises(urllib.error.URLError, match="tests have no network"):
        urllib.request.urlopen("https://example.org", timeout=5)


def test_this_machine_can() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()[:2]) as one:
        one.sendall(b"x")
        with server.accept()[0] as other:
            assert other.recv(1) == b"x"


@pytest.mark.parametrize(
    ("code", "events"),
    [("import vlm_pruner, vlm_pruner.cli", ANY), (EVERYTHING, OUT)],
    ids=["import", "every name, and the embedded model"],
)
def test_an_import_opens_no_connection(code: str, events: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT.format(events=events, code=code)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
