"""What the tests of the benchmark share: made-up results, and a tiny random model with a processor."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from vlm_pruner.evaluation.bench import Setup
from vlm_pruner.evaluation.questions import Asked
from vlm_pruner.evaluation.results import BenchResults, CellResult


def cell_result(
    label: str, budget: int, correct: Sequence[bool], seed: int = 0, evidence: float | None = 0.5
) -> CellResult:
    return CellResult(
        label=label,
        budget=budget,
        seed=seed,
        method=label,
        params={},
        stages=[[label, budget, 2]],
        correct=CellResult.pack(correct),
        kept=float(budget),
        layer_average=budget + 32.0,
        flops=1e9 + seed,
        evidence_kept=evidence,
        evidence_lost=None if evidence is None else 0.25,
        object_kept=0.4,
        redundancy=0.3,
    )


def made_up_results(questions: int = 240, seed: int = 0) -> BenchResults:
    """An unpruned model, a good and a bad method, a random one with two seeds, a blind model.

    Three types, four questions a scene, budgets 64 and 32.
    """
    rng = np.random.default_rng(seed)
    full = rng.random(questions) < 0.9
    good = full & (rng.random(questions) < 0.95)
    cells = [cell_result("none", 576, full.tolist(), evidence=None)]
    for budget, share in ((64, 0.7), (32, 0.5)):
        cells.append(cell_result("vlm-pruner", budget, good.tolist()))
        cells.append(cell_result("bad", budget, (full & (rng.random(questions) < share)).tolist()))
        for number in (0, 1):
            cells.append(cell_result("random", budget, (full & (rng.random(questions) < share - 0.2)).tolist(), number))
    cells.append(cell_result("blind", 576, (rng.random(questions) < 0.2).tolist()))
    return BenchResults(
        model={"name": "made up", "weights": "0" * 16, "layers": 8, "tokens": 576, "dtype": "float32"},
        split={"name": "test", "version": 1},
        types=[("color", "number", "word")[i % 3] for i in range(questions)],
        scenes=[i // 4 for i in range(questions)],
        chance={"color": 0.125, "number": 0.001, "word": 0.05},
        cells=cells,
        left_out=[{"label": "needs-clip", "budget": b, "reason": "no CLIP space"} for b in (64, 32)],
    )


class WordProcessor:
    """Just enough of a processor: one id a word, `<image>` as 25 placeholders, pictures of 40 x 40 pixels."""

    placeholder = 3
    tokens = 25
    tokenizer = SimpleNamespace(bos_token="<s>")

    def __init__(self) -> None:
        self._words = {"<pad>": 0, "<s>": 1, "</s>": 2, "<image>": self.placeholder}

    def __call__(
        self, images: Sequence[Image.Image], text: str | list[str], return_tensors: str
    ) -> dict[str, torch.Tensor]:
        (prompt,) = [text] if isinstance(text, str) else text
        ids = [1]
        for word in prompt.split():
            number = self._words.setdefault(word, len(self._words))
            ids += [number] * (self.tokens if word == "<image>" else 1)
        pixels = [torch.from_numpy(np.array(i.convert("RGB"))).permute(2, 0, 1).float() / 127.5 - 1 for i in images]
        return {
            "input_ids": torch.tensor([ids]),
            "attention_mask": torch.ones(1, len(ids), dtype=torch.long),
            "pixel_values": torch.stack(pixels),
        }

    def decode(self, ids: Sequence[int], skip_special_tokens: bool) -> str:
        return " ".join(map(str, ids))


def tiny_model(layers: int = 4, seed: int = 0) -> LlavaForConditionalGeneration:
    """A random model of 25 visual tokens a picture that ends its answers now and then."""
    torch.manual_seed(seed)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2, image_size=40,
            patch_size=8, projection_dim=32,
        ),
        text_config=LlamaConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=layers, num_attention_heads=4,
            num_key_value_heads=2, vocab_size=60, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        ),
        image_token_index=WordProcessor.placeholder,
    )  # fmt: skip
    model = LlavaForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1:
                weight.mul_(6.0 if "embed" in name or "lm_head" in name else 3.0)
    model.generation_config.eos_token_id = list(range(2, 60, 3))
    model.generation_config.pad_token_id = 0
    return model


def asked(scenes: int = 3, per_scene: int = 3) -> list[Asked]:
    """Questions about random pictures, every third scene with two; the answer is a number word of the tiny model."""
    questions = []
    for scene in range(scenes):
        images = [picture(10 * scene + i) for i in range(2 if scene % 3 == 2 else 1)]
        n = WordProcessor.tokens * len(images)
        for number in range(per_scene):
            evidence, objects = torch.zeros(n, dtype=torch.bool), torch.zeros(n, dtype=torch.bool)
            evidence[3 * number : 3 * number + 2] = number > 0
            objects[:12] = True
            text = f"what is {'the ' * number}{('cup', 'sun', 'moon')[number % 3]} ?"
            questions.append(
                Asked(
                    key=f"{scene}.{number}",
                    scene=scene,
                    type=("color", "word")[number % 2],
                    chance=0.1 + 0.1 * (number % 2),
                    pictures=len(images),
                    draw=partial(list, images),
                    prompt="USER: " + "<image> " * len(images) + text,
                    score=ends_even,
                    evidence=evidence,
                    objects=objects,
                )
            )
    return questions


def ends_even(answer: str) -> bool:
    return bool(answer) and int(answer[-1]) % 2 == 0


def tiny_setup() -> Setup:
    return Setup(tiny_model(seed=10), WordProcessor(), asked())


def picture(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8))
