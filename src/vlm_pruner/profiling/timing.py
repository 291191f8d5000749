"""Probes around modules, interleaved runs, peak memory; samples rather than one number."""

from __future__ import annotations

import os
import platform
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from vlm_pruner.engine.clock import elapsed_ms, mark

__all__ = ["Probe", "describe_machine", "interleave", "median", "peak_bytes"]

T = TypeVar("T")


class Probe:
    """Times whole calls of modules while it is entered: `times()["encoder"]` is one entry per call, in order.

    The hooks stand outermost, so that other hooks of the same module are part of what is timed.
    """

    def __init__(self, modules: Mapping[str, nn.Module], device: torch.device) -> None:
        self.modules = dict(modules)
        self.device = device
        self._spans: dict[str, list[list[Any]]] = {name: [] for name in self.modules}
        self._handles: list[Any] = []
        self.start: Any = None

    def __enter__(self) -> Probe:
        for name, module in self.modules.items():
            self._handles.append(module.register_forward_pre_hook(self._opener(name), prepend=True))
            self._handles.append(module.register_forward_hook(self._closer(name)))
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.start = mark(self.device)
        return self

    def __exit__(self, *error: object) -> None:
        while self._handles:
            self._handles.pop().remove()

    def _opener(self, name: str) -> Callable[..., None]:
        return lambda *_: self._spans[name].append([mark(self.device)])

    def _closer(self, name: str) -> Callable[..., None]:
        return lambda *_: self._spans[name][-1].append(mark(self.device))

    def times(self) -> dict[str, list[float]]:
        """Milliseconds of every call, by name."""
        return {name: [elapsed_ms(*span) for span in spans] for name, spans in self._spans.items()}

    def until(self, name: str, call: int = 0) -> float:
        """Milliseconds from entering the probe to the end of one call of a module."""
        return elapsed_ms(self.start, self._spans[name][call][1])

    def since_start(self) -> Any:
        """A function that tells the milliseconds from entering the probe to now, once the device has come this far."""
        now = mark(self.device)
        return lambda: elapsed_ms(self.start, now)


def interleave(
    candidates: Mapping[str, Callable[[], T]],
    repeats: int,
    warmup: int = 1,
    progress: Callable[[str, float], None] = lambda *_: None,
) -> dict[str, list[T]]:
    """Results of every candidate, run in turns so that a slow phase of the machine hits all of them alike.

    Every round starts with another candidate. `progress` is told the candidate and the share done, before each run.
    """
    names = list(candidates)
    results: dict[str, list[T]] = {name: [] for name in names}
    for round_ in range(warmup + repeats):
        for i in range(len(names)):
            name = names[(i + round_) % len(names)]
            progress(name, (round_ * len(names) + i) / ((warmup + repeats) * len(names)))
            result = candidates[name]()
            if round_ >= warmup:
                results[name].append(result)
    return results


def median(samples: Sequence[float]) -> float:
    """The median, NaN of nothing."""
    return statistics.median(samples) if samples else float("nan")


def peak_bytes(work: Callable[[], object], device: torch.device) -> int:
    """Most bytes of tensors alive at once during `work`, beyond those alive before; temporaries of operators count."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    profiler: Any = torch.autograd.profiler.profile(use_kineto=False, profile_memory=True)
    with _silent_stderr():  # starting and stopping it writes to the terminal from C++
        profiler.__enter__()
    try:
        work()
    finally:
        with _silent_stderr():
            profiler.__exit__(None, None, None)
    now = peak = 0
    for event in profiler.kineto_results.events():
        if event.name() == "[memory]":  # the allocator's own record
            now += event.nbytes()
            peak = max(peak, now)
    return peak


@contextmanager
def _silent_stderr() -> Iterator[None]:
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def describe_machine(device: torch.device) -> dict[str, Any]:
    """What a figure depends on: processor or GPU, threads, versions. Names no host."""
    import transformers

    described: dict[str, Any] = {
        "device": device.type,
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    if device.type == "cuda":
        described["gpu"] = torch.cuda.get_device_name(device)
        described["cuda"] = torch.version.cuda
    return described


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
