"""A random LLaVA checkpoint on disk, small enough to load in a second: 576 visual tokens, 4 decoder layers."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

WORDS = ["<unk>", "<pad>", "<s>", "</s>", "<image>", "USER", ":", "ASSISTANT", "what", "is", "this", "?", "red", "cup"]


@functools.cache
def checkpoint() -> Path:
    """Folder of a saved model and processor, made once per process."""
    folder = Path(tempfile.mkdtemp(prefix="tiny-checkpoint-"))
    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.add_special_tokens(["<image>"])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )
    images = CLIPImageProcessorPil(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336})
    processor = LlavaProcessor(
        image_processor=images, tokenizer=tokenizer, patch_size=14, vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )  # fmt: skip
    model().save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def model(layers: int = 4) -> LlavaForConditionalGeneration:
    """The same model with random weights, always the same ones."""
    torch.manual_seed(0)
    width = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(num_hidden_layers=2, image_size=336, patch_size=14, **width),
        text_config=LlamaConfig(
            num_hidden_layers=layers, num_key_value_heads=2, vocab_size=len(WORDS), pad_token_id=1, bos_token_id=2,
            eos_token_id=3, **width,
        ),
        image_token_index=WORDS.index("<image>"),
    )  # fmt: skip
    return LlavaForConditionalGeneration(config).eval()
