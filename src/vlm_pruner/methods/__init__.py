"""Pruning methods: one file per paper. `registry()` lists them; `create("divprune")` makes one."""

from vlm_pruner.methods.base import PruningMethod, create, method_class, registry, require

__all__ = ["PruningMethod", "create", "method_class", "registry", "require"]
