"""The methods of the registry by what a budget is to them."""

from __future__ import annotations

from vlm_pruner.methods import create, registry

FIXED = sorted(name for name in registry() if name != "none" and create(name).budget == "fixed")
ADAPTIVE = sorted(name for name in registry() if create(name).budget != "fixed")
BEFORE_TOWER = sorted(name for name, cls in registry().items() if cls.default_layer == "tower")
