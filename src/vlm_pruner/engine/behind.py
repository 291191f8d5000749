"""Cache layers whose window lies over what is generated, behind the whole prompt: they count the prompt apart."""

from __future__ import annotations

from typing import Any

from vlm_pruner.errors import UnsupportedModelError

__all__ = ["BehindPrompt", "is_behind_prompt"]


def is_behind_prompt(stock: type) -> bool:
    """Does a class of cache layers have such a window?"""
    return hasattr(stock, "set_prefill_length")


class BehindPrompt:
    """Mixed into a pruned layer of such a stock one, which is told how much is stored of the prompt."""

    prefill_length: int | None
    prefill_cumulative_length: int
    pruned_dropped: int
    pruned_shadow: Any

    pruned_counter = "prefill_cumulative_length"

    @property
    def pruned_first(self) -> int:
        """Places of the prompt, which the window leaves out."""
        return self.prefill_length or 0

    def pruned_shorten(self, count: int) -> None:
        """`count` tokens of the prompt go: the shadow counts what is stored of it, told how long it will be.

        Raises:
            UnsupportedModelError: they stand in the window behind the prompt.
        """
        if self.prefill_length and self.prefill_cumulative_length:
            raise UnsupportedModelError(
                "pictures of a later turn lie in the window over what is generated, and cannot be pruned there"
            )
        if getattr(self.pruned_shadow, "prefill_length", None):
            self.pruned_shadow.prefill_length -= count

    def update(self, *args: Any, **kwargs: Any) -> Any:
        known = self.prefill_length
        self.prefill_length = None if known is None else known - self.pruned_dropped
        try:
            entries = super().update(*args, **kwargs)  # type: ignore[misc]
        except BaseException:
            self.prefill_length = known
            raise
        assert self.prefill_length is not None
        self.prefill_length += self.pruned_dropped
        return entries
