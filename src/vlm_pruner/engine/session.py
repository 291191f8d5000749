"""A plan on a model, for the time of a block or until it is removed."""

from __future__ import annotations

import copy
import importlib
import threading
import weakref
from types import TracebackType
from typing import Any

from torch import nn

from vlm_pruner.engine.hooks import Hooks
from vlm_pruner.engine.recorder import Recorder
from vlm_pruner.engine.records import ImageRecord
from vlm_pruner.engine.reuse import Prefix, check_reusable, run_prefix
from vlm_pruner.engine.support import Parts, take_apart
from vlm_pruner.errors import PlanError, UnsupportedModelError
from vlm_pruner.plan import PrunePlan
from vlm_pruner.report import PruneReport, SessionTotal

__all__ = ["Session", "detach"]

_active: weakref.WeakKeyDictionary[nn.Module, weakref.ref[Session]] = weakref.WeakKeyDictionary()
_active_lock = threading.Lock()


class Session:
    """A plan on a model. As a context manager it is active inside the block and leaves the model as it found it."""

    def __init__(self, model: nn.Module, plan: PrunePlan, parts: Parts, full_length: bool = False) -> None:
        self.model, self.plan = model, plan
        self._parts = parts
        self._recorder = Recorder(parts, plan)
        self._hooks = Hooks(parts, plan, self._recorder, full_length)
        self._active = self._entered = False

    def __deepcopy__(self, memo: dict[int, Any]) -> Session:
        """The same plan on a copy of the model. What was recorded stays behind.

        Raises:
            UnsupportedModelError: the session is active: hooks cannot be copied.
        """
        model = copy.deepcopy(self.model, memo)
        return Session(model, self.plan, take_apart(model), self._hooks.full_length)

    @property
    def report(self) -> PruneReport:
        """What the newest prefill kept and saved, and the decode steps since.

        Raises:
            PlanError: the session was never active, so that the model ran unpruned.
        """
        return self._noted.report()

    @property
    def images(self) -> list[ImageRecord]:
        """The images of the last prefill with the choices made among their tokens.

        Raises:
            PlanError: as for `report`.
        """
        return self._noted.images

    @property
    def reports(self) -> tuple[PruneReport, ...]:
        """One for each of the last 64 calls, the newest last, whatever thread made them. Errors as for `report`."""
        return self._noted.reports()

    @property
    def total(self) -> SessionTotal:
        """All calls of this session added up. Errors as for `report`."""
        return self._noted.total()

    @property
    def _noted(self) -> Recorder:
        if not self._entered:
            raise PlanError(
                "this session was never active, and the model ran unpruned: `prune` prunes inside its block alone, "
                "`with vp.prune(model, ...) as session:`; `session = vp.attach(model, ...)` prunes until it is detached"
            )
        return self._recorder

    def reuse(self, **inputs: Any) -> Prefix:
        """Run and prune a prompt up to its last picture once, for any number of questions about it.

            with vp.prune(model, "vlm-pruner", keep=64) as session:
                prefix = session.reuse(**processor(images=image, text=first, return_tensors="pt"))
                for text in questions:
                    asked = processor(images=image, text=text, return_tensors="pt")
                    answer = model.generate(**prefix.inputs(**asked))

        The answers are those of the whole prompts; the report says what was saved.

        Args:
            inputs: what the processor gives for one of the prompts, one row without padding.

        Raises:
            PlanError: the session is not active, or a method reads the question.
            UnsupportedModelError: a model whose pictures see the question.
            InputError: a prompt without pictures, of several rows, or padded.
        """
        if not self._active:
            raise PlanError("this session is not active: reuse works inside its block, or until it is detached")
        check_reusable(self.plan, self._parts)
        try:
            prefix = run_prefix(self._parts, inputs)
        except BaseException:  # torch calls no hook where Ctrl-C ends a forward
            self._hooks.calls.close()
            raise
        self._recorder.begin(prefix)
        return prefix

    def _repr_html_(self) -> str:
        # A notebook asked: the drawing room is above this one, and is looked up by name only now.
        if not self._entered:
            return "<p>A session that was not entered yet.</p>"
        return str(importlib.import_module("vlm_pruner.viz.notebook").session_html(str(self.report), self.images))

    def start(self) -> None:
        """Install the hooks.

        Raises:
            UnsupportedModelError: another pruner is active on this model.
        """
        with _active_lock:
            if self._parts.base in _active:
                raise UnsupportedModelError(
                    f"a pruner is already active on this {self._parts.name} model: leave its block or detach it"
                )
            _active[self._parts.base] = weakref.ref(self)
        try:
            self._hooks.install()
        except BaseException:
            _active.pop(self._parts.base, None)
            raise
        self._hooks.owner = self  # as long as the hooks are there: `detach(model)` finds it although nobody kept it
        self._active = self._entered = True

    def detach(self) -> None:
        """Leave the model as it was; harmless when done twice. The report stays readable.

        Waits until no other thread is inside the model.

        Raises:
            UnsupportedModelError: called from inside `generate` of this model.
        """
        if not self._active:
            return  # the pruner that is active by now may be another one
        self._hooks.remove()
        self._hooks.owner = None
        self._active = False
        _active.pop(self._parts.base, None)

    def __enter__(self) -> Session:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()


def detach(model: nn.Module) -> None:
    """Remove the pruner of `model`; harmless if there is none. Errors as of `Session.detach`."""
    session = _active.get(take_apart(model).base, lambda: None)()
    if session is not None:
        session.detach()
