"""One question about thousands of pictures, or thousands of questions: resumable, in one process, many, or on Ray."""

from vlm_pruner.serving.batch.job import Job, Progress, run_job
from vlm_pruner.serving.batch.results import Summary

__all__ = ["Job", "Progress", "Summary", "run_job"]
