"""The architecture of the embedded model: a plain LLaVA with a CLIP tower, 24x24 visual tokens, an 8-layer Llama."""

from __future__ import annotations

import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from .tokenizer import BOS, EOS, IMAGE, PAD, pieces

IMAGE_SIZE, PATCH = 336, 14
GRID = IMAGE_SIZE // PATCH
VISION_WIDTH, VISION_LAYERS, VISION_HEADS = 192, 5, 6
WIDTH, LAYERS, HEADS, KV_HEADS, FEED_FORWARD = 256, 8, 4, 2, 320
PRUNE_LAYER = 2  # the layers below it never read the image into the text


def build_config() -> LlavaConfig:
    vocabulary = pieces()
    vision = CLIPVisionConfig(
        hidden_size=VISION_WIDTH,
        intermediate_size=2 * VISION_WIDTH,
        num_hidden_layers=VISION_LAYERS,
        num_attention_heads=VISION_HEADS,
        image_size=IMAGE_SIZE,
        patch_size=PATCH,
        hidden_act="quick_gelu",
        projection_dim=VISION_WIDTH,
    )
    text = LlamaConfig(
        vocab_size=-(-len(vocabulary) // 64) * 64,
        hidden_size=WIDTH,
        intermediate_size=FEED_FORWARD,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        head_dim=WIDTH // HEADS,
        max_position_embeddings=8192,
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
        initializer_range=0.06,
        tie_word_embeddings=False,
        pad_token_id=vocabulary.index(PAD),
        bos_token_id=vocabulary.index(BOS),
        eos_token_id=vocabulary.index(EOS),
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=vocabulary.index(IMAGE),
        projector_hidden_act="gelu",
        vision_feature_select_strategy="default",
        vision_feature_layer=-1,
        image_seq_length=GRID * GRID,
        tie_word_embeddings=False,
    )


def build_model(seed: int = 0) -> LlavaForConditionalGeneration:
    """An untrained model."""
    torch.manual_seed(seed)
    return LlavaForConditionalGeneration(build_config())
