"""Milliseconds between two points, on the host or, without stopping it, on a CUDA device."""

from __future__ import annotations

import time

import torch

__all__ = ["Mark", "elapsed_ms"]

Mark = float | torch.cuda.Event


def mark(device: torch.device) -> Mark:
    """Now: a CUDA event in the current stream, or the host's clock where work is done when the call returns."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event


def elapsed_ms(start: Mark, end: Mark) -> float:
    """Milliseconds from `start` to `end`; waits for the device if it has not got there yet."""
    if isinstance(start, torch.cuda.Event) and isinstance(end, torch.cuda.Event):
        end.synchronize()
        return float(start.elapsed_time(end))
    assert isinstance(start, float)
    assert isinstance(end, float)
    return (end - start) * 1e3
