import torch

from vlm_pruner.methods import create
from vlm_pruner.methods.apet import apet, basis
from vlm_pruner.types import VisionSignals, VisualTokens


def _rows(n=40, d=12):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(0))


def test_basis_is_farthest_point_sampling():
    rows = _rows()
    chosen = [int((rows - rows.mean(0)).norm(dim=1).argmax())]
    for _ in range(4):
        chosen.append(int(torch.cdist(rows, rows[chosen]).amin(1).argmax()))
    assert basis(rows, 5).tolist() == chosen


def test_errors_are_those_of_least_squares():
    rows = _rows()
    base, far, owner = apet(rows, 12, size=5)
    fit = torch.linalg.lstsq(rows[base].T, rows.T).solution
    error = (rows - (rows[base].T @ fit).T).norm(dim=1)
    assert far.tolist() == error.argsort(descending=True)[:7].tolist()
    unit = torch.nn.functional.normalize(rows, dim=1)
    assert owner.tolist() == (unit @ unit[far].T).argmax(1).tolist()


def test_dropped_tokens_are_averaged_in():
    tower, rows = _rows(), torch.randn(40, 3, generator=torch.Generator().manual_seed(1))
    tokens = VisualTokens(rows, vision=VisionSignals(features=tower))
    selection = create("apet", size=4).select(tokens, 10).validate(40, 10)
    base, far, owner = apet(tower, 10, size=4)
    for i in base.tolist():
        torch.testing.assert_close(selection.features[selection.index.tolist().index(i)], rows[i])
    kept = {*base.tolist(), *far.tolist()}
    for place, i in enumerate(far.tolist()):
        members = [j for j in range(40) if j == i or (j not in kept and owner[j] == place)]
        slot = selection.index.tolist().index(i)
        torch.testing.assert_close(selection.features[slot], rows[members].mean(0))
        assert (selection.source == slot).nonzero().flatten().tolist() == members


def test_published_plan():
    assert [(k, layer) for _, k, layer in create("apet").stages(64, 32)] == [(96, None), (32, 16)]
    assert create("apet").stages(1.0, 32) == [(create("apet"), 1.0, None)]
