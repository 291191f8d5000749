"""Pruning methods: one file per paper. `registry()` lists them; `create("divprune")` makes one."""

from vlm_pruner.methods.base import PruningMethod, create, method_class, register, registry, require
from vlm_pruner.methods.own import methods_from

__all__ = ["PruningMethod", "create", "method_class", "methods_from", "register", "registry", "require"]
