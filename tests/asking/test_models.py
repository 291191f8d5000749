"""Checkpoints: what must be installed for them, what follows the model's dtype, and what is refused."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tests.support.checkpoints import CHECKPOINTS, checkpoint
from tests.support.vision import needs_torchvision

from vlm_pruner.asking import open_model
from vlm_pruner.errors import EXTRAS, BackendUnavailableError, InputError, UnsupportedModelError

PICTURE = Image.radial_gradient("L").resize((200, 160)).convert("RGB")
PILLOW = ("llava", "llava_next", "gemma3", "paligemma", "deepseek_vl_hybrid")  # read pictures without torchvision


def raising(error: Exception) -> Any:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise error

    return fail


@pytest.mark.parametrize("name", [n if n in PILLOW else pytest.param(n, marks=needs_torchvision) for n in CHECKPOINTS])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_floating_tensor_follows_the_models_dtype(name: str, dtype: str) -> None:
    """Of DeepSeek-VL's and Step's two pixel tensors the second stayed float32, and the model raised."""
    loaded = open_model(str(checkpoint(name)), dtype=dtype)
    inputs = loaded.inputs("What is this?", PICTURE.resize((300, 100)))
    kinds = {key: value.dtype for key, value in inputs.items() if torch.is_tensor(value)}
    floating = [kind for kind in kinds.values() if kind.is_floating_point]
    assert floating
    assert set(floating) == {getattr(torch, dtype)}
    assert not kinds["input_ids"].is_floating_point
    with torch.inference_mode():
        assert loaded.model.generate(**inputs, max_new_tokens=1).shape[1] == inputs["input_ids"].shape[1] + 1


@pytest.mark.parametrize(
    ("error", "extra"),
    [
        (ImportError("Qwen2VLVideoProcessor requires the Torchvision library but it was not found"), "processors"),
        (ValueError("Could not load any image processor. Missing optional dependencies: torchvision."), "processors"),
        (ImportError("Package `num2words` is required to run SmolVLM processor."), "processors"),
    ],
)
def test_a_processor_that_needs_a_package_names_the_extra(
    error: Exception, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlm_pruner.errors.find_spec", lambda name: None)
    monkeypatch.setattr("transformers.AutoProcessor.from_pretrained", raising(error))
    with pytest.raises(
        BackendUnavailableError, match=rf"the processor of model .* pip install 'vlm-pruner\[{extra}\]'"
    ):
        open_model(str(checkpoint("llava")))


@pytest.mark.parametrize(
    ("said", "package", "extra"),
    [
        ("Using `bitsandbytes` 4-bit quantization requires bitsandbytes: `pip`", "bitsandbytes", "bitsandbytes"),
        ("Loading a GPTQ quantized model requires gptqmodel (`pip install gptqmodel`) library.", "gptqmodel", "gptq"),
        ("Loading an AWQ quantized model requires gptqmodel. Please install it", "gptqmodel", "gptq"),
        ("Loading a GPTQ quantized model requires optimum (`pip install optimum`)", "optimum", "gptq"),
    ],
)
def test_quantised_weights_that_need_a_package_name_the_extra(
    said: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlm_pruner.errors.find_spec", lambda name: None)
    monkeypatch.setattr("transformers.AutoModelForImageTextToText.from_pretrained", raising(ImportError(said)))
    with pytest.raises(BackendUnavailableError, match=rf"needs {package}: pip install 'vlm-pruner\[{extra}\]'"):
        open_model(str(checkpoint("llava")))


def test_a_checkpoint_of_bitsandbytes_says_what_it_needs(tmp_path: Path) -> None:
    """The error of transformers itself, where the package is not installed."""
    pytest.importorskip("accelerate")
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        pass
    else:
        pytest.skip("bitsandbytes is installed")
    shutil.copytree(checkpoint("llava"), tmp_path / "quantised")
    config = tmp_path / "quantised" / "config.json"
    quantised = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    config.write_text(json.dumps(json.loads(config.read_text()) | {"quantization_config": quantised}))
    with pytest.raises(BackendUnavailableError, match=r"needs bitsandbytes: pip install 'vlm-pruner\[bitsandbytes\]'"):
        open_model(str(tmp_path / "quantised"))


def test_a_torchvision_of_another_torch_is_told_from_a_missing_one(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        raise ModuleNotFoundError("Could not import module 'AutoProcessor'.") from RuntimeError(
            "operator torchvision::nms does not exist"
        )
    except ModuleNotFoundError as error:
        monkeypatch.setattr("transformers.AutoProcessor.from_pretrained", raising(error))
    with pytest.raises(BackendUnavailableError, match="was built for another torch"):
        open_model(str(checkpoint("llava")))


def test_the_extras_that_errors_name_exist() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    for package, extra in EXTRAS.items():
        distribution = package.replace("_", "-")
        assert any(line.startswith(distribution) for line in extras[extra]), (package, extra)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("llama", "llama takes no images"),
        ("qwen2", "qwen2 takes no images"),
        ("mllama", "mllama reads its image through cross-attention"),
        ("idefics", "idefics cannot be pruned: it reads pictures through cross-attention"),
    ],
)
def test_families_that_cannot_be_pruned_say_why(kind: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(UnsupportedModelError, match=f"^{said}"):
        open_model(str(tmp_path))


def test_a_folder_without_a_processor_is_told_what_is_missing(tmp_path: Path) -> None:
    for file in checkpoint("llava").iterdir():
        if file.name not in ("processor_config.json", "preprocessor_config.json"):
            shutil.copy(file, tmp_path)
    with pytest.raises(InputError, match="processor"):
        open_model(str(tmp_path))
