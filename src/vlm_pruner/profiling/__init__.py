"""Where the time and the memory go, with and without pruning: measured, predicted, and the limit."""

from vlm_pruner.profiling.shapes import SHAPES, ModelShape, model_shape

__all__ = ["SHAPES", "ModelShape", "model_shape"]
