"""FLOPs and KV bytes by formula: exact integers, no torch.

One multiply-add is 2 FLOPs. Counted are the matrix products: projections, attention scores and values, MLPs, patch
embedding, the output head. Norms, activations, rotary embeddings and softmax are left out (below 1 % at these widths).
Attention counts the full square of the length, masked half included: what `torch.utils.flop_counter` reports and what
dense kernels execute. Papers of the field print multiply-adds (half of ours) of the image tokens alone:
FastV (arXiv:2403.06764, Eq. 5) with two MLP matrices, PyramidDrop (arXiv:2410.17247, Eq. 1) with the three that a
gated MLP has.

`lengths[i]` is the number of tokens that enter decoder layer i, so a plan with any number of stages is one list.
"""

from __future__ import annotations

from vlm_pruner.flops.decoder import (
    DecoderCosts,
    DecoderShape,
    Experts,
    LayerCosts,
    decode_flops,
    kv_bytes,
    prefill_flops,
    stage_lengths,
)
from vlm_pruner.flops.vision import ProjectorShape, VisionShape, projector_flops, vision_flops

__all__ = [
    "DecoderCosts",
    "DecoderShape",
    "Experts",
    "LayerCosts",
    "ProjectorShape",
    "VisionShape",
    "decode_flops",
    "kv_bytes",
    "prefill_flops",
    "projector_flops",
    "stage_lengths",
    "vision_flops",
]
