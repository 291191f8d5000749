"""The page on a port of this machine."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import gradio as gr

from vlm_pruner.asking import Loaded
from vlm_pruner.errors import InputError
from vlm_pruner.web.desk import Desk
from vlm_pruner.web.gallery import gallery
from vlm_pruner.web.page import build
from vlm_pruner.web.parts import thumbs_css
from vlm_pruner.web.resources import resource
from vlm_pruner.web.service import Service
from vlm_pruner.web.settings import MAX_MEGABYTES, Own

__all__ = ["free_port", "serve"]

MAX_WAITING = 64  # visitors in Gradio's queue; the next one is told to come back
PATIENCE = 3.0  # seconds for answers under way to stop, when the page is closed
GRACE = 0.5  # seconds for what was said last to reach the visitors


@contextmanager
def serve(
    loaded: Loaded, *, host: str = "127.0.0.1", port: int = 7860, own: Own = MappingProxyType({})
) -> Iterator[str]:
    """The address of the page, which answers until the block ends. Nothing is sent anywhere else.

    Args:
        port: a free one, see `free_port`.
        own: methods with parameters of their own, and plans.
    """
    desk = Desk(Service(loaded, own))
    desk.service.warm_up(gallery()["demo"].image)
    page = build(desk)
    page.queue(max_size=MAX_WAITING)
    _launch(page, host, port)
    try:
        yield f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"
    finally:
        desk.jobs.close(PATIENCE)
        _hang_up(page.server)
        page.close(verbose=False)


def _hang_up(server: Any) -> None:
    """End the server's thread: visitors get the last words of their answers, then their open streams are closed.

    Every open page holds a stream for as long as it is open, for which the server would wait.
    """
    server.should_exit = True
    server.thread.join(GRACE)
    for connection in list(server.server_state.connections):
        connection.loop.call_soon_threadsafe(connection.transport.close)


def _launch(page: Any, host: str, port: int) -> None:
    page.launch(
        server_name=host,
        server_port=port,
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        show_error=False,
        ssr_mode=False,
        footer_links=[],
        max_file_size=MAX_MEGABYTES * 1_000_000,
        theme=gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        css=resource("page.css") + thumbs_css(),
        head=f"<script>{resource('page.js')}</script>",
    )


def free_port(host: str, port: int) -> int:
    """`port`, or any that is free where it is 0.

    Raises:
        InputError: it is taken, or cannot be listened on by this user.
    """
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            return int(probe.getsockname()[1])
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"cannot listen on {host}:{port}: {reason}; --port 0 takes any free port") from error
