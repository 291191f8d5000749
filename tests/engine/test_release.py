"""Whatever a release of transformers renames: an error of ours, never an answer that is wrong or unpruned."""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support.families import tiny
from tests.support.pruning import forward, plan
from tests.support.versions import CACHE
from torch import nn
from transformers import Cache, DynamicCache, cache_utils

from vlm_pruner import UnsupportedModelError, VlmPrunerError, prune
from vlm_pruner.engine import release

FAMILIES = ["llava", "qwen3_vl", "gemma3", "llava_next"]
OF_LAYERS = ["hidden_states", "attention_mask", "position_ids", "position_embeddings", CACHE]
OF_MODELS = ["input_ids", "attention_mask", "pixel_values", CACHE]
OF_HEADS = ["logits_to_keep", "labels"]
OF_CACHES = ["update", "get_seq_length", "get_mask_sizes", "crop", "reorder_cache", "reset"]
OF_CACHE_LAYERS = [*OF_CACHES, "lazy_initialization", "batch_repeat_interleave", "batch_select_indices"]


@contextmanager
def renamed(modules: list[Any], old: str) -> Iterator[None]:
    """As if a release had given an argument another name: signature and callers know the new one only."""
    new, before = f"renamed_{old}", [type(module) for module in modules]

    def swap(kwargs: dict[str, Any], here: str, there: str) -> dict[str, Any]:
        return {there if name == here else name: value for name, value in kwargs.items()}

    def other(cls: type) -> type:
        stock: Any = cls
        parameters = inspect.signature(stock.forward).parameters.values()
        signature = inspect.Signature([p.replace(name=new) if p.name == old else p for p in parameters])

        def run(self: Any, *args: Any, **kwargs: Any) -> Any:
            return stock.forward(self, *args, **swap(kwargs, new, old))

        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            names = list(parameters_of(stock))[: len(args)]  # callers may pass by position: by name here, to be renamed
            given = dict(zip(names, args, strict=True)) if old in names else {}
            return nn.Module.__call__(self, *(() if given else args), **swap({**given, **kwargs}, old, new))

        run.__signature__ = signature  # type: ignore[attr-defined]
        return type(cls.__name__, (cls,), {"forward": run, "__call__": call})

    try:
        for module, cls in zip(modules, before, strict=True):
            module.__class__ = other(cls)
        yield
    finally:
        for module, cls in zip(modules, before, strict=True):
            module.__class__ = cls


def parameters_of(cls: Any) -> list[str]:
    return [name for name in inspect.signature(cls.forward).parameters if name != "self"]


def refused(run: Callable[[], Any]) -> None:
    with pytest.raises(VlmPrunerError):
        run()


def batch(family: Any) -> dict[str, Any]:
    """Two rows of different length, so that there is a mask."""
    inputs: dict[str, Any] = family.inputs(family.together(family.prompt(3, 1), family.prompt(4, 1, tail=9)))
    return inputs


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("old", OF_LAYERS)
@pytest.mark.parametrize("name", FAMILIES)
def test_argument_of_decoder_layers(name: str, old: str, layer: int) -> None:
    family, model = tiny(name)
    layers = list(model.base_model.get_decoder().layers)

    def run() -> Any:
        with prune(model, plan((0.4, layer))):
            return forward(model, batch(family), use_cache=True).logits

    want, given = run(), []
    with renamed(layers, old):
        handle = layers[0].register_forward_pre_hook(
            lambda m, a, k: given.append(k[f"renamed_{old}"]), with_kwargs=True
        )
        forward(model, batch(family), use_cache=True)  # the renamed model itself works
        handle.remove()
        if given[0] is None:  # Qwen3-VL gives its layers no position_ids: nothing is read there, under no name
            assert old == "position_ids"
            assert torch.equal(run(), want)
        else:
            refused(run)


@pytest.mark.parametrize("old", OF_MODELS)
@pytest.mark.parametrize("name", FAMILIES)
def test_argument_of_models(name: str, old: str) -> None:
    family, model = tiny(name)

    def run() -> None:
        with prune(model, plan((0.4, 2))):
            forward(model, batch(family), cache=DynamicCache(config=model.config.get_text_config()))

    with renamed([model.base_model], old):
        forward(model, batch(family))
        refused(run)


@pytest.mark.parametrize("old", OF_HEADS)
@pytest.mark.parametrize("name", FAMILIES)
def test_argument_of_the_model_with_its_head(name: str, old: str) -> None:
    family, model = tiny(name)
    inputs = batch(family)
    given = {"logits_to_keep": 3, "labels": inputs["input_ids"]}

    def run() -> None:
        with prune(model, plan((0.4, 2))):
            forward(model, inputs, **{old: given[old]})

    with renamed([model], old):
        refused(run)


@pytest.mark.parametrize("name", FAMILIES)
def test_pictures_that_were_encoded_before(name: str) -> None:
    """`generate` encodes first, and passes on what came of it: here under another name."""
    family, model = tiny(name)
    inputs = batch(family)
    pixels = {key: inputs.pop(key) for key in list(inputs) if "pixel" in key or key.startswith("image_")}
    with renamed([model, model.base_model], "mm_encoder_outputs"), prune(model, plan((0.4, 2))):
        encoded = {"image": model.base_model.get_image_features(**pixels)}
        refused(lambda: forward(model, inputs, mm_encoder_outputs=encoded))


@pytest.mark.parametrize("old", OF_CACHES)
def test_method_of_caches(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, model = tiny("llava")
    monkeypatch.delattr(Cache, old)
    refused(lambda: prune(model, plan((0.4, 2))))


@pytest.mark.parametrize("old", OF_CACHE_LAYERS)
def test_method_of_cache_layers(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, model = tiny("llava")
    for cls in cache_utils.DynamicLayer.__mro__:
        if old in vars(cls):
            monkeypatch.delattr(cls, old)
    refused(lambda: prune(model, plan((0.4, 2))))


@pytest.mark.parametrize("name", ["get_image_features", "_deepstack_process"])
def test_method_of_models(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, model = tiny("qwen3_vl")
    owner = model.base_model if name == "get_image_features" else model.base_model.get_decoder()
    for cls in type(owner).__mro__:
        if name in vars(cls):
            monkeypatch.delattr(cls, name)
    with pytest.raises(UnsupportedModelError, match=rf"{type(owner).__name__} of transformers \S+ has no {name}"):
        prune(model, plan((0.4, 2)))


# What must have happened by the end of a forward with pictures


def test_a_stage_that_did_not_run() -> None:
    family, model = tiny("llava")
    with prune(model, plan((0.4, 2), (0.2, 3))) as session:
        del session._hooks.inner.stages_at[3]
        with pytest.raises(UnsupportedModelError, match=r"1 of the 2 stages of the plan ran\. .* transformers \d"):
            forward(model, batch(family))


def test_a_cache_that_was_not_cut() -> None:
    family, model = tiny("llava")
    layers = model.base_model.get_decoder().layers
    with prune(model, plan((0.4, 2))):
        layers[4].register_forward_pre_hook(_without_cache, with_kwargs=True)
        try:
            with pytest.raises(UnsupportedModelError, match=r"the cache of decoder layer 4 was not filled"):
                forward(model, batch(family), use_cache=True)
        finally:
            layers[4]._forward_pre_hooks.clear()
            layers[4]._forward_pre_hooks_with_kwargs.clear()


def _without_cache(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    return args, {**kwargs, CACHE: None}


def test_rows_that_do_not_add_up() -> None:
    family, model = tiny("llava")
    text = model.base_model.get_decoder()

    def short(module: Any, args: Any, output: Any) -> Any:
        return output[:, 1:]

    handle = text.norm.register_forward_hook(short)
    try:
        with prune(model, plan((0.4, 2))), pytest.raises(UnsupportedModelError, match=r"\d+ rows left the decoder"):
            forward(model, batch(family))
    finally:
        handle.remove()


def test_pictures_encoded_by_hand_and_merged_into_embeddings() -> None:
    """Nothing in such a prompt says where the pictures are."""
    family, model = tiny("llava")
    inputs = family.inputs([family.prompt(3, 1)])
    with prune(model, plan((0.4, 2))), torch.no_grad():
        model.get_image_features(pixel_values=inputs["pixel_values"])
        embeds = torch.randn(1, 9, 32, dtype=model.dtype)
        with pytest.raises(UnsupportedModelError, match=r"images were encoded, but this forward was not given"):
            model(inputs_embeds=embeds)
        model(input_ids=torch.tensor([[7, 8]]))  # the next prompt starts afresh


# Newer releases


def test_the_range_ends_at_the_newest_release_that_was_tested() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    major, minor = release.NEWEST
    assert f"transformers>=5.19,<{major}.{minor + 1}" in project["dependencies"]


def test_a_newer_release_gives_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    _, model = tiny("llava")
    monkeypatch.setattr(release, "INSTALLED", "5.99.0")
    release.warn_if_newer.cache_clear()
    try:
        with pytest.warns(UserWarning, match=r"transformers 5\.99\.0 is newer .* \(up to 5\.24\)"):
            prune(model, plan((0.4, 2)))
        prune(model, plan((0.4, 2)))  # a second warning would be an error here
    finally:
        release.warn_if_newer.cache_clear()
