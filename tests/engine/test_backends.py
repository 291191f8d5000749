"""Attention backends, compilation, offloading, adapters on the weights, short dtypes."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tests.support.families import LAYERS, Prompt, tiny
from tests.support.flash import FORMS, STAND_IN, attending
from tests.support.pruning import Scatter, close, dropped, forward, generate, plan
from tests.support.versions import newer_only

from vlm_pruner import PrunePlan, Selection, Stage, UnsupportedModelError, prune
from vlm_pruner.verify.reference import masked


def two(name: str, batch: int, attention: str = "") -> tuple[Any, Any, list[Prompt]]:
    family, model = tiny(name, attention)
    return family, model, [family.prompt(8, 1, tail=4), family.prompt(9, 2, tail=7)][2 - batch :]


# Flash attention, by a stand-in with its rules

CAUSAL = ["llava", "llava_next", "llava_onevision", "video_llava", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "internvl"]


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", CAUSAL)
def test_flash_gets_padding_masks_and_no_gapped_positions(name: str, batch: int, layer: int) -> None:
    family, model, prompts = two(name, batch)
    inputs = family.inputs(prompts, model.dtype)
    FORMS.clear()
    with attending(model, STAND_IN), prune(model, plan((0.4, layer))) as session:
        answer = generate(model, inputs)
    assert set(FORMS) == ({None} if batch == 1 else {2})
    with masked(model, dropped(session, prompts)):
        reference = generate(model, inputs)
    assert torch.equal(answer.sequences, reference.sequences)
    close(answer.logits, reference.logits, model)


# Flex attention

FLEX = ["llava", "qwen2_vl", "qwen3_vl", "internvl", "gemma3", "llava-mistral", "paligemma"]


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", FLEX)
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")
@pytest.mark.filterwarnings("ignore:_compile flag on create_block_mask:DeprecationWarning")  # the model's own call
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")  # torch's own call
def test_flex(name: str, batch: int) -> None:
    """Uncompiled: the compiler's own template for CPUs fails on these shapes, unpruned too."""
    family, model, prompts = two(name, batch, "eager")
    inputs = family.inputs(prompts, torch.float32)
    torch._dynamo.reset()
    uncompiled = torch.compiler.set_stance("force_eager")
    with uncompiled, attending(model, "flex_attention"), prune(model, plan((0.4, 2))) as session:
        answer = generate(model, inputs, max_new_tokens=3)
    with masked(model, dropped(session, prompts)):
        reference = generate(model, inputs, max_new_tokens=3)
    assert torch.equal(answer.sequences, reference.sequences)
    close(answer.logits, reference.logits, model)


# Compilation


OTHERWISE = "Gemma 4 says something else on a static cache, unpruned, too"
POSITIONAL = pytest.param("gemma4", 1, 2, marks=newer_only(OTHERWISE))  # its layers are called by position


@pytest.fixture
def fresh_compiler() -> Iterator[Any]:
    counters = torch._dynamo.utils.counters
    torch._dynamo.reset()
    counters.clear()
    yield counters
    torch._dynamo.reset()
    counters.clear()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "batch", "layer"), [("llava", 1, 2), ("qwen2_vl", 2, 2), ("llava", 1, 0), POSITIONAL])
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_compiled_decode_on_a_static_cache(name: str, batch: int, layer: int, fresh_compiler: Any) -> None:
    """What generate does on a GPU, forced on a CPU: no graph break and no graph more than without pruning."""
    from transformers.generation.configuration_utils import CompileConfig

    family, model, prompts = two(name, batch)
    inputs = family.inputs(prompts, model.dtype)
    config = CompileConfig(backend="eager", mode=None, fullgraph=False, dynamic=None)
    config._compile_all_devices = True
    options = {"max_new_tokens": 8, "cache_implementation": "static", "compile_config": config}

    def counted(pruned: bool) -> tuple[Any, Any, int, int]:
        model.__dict__.pop("_compiled_call", None)
        torch._dynamo.reset()
        fresh_compiler.clear()
        session = None
        if pruned:
            with prune(model, plan((0.4, layer))) as session:
                answer = generate(model, inputs, **options)
        else:
            answer = generate(model, inputs, **options)
        model.__dict__.pop("_compiled_call", None)
        breaks = sum(fresh_compiler["graph_break"].values())
        return answer, session, breaks, fresh_compiler["stats"]["unique_graphs"]

    _, _, breaks, graphs = counted(pruned=False)
    answer, session, own_breaks, own_graphs = counted(pruned=True)
    assert own_graphs > 0
    assert (own_breaks, own_graphs) <= (breaks, graphs)
    with masked(model, dropped(session, prompts)):
        reference = generate(model, inputs, max_new_tokens=8)
    assert torch.equal(answer.sequences, reference.sequences)
    close(answer.logits, reference.logits, model)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_compiled_step_serves_whatever_was_dropped(fresh_compiler: Any) -> None:
    """Prompts that lose other numbers of tokens share the graphs of the first."""
    family, model = tiny("llava")
    step = torch.compile(model, backend="eager", dynamic=False)
    graphs = []
    with prune(model, plan((0.4, 2))):
        for prompt in (family.prompt(4, 1, tail=30), family.prompt(4, 2, tail=9), family.prompt(4, 1, tail=12)):
            inputs = family.inputs([prompt], model.dtype)
            cache = transformers.StaticCache(config=model.config, max_cache_len=80)
            forward(model, inputs, cache=cache)
            token = {"input_ids": torch.tensor([[7]]), "attention_mask": torch.ones(1, 80)}
            want = forward(model, token, cache=copy.deepcopy(cache)).logits
            close([forward(step, token, cache=cache).logits], [want], model)
            graphs.append(fresh_compiler["stats"]["unique_graphs"])
    assert graphs[0] == graphs[1] == graphs[2] > 0


@pytest.mark.parametrize("name", ["llava", "qwen2_vl"])
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_compiled_prefill_is_refused(name: str, fresh_compiler: Any) -> None:
    family, model, prompts = two(name, 2)
    inputs = family.inputs(prompts)
    compiled = torch.compile(model, backend="eager")
    with prune(compiled, plan((0.4, 2))) as session:
        with pytest.raises(
            UnsupportedModelError, match=r"a forward with images was compiled, .* call the model itself"
        ):
            forward(compiled, inputs)
        got = generate(compiled, inputs)  # which takes the model itself
        assert session.report.kept < session.report.total
    with prune(model, plan((0.4, 2))):
        close(got.logits, generate(model, inputs).logits, model)


# Weights elsewhere, or otherwise


def unlike(name: str) -> tuple[Any, Any, Any]:
    """A model of its own, whose hooks and weights may be changed."""
    family, _ = tiny(name)
    return family, family.model("sdpa"), [family.prompt(8, 1, tail=4), family.prompt(9, 2, tail=7)]


@pytest.mark.filterwarnings("ignore:You are calling .generate.. with the `input_ids`:UserWarning")  # before 5.23
@pytest.mark.parametrize("how", ["offload", "dispatch"])
@pytest.mark.parametrize("name", ["llava", "qwen2_vl", "qwen3_vl", "internvl", "gemma3"])
def test_weights_that_come_and_go(name: str, how: str, tmp_path: Path) -> None:
    accelerate = pytest.importorskip("accelerate")
    family, model, prompts = unlike(name)
    inputs = family.inputs(prompts, model.dtype)
    with prune(model, plan((0.4, 2))):
        want = generate(model, inputs)
    if how == "offload":
        accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
    else:
        places: dict[str, Any] = {n: "cpu" for n, _ in model.named_children() if n != "model"}
        places |= {f"model.{n}": "cpu" for n, _ in model.model.named_children() if n != "language_model"}
        text = model.get_submodule("model.language_model")
        places |= {f"model.language_model.{n}": "cpu" for n, _ in text.named_children() if n != "layers"}
        places |= {f"model.language_model.layers.{i}": "cpu" if i < 2 else "disk" for i in range(LAYERS)}
        places |= {f"model.{n}": "cpu" for n, _ in model.model.named_parameters(recurse=False)}
        model = accelerate.dispatch_model(model, places, main_device="cpu", offload_dir=str(tmp_path), force_hooks=True)
    assert any(hasattr(m, "_hf_hook") for m in model.base_model.get_decoder().layers[3].modules())
    with prune(model, plan((0.4, 2))):
        got = generate(model, inputs)
    assert torch.equal(got.sequences, want.sequences)
    close(got.logits, want.logits, tiny(name)[1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["llava", "qwen2_vl", "gemma3"])
def test_short_dtypes(name: str, dtype: torch.dtype) -> None:
    """Bitwise the same where all is kept; where not, as near to the hidden full-length model as the dtype allows."""
    family, _, prompts = unlike(name)
    model = family.model("sdpa", dtype)
    inputs = family.inputs(prompts, dtype)
    with prune(model, plan((1.0, 2))):
        kept = forward(model, inputs).logits
    assert torch.equal(kept, forward(model, inputs).logits)
    with prune(model, plan((0.4, 2))) as session:
        got = forward(model, inputs).logits
    with masked(model, dropped(session, prompts)):
        want = forward(model, inputs).logits
    scale = float(want[:, -1].float().abs().max())
    assert float((got[:, -1] - want[:, -1]).float().abs().max()) < (0.1 if dtype == torch.bfloat16 else 0.02) * scale
    entries = sum(min(len(p.ids), most) for p in prompts for most in _windows(model))
    assert session.report.kv_bytes_full == 2 * entries * 2 * _width(model)


def test_merged_rows_of_another_dtype_are_written() -> None:
    """A method may well compute in float32."""

    class Wide(Scatter):  # type: ignore[misc]
        name = "test-wide"

        def select(self, tokens: Any, keep: int) -> Selection:
            chosen = Scatter.select(self, tokens, keep)
            return Selection(chosen.index, features=chosen.features.float())

    family, _, prompts = unlike("llava")
    model = family.model("sdpa", torch.bfloat16)
    inputs = family.inputs(prompts, torch.bfloat16)
    with prune(model, PrunePlan((Stage(Wide(seed=2, merge=True), 0.4, 2),), min_visual_tokens=1)):
        got = forward(model, inputs).logits
    with prune(model, plan((0.4, 2), merge=True)):
        assert torch.equal(got, forward(model, inputs).logits)


def _windows(model: Any) -> list[int]:
    """Most entries that every layer caches: one fewer than its window, which counts the newest token, too."""
    config = model.base_model.get_decoder().config
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * LAYERS
    return [config.sliding_window - 1 if kind == "sliding_attention" else 10**9 for kind in kinds]


def _width(model: Any) -> int:
    attention = model.base_model.get_decoder().layers[0].self_attn
    return int(attention.k_proj.out_features)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # read by peft
@pytest.mark.parametrize("name", ["llava", "qwen2_vl"])
def test_low_rank_adapters(name: str) -> None:
    """The model is wrapped once more; prune takes either."""
    peft = pytest.importorskip("peft")
    family, model, prompts = unlike(name)
    inputs = family.inputs(prompts, model.dtype)
    config = peft.LoraConfig(target_modules=r".*language_model.*(q_proj|v_proj)", init_lora_weights=False, r=2)
    wrapped = peft.get_peft_model(model, config).eval()
    plain = generate(wrapped, inputs)
    with prune(wrapped, plan((0.4, 2))) as session:
        answer = generate(wrapped, inputs)
    with masked(model, dropped(session, prompts)):
        reference = generate(wrapped, inputs)
    assert torch.equal(answer.sequences, reference.sequences)
    close(answer.logits, reference.logits, tiny(name)[1])
    assert not torch.equal(plain.logits[0], answer.logits[0])


@pytest.mark.filterwarnings("ignore")  # of the quantizer's own import
def test_eight_bit_weights() -> None:
    quantization = pytest.importorskip("torchao.quantization")
    family, _, prompts = unlike("llava")
    model = family.model("sdpa", torch.float32)
    inputs = family.inputs(prompts, torch.float32)
    quantization.quantize_(model.base_model.get_decoder(), quantization.Int8WeightOnlyConfig())
    with prune(model, plan((1.0, 2))):
        assert torch.equal(forward(model, inputs).logits, forward(model, inputs).logits)
    with prune(model, plan((0.4, 2))) as session:
        answer = generate(model, inputs)
    with masked(model, dropped(session, prompts)):
        reference = generate(model, inputs)
    assert torch.equal(answer.sequences, reference.sequences)
    torch.testing.assert_close(answer.logits, reference.logits, atol=1e-3, rtol=0)
