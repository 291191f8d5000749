"""`vlm-pruner serve`: an OpenAI-compatible server over the pruned model."""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack
from typing import Annotated

import typer

from vlm_pruner.cli.console import console, note, progress
from vlm_pruner.cli.opening import Opening
from vlm_pruner.cli.options import Bias, Layer, Method, Quarter
from vlm_pruner.cli.pruning import Pruning
from vlm_pruner.errors import InputError

__all__ = ["serve"]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
KEY = "VLM_PRUNER_API_KEY"


def serve(
    *,
    model: Annotated[str, typer.Argument(help="'embedded', a checkpoint folder, or a hub id.")] = "embedded",
    method: Method = None,
    keep: Quarter = None,
    layer: Layer = None,
    bias: Bias = None,
    pruning: Pruning,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; with the default, only this machine can connect.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port to listen on; 0: any free port.")] = 8000,
    allow_urls: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-urls",
            help="Allow picture URLs that start with this text, which ends with a slash; may be repeated.",
        ),
    ] = None,
    max_megabytes: Annotated[float, typer.Option("--max-megabytes", min=0.001, help="Largest request.")] = 32,
    max_megapixels: Annotated[float, typer.Option("--max-megapixels", min=0.001, help="Largest picture.")] = 32,
    max_images: Annotated[int, typer.Option("--max-images", min=1, help="Most pictures of a request.")] = 16,
    max_queue: Annotated[
        int, typer.Option("--max-queue", min=1, help="How many requests may wait or be in work; more are refused.")
    ] = 32,
    max_seconds: Annotated[float, typer.Option("--max-seconds", min=0.1, help="Longest time for an answer.")] = 300,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1, help="Longest answer, in tokens.")] = 1024,
    minutes: Annotated[
        float | None, typer.Option("--minutes", min=0, help="Stop by itself after so many minutes.")
    ] = None,
    opening: Opening,
) -> None:
    """Start a chat server for OpenAI's clients. If VLM_PRUNER_API_KEY is set, clients must send that key."""
    from vlm_pruner.serving.http import Limits, serving
    from vlm_pruner.serving.http.chat import Chat

    opening.check()
    pruning.register()
    wanted = pruning.single(method, keep, layer, 0.25, bias=bias)
    for prefix in allow_urls or ():
        if not prefix.startswith(("http://", "https://")) or not prefix.endswith("/"):
            raise InputError(f"--allow-urls {prefix!r}: a prefix is like https://pictures.example.org/public/")
    limits = Limits(
        body=int(max_megabytes * 1e6), pixels=int(max_megapixels * 1e6), images=max_images, queue=max_queue,
        seconds=max_seconds, tokens=max_new_tokens, prefixes=tuple(allow_urls or ()),
    )  # fmt: skip
    key = os.environ.get(KEY) or None
    with ExitStack() as stack:
        with progress(f"loading {model}") as say:
            loaded = opening.open(model)
            chat = Chat(loaded, wanted.make(loaded), limits)
            say("warming up", 0.8)
            chat.warm_up()
            try:
                address = stack.enter_context(serving(chat, host=host, port=port, key=key))
            except (OSError, OverflowError) as error:
                raise InputError(f"cannot listen at {host}:{port}: {error}") from error
        console().print(f"{model} answers at {address}/v1 (Ctrl-C stops it)", markup=False, soft_wrap=True)
        if host not in LOOPBACK and key is None:
            note(f"Whoever reaches {host}:{port} can use it: set {KEY} to ask for a key.")
        threading.Event().wait(None if minutes is None else minutes * 60)
