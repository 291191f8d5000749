"""Pytest plugin of `upstream_tests`: generation tests only, a pruner on every model they build, outcomes as JSON.

Environment of one run: UPSTREAM_PRUNER ("1" or "0"), UPSTREAM_OUTCOMES (the file to write). Loaded inside the tests'
own process by `-p`, which cannot pass objects; nothing of the library reads these variables.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CLASSES = ("LlavaForConditionalGeneration", "Qwen2_5_VLForConditionalGeneration")

outcomes: dict[str, dict[str, Any]] = {}
sessions: list[Any] = []


def pytest_configure(config: pytest.Config) -> None:
    """Attach a pruner at the end of every construction of a model."""
    if os.environ["UPSTREAM_PRUNER"] == "1":
        import transformers

        for name in CLASSES:
            cls = getattr(transformers, name)
            cls.__init__ = _attached(cls.__init__)


def _attached(init: Callable[..., None]) -> Callable[..., None]:
    from vlm_pruner import attach
    from vlm_pruner.methods import create
    from vlm_pruner.plan import PrunePlan, Stage

    plan = PrunePlan((Stage(create("vlm-pruner"), 1.0, 1),), min_visual_tokens=1)

    @functools.wraps(init)
    def build(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        sessions.append(attach(self, plan))

    return build


def pytest_collection_modifyitems(config: pytest.Config, items: list[Any]) -> None:
    """Keep what comes from the generation tests that all models share."""
    from tests.generation.test_utils import GenerationTesterMixin  # type: ignore[import-not-found]

    shared = {name for name in vars(GenerationTesterMixin) if name.startswith("test_")}
    chosen = [
        i for i in items if i.cls is not None and issubclass(i.cls, GenerationTesterMixin) and _plain(i) in shared
    ]
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = chosen


def _plain(item: Any) -> str:
    """Name of the test function; parametrised ones are numbered by the library that their tests use."""
    return str(getattr(item.function, "__name__", item.originalname))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note the outcome of a test, or of a set-up that skipped or failed."""
    name = report.nodeid.split("::")[-1]
    if report.when == "call" or report.outcome != "passed":
        models, seen = len(sessions), sum(bool(session.images) for session in sessions)
        outcomes[name] = {"outcome": report.outcome, "seconds": report.duration, "models": models, "prefills": seen}
        if report.outcome != "passed":
            outcomes[name]["said"] = _reason(report.longrepr)
    if report.when == "teardown":
        sessions.clear()


def _reason(said: Any) -> str:
    """Why a test was skipped, or the first line of the error that broke it."""
    lines = str(said[2] if isinstance(said, tuple) else said).strip().splitlines() or [""]
    errors = [line.removeprefix("E").strip() for line in lines if line.startswith("E ")]
    return (errors or lines[-1:])[0].removeprefix("Skipped: ")[:300]


def pytest_sessionfinish() -> None:
    """Hand over."""
    Path(os.environ["UPSTREAM_OUTCOMES"]).write_text(json.dumps(outcomes), encoding="utf-8")
