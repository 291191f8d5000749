"""What all hooks of one thread share."""

from __future__ import annotations

import threading
from typing import Any, SupportsIndex

from vlm_pruner.engine.forward import Forward, Prefill
from vlm_pruner.engine.generation import Generation
from vlm_pruner.errors import UnsupportedModelError

__all__ = ["Local"]


class Local(threading.local):
    """What the hooks of one thread share: threads may run the same model at the same time."""

    forward: Forward | None = None
    logits_to_keep: Any = 0
    encoded: dict[Any, Any] | None = None  # notes of generate's encoding step, between outer and base pre-hook
    generation: Generation | None = None  # the call of generate that is going on
    unused: str | None = None  # modality that was encoded outside of a forward, and that no forward was given yet
    left: int | None = None  # rows of the base model's output, after a forward with pictures
    quiet: bool = False  # the engine itself calls rotary_emb
    encoding: bool = False  # inside get_image_features or get_video_features
    tower: Any = None  # what was chosen before the vision tower in there

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        raise UnsupportedModelError(
            "a pruner and the model it is active on can be neither copied nor pickled: leave its block or detach "
            "it first"
        )

    @property
    def prefill(self) -> Prefill | None:
        """What the pictures of the forward that is going on have come to."""
        return None if self.forward is None else self.forward.prefill
