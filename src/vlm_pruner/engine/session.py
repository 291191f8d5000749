"""`prune` and `attach`: a plan put onto a model, for the time of a block or until it is removed."""

from __future__ import annotations

import importlib
import threading
import weakref
from types import TracebackType
from typing import Any

from torch import nn

from vlm_pruner.budget import Keep
from vlm_pruner.engine.hooks import Hooks
from vlm_pruner.engine.records import ImageRecord, Recorder
from vlm_pruner.engine.support import check_backend, check_stages, take_apart
from vlm_pruner.errors import UnsupportedModelError
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.plan import Positions, PrunePlan
from vlm_pruner.report import PruneReport

__all__ = ["Handle", "Session", "attach", "prune"]

_active: weakref.WeakSet[nn.Module] = weakref.WeakSet()
_active_lock = threading.Lock()


class Session:
    """A plan on a model. As a context manager it is active inside the block and leaves the model as it found it."""

    def __init__(self, model: nn.Module, plan: PrunePlan, parts: Any) -> None:
        self.model, self.plan = model, plan
        self._parts = parts
        self._recorder = Recorder(parts, plan)
        self._hooks = Hooks(parts, plan, self._recorder)

    @property
    def report(self) -> PruneReport:
        """What the last prefill kept and saved, and the decode steps since."""
        return self._recorder.report()

    @property
    def images(self) -> list[ImageRecord]:
        """The images of the last prefill with the choices made among their tokens."""
        return self._recorder.images

    def _repr_html_(self) -> str:
        # A notebook asked: the drawing room is above this one, and is looked up by name only now.
        return str(importlib.import_module("vlm_pruner.viz.notebook").session_html(str(self.report), self.images))

    def start(self) -> None:
        """Install the hooks.

        Raises:
            UnsupportedModelError: another pruner is active on this model.
        """
        with _active_lock:
            if self._parts.base in _active:
                raise UnsupportedModelError(
                    f"a pruner is already active on this {self._parts.name} model: leave its block or remove its handle"
                )
            _active.add(self._parts.base)
        try:
            self._hooks.install()
        except BaseException:
            _active.discard(self._parts.base)
            raise

    def stop(self) -> None:
        """Remove the hooks. The report stays readable."""
        self._hooks.remove()
        _active.discard(self._parts.base)

    def __enter__(self) -> Session:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class Handle:
    """A pruner that stays until `remove()`: for servers and notebooks."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def remove(self) -> None:
        """Leave the model as it was; harmless when done twice."""
        self.session.stop()


def prune(
    model: nn.Module,
    method: PrunePlan | PruningMethod | str,
    *,
    keep: Keep | None = None,
    layer: int | None = None,
    positions: Positions = "kept",
    **params: Any,
) -> Session:
    """Prune visual tokens inside a `with` block.

        with vp.prune(model, "vlm-pruner", keep=64) as session:
            out = model.generate(**inputs)
        print(session.report)

    Args:
        model: a vision-language model of transformers, with or without its head.
        method: a name, a method with its parameters, or a whole plan.
        keep: tokens per image (64) or a share of them (0.111).
        layer: decoder layer at whose input to prune; 0 = before the language model; None = as the method prefers.
        positions: `kept` or, before the language model, `repacked`.
        params: hyper-parameters of a method given by name.

    Raises:
        PlanError: an unknown method or parameter, or a budget or layer that this model cannot meet.
        UnsupportedModelError: a model whose visual tokens cannot be pruned.
    """
    parts = take_apart(model)
    plan = PrunePlan.of(method, keep, layer, num_layers=len(parts.layers), positions=positions, **params)
    check_stages(plan, parts)
    check_backend(parts)
    return Session(model, plan, parts)


def attach(
    model: nn.Module,
    method: PrunePlan | PruningMethod | str,
    *,
    keep: Keep | None = None,
    layer: int | None = None,
    positions: Positions = "kept",
    **params: Any,
) -> Handle:
    """Prune from now on, until `remove()` of the handle. Arguments and errors as of `prune`."""
    session = prune(model, method, keep=keep, layer=layer, positions=positions, **params)
    session.start()
    return Handle(session)
