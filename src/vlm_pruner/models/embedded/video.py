"""The video form of the embedded model: a plain Video-LLaVA that starts from the weights of the model for pictures.

Frames of 112 x 112 pixels are 8 x 8 patches. Their position embeddings are rows and columns 4 to 11 of the 24 x 24 of
the picture model, where the upper left ninth of a picture meets the central one: so the quarters of a frame start as
four places that the decoder tells apart.
"""

from __future__ import annotations

import torch
from transformers import LlavaForConditionalGeneration, VideoLlavaConfig, VideoLlavaForConditionalGeneration

from .config import GRID, PATCH, build_config
from .tokenizer import IMAGE, VIDEO, pieces

__all__ = ["FRAME_GRID", "FRAME_SIDE", "FRAME_TOKENS", "build_video_config", "from_pictures"]

FRAME_GRID = 8
FRAME_SIDE = FRAME_GRID * PATCH
FRAME_TOKENS = FRAME_GRID * FRAME_GRID + 1  # CLS in front of every frame
CORNER = 4  # of the part of the picture model's grid that frames take their positions from
VOCABULARY = 256


def build_video_config() -> VideoLlavaConfig:
    """As for pictures, with smaller pictures and a larger vocabulary."""
    stills = build_config()
    vision, text = stills.vision_config.to_dict(), stills.text_config.to_dict()
    return VideoLlavaConfig(
        vision_config={**vision, "image_size": FRAME_SIDE},
        text_config={**text, "vocab_size": VOCABULARY},
        image_token_index=pieces(True).index(IMAGE),
        video_token_index=pieces(True).index(VIDEO),
        projector_hidden_act="gelu",
        vision_feature_select_strategy="default",
        vision_feature_layer=-1,
        image_seq_length=FRAME_TOKENS - 1,
        video_seq_length=FRAME_TOKENS,
        tie_word_embeddings=False,
    )


def from_pictures(stills: LlavaForConditionalGeneration, seed: int = 0) -> VideoLlavaForConditionalGeneration:
    """The video form with the weights of the picture model; new words start from noise like that of the old ones."""
    torch.manual_seed(seed)
    model = VideoLlavaForConditionalGeneration(build_video_config())
    state = model.state_dict()
    for name, weight in stills.state_dict().items():
        if "vision_tower" in name:
            if "position_embedding" in name:
                weight = _cropped(weight)
            for tower in ("image_tower", "video_tower"):
                state[name.replace("vision_tower", tower)] = weight
        elif name in ("lm_head.weight", "model.language_model.embed_tokens.weight"):
            known = weight[: len(pieces())]
            state[name] = torch.cat([known, torch.randn(VOCABULARY - len(known), known.shape[1]) * known.std()])
        else:
            state[name] = weight
    model.load_state_dict(state)
    return model


def _cropped(weight: torch.Tensor) -> torch.Tensor:
    """[1 + FRAME_GRID^2, d] of [1 + GRID^2, d] position embeddings."""
    grid = weight[1:].view(GRID, GRID, -1)
    part = slice(CORNER, CORNER + FRAME_GRID)
    return torch.cat([weight[:1], grid[part, part].flatten(0, 1)])
