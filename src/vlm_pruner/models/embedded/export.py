"""Turn a training checkpoint into the shipped folder: `python -m vlm_pruner.models.embedded.export CHECKPOINT`.

The folder is loaded again by `from_pretrained`, and must answer questions on held-out scenes as the training code does.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import (
    CLIPImageProcessor,
    GenerationConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedModel,
)

from vlm_pruner.scenes.layout import Scene, sample_scene
from vlm_pruner.scenes.questions import Draft
from vlm_pruner.scenes.render import backgrounds, render

from .config import IMAGE_SIZE, PATCH, build_model
from .loading import WEIGHTS
from .tokenizer import BOS, CHAT_TEMPLATE, EOS, PAD, build_tokenizer, pieces
from .train.data import draw_drafts, pack
from .train.decoder import answer
from .train.dense import patch_rows, tower_states
from .train.labels import token_labels
from .train.packed import TOKENS

LIMIT = 64_000_000  # bytes of weights that a package may carry


def build_processor() -> LlavaProcessor:
    """CLIP's image processor at 336 pixels, the tokenizer, LLaVA's prompt order as chat template."""
    side = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    image_processor = CLIPImageProcessor(size={"shortest_edge": IMAGE_SIZE}, crop_size=side)
    return LlavaProcessor(
        image_processor,
        build_tokenizer(),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def export(checkpoint: Path, folder: Path) -> None:
    """Write config, weights in bfloat16, generation config, tokenizer, processor and chat template to `folder`."""
    write_model(build_model(), checkpoint, folder)
    build_processor().save_pretrained(folder)


def write_model(model: PreTrainedModel, checkpoint: Path, folder: Path, video: bool = False) -> None:
    """Write config, the weights of a checkpoint in bfloat16 and the generation config to `folder`.

    Args:
        video: the vocabulary is that of the form for videos.

    Raises:
        SystemExit: more weights than a package may carry.
    """
    model.load_state_dict(torch.load(checkpoint, weights_only=True, map_location="cpu")["model"])
    index = pieces(video).index
    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=16,
        bos_token_id=index(BOS),
        eos_token_id=index(EOS),
        pad_token_id=index(PAD),
    )
    model.to(torch.bfloat16).save_pretrained(folder)
    size = (folder / "model.safetensors").stat().st_size
    if size > LIMIT:
        raise SystemExit(f"{size / 1e6:.1f} MB of weights are too many for a package")


def _sample(scene: Scene, drafts: list[Draft]) -> dict[str, Tensor]:
    drawn = render(scene)
    labels, item, _ = token_labels(scene, drawn)
    arrays = {"image": np.asarray(drawn.image), "item": item, "ground": labels[-1]} | pack(drafts)
    return {name: torch.from_numpy(np.array(a))[None] for name, a in arrays.items()}


def packed_answers(model: LlavaForConditionalGeneration, scene: Scene, drafts: list[Draft]) -> list[bool]:
    """Whether the training code, all image tokens in, predicts every token of each answer."""
    batch = _sample(scene, drafts)
    with torch.no_grad():
        batch["features"] = tower_states(model, patch_rows(batch["image"]))[:, 1:]
        _, rows = answer(model, batch, TOKENS)
    right = torch.ones(len(drafts), dtype=torch.bool)
    right[rows["q"][rows["logits"].argmax(-1) != rows["target"]]] = False
    return right.tolist()


def plain_answers(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, images: list[Image.Image], texts: list[str]
) -> list[str]:
    """What `generate` says to each question about the same images, one left-padded batch."""
    content = [{"type": "image"} for _ in images]
    prompts = [
        processor.apply_chat_template(
            [{"role": "user", "content": [*content, {"type": "text", "text": text}]}], add_generation_prompt=True
        )
        for text in texts
    ]
    inputs = processor(text=prompts, images=[images] * len(texts), return_tensors="pt", padding=True)
    with torch.no_grad():
        out = model.generate(**inputs.to(model.device))
    return [t.strip() for t in processor.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)]


def disagreements(model: LlavaForConditionalGeneration, processor: LlavaProcessor, scenes: int = 6) -> list[str]:
    """Questions on held-out scenes that `generate` and the training code answer differently (right and wrong)."""
    rng, out = np.random.default_rng([9, 9]), []
    for _ in range(scenes):
        scene = sample_scene(rng, "validation", len(backgrounds("validation")))
        drafts = draw_drafts(rng, scene, 16)
        said = plain_answers(model, processor, [render(scene).image], [d.text for d in drafts])
        for draft, text, right in zip(drafts, said, packed_answers(model, scene, drafts), strict=True):
            if (text == draft.answer) != right:
                out.append(f"{draft.text} {draft.answer}: generate says {text!r}, training says {right}")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m vlm_pruner.models.embedded.export", description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--folder", type=Path, default=WEIGHTS)
    options = parser.parse_args()
    export(options.checkpoint, options.folder)
    model = LlavaForConditionalGeneration.from_pretrained(options.folder, dtype=torch.float32).eval()
    wrong = disagreements(model, LlavaProcessor.from_pretrained(options.folder))
    if wrong:
        raise SystemExit("\n".join(wrong))
    size = (options.folder / "model.safetensors").stat().st_size
    print(f"{options.folder}: {size / 1e6:.2f} MB, {model.num_parameters() / 1e6:.2f} M parameters; answers agree")


if __name__ == "__main__":
    main()
