"""`vlm-pruner demo`: the page to play with, in the browser."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import Annotated

import typer

from vlm_pruner.cli.console import console, progress
from vlm_pruner.cli.opening import Opening
from vlm_pruner.cli.options import Model
from vlm_pruner.cli.pruning import Pruning

__all__ = ["demo"]

LOOPBACK = ("127.0.0.1", "localhost")


def demo(
    *,
    model: Model = "embedded",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port to listen on; 0: any free port.")] = 7860,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; with the default, only this machine can connect.")
    ] = "127.0.0.1",
    minutes: Annotated[
        float | None, typer.Option("--minutes", min=0, help="Stop by itself after so many minutes.")
    ] = None,
    pruning: Pruning,
    opening: Opening,
) -> None:
    """Start a page in the browser that compares answers from all visual tokens with answers from few."""
    from vlm_pruner.errors import BackendUnavailableError

    try:
        from vlm_pruner.web.server import free_port, serve
    except ImportError as error:
        raise BackendUnavailableError(f"the page needs `pip install 'vlm-pruner[web]'` ({error})") from error
    opening.check()
    pruning.register()
    own, plan = pruning.configured(), pruning.plan()
    if plan is not None:
        own = {pruning.named: plan, **own}
    port = free_port(host, port)
    with ExitStack() as stack:
        with progress(f"loading {model}") as say:
            loaded = opening.open(model)
            say("warming up", 0.8)
            address = stack.enter_context(serve(loaded, host=host, port=port, own=own))
        console().print(f"{model} answers at {address} (Ctrl-C stops it)", markup=False, soft_wrap=True)
        if host not in LOOPBACK:
            console().print(f"Whoever reaches {host}:{port} can use it: there is no password.", markup=False)
        threading.Event().wait(None if minutes is None else minutes * 60)
