"""The promises of the engine, checked on any model by references that share no code with it."""

from vlm_pruner.verify.promises import Check, Verification, verify

__all__ = ["Check", "Verification", "verify"]
