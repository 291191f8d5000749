"""Where the time and the memory go, with and without pruning: measured, predicted, and the limit."""

from vlm_pruner.profiling.result import ProfileResult, Variant
from vlm_pruner.profiling.run import profile
from vlm_pruner.profiling.shapes import SHAPES, ModelShape, model_shape

__all__ = ["SHAPES", "ModelShape", "ProfileResult", "Variant", "model_shape", "profile"]
