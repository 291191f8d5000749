"""Which implementation of an op runs: `naive` (the definition), `torch` (vectorised), `numba` (compiled loops for the
CPU) or `triton` (GPU kernels).

By default CUDA tensors go to Triton and those on the CPU to Numba, each where it can run, and all others to torch. The
choice can be forced for one call (`backend="torch"`) or for a block (`with use_backend("naive"):`). What was picked,
and why a faster one was not, is logged once per op.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType

import torch
from torch import Tensor

from vlm_pruner.errors import BackendUnavailableError, PlanError, unknown_name

__all__ = ["BACKENDS", "implementation", "refusal", "use_backend"]

BACKENDS = ("naive", "torch", "numba", "triton")
"""Implementations of the primitives, from the one that defines them to the one for GPUs."""
_ALWAYS = BACKENDS[:2]
_OLDEST_TRITON = (3, 4)  # programs that wait for one another, and tuples of arguments
_LEAST_CAPABILITY = (8, 0)
_forced: ContextVar[str | None] = ContextVar("vlm_pruner_backend", default=None)
_log = logging.getLogger("vlm_pruner.ops")


@contextmanager
def use_backend(name: str | None) -> Iterator[None]:
    """Force every op inside the block onto one backend; None gives the choice back to the dispatcher.

    Raises:
        PlanError: unknown name.
    """
    token = _forced.set(_known(name))
    try:
        yield
    finally:
        _forced.reset(token)


def implementation(op: str, tensor: Tensor, backend: str | None = None) -> ModuleType:
    """The module that runs `op` on `tensor`.

    Raises:
        BackendUnavailableError: the backend asked for cannot run on this tensor.
        PlanError: unknown backend.
    """
    asked = _known(backend) or _forced.get()
    if asked is None:
        fast = "triton" if tensor.is_cuda else "numba"
        why_not = refusal(op, fast, tensor)
        asked = fast if why_not is None else "torch"
        _say(op, asked, tensor.device.type, why_not and f" (not {fast}: {why_not})")
    elif (why_not := refusal(op, asked, tensor)) is not None:
        raise BackendUnavailableError(f"{op} cannot run on {asked}: {why_not}; use one of {', '.join(_ALWAYS)}")
    return importlib.import_module(f"vlm_pruner.ops.{op}.{asked}")


def refusal(op: str, backend: str, tensor: Tensor) -> str | None:
    """Why `backend` cannot run `op` on `tensor`, or None if it can."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if backend == "triton" and not tensor.is_cuda and not interpreted:
        return f"the tensor is on {tensor.device.type}, triton needs CUDA"
    if backend == "numba" and tensor.device.type != "cpu":
        return f"the tensor is on {tensor.device.type}, numba needs the CPU"
    if not _exists(op, backend):
        return f"there is no {backend} implementation"
    if backend == "numba":
        return _unfit_numba()
    if backend != "triton":
        return None
    return _unfit_triton() or (None if interpreted else _unfit_device(tensor.device))


@functools.cache
def _exists(op: str, backend: str) -> bool:
    """Cached, since to look for files takes time."""
    return importlib.util.find_spec(f"vlm_pruner.ops.{op}.{backend}") is not None


@functools.cache
def _unfit_numba() -> str | None:
    """Why the installed Numba cannot run the loops, or None if it can."""
    if importlib.util.find_spec("numba") is None:
        return "numba is not installed"
    try:
        config = importlib.import_module("numba").config
    except ImportError as error:  # as where NumPy is newer than it knows
        return f"numba cannot be imported: {error}"
    return "NUMBA_DISABLE_JIT is set" if config.DISABLE_JIT else None


@functools.cache
def _unfit_triton() -> str | None:
    """Why the installed Triton cannot run the kernels, or None if it can."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    version: str = importlib.import_module("triton").__version__
    if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST_TRITON:
        return f"triton {version} is older than {'.'.join(map(str, _OLDEST_TRITON))}"
    return None


@functools.cache
def _unfit_device(device: torch.device) -> str | None:
    """Why the kernels cannot run on a CUDA device, or None if they can."""
    capability = torch.cuda.get_device_capability(device)
    if capability < _LEAST_CAPABILITY:
        return f"compute capability {capability[0]}.{capability[1]} is below {_LEAST_CAPABILITY[0]}.0"
    return None


def _known(name: str | None) -> str | None:
    if name is not None and name not in BACKENDS:
        raise PlanError(unknown_name("backend", name, BACKENDS))
    return name


@functools.cache
def _say(op: str, picked: str, device: str, why_not: str | None) -> None:
    """Cached, so that each choice is logged once."""
    _log.info("%s on %s runs on %s%s", op, device, picked, why_not or "")
