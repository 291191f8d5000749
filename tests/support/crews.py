"""Programs that run at the same time, in Triton's interpreter: a thread each, so that they can wait for one another."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from tests.support.ops import DEVICE

WAIT_S = 60  # until a crew that never meets is given up


class _Places(threading.local):
    """Where in the grid the program of this thread is."""

    place: tuple[int, int, int] | None = None


class _Threads:
    """Stands for the function of a kernel: every call is a program, all of which start when the last one is called."""

    def __init__(self, function: Any, builder: Any) -> None:
        self.function, self.builder, self.programs, self.errors = function, builder, [], []

    def __call__(self, **arguments: Any) -> None:
        place = self.builder.grid_idx
        self.programs.append(threading.Thread(target=self.run, args=(place, arguments), daemon=True))
        if place == tuple(size - 1 for size in self.builder.grid_dim):
            trace = threading.gettrace()
            threading.settrace(None)  # coverage's, which two threads must not install at the same time
            try:
                self.start()
            finally:
                threading.settrace(trace)

    def start(self) -> None:
        for program in self.programs:
            program.start()
        for program in self.programs:
            program.join(WAIT_S)
            assert not program.is_alive(), "a program waits for ever"
        assert not self.errors, self.errors

    def run(self, place: tuple[int, int, int], arguments: dict[str, Any]) -> None:
        self.builder.grid_idx = place
        try:
            self.function(**arguments)
        except Exception as error:
            self.errors.append(error)


def _tiles(patch: pytest.MonkeyPatch, share: int, rows: int, growth: dict[str, int], matrix: dict[str, int]) -> None:
    sizes = {"launch": share, "facility.triton": rows, "merge.triton": {"ROWS": share, "COLUMNS": 16}}
    sizes |= {"growth.triton": growth, "maxmin.triton": matrix}
    sizes["dpp.triton"] = {"CHANNELS": matrix["CHANNELS"], "ROWS": 16}
    for name, size in sizes.items():
        patch.setattr(importlib.import_module(f"vlm_pruner.ops.{name}"), "_INTERPRETED", size)


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of the interpreter as small as those of a device, so that small images cross their edges."""
    growth = {"TILE": 16, "RIVALS": 32, "CHANNELS": 32, "WAITING": 16}
    _tiles(monkeypatch, 16, 16, growth, {"TILE": 16, "CHANNELS": 16})


@pytest.fixture
def large_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of the interpreter so large that it comes to the end of a large image, and still many."""
    growth = {"TILE": 1024, "RIVALS": 1024, "CHANNELS": 16, "WAITING": 16}
    _tiles(monkeypatch, 2048, 32, growth, {"TILE": 1024, "CHANNELS": 16})


@contextmanager
def crews(size: int) -> Iterator[None]:
    """Kernels run with crews of up to `size` programs for one image; on a device that is what it has anyway."""
    if DEVICE.type != "cpu":
        yield
        return
    interpreter = importlib.import_module("triton.runtime.interpreter")
    places, call, interval = _Places(), interpreter.GridExecutor.__call__, sys.getswitchinterval()
    builder = interpreter.interpreter_builder

    def in_threads(self: Any, *args: Any, **kwargs: Any) -> None:
        function, spec = self.fn, interpreter.inspect.getfullargspec(self.fn)
        self.fn = _Threads(function, builder)
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(interpreter.inspect, "getfullargspec", lambda _: spec)
            inner.setattr(interpreter.inspect, "getcallargs", lambda _, *a, **k: getcallargs(function, *a, **k))
            # Once, before the programs start, and not again in each function that they call.
            patches = iter((lambda: patch_lang(language),))
            inner.setattr(interpreter, "_patch_lang", lambda _: next(patches, lambda: None)())
            call(self, *args, **kwargs)

    getcallargs, patch_lang = interpreter.inspect.getcallargs, interpreter._patch_lang
    language = SimpleNamespace(__globals__={"tl": interpreter.tl, "core": interpreter.tl.core})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.import_module("vlm_pruner.ops.launch"), "residents", lambda device: 2 * size)
        patch.setattr(interpreter.GridExecutor, "__call__", in_threads)
        patch.delattr(builder, "grid_idx", raising=False)
        grid_idx = property(lambda _: places.place, lambda _, place: setattr(places, "place", place))
        patch.setattr(type(builder), "grid_idx", grid_idx, raising=False)
        sys.setswitchinterval(1e-5)
        try:
            yield
        finally:
            sys.setswitchinterval(interval)
