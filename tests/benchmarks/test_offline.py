"""The settings that are run, and the pages made of what they give."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from benchmarks import offline_tables
from benchmarks.ablations import PUBLISHED, variants
from benchmarks.key_spaces import CANDIDATES, CHOSEN, FeaturePivots, first_keys, grid, use
from benchmarks.log_mass import BIASED
from tests.support.bench import made_up_results

from vlm_pruner import VisionSignals, VisualTokens, load_embedded
from vlm_pruner.evaluation import BenchResults


def test_every_point_of_the_figure_is_run_at_the_same_share_of_channels() -> None:
    found = variants(256)
    places = [place for place, _ in found.values()]
    assert places == list(dict.fromkeys(places))
    assert set(places) == {
        f"{curve} {value}" for curve, points in PUBLISHED.items() if isinstance(points, dict) for value in points
    }
    assert [m.params()["channels"] for label, (_, m) in found.items() if "channels" in label] == [8, 16, 32, 64, 256]
    for curve in ("pivots", "token_batch", "threshold"):
        for value in PUBLISHED[curve]:
            assert found[f"{curve}={value}"][1].params()[curve] == float(value)
    assert found["no merging"][1].params()["merge"] is False
    assert found["no BSS"][1].params()["spatial_weight"] == 0


@pytest.fixture
def results(tmp_path, monkeypatch) -> BenchResults:
    """Made-up result files, in place of those of the repository."""
    made = made_up_results()
    made = dataclasses.replace(made, split=made.split | {"fingerprint": "f" * 16, "per_type": 80})
    made.save(tmp_path / "offline.json")
    dataclasses.replace(made, equal="layer-average").save(tmp_path / "offline_equal.json")
    cells = [dataclasses.replace(made.cells[0], label="none")]
    for label, (_, method) in variants(256).items():
        cells.append(dataclasses.replace(made.cells[1], label=label, budget=64, params=method.params()))
    dataclasses.replace(made, cells=cells).save(tmp_path / "ablations.json")
    spaces = [dataclasses.replace(made.cells[1], label=label, budget=64) for label in CANDIDATES]
    for name in ("key_spaces", "key_spaces_test"):
        dataclasses.replace(made, cells=[cells[0], *spaces]).save(tmp_path / f"{name}.json")
    biased = [dataclasses.replace(made.cells[1], label=label, budget=64) for label in ("tome", "tome" + BIASED)]
    dataclasses.replace(made, cells=[cells[0], *biased]).save(tmp_path / "log_mass.json")
    (tmp_path / "offline_timing.json").write_text('{"methods": {"bad@64": {"select_ms": 1.5, "prefill_ms": 30.0}}}')
    monkeypatch.setattr(offline_tables, "RESULTS", tmp_path)
    offline_tables.load.cache_clear()
    yield made
    offline_tables.load.cache_clear()


def test_every_table_can_be_made(results: BenchResults, monkeypatch) -> None:
    monkeypatch.setattr(offline_tables, "PRESET", "vlm-pruner")
    made = {name: make() for name, make in offline_tables.SOURCES.items()}
    assert not [name for name, text in made.items() if "Not measured" in text]
    assert "| 1.50 | 30.0 |" in made["offline-64"]
    assert "needs-clip" in made["offline-equal"]
    assert "| `tome` | 64 |" in made["log-mass"]
    assert "At equal cost" in made["offline-preset"]
    assert "| no merging | 95.07 | -0.23 |" in made["ablations"]
    assert "| threshold=1.0 | 91.00 | -4.30 |" in made["ablations"]
    assert "| 64 | **centred features of unit length** | " in made["key-spaces"]
    assert "| 64 | keys before layer 2 | " in made["key-spaces-test"]


def test_without_results_a_page_names_the_command(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(offline_tables, "RESULTS", tmp_path)
    offline_tables.load.cache_clear()
    assert offline_tables.SOURCES["offline-64"]() == "*Not measured yet: `python -m benchmarks.offline`.*"
    assert "benchmarks.ablations" in offline_tables.SOURCES["ablations"]()


def test_keys_of_the_first_layer_are_those_that_the_model_makes() -> None:
    """Of a prompt that is nothing but the visual rows."""
    model, _ = load_embedded()
    use(model)
    rows = torch.randn(9, model.config.text_config.hidden_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        made = model.base_model.get_decoder()(inputs_embeds=rows[None], use_cache=True).past_key_values
        torch.testing.assert_close(first_keys(rows), made.layers[0].keys[0], atol=1e-5, rtol=1e-4)


def test_candidates_differ_in_their_space_alone() -> None:
    made = grid(list(CANDIDATES), [64, 32], layers=8, tokens=576)
    assert len(made.cells) == 1 + 2 * len(CANDIDATES)
    assert {cell.plan.stages[0].site for cell in made.cells[1:]} == {0, 2}
    use(load_embedded()[0])
    generator = torch.Generator().manual_seed(0)
    rows, keys = torch.randn(576, 256, generator=generator), torch.randn(6, 576, 32, generator=generator)
    tokens = VisualTokens(rows + 2, grid=(1, 24, 24), vision=VisionSignals(keys=keys))
    before = {label: method for label, (method, layer) in CANDIDATES.items() if layer == 0}
    chosen = {label: method.select(tokens, 64).order.tolist() for label, method in before.items()}
    assert len({tuple(order) for order in chosen.values()}) == len(chosen)
    assert chosen[CHOSEN] == FeaturePivots(centred=True, unit=True).select(tokens, 64).order.tolist()
