"""How a model is opened, where the command line is not in between."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from tests.support.tiny import checkpoint

from vlm_pruner.asking import Loading, open_model
from vlm_pruner.asking.loading import _quantisation
from vlm_pruner.errors import BackendUnavailableError, InputError


@pytest.mark.parametrize("attention", ["sdpa", "eager", "flex_attention"])
@pytest.mark.parametrize("name", ["embedded", "folder"])
def test_the_attention_backend_is_the_one_that_was_asked_for(name: str, attention: str) -> None:
    loaded = open_model(str(checkpoint()) if name == "folder" else name, attention=attention)
    assert loaded.model.base_model.get_decoder().config._attn_implementation == attention


def test_flash_attention_that_is_not_there_is_one_line() -> None:
    try:
        import flash_attn  # noqa: F401
    except ImportError:
        with pytest.raises(InputError, match=r"model 'embedded' cannot be loaded: FlashAttention2 .*not .* installed"):
            open_model(attention="flash_attention_2")


def test_the_embedded_model_is_float32_unless_something_else_is_asked_for() -> None:
    assert open_model().model.dtype == torch.float32
    assert open_model(dtype="bfloat16").model.dtype == torch.bfloat16


def test_a_revision_and_trust_reach_configuration_processor_and_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    told: list[dict[str, Any]] = []
    for kind in ("AutoConfig", "AutoProcessor", "AutoModelForImageTextToText"):
        original = getattr(transformers, kind).from_pretrained

        def listen(name: str, original: Any = original, **kwargs: Any) -> Any:
            if name != "owner/name":  # one of them asks another
                return original(name, **kwargs)
            told.append({key: kwargs.pop(key) for key in ("revision", "trust_remote_code")})
            return original(checkpoint(), **kwargs)

        monkeypatch.setattr(f"transformers.{kind}.from_pretrained", listen)
    open_model("owner/name", revision="v2")
    assert told == [{"revision": "v2", "trust_remote_code": False}] * 3
    told.clear()
    open_model("owner/name", revision="v2", trust_remote_code=True)
    assert told == [{"revision": "v2", "trust_remote_code": True}] * 3


@pytest.mark.parametrize(
    ("device", "package"), [("cpu", "torchao"), ("cuda", "bitsandbytes")], ids=["torchao", "bitsandbytes"]
)
@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_a_package_that_quantises_and_is_missing_names_its_extra(
    device: str, package: str, bits: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr("vlm_pruner.errors.find_spec", lambda name: None)
    said = rf"{bits} on {device} needs {package}: pip install 'vlm-pruner\[{package}\]'"
    with pytest.raises(BackendUnavailableError, match=said):
        _quantisation(bits, torch.device(device))


def test_weights_that_are_quantised_already_are_not_quantised_again() -> None:
    class Config:
        quantization_config = {"quant_method": "gptq"}  # noqa: RUF012

    with pytest.raises(InputError, match="the weights of 'name' are quantised already: leave out '4bit'"):
        Loading(quantize="4bit", device="cpu").load("name", Config())
