"""Channel screening: unit vectors of every token over the channels that vary most."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from vlm_pruner.ops.dispatch import implementation

__all__ = ["screen"]


def screen(features: Sequence[Tensor], channels: int, *, backend: str | None = None) -> Tensor:
    """[B, n, q] float32 rows of B images, reduced to q = min(channels, d) channels and normalised.

    Of each image the q channels with the largest variance over its n tokens stay (ties: the lower channel), in
    ascending order. A zero row stays zero. arXiv:2512.02700, channel screening.

    Args:
        features: B tensors [n, d] of one shape, any float dtype; never copied as a whole.
        channels: upper limit of q.
    """
    return implementation("screen", features[0], backend).screen(features, channels)  # type: ignore[no-any-return]
