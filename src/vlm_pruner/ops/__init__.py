"""Hot-path primitives of the methods, one folder each: `naive.py` defines, the others are fast."""

from vlm_pruner.ops.dispatch import BACKENDS, use_backend
from vlm_pruner.ops.dpp import dpp
from vlm_pruner.ops.facility import facility
from vlm_pruner.ops.growth import GrowthRule, grow
from vlm_pruner.ops.maxmin import spread
from vlm_pruner.ops.merge import merge
from vlm_pruner.ops.pivots import farthest_points
from vlm_pruner.ops.screen import screen
from vlm_pruner.ops.sync import constant, declared_sync

__all__ = [
    "BACKENDS",
    "GrowthRule",
    "constant",
    "declared_sync",
    "dpp",
    "facility",
    "farthest_points",
    "grow",
    "merge",
    "screen",
    "spread",
    "use_backend",
]
