"""OpenVINO GenAI's side of `benchmarks.cdpruner_openvino`: runs in its environment, which this package is not in.

    python -P cdpruner_worker.py FOLDER          reads lines of {"removed": per cent, "seed": n}, answers each with JSON

A random checkpoint of Qwen2-VL's shape is written to FOLDER/model and exported to FOLDER/openvino first, unless they
are there. Its processor writes the characters of a question as tokens of their own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

SIDE = (672, 896)  # pixels: 24 x 32 = 768 visual tokens
QUESTION = "What is in this image? Answer briefly."
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for c in m['content'] %}{% if c['type'] == 'text' %}{{ c['text'] }}{% else %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def picture(seed: int) -> np.ndarray:
    """[672, 896, 3] coloured squares with noise, another one for every seed."""
    lots = np.random.default_rng(seed)
    squares = np.kron(lots.integers(0, 255, (SIDE[0] // 28, SIDE[1] // 28, 3)), np.ones((28, 28, 1), dtype=np.int64))
    return np.clip(squares + lots.integers(-8, 8, squares.shape), 0, 255).astype(np.uint8)


def write_model(folder: Path) -> None:
    """A random Qwen2-VL of twelve decoder layers of width 896, by the transformers of this environment."""
    import torch
    import transformers as hf
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    pieces = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    letters = Tokenizer(models.BPE(vocab=pieces, merges=[]))
    letters.pre_tokenizer, letters.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    fast = hf.Qwen2TokenizerFast  # type: ignore[attr-defined]  # of the old release that this runs in
    words = fast(tokenizer_object=letters, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    marks = ["vision_start", "vision_end", "vision_pad", "image_pad", "video_pad"]
    words.add_special_tokens({"additional_special_tokens": ["<|im_start|>", *(f"<|{mark}|>" for mark in marks)]})
    words.chat_template = CHAT
    ids = {f"{mark}_token_id": words.convert_tokens_to_ids(f"<|{mark}|>") for mark in ("vision_start", "vision_end")}
    ids |= {f"{kind}_token_id": words.convert_tokens_to_ids(f"<|{kind}_pad|>") for kind in ("image", "video")}
    text = {
        "vocab_size": 320, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 12,
        "num_attention_heads": 14, "num_key_value_heads": 2, "max_position_embeddings": 32768,
        "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id,
        "rope_scaling": {"type": "mrope", "rope_type": "default", "mrope_section": [8, 12, 12]},
    }  # fmt: skip
    vision = {
        "depth": 4, "embed_dim": 256, "hidden_size": 896, "num_heads": 4, "mlp_ratio": 2, "patch_size": 14,
        "spatial_merge_size": 2, "temporal_patch_size": 2, "in_channels": 3,
    }  # fmt: skip
    torch.manual_seed(0)
    config = hf.Qwen2VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=False, **ids)
    model = hf.Qwen2VLForConditionalGeneration(config)
    with torch.no_grad():  # as it is initialised, a random model hardly sees its picture
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(3.0)
    pixels = {"min_pixels": 56 * 56, "max_pixels": 28 * 28 * 1280}
    sizes = {"patch_size": 14, "merge_size": 2, "temporal_patch_size": 2}
    reader = hf.Qwen2VLProcessor(
        image_processor=hf.Qwen2VLImageProcessor(**sizes, **pixels), tokenizer=words,
        video_processor=hf.Qwen2VLVideoProcessor(**sizes), chat_template=CHAT,
    )  # fmt: skip
    model.save_pretrained(folder)
    reader.save_pretrained(folder)


def export(model: Path, folder: Path) -> None:
    """The checkpoint as OpenVINO reads it, in float32."""
    words = ["export", "openvino", "-m", str(model), "--task", "image-text-to-text", "--weight-format", "fp32"]
    program = Path(sys.executable).with_name("optimum-cli")
    subprocess.run([str(program), *words, str(folder)], check=True, stdout=subprocess.DEVNULL)


def main(folder: Path) -> None:
    """Write, export, then answer until nothing more is asked."""
    if not (folder / "model" / "config.json").exists():
        write_model(folder / "model")
    if not (folder / "openvino" / "config.json").exists():
        export(folder / "model", folder / "openvino")
    import openvino
    import openvino_genai as genai

    about = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    pipe = genai.VLMPipeline(str(folder / "openvino"), "CPU", **about)
    print(json.dumps({"openvino_genai": genai.__version__}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        config = genai.GenerationConfig()
        config.max_new_tokens, config.do_sample, config.ignore_eos = 2, False, True
        config.pruning_ratio = asked["removed"]
        image = openvino.Tensor(picture(asked["seed"])[None])
        found = pipe.generate(QUESTION, images=[image], generation_config=config).perf_metrics
        first, before = found.get_ttft().mean, found.get_prepare_embeddings_duration().mean
        said = {"first_ms": first, "prefill_ms": first - before, "tokens": found.get_num_input_tokens()}
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
