"""Both sides of the plugin without an engine: what is announced for a picture, and the rows that are made of it."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest

vllm = pytest.importorskip("vllm")

import torch  # noqa: E402
from tests.support.served import SERVED, picture, served  # noqa: E402
from vllm.multimodal.processing import ProcessorInputs, TimingContext  # noqa: E402

from vlm_pruner.adapters.base import raster  # noqa: E402
from vlm_pruner.errors import PlanError  # noqa: E402
from vlm_pruner.plan import PrunePlan, Stage  # noqa: E402
from vlm_pruner.serving.vllm.counting import field  # noqa: E402
from vlm_pruner.serving.vllm.doctor import examine  # noqa: E402
from vlm_pruner.serving.vllm.places import STAYS, Places, with_places  # noqa: E402
from vlm_pruner.serving.vllm.pruning import Pruning, exactly, layouts_of  # noqa: E402
from vlm_pruner.serving.vllm.registering import check_server  # noqa: E402
from vlm_pruner.serving.vllm.wanted import KEY  # noqa: E402
from vlm_pruner.types import Selection  # noqa: E402


def processor(name: str, asked: Any = None) -> Any:
    """vLLM's processor of a family, as its servers build it."""
    from vllm.config import ModelConfig
    from vllm.multimodal import MULTIMODAL_REGISTRY
    from vllm.plugins import load_general_plugins

    load_general_plugins()
    config = ModelConfig(str(served(name)[0]), hf_overrides={} if asked is None else {KEY: asked}, dtype="float32")
    return MULTIMODAL_REGISTRY.create_processor(config)


def announced(made: Any, image: Any, options: dict[str, Any]) -> tuple[int, Any]:
    """Placeholders of one picture, and what travels with it."""
    prompt = made.info.ctx.tokenizer.encode(made.dummy_inputs.get_dummy_text({"image": 1}), add_special_tokens=False)
    items = made.info.parse_mm_data({"image": [image]})
    inputs = ProcessorInputs(prompt=prompt, mm_data_items=items, hf_processor_mm_kwargs=options)
    found = made.apply(inputs, TimingContext(enabled=False))
    (place,) = found["mm_placeholders"]["image"]
    return place.get_num_embeds(), found["mm_kwargs"]["image"][0]


@pytest.mark.parametrize("name", SERVED)
def test_announced_counts_are_what_is_made_of_1000_sizes(name: str) -> None:
    """125 pictures of random sizes a family, each with a budget of its own; the rows are those that encoders give."""
    lots, made = random.Random(name), processor(name)
    config, seen = made.info.get_hf_config(), set()
    for number in range(125):
        keep: Any = lots.choice([round(lots.uniform(0.01, 1.0), 3), lots.randint(1, 64)])
        image = picture(number, lots.randint(20, 120), lots.randint(20, 120))
        total, whole = announced(made, image, {KEY: None})
        count, item = announced(made, image, {KEY: {"keep": keep, "min_visual_tokens": 1}})
        model = Rows(config, total, made._rotary())
        arguments = {key: value.data[None] for key, value in whole.items() if key.endswith(("thw", "sizes"))}
        pixels = next(value.data for key, value in whole.items() if key.startswith("pixel_values"))
        arguments["pixel_values"] = pixels if config.model_type == "internvl" else pixels[None]
        (rows,) = model.embed_multimodal(**arguments, **{field("image"): [item[field("image")].data]})
        assert len(rows) == count, (name, image.size, keep)
        seen.add((total, count))
    assert len(seen) > 12


class Encoder:
    """A model whose encoder gives rows of the right number."""

    def __init__(self, config: Any, total: int, rotary: bool) -> None:
        self.config, self.total, self.rotary, self.vlm_pruner_ready = config, total, rotary, rotary

    def embed_multimodal(self, **_: Any) -> Any:
        width = self.config.get_text_config().hidden_size
        return [torch.randn(self.total, width, generator=torch.Generator().manual_seed(self.total))]


class Rows(Pruning, Places, Encoder):
    """The same, pruned."""


def test_a_method_that_is_wrong_about_its_count_is_put_right() -> None:
    few, many = Selection(torch.tensor([3, 5])), Selection(torch.arange(6))
    assert exactly(few, 8, 4).index.tolist() == [0, 1, 3, 5]
    assert exactly(many, 8, 4).index.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_places_come_through_any_dtype(dtype: torch.dtype) -> None:
    where = torch.tensor([[0.0, 511.0, 1025.0], [300.0, 257.0, 0.0]])
    rows = with_places(torch.zeros(2, 4, dtype=dtype), where)

    class Model(Places):
        config: Any = type("C", (), {"image_token_id": 9, "video_token_id": 8})

    ids = [1, 2, 9, 9, 3]
    start = torch.tensor([[0, 1, 2, 2, 1030]]).expand(3, -1)
    out, positions, delta = Model().recompute_mrope_positions(ids, [rows], start, 0)
    assert out[0].shape == (2, 4)
    assert positions[:, 2].tolist() == [2, 513, 1027]
    assert positions[:, 3].tolist() == [302, 259, 2]
    assert positions[:, [0, 1, 4]].equal(start[:, [0, 1, 4]])
    assert delta == 1031 - 5
    stays = with_places(torch.zeros(2, 4, dtype=dtype), None)
    assert (stays[:, -1] == STAYS).all()
    assert Model().recompute_mrope_positions(ids, [stays], start, 0)[1].equal(start)


def test_a_frame_of_qwen2_5_stands_where_its_second_is() -> None:
    class Model(Places):
        config: Any = SimpleNamespace(vision_config=SimpleNamespace(tokens_per_second=4))

    kept, given = torch.tensor([0, 2, 5]), {"second_per_grid_ts": torch.tensor([9.0, 0.7])}
    rows = Model().place(torch.zeros(3, 4), kept, raster(3, 1, 2), "video", given, 1)
    assert rows[:, 5::2].tolist() == [[0, 0, 0], [2, 0, 0], [5, 0, 1]]  # 2.8 and 5.6 of them, rounded down
    rows = Model().place(torch.zeros(3, 4), kept, raster(3, 1, 2), "image", given, 1)
    assert rows[:, 5::2].tolist() == [[0, 0, 0], [1, 0, 0], [2, 0, 1]]


def test_the_family_is_asked_where_tokens_lie() -> None:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(served("qwen2_vl")[0])
    (layout,) = layouts_of(config, {"image_grid_thw": torch.tensor([[1, 8, 12]])}, [24], "image")
    assert layout.grid == (1, 4, 6)


def test_videos_of_different_lengths_are_encoded_together() -> None:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(served("llava_onevision")[0])
    size = config.vision_config.image_size
    side = size // config.vision_config.patch_size // 2
    pixels = [torch.zeros(frames, 3, size, size) for frames in (4, 6)]
    counts = [frames * side**2 + 1 for frames in (4, 6)]
    layouts = layouts_of(config, {"pixel_values_videos": pixels}, counts, "video")
    assert [layout.grid for layout in layouts] == [(4, side, side), (6, side, side)]


def test_a_server_whose_plan_cannot_be_had_does_not_start() -> None:
    with pytest.raises(PlanError, match="reads the question"):
        processor("llava", {"keep": 0.5, "method": "cdpruner"})
    with pytest.raises(PlanError, match="only 'repacked' can be had"):
        processor("llava", PrunePlan((Stage("grid", 4),)).to_dict())


def server(asked: Any = None, **more: Any) -> Any:
    """What `check_server` reads of vLLM's configuration."""
    hf = SimpleNamespace(**({} if asked is None else {KEY: asked}))
    mm = SimpleNamespace(is_multimodal_pruning_enabled=lambda: more.get("evs", False))
    model = SimpleNamespace(hf_config=hf, multimodal_config=mm)
    graphs = SimpleNamespace(cudagraph_mm_encoder=more.get("graphs", False))
    return SimpleNamespace(model_config=model, compilation_config=graphs)


def test_a_server_that_was_asked_to_prune_and_would_not_does_not_start() -> None:
    check_server(server(), object())
    with pytest.raises(RuntimeError, match="this server was asked to prune, and object is not pruned here"):
        check_server(server({"keep": 0.5}), object())
    pruning = object.__new__(Pruning)
    check_server(server({"keep": 0.5}), pruning)
    with pytest.raises(RuntimeError, match="leave cudagraph_mm_encoder off"):
        check_server(server({"keep": 0.5}, graphs=True), pruning)
    with pytest.raises(RuntimeError, match="would prune videos twice"):
        check_server(server({"keep": 0.5}, evs=True), pruning)


def test_the_doctor_finds_nothing_wrong_here() -> None:
    bad = [one.text for one in examine(str(served("qwen2_vl")[0]), {"keep": 0.25}) if not one.good]
    assert not bad
    said = [one.text for one in examine(str(served("llava")[0]), {"keep": 0.5, "method": "fastv"}) if not one.good]
    assert len(said) == 1
    assert "reads the question" in said[0]
