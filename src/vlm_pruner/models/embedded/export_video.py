"""Turn a checkpoint of the stage "video" into a folder: `python -m vlm_pruner.models.embedded.export_video CHECKPOINT`.

A plain Video-LLaVA checkpoint, that `--model FOLDER` takes and `from_pretrained` loads.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from transformers import VideoLlavaForConditionalGeneration

from .config import PATCH
from .export import write_model
from .tokenizer import VIDEO_CHAT_TEMPLATE, build_tokenizer
from .video import FRAME_SIDE, build_video_config

__all__ = ["export_video"]

_MEAN, _STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


def _processor() -> dict[str, object]:
    """`processor_config.json`: frames and pictures squeezed to FRAME_SIDE, normalised as CLIP."""
    side = {"height": FRAME_SIDE, "width": FRAME_SIDE}
    shared = {
        "size": side, "crop_size": side, "do_center_crop": False, "do_resize": True, "do_rescale": True,
        "do_normalize": True, "do_convert_rgb": True, "image_mean": _MEAN, "image_std": _STD, "resample": 3,
        "rescale_factor": 1 / 255,
    }  # fmt: skip
    shortest = {
        "size": {"shortest_edge": FRAME_SIDE},
        "do_center_crop": True,
        "image_processor_type": "VideoLlavaImageProcessor",
    }
    return {
        "processor_class": "VideoLlavaProcessor",
        "patch_size": PATCH,
        "num_additional_image_tokens": 1,
        "vision_feature_select_strategy": "default",
        "image_processor": {**shared, **shortest},
        "video_processor": {
            **shared, "do_sample_frames": False, "default_to_square": True,
            "video_processor_type": "VideoLlavaVideoProcessor",
        },
    }  # fmt: skip


def export_video(checkpoint: Path, folder: Path) -> None:
    """Write config, weights in bfloat16, generation config, tokenizer, processor and chat template to `folder`."""
    write_model(VideoLlavaForConditionalGeneration(build_video_config()), checkpoint, folder, video=True)
    build_tokenizer(True).save_pretrained(folder)
    described = _processor()
    (folder / "processor_config.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    pictures = json.dumps(described["image_processor"], indent=2)
    (folder / "preprocessor_config.json").write_text(pictures + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").write_text(VIDEO_CHAT_TEMPLATE, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m vlm_pruner.models.embedded.export_video", description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()
    export_video(options.checkpoint, options.folder)
    size = (options.folder / "model.safetensors").stat().st_size
    print(f"{options.folder}: {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
