"""Checkpoint folders of sixteen families: a tiny random model, and the processor that the family comes with.

The tokenizer knows single characters, so that a question has as many tokens as letters. Most processors need
torchvision: folders can be made, and loaded, where `tests.support.vision` finds it.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tests.support.families import END, FAMILIES, IMAGE, PAD, START, VIDEO
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

__all__ = ["CHECKPOINTS", "checkpoint"]

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,?!:;'\"-<>|_/\n"
MARKS = ("<row>", "<fake>", "<global>", "<turn>", "<spare>")
TEMPLATE = (
    "{{% for message in messages %}}{{{{ message['role'] }}}}: {{% for part in message['content'] %}}"
    "{{% if part['type'] == 'image' %}}{image}{{% elif part['type'] == 'video' %}}{video}"
    "{{% else %}}{{{{ part['text'] }}}}{{% endif %}}{{% endfor %}}\n"
    "{{% endfor %}}"
    "{{% if add_generation_prompt %}}assistant: {{% endif %}}"
)
NATIVE = {"size": {"shortest_edge": 64, "longest_edge": 4096}, "temporal_patch_size": 2, "merge_size": 2}


def tokenizer(image: str, video: str, start: str, end: str, **attributes: str) -> PreTrainedTokenizerFast:
    """One token a letter, special ones in the places that the configurations of `tests.support.configs` mean."""
    ids = {"<pad>": PAD, "</s>": 1, "<s>": 2, "<unk>": 3, image: IMAGE, video: VIDEO, start: START, end: END}
    ids |= {letter: 4 + i for i, letter in enumerate(LETTERS)} | {mark: 95 + i for i, mark in enumerate(MARKS)}
    words = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    words.decoder = decoders.Fuse()
    words.add_special_tokens([image, video, start, end, *MARKS])
    made = PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", pad_token="<pad>", bos_token="<s>", eos_token="</s>",
        extra_special_tokens=attributes,
    )  # fmt: skip
    made.padding_side = "left"
    return made


def fuyu_words() -> PreTrainedTokenizerFast:
    """With a mark in front of every text, which Fuyu's processor takes off again; its placeholders are plain words."""
    ids = {"<pad>": PAD, "</s>": 1, "<s>": 2, "<unk>": 3, "\u2581": 4, "|SPEAKER|": IMAGE, "|NEWLINE|": START}
    words = Tokenizer(models.WordLevel(ids | {letter: 5 + i for i, letter in enumerate(LETTERS)}, unk_token="<unk>"))
    words.normalizer = normalizers.Prepend("\u2581")
    words.pre_tokenizer = pre_tokenizers.Split(Regex(r"\|[A-Z]+\||[\s\S]"), "isolated")
    words.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


def _square(name: str, side: int = 28, **more: Any) -> Any:
    import transformers

    return getattr(transformers, name)(size={"height": side, "width": side}, **more)


def _clip() -> Any:
    import transformers

    return transformers.CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})


def _processor(
    name: str, image: str, *arguments: Any, template: str | None = None, video: str = "", **options: Any
) -> Any:
    """The processor class `name` of transformers; `template` writes a picture into a prompt, None = there is none.

    `video` writes a video.
    """
    import transformers

    chat = None if template is None else TEMPLATE.format(image=template, video=video)
    return getattr(transformers, name)(*arguments, chat_template=chat, **options)


def _llava() -> Any:
    words = tokenizer("<image>", "<video>", "<start>", "<end>")
    layout = {"patch_size": 7, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    return _processor("LlavaProcessor", "<image>", _clip(), words, **layout)


def _llava_next() -> Any:
    import transformers
    from tests.support.configs import PINPOINTS

    words = tokenizer("<image>", "<video>", "<start>", "<end>")
    layout = {"patch_size": 7, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    pictures = transformers.LlavaNextImageProcessor(
        size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}, image_grid_pinpoints=PINPOINTS
    )
    return _processor("LlavaNextProcessor", "<image>", pictures, words, template="<image>\n", **layout)


def _onevision() -> Any:
    import transformers
    from tests.support.configs import PINPOINTS

    words = tokenizer("<image>", "<video>", "<start>", "<end>")
    pictures = _square("LlavaOnevisionImageProcessor", image_grid_pinpoints=PINPOINTS)
    videos = transformers.LlavaOnevisionVideoProcessor(size={"height": 28, "width": 28})
    layout = {"num_image_tokens": 16, "vision_feature_select_strategy": "full"}
    marks = {"template": "<image>\n", "video": "<video>\n"}
    return _processor("LlavaOnevisionProcessor", "<image>", pictures, words, videos, **marks, **layout)


def _next_video() -> Any:
    import transformers
    from tests.support.configs import PINPOINTS

    words = tokenizer("<image>", "<video>", "<start>", "<end>")
    sizes = {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}
    pictures = transformers.LlavaNextImageProcessor(image_grid_pinpoints=PINPOINTS, **sizes)
    layout = {"patch_size": 7, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    marks = {"template": "<image>\n", "video": "<video>\n"}
    videos = transformers.LlavaNextVideoVideoProcessor(**sizes)
    return _processor("LlavaNextVideoProcessor", "<image>", videos, pictures, words, **marks, **layout)


def _qwen(version: str) -> Any:
    import transformers

    words = tokenizer("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
    pictures = transformers.Qwen2VLImageProcessor(patch_size=4, **NATIVE)
    reader = "Qwen3VLVideoProcessor" if version == "Qwen3VL" else "Qwen2VLVideoProcessor"
    videos = getattr(transformers, reader)(patch_size=4, **NATIVE)
    picture = "<|vision_start|><|image_pad|><|vision_end|>"
    marks = {"template": picture, "video": picture.replace("image", "video")}
    return _processor(f"{version}Processor", "<|image_pad|>", pictures, words, videos, **marks)


def _internvl() -> Any:
    words = tokenizer(
        "<IMG_CONTEXT>", "<video>", "<img>", "</img>", start_image_token="<img>", end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>", video_token="<video>",
    )  # fmt: skip
    pictures = _square("GotOcr2ImageProcessor", 32, crop_to_patches=True, max_patches=3)
    videos = _square("InternVLVideoProcessor", 32)
    return _processor(
        "InternVLProcessor", "<IMG_CONTEXT>", pictures, words, videos, image_seq_length=16, template="<IMG_CONTEXT>\n"
    )


def _smolvlm() -> Any:
    import transformers

    words = tokenizer(
        "<image>", "<video>", "<start>", "<end>", image_token="<image>", video_token="<video>",
        fake_image_token="<fake>", global_image_token="<global>", end_of_utterance_token="<turn>",
    )  # fmt: skip
    edges = {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32}}
    pictures = transformers.SmolVLMImageProcessor(**edges)
    videos = transformers.SmolVLMVideoProcessor(**edges, num_frames=4, fps=1)
    return _processor("SmolVLMProcessor", "<image>", pictures, words, videos, image_seq_len=16, template="<image>")


def _pixtral(merge: int) -> Any:
    import transformers

    words = tokenizer("[IMG]", "<video>", "[IMG_BREAK]", "[IMG_END]")
    pictures = transformers.PixtralImageProcessor(size={"longest_edge": 56}, patch_size=7)
    layout = {"patch_size": 7, "spatial_merge_size": merge}
    return _processor("PixtralProcessor", "[IMG]", pictures, words, template="[IMG]", **layout)


def _gemma3() -> Any:
    words = tokenizer(
        "<image_soft_token>", "<video>", "<start_of_image>", "<end_of_image>", image_token="<image_soft_token>",
        boi_token="<start_of_image>", eoi_token="<end_of_image>",
    )  # fmt: skip
    pictures = _square("Gemma3ImageProcessor", 32)
    return _processor(
        "Gemma3Processor", "<image_soft_token>", pictures, words, image_seq_length=16, template="<start_of_image>"
    )


def _paligemma() -> Any:
    words = tokenizer("<image>", "<video>", "<start>", "<end>", image_token="<image>")
    return _processor("PaliGemmaProcessor", "<image>", _square("SiglipImageProcessor", image_seq_length=16), words)


def _deepseek(name: str) -> Any:
    words = tokenizer("<image_placeholder>", "<video>", "<start>", "<end>", image_token="<image_placeholder>")
    more = {"high_res_size": {"height": 56, "width": 56}} if "Hybrid" in name else {}
    pictures = _square(f"{name}ImageProcessor", **more)
    return _processor(
        f"{name}Processor", "<image_placeholder>", pictures, words, num_image_tokens=16, template="<image_placeholder>"
    )


def _step() -> Any:
    import transformers

    words = tokenizer("<im_patch>", "<video>", "<im_start>", "<im_end>")
    pictures = transformers.Step3p7ImageProcessor(
        size={"height": 64, "width": 64}, patch_size=32, max_image_size=96, vision_patch_size=4
    )
    return _processor("Step3p7Processor", "<im_patch>", pictures, words, template="<im_patch>")


def _fuyu() -> Any:
    import transformers

    sides = {"patch_size": {"height": 4, "width": 4}, "size": {"height": 32, "width": 32}}
    return transformers.FuyuProcessor(transformers.FuyuImageProcessor(**sides), fuyu_words())


CHECKPOINTS: dict[str, Callable[[], Any]] = {
    "llava": _llava,
    "llava-pixtral": lambda: _pixtral(1),
    "llava_next": _llava_next,
    "llava_next_video": _next_video,
    "llava_onevision": _onevision,
    "qwen2_vl": lambda: _qwen("Qwen2VL"),
    "qwen2_5_vl": lambda: _qwen("Qwen2_5_VL"),
    "qwen3_vl": lambda: _qwen("Qwen3VL"),
    "qwen3_5": lambda: _qwen("Qwen3VL"),
    "internvl": _internvl,
    "smolvlm": _smolvlm,
    "mistral3": lambda: _pixtral(2),
    "gemma3": _gemma3,
    "paligemma": _paligemma,
    "deepseek_vl_hybrid": lambda: _deepseek("DeepseekVLHybrid"),
    "step3p7": _step,
    "fuyu": _fuyu,
}
"""The processor of every family that has a folder, by the name that it has in `tests.support.families`."""


@functools.cache
def checkpoint(name: str) -> Path:
    """Folder with the model and the processor of a family, made once per process."""
    folder = Path(tempfile.mkdtemp(prefix=f"tiny-{name}-"))
    model = FAMILIES[name].model("sdpa", torch.float32)
    model.generation_config.suppress_tokens = [IMAGE, VIDEO, START, END]  # a random model would write placeholders
    model.generation_config.eos_token_id = 1
    model.save_pretrained(folder)
    CHECKPOINTS[name]().save_pretrained(folder)
    return folder
