"""Videos: files to frames, which of them are taken, and what processors are told of their times."""

from vlm_pruner.video.clip import Clip
from vlm_pruner.video.files import open_video
from vlm_pruner.video.sampling import Sampling

__all__ = ["Clip", "Sampling", "open_video"]
