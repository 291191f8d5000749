"""Where the time and the memory go, with and without pruning: measured, predicted, and the limit."""

from vlm_pruner.profiling.figures import Variant
from vlm_pruner.profiling.result import ProfileResult
from vlm_pruner.profiling.run import profile
from vlm_pruner.profiling.shapes import SHAPES, ModelShape, model_shape
from vlm_pruner.profiling.subject import Subject, subject_named

__all__ = ["SHAPES", "ModelShape", "ProfileResult", "Subject", "Variant", "model_shape", "profile", "subject_named"]
