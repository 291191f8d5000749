"""The invariants of pruning, family by family, against the full-length model with the dropped tokens hidden."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from tests.support.families import FAMILIES, LAYERS, of_each_pair, tiny
from tests.support.pruning import close, dropped, forward, generate, largest_difference, plan
from tests.support.slowly import the_rest_slowly
from tests.support.versions import cache_in
from transformers.cache_utils import CacheLayerMixin

from vlm_pruner import PlanError, UnsupportedModelError, prune
from vlm_pruner.verify.reference import masked
from vlm_pruner.verify.shortened import layers_of

each_family = pytest.mark.parametrize("name", FAMILIES)
each_pair = pytest.mark.parametrize(("name", "attention"), of_each_pair())


@each_pair
def test_keeping_everything_changes_nothing(name: str, attention: str) -> None:
    family, model = tiny(name, attention)
    inputs = family.inputs([family.prompt(1, 1), family.prompt(2, 2)], model.dtype)
    want, answer = forward(model, inputs).logits, generate(model, inputs)
    with prune(model, plan((1.0, 0), (1.0, 2))) as session:
        got, again = forward(model, inputs).logits, generate(model, inputs)
    assert torch.equal(got, want)
    assert torch.equal(again.sequences, answer.sequences)
    assert all(torch.equal(a, b) for a, b in zip(again.logits, answer.logits, strict=True))
    assert session.report.kept == session.report.total > 0


@pytest.mark.parametrize("layer", [0, 2, LAYERS - 1, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 3))])
@each_pair
def test_equals_the_full_model_with_the_dropped_tokens_hidden(name: str, attention: str, layer: int) -> None:
    family, model = tiny(name, attention)
    if layer not in family.sites:
        with pytest.raises(PlanError, match=r"may see the last token alone|uses keys that an earlier layer chose"):
            prune(model, plan((0.4, layer)))
        return
    prompt = family.prompt(3, 2)
    inputs = family.inputs([prompt], model.dtype)
    with prune(model, plan((0.4, layer))) as session:
        prefill, answer = forward(model, inputs).logits, generate(model, inputs)
    gone = dropped(session, [prompt])
    with masked(model, gone):
        full, reference = forward(model, inputs).logits, generate(model, inputs)
    kept = ~gone[LAYERS - 1][0]
    assert torch.equal(answer.sequences, reference.sequences)
    close(answer.logits, reference.logits, model)  # every decode step
    close([prefill[0]], [full[0, kept]], model)  # every surviving place of the prefill
    close([answer.logits[0]], [prefill[:, -1]], model)  # generate and forward are one
    unpruned = generate(model, inputs).logits
    if layer in family.readers:  # whose rows nobody reads
        close(answer.logits, unpruned, model)
    else:
        assert largest_difference(answer.logits, unpruned) > 1e-3  # the test has teeth
    _check_lengths(cache_in(answer), len(prompt.ids) + 3, int(kept.sum()) + 3, layer, family.sliding)


def _check_lengths(cache, full: int, pruned: int, layer: int, sliding: bool) -> None:
    assert cache.get_seq_length() == full
    counting = [(i, part) for i, part in enumerate(cache.layers) if isinstance(part, CacheLayerMixin)]
    counting = [(i, part) for i, part in counting if part.is_initialized]  # one may hold keys of an indexer alone
    assert [int(part.get_seq_length()) for _, part in counting] == [full] * len(counting)
    if not sliding:  # a sliding layer stores its window only
        assert [part.keys.shape[-2] for _, part in counting] == [full if i < layer else pruned for i, _ in counting]


@pytest.mark.parametrize("stages", [((0.6, 0), (0.3, 3)), ((0.7, 1), (0.5, 2), (0.2, 4))], ids=["0-3", "1-2-4"])
@each_family
def test_several_stages_equal_a_mask_per_layer(name: str, stages: tuple[tuple[float, int], ...]) -> None:
    family, model = tiny(name)
    stages = tuple((keep, layer) for keep, layer in stages if layer in family.sites)
    prompts = family.together(family.prompt(3, 2), family.prompt(4, 1))
    inputs = family.inputs(prompts, model.dtype)
    with prune(model, plan(*stages)) as session:
        answer = generate(model, inputs)
    with masked(model, dropped(session, prompts)):
        reference = generate(model, inputs)
    assert torch.equal(answer.sequences, reference.sequences)
    close(answer.logits, reference.logits, model)
    for record in session.images:
        sets = [set(selection.index.tolist()) for _, _, selection in record.stages]
        assert all(after < before for before, after in pairwise(sets))


@pytest.mark.parametrize("layer", the_rest_slowly([0, 2], [2]))  # of two stages, one at 0, the masks tell
@each_pair
def test_rows_of_a_padded_batch_equal_the_rows_alone(name: str, attention: str, layer: int) -> None:
    family, model = tiny(name, attention)
    prompts = [
        family.prompt(4, 1, tail=4),
        family.prompt(5, 2, tail=7),
        family.prompt(6, 1, tail=11),
        family.prompt(7, 0),
    ]
    inputs = family.inputs(prompts, model.dtype)
    if family.alone:
        with (
            prune(model, plan((0.4, layer))),
            pytest.raises(UnsupportedModelError, match=r"counts blocks .* row by row"),
        ):
            generate(model, inputs)
        return
    with prune(model, plan((0.4, layer))) as session:
        batch = generate(model, inputs)
        gone = dropped(session, prompts)
        assert session.report.notes == ("rows without an image, left alone: 3",)
        rows = [] if family.counts else [generate(model, family.inputs([p], model.dtype)) for p in prompts]
    if family.counts:  # no row of a batch is the row alone there: the batch is compared as one
        with masked(model, gone):
            full = generate(model, inputs)
        assert torch.equal(batch.sequences, full.sequences)
        close(batch.logits, full.logits, model)
    for row, alone in enumerate(rows):
        assert torch.equal(batch.sequences[row, -4:], alone.sequences[0, -4:])
        close([step[row] for step in batch.logits], [step[0] for step in alone.logits], model)


@pytest.mark.parametrize("name", ["llava", "qwen2_vl", "qwen3_vl", "gemma3"])
def test_the_longest_row_may_be_text_alone(name: str) -> None:
    """Then the batch is as long after pruning as before, although a row was pruned."""
    family, model = tiny(name)
    prompts = [family.prompt(5, 1), family.prompt(7, 0, tail=60)]
    with prune(model, plan((0.4, 1))):
        batch = generate(model, family.inputs(prompts, model.dtype))
        alone = generate(model, family.inputs(prompts[:1], model.dtype))
    close([step[0] for step in batch.logits], [step[0] for step in alone.logits], model)


@each_family
def test_every_image_keeps_its_count(name: str) -> None:
    family, model = tiny(name)
    prompts = family.together(family.prompt(5, 2), family.prompt(6, 1))
    for keep, count in ((0.3, lambda n: -(-3 * n // 10)), (0.001, lambda n: 1), (4, lambda n: 4)):
        with prune(model, plan((keep, 2))) as session:
            forward(model, family.inputs(prompts, model.dtype))
        assert [i.kept for i in session.images] == [count(i.total) for i in session.images]
        assert [i.total for i in session.images] == [n for p in prompts for n in p.tokens]


@pytest.mark.parametrize("layer", [0, 2])
@each_family
def test_merged_rows_are_written_into_the_residual_stream(name: str, layer: int) -> None:
    family, model = tiny(name)
    prompt = family.prompt(8, 2)
    inputs = family.inputs([prompt], model.dtype)
    with prune(model, plan((0.4, layer), merge=True)) as session:
        answer = generate(model, inputs)
    choices = [(prompt.places[i.index], i.selection) for i in session.images]

    def write(module, args):
        hidden = family.rows(args[0])
        if hidden.shape[1] >= len(prompt.ids):  # without a cache every step sees the prompt again
            hidden = hidden.clone()
            for places, selection in choices:
                hidden[0, places[selection.index]] = selection.features
            return (family.handed_on(hidden, args[0]), *args[1:])

    handle = layers_of(model)[layer].register_forward_pre_hook(write)
    with masked(model, dropped(session, [prompt])):
        reference = generate(model, inputs)
    handle.remove()
    close(answer.logits, reference.logits, model)


class Stop(Exception):
    pass


@each_family
def test_the_model_is_as_before_also_after_an_exception(name: str) -> None:
    family, model = tiny(name)
    inputs = family.inputs([family.prompt(1, 1)], model.dtype)

    def state() -> dict[str, object]:
        out: dict[str, object] = {}
        for path, module in model.named_modules():
            hooks = [len(v) for k, v in vars(module).items() if "hook" in k and hasattr(v, "__len__")]
            own = {k for k in vars(module) if k not in ("rope_deltas",)}
            out[path] = (type(module), module.forward.__func__, hooks, own, [id(b) for b in module.buffers(False)])
        return out

    logits, before = forward(model, inputs).logits, state()  # the first forward leaves hooks of transformers
    with prune(model, plan((0.4, 0), (0.2, 2))):
        generate(model, inputs)
    assert state() == before

    def interrupt() -> None:
        with prune(model, plan((0.4, 0), (0.2, 2))):
            handle = layers_of(model)[3].register_forward_pre_hook(_raise)
            try:
                forward(model, inputs)
            finally:
                handle.remove()

    with pytest.raises(Stop):
        interrupt()
    assert state() == before
    assert torch.equal(forward(model, inputs).logits, logits)


def _raise(module: object, args: object) -> None:
    raise Stop
