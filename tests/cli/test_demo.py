"""`vlm-pruner demo` where no page comes of it; tests/web/test_page.py drives the page."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.tiny import checkpoint
from typer.testing import CliRunner

from vlm_pruner.cli import app

ROOT = Path(__file__).parents[2]


def demo(*words: object):
    return CliRunner().invoke(app, ["demo", *(str(word) for word in words)])


def test_without_gradio_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    for name in [name for name in sys.modules if name.startswith("vlm_pruner.web.")]:
        monkeypatch.delitem(sys.modules, name)
    result = demo("--port", 0)
    assert result.exit_code == 2
    assert "pip install 'vlm-pruner[web]'" in result.stderr
    assert "Traceback" not in result.output


def test_a_port_that_is_taken_is_said_before_the_model_is_loaded():
    pytest.importorskip("gradio", reason="needs the extra `web`")
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        result = demo("--port", port, "--model", "no-such-model")
    assert result.exit_code == 2
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use; --port 0 takes any free port" in result.stderr


def test_an_unknown_model_is_one_line():
    pytest.importorskip("gradio", reason="needs the extra `web`")
    result = demo("--port", 0, "--model", "embeded")
    assert result.exit_code == 2
    assert "did you mean 'embedded'?" in result.stderr


def test_it_stops_by_itself_frees_the_port_and_calls_nobody():
    pytest.importorskip("gradio", reason="needs the extra `web`")
    words = [sys.executable, "-m", "tests.support.demo_server", "demo", "--port", "0", "--model", str(checkpoint())]
    done = subprocess.run([*words, "--minutes", "0"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    own = [line for line in done.stderr.splitlines() if "torchao" not in line and "register_constant" not in line]
    assert own == []  # torchao tells at its import which of its kernels do not fit the machine
    port = int(done.stdout.split("http://127.0.0.1:")[1].split()[0])
    with socket.socket() as again:
        assert again.connect_ex(("127.0.0.1", port)) != 0
